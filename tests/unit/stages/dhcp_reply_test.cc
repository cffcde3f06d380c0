#include "bpf/include/dhcp.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/rng.h"
#include "stages/parse/parse.h"
#include "stages/route/route.h"
#include "support/packet_builder.h"
#include "support/router_world.h"

namespace sluice::stages {
namespace {

using packet::Packet;
using packet::Verdict;
using test::Bytes;
using test::FromHost;
using test::kHostMac;
using test::kLan;
using test::kLanMac;
using test::PacketBuilder;

// XDP keeps early rules from what the worker then gives to the kernel: both must mean the same packets.
TEST(DhcpReplyTest, XdpAndTheWorkerAgree) {
  test::RouterWorld world;
  uint64_t own_mac = 0;
  std::memcpy(&own_mac, kLanMac.bytes.data(), 6);
  Rng rng(1);
  int replies = 0;
  for (int i = 0; i < 20'000; ++i) {
    const auto odd = [&] { return rng.Chance(1, 12); };
    const auto byte = [&](uint8_t usual) {
      return odd() ? static_cast<uint8_t>(rng.Below(8)) : usual;
    };
    Bytes message(odd() ? rng.Below(60) : 300);
    const Mac client = odd() ? kHostMac : kLanMac;
    for (size_t at = 0; at < message.size() && at < 34; ++at) {
      const uint8_t head[] = {byte(2), byte(1), byte(6)};
      message[at] = at < 3 ? head[at] : at < 28 ? 0 : client.bytes[at - 28];
    }
    PacketBuilder frame = FromHost();
    frame.Ipv4("10.0.0.2", "8.8.8.8");
    if (odd()) frame.Options({1, 1, 1, 1});
    if (odd()) frame.MoreFragments();
    if (odd()) frame.FragmentOffset(8);
    if (odd()) frame.DontFragment();
    if (odd()) frame.TotalLength(static_cast<uint16_t>(20 + rng.Below(60)));
    if (odd()) {
      frame.Tcp(67, 68);
    } else {
      frame.Udp(byte(67), byte(68));
    }
    const Bytes bytes = frame.Payload(message).PadTo(rng.Below(120)).Build();
    Packet p = world.Receive(bytes, kLan);
    const ParseResult parsed = Parse(p, world.lan(), world.pool);
    if (parsed.verdict.is_continue()) {
      const bool by_worker = CheckBeforeLookup4(p, world.lan(), world.snapshot) ==
                             Verdict::Punt(PuntReason::kDhcp);
      const bool by_xdp =
          sluice_is_dhcp_reply({bytes.data(), bytes.data() + bytes.size()}, own_mac) != 0;
      EXPECT_EQ(by_worker, by_xdp) << test::ToHex(bytes);
      replies += by_worker;
    }
    world.Free(p);
  }
  world.CheckFrames();
  EXPECT_GT(replies, 2'000);
  EXPECT_LT(replies, 18'000);
}

}  // namespace
}  // namespace sluice::stages
