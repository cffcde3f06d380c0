// bpf/include/parse.h and classify.h, compiled natively, against userspace/wire and against an
// independent statement of the decision, over random packets cut at random places.
#include "bpf/include/classify.h"

#include <gtest/gtest.h>

#include <iterator>
#include <memory>
#include <optional>

#include "base/rng.h"
#include "support/packet_builder.h"
#include "wire/arp.h"
#include "wire/ethernet.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

namespace sluice {
namespace {

using test::Bytes;
using test::PacketBuilder;

const Mac kOwn{{2, 0, 0, 0, 0, 1}};

uint64_t Packed(const Mac& mac) {
  uint8_t bytes[8] = {};
  mac.ToWire(bytes);
  uint64_t v;
  std::memcpy(&v, bytes, sizeof v);
  return v;
}

sluice_xdp_reason Classify(const Bytes& frame) {
  // A copy of exactly its size, so that AddressSanitizer sees any byte read beyond it.
  const auto exact = std::make_unique<uint8_t[]>(frame.size());
  std::copy(frame.begin(), frame.end(), exact.get());
  return sluice_classify({exact.get(), exact.get() + frame.size()}, Packed(kOwn));
}

// The same decision, said with userspace/wire's words.
sluice_xdp_reason Expected(const Bytes& frame) {
  const auto eth = wire::EthernetView::Parse(frame);
  if (!eth) return SLUICE_XDP_TRUNCATED;
  if (!eth->IsMulticast() && eth->destination() != kOwn) return SLUICE_XDP_OTHER_MAC;
  const auto l2 = wire::SkipVlanTags(frame);
  const uint16_t type = eth->ether_type();
  if (type == wire::kEtherTypeVlan || type == wire::kEtherTypeQinQ) return SLUICE_XDP_VLAN;
  const Bytes payload(frame.begin() + l2->offset, frame.end());
  if (type == wire::kEtherTypeArp) return SLUICE_XDP_ARP;
  if (type == wire::kEtherTypeIpv4) {
    if (payload.size() < 20) return SLUICE_XDP_TRUNCATED;
    const Ipv4 destination = Ipv4::FromWire(payload.data() + 16);
    if (eth->IsBroadcast() || destination.IsLimitedBroadcast()) return SLUICE_XDP_BROADCAST;
    if (eth->IsMulticast() || destination.IsMulticast()) return SLUICE_XDP_MULTICAST;
    return SLUICE_XDP_IPV4;
  }
  if (type == wire::kEtherTypeIpv6) {
    if (payload.size() < 40) return SLUICE_XDP_TRUNCATED;
    const bool multicast = eth->IsMulticast() || Ipv6::FromWire(payload.data() + 24).IsMulticast();
    if (!multicast) return SLUICE_XDP_IPV6;
    if (payload[6] != 58) return SLUICE_XDP_MULTICAST;
    if (payload.size() < 41) return SLUICE_XDP_TRUNCATED;
    return payload[40] == 135 || payload[40] == 136 ? SLUICE_XDP_ND : SLUICE_XDP_MULTICAST;
  }
  return SLUICE_XDP_NON_IP;
}

// Often plausible, now and then anything.
Bytes RandomFrame(Rng& rng) {
  Bytes frame(rng.Below(100));
  for (uint8_t& b : frame) b = static_cast<uint8_t>(rng.Next());
  const auto put = [&](size_t at, const Bytes& bytes) {
    for (size_t i = 0; i < bytes.size() && at + i < frame.size(); ++i) frame[at + i] = bytes[i];
  };
  static const Bytes kMacs[] = {{2, 0, 0, 0, 0, 1},
                                {2, 0, 0, 0, 0, 2},
                                {0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
                                {0x33, 0x33, 0, 0, 0, 1},
                                {1, 0, 0x5e, 0, 0, 1}};
  static const Bytes kTypes[] = {{8, 0}, {8, 0},    {0x86, 0xdd}, {0x86, 0xdd},
                                 {8, 6}, {0x81, 0}, {0x88, 0xa8}, {0, 50}};
  if (rng.Chance(9, 10)) put(0, kMacs[rng.Below(std::size(kMacs))]);
  if (rng.Chance(9, 10)) put(12, kTypes[rng.Below(std::size(kTypes))]);
  if (rng.Chance(1, 2)) put(20, {58});            // ICMPv6
  if (rng.Chance(1, 4)) put(38, {0xff});          // IPv6 multicast
  if (rng.Chance(1, 4)) put(30, {224, 0, 0, 5});  // IPv4 multicast
  if (rng.Chance(1, 8)) put(30, {255, 255, 255, 255});
  if (rng.Chance(1, 2)) put(54, {static_cast<uint8_t>(133 + rng.Below(6))});
  return frame;
}

TEST(ClassifyTest, AgreesWithWireOnRandomFrames) {
  Rng rng(1);
  int seen[SLUICE_XDP_REASON_COUNT] = {};
  for (int i = 0; i < 300'000; ++i) {
    const Bytes frame = RandomFrame(rng);
    const sluice_xdp_reason reason = Classify(frame);
    ASSERT_EQ(reason, Expected(frame)) << test::ToHex(frame);
    ++seen[reason];
  }
  for (int reason = 0; reason <= SLUICE_XDP_TRUNCATED; ++reason) {
    if (reason == SLUICE_XDP_GROUP) continue;  // the program's to say, by its map
    EXPECT_GT(seen[reason], 100) << "the frames do not reach reason " << reason;
  }
}

// As what a worker gets a frame if services listen to its group: said once more with wire's words.
sluice_xdp_reason ExpectedOfGroup(const Bytes& frame, IpAddress& group) {
  const auto eth = wire::EthernetView::Parse(frame);
  if (!eth) return SLUICE_XDP_MULTICAST;
  const Bytes ip(frame.begin() + 14, frame.end());
  if (eth->ether_type() == wire::kEtherTypeIpv4 && ip.size() >= 20) {
    const Ipv4 to = Ipv4::FromWire(&ip[16]);
    if (!to.IsMulticast() || (to.value & 0xffffff00) == 0xe0000000 || ip[9] != 17) {
      return SLUICE_XDP_MULTICAST;
    }
    group = to;
    return SLUICE_XDP_IPV4;
  }
  if (eth->ether_type() == wire::kEtherTypeIpv6 && ip.size() >= 40) {
    const Ipv6 to = Ipv6::FromWire(&ip[24]);
    const bool leaves_the_link = (to.hi >> 48 & 0xf) > 2;
    if (!to.IsMulticast() || !leaves_the_link || (ip[6] != 17 && ip[6] != 44)) {
      return SLUICE_XDP_MULTICAST;
    }
    group = to;
    return SLUICE_XDP_IPV6;
  }
  return SLUICE_XDP_MULTICAST;
}

TEST(ClassifyTest, GroupsAgreeWithWireOnRandomFrames) {
  Rng rng(3);
  int seen[SLUICE_XDP_REASON_COUNT] = {};
  for (int i = 0; i < 300'000; ++i) {
    Bytes frame = RandomFrame(rng);
    const auto put = [&](size_t at, uint8_t byte) {
      if (at < frame.size()) frame[at] = byte;
    };
    if (rng.Chance(1, 2)) put(23, 17);
    if (rng.Chance(1, 2)) put(20, rng.Chance(1, 2) ? 17 : 44);
    if (rng.Chance(1, 4)) put(30, 239);
    const auto exact = std::make_unique<uint8_t[]>(frame.size());
    std::copy(frame.begin(), frame.end(), exact.get());
    sluice_group group;
    std::memset(&group, 0x55, sizeof group);
    const sluice_xdp_reason as =
        sluice_group_of({exact.get(), exact.get() + frame.size()}, &group);
    IpAddress expected;
    ASSERT_EQ(as, ExpectedOfGroup(frame, expected)) << test::ToHex(frame);
    ++seen[as];
    if (as == SLUICE_XDP_IPV6) {
      EXPECT_EQ(Ipv6::FromWire(group.address), expected.v6());
    } else if (as == SLUICE_XDP_IPV4) {
      EXPECT_EQ(Ipv6::FromWire(group.address), Ipv6(0, 0xffff'0000'0000 | expected.v4().value));
    }
  }
  for (const int as : {SLUICE_XDP_IPV4, SLUICE_XDP_IPV6, SLUICE_XDP_MULTICAST}) {
    EXPECT_GT(seen[as], 1000);
  }
}

TEST(ParseTest, ReadsWhatWireReads) {
  Rng rng(2);
  int ipv4 = 0;
  int ipv6 = 0;
  for (int i = 0; i < 200'000; ++i) {
    Bytes frame = RandomFrame(rng);
    if (frame.size() > 14 && rng.Chance(1, 2)) frame[14] = rng.Chance(1, 2) ? 0x45 : 0x60;
    sluice_cursor c{frame.data(), frame.data() + frame.size()};
    sluice_ethernet eth;
    const auto eth_view = wire::EthernetView::Parse(frame);
    ASSERT_EQ(sluice_parse_ethernet(&c, &eth) == 0, eth_view.has_value());
    if (!eth_view) continue;
    EXPECT_EQ(eth.destination, Packed(eth_view->destination()));
    EXPECT_EQ(eth.ether_type, eth_view->ether_type());
    EXPECT_EQ(eth.multicast != 0, eth_view->IsMulticast());
    const std::span<const uint8_t> rest(c.at, c.end);
    sluice_cursor c4 = c;
    sluice_ipv4 ip4;
    const bool has4 = sluice_parse_ipv4(&c4, &ip4) == 0;
    EXPECT_EQ(has4, rest.size() >= 20);
    // wire accepts less, since it judges the header: what it accepts must read the same.
    if (const auto view = wire::Ipv4View::Parse(rest)) {
      ++ipv4;
      ASSERT_TRUE(has4);
      EXPECT_EQ(ip4.version, 4);
      EXPECT_GE(ip4.header_words, 5);
      EXPECT_EQ(ip4.header_words * 4u, view->header_length());
      EXPECT_EQ(ip4.protocol, view->protocol());
      EXPECT_EQ(ip4.source, view->source().value);
      EXPECT_EQ(ip4.destination, view->destination().value);
    }
    sluice_cursor c6 = c;
    sluice_ipv6 ip6;
    const bool has6 = sluice_parse_ipv6(&c6, &ip6) == 0;
    EXPECT_EQ(has6, rest.size() >= 40);
    if (const auto view = wire::Ipv6View::Parse(rest)) {
      ++ipv6;
      ASSERT_TRUE(has6);
      EXPECT_EQ(ip6.version, 6);
      EXPECT_EQ(ip6.next_header, view->next_header());
      EXPECT_EQ(ip6.multicast != 0, view->destination().IsMulticast());
    }
  }
  EXPECT_GT(ipv4, 1000);
  EXPECT_GT(ipv6, 1000);
}

}  // namespace
}  // namespace sluice
