// Limits on what a router says on its own account, and from which address it says it.
#include "dataplane/replies.h"

#include <gtest/gtest.h>

#include <memory>

#include "base/worker_counters.h"
#include "stages/parse/parse.h"
#include "support/packet_builder.h"
#include "support/router_world.h"

namespace sluice::dataplane {
namespace {

using packet::Packet;
using test::A4;
using test::A6;
using test::Bytes;
using test::FromHost;
using test::kLan;
using test::kLanIndex;
using test::kTunnelIndex;
using test::kWan;
using test::kWanIndex;
using test::PacketBuilder;
using test::Via;

class RepliesTest : public testing::Test {
 protected:
  RepliesTest()
      : counters(std::make_unique<WorkerCounters>()),
        replies(std::make_unique<Replies>(world.routing(), *counters, 1, now)) {
    world.Unicast("172.16.0.0/12", {Via(kLan, kLanIndex, "10.0.0.9")});
  }
  ~RepliesTest() override { world.CheckFrames(); }

  // Asks for the answer to a frame; keeps it, from its IP header on, in `message`.
  ReplyOutcome Error(const Bytes& frame, DropReason reason, uint32_t mtu = 0) {
    return Take(frame, [&](Packet& p) {
      return frame[12] == 0x08 ? replies->Error4(p, reason, mtu, world.snapshot, now, world.outbox)
                               : replies->Error6(p, reason, mtu, world.snapshot, now, world.outbox);
    });
  }
  ReplyOutcome Redirect4(const Bytes& frame) {
    return Take(frame, [&](Packet& p) {
      return replies->Redirect4(p, A4("10.0.0.9"), world.snapshot, now, world.outbox);
    });
  }
  ReplyOutcome Redirect6(const Bytes& frame, const char* target) {
    return Take(frame, [&](Packet& p) {
      return replies->Redirect6(p, A6(target), nullptr, world.snapshot, now, world.outbox);
    });
  }
  template <class Ask>
  ReplyOutcome Take(const Bytes& frame, Ask&& ask) {
    Packet p = world.Receive(frame);
    EXPECT_TRUE(stages::Parse(p, world.lan(), world.pool).verdict.is_continue());
    reply = ask(p);
    if (reply.outcome == ReplyOutcome::kSend) {
      message = world.BytesOf(reply.message, 14);
      world.Free(reply.message);
    }
    world.Free(p);
    return reply.outcome;
  }
  // How many of `n` errors at the same moment are sent.
  int Sent(const Bytes& frame, DropReason reason, int n) {
    int sent = 0;
    for (int i = 0; i < n; ++i) sent += Error(frame, reason, 1400) == ReplyOutcome::kSend ? 1 : 0;
    return sent;
  }
  static Bytes From4(const char* source) {
    return FromHost().Ipv4(source, "203.0.113.1").Udp(1, 2).Build();
  }
  static Bytes From6(const char* source) {
    return FromHost().Ipv6(source, "2001:db8:9::1").Udp(1, 2).Build();
  }
  Ipv4 Source4() const { return Ipv4::FromWire(message.data() + 12); }

  test::RouterWorld world;
  Nanos now = Seconds(1000);
  std::unique_ptr<WorkerCounters> counters;
  std::unique_ptr<Replies> replies;
  Reply reply;
  Bytes message;
};

TEST_F(RepliesTest, TheWayBackAndTheAddress) {
  EXPECT_EQ(Error(From4("172.16.0.1"), DropReason::kTtlExpired), ReplyOutcome::kSend);
  EXPECT_EQ(reply.message.out, kLan);
  EXPECT_EQ(reply.next_hop, IpAddress(A4("10.0.0.9")));
  EXPECT_EQ(Source4(), A4("10.0.0.1"));
  // Also when that is another interface than the packet came by.
  EXPECT_EQ(Error(From4("192.0.2.7"), DropReason::kTtlExpired), ReplyOutcome::kSend);
  EXPECT_EQ(reply.message.out, kWan);
  EXPECT_EQ(reply.next_hop, IpAddress(A4("192.0.2.7")));
  EXPECT_EQ(Source4(), A4("192.0.2.1"));
  world.snapshot.icmp.errors_use_inbound_address = true;
  EXPECT_EQ(Error(From4("192.0.2.7"), DropReason::kTtlExpired), ReplyOutcome::kSend);
  EXPECT_EQ(Source4(), A4("10.0.0.1"));
  // The inbound address next to the sender, as inet_select_addr picks it.
  world.lan().addresses4.push_back({.address = A4("192.0.2.99"), .prefix_length = 24});
  EXPECT_EQ(Error(From4("192.0.2.7"), DropReason::kTtlExpired), ReplyOutcome::kSend);
  EXPECT_EQ(Source4(), A4("192.0.2.99"));
}

TEST_F(RepliesTest, Ipv6SpeaksFromTheArrivalInterface) {
  world.wan().hop_limit6 = 33;
  EXPECT_EQ(Error(From6("2001:db8:1::7"), DropReason::kTtlExpired), ReplyOutcome::kSend);
  EXPECT_EQ(reply.message.out, kWan);
  EXPECT_EQ(Ipv6::FromWire(message.data() + 8), A6("2001:db8::1"));
  EXPECT_EQ(message[7], 33) << "the hop limit of the way out";
}

TEST_F(RepliesTest, TheRoutesMtuBoundsTheQuotation) {
  world.Unicast("198.51.100.0/24", {Via(kLan, kLanIndex, "10.0.0.9")}, nullptr, 200);
  const Bytes frame = FromHost().Ipv4("198.51.100.1", "203.0.113.1").Udp(1, 2).Payload(400).Build();
  EXPECT_EQ(Error(frame, DropReason::kTtlExpired), ReplyOutcome::kSend);
  EXPECT_EQ(message.size(), 200u);
}

TEST_F(RepliesTest, WhatARuleRejectsIsAnsweredIfItsChecksumIsRight) {
  world.snapshot.icmp.ratelimit4 = world.snapshot.icmp.ratelimit6 = Nanos();
  world.snapshot.icmp.msgs_per_sec = world.snapshot.icmp.msgs_burst = 1000;
  const auto rejected = [&](const Bytes& frame) {
    return Take(frame, [&](Packet& p) {
      const Family family = frame[12] == 0x08 ? Family::kIpv4 : Family::kIpv6;
      return replies->RejectError(p, family, 3, world.snapshot, now, world.outbox);
    });
  };
  const auto v4 = [] { return FromHost().Ipv4("172.16.0.1", "203.0.113.1"); };
  const auto v6 = [] { return FromHost().Ipv6("2001:db8::2", "2001:db8:9::1"); };
  const Bytes data = {1, 2, 3, 4};
  EXPECT_EQ(rejected(v4().Udp(1, 2).Payload(data).Build()), ReplyOutcome::kSend);
  EXPECT_EQ(reply.message.out, kLan);
  EXPECT_NE(reply.message.route_id, 0u) << "rules may ask for the route";
  EXPECT_EQ(rejected(v4().Udp(1, 2).ZeroUdpChecksum().Payload(data).Build()), ReplyOutcome::kSend);
  EXPECT_EQ(rejected(v6().Udp(1, 2).Payload(data).Build()), ReplyOutcome::kSend);
  for (const bool is_v4 : {true, false}) {
    Bytes wrong = is_v4 ? v4().Udp(1, 2).Payload(data).Build() : v6().Udp(1, 2).Payload(data).Build();
    wrong.back() ^= 1;
    EXPECT_EQ(rejected(wrong), ReplyOutcome::kNone);
  }
  // Those with another kind of checksum, and those that the kernel does not know.
  for (const uint8_t protocol : {47, 50, 132, 136}) {
    EXPECT_EQ(rejected(v4().Protocol(protocol).Payload(data).Build()), ReplyOutcome::kSend);
  }
  EXPECT_EQ(rejected(v4().Protocol(99).Payload(data).Build()), ReplyOutcome::kNone);
  EXPECT_EQ(rejected(v6().Protocol(99).Payload(data).Build()), ReplyOutcome::kNone);
  EXPECT_EQ(rejected(v4().Protocol(99).Payload(Bytes{0xff, 0xff}).Build()), ReplyOutcome::kSend);
  EXPECT_EQ(rejected(v4().Protocol(99).Payload(Bytes{0, 0}).Build()), ReplyOutcome::kSend);
  EXPECT_EQ(rejected(v6().Protocol(59).Build()), ReplyOutcome::kNone) << "no header to look at";
}

TEST_F(RepliesTest, WhenTheKernelMustAnswer) {
  world.Unicast("198.51.100.0/24", {Via(IfaceSlot::None(), kTunnelIndex)});
  world.Unicast("2001:db8:7::/48", {Via(IfaceSlot::None(), kTunnelIndex)});
  EXPECT_EQ(Error(From4("198.51.100.1"), DropReason::kTtlExpired), ReplyOutcome::kPunt);
  EXPECT_EQ(Error(From4("10.99.0.1"), DropReason::kTtlExpired), ReplyOutcome::kPunt);
  EXPECT_EQ(Error(From6("2001:db8:7::1"), DropReason::kTtlExpired), ReplyOutcome::kPunt);
  EXPECT_EQ(Error(From6("fe80::2"), DropReason::kTtlExpired), ReplyOutcome::kPunt);
  world.wan().up = false;
  EXPECT_EQ(Error(From4("192.0.2.7"), DropReason::kTtlExpired), ReplyOutcome::kPunt);
  world.lan().addresses4.clear();
  EXPECT_EQ(Error(From4("172.16.0.1"), DropReason::kTtlExpired), ReplyOutcome::kPunt);
  world.lan().addresses6.clear();
  world.wan().addresses6.clear();
  EXPECT_EQ(Error(From6("2001:db8::2"), DropReason::kTtlExpired), ReplyOutcome::kPunt);
}

TEST_F(RepliesTest, Silence) {
  world.Route("198.51.100.0/24", tables::RouteType::kBlackhole);
  EXPECT_EQ(Error(From4("10.0.0.2"), DropReason::kRouteBlackhole), ReplyOutcome::kNone);
  EXPECT_EQ(Error(From4("8.8.8.8"), DropReason::kTtlExpired), ReplyOutcome::kNone) << "no way back";
  EXPECT_EQ(Error(From4("198.51.100.1"), DropReason::kTtlExpired), ReplyOutcome::kNone);
  const Bytes error = FromHost().Ipv4("10.0.0.2", "203.0.113.1").Icmp(3, 1).Build();
  EXPECT_EQ(Error(error, DropReason::kTtlExpired), ReplyOutcome::kNone);
  EXPECT_EQ(counters->icmp_rate_limited.Read(), 0u);
}

// icmp_ratelimit: six at once, then one per second, for each destination on its own.
TEST_F(RepliesTest, PerHostLimit) {
  EXPECT_EQ(Sent(From4("10.0.0.2"), DropReason::kTtlExpired, 10), 6);
  EXPECT_EQ(counters->icmp_rate_limited.Read(), 4u);
  EXPECT_EQ(Sent(From4("10.0.0.3"), DropReason::kTtlExpired, 10), 6);
  now += Seconds(1);
  EXPECT_EQ(Sent(From4("10.0.0.2"), DropReason::kTtlExpired, 10), 1);
  world.snapshot.icmp.ratelimit4 = Nanos();
  EXPECT_EQ(Sent(From4("10.0.0.2"), DropReason::kTtlExpired, 100), 100) << "0 means no limit";
}

TEST_F(RepliesTest, PathMtuDiscoveryIsNotLimited) {
  world.snapshot.icmp.msgs_per_sec = world.snapshot.icmp.msgs_burst = 1;
  EXPECT_EQ(Sent(From4("10.0.0.2"), DropReason::kFragmentationNeeded, 100), 100);
  EXPECT_EQ(Sent(From6("2001:db8::2"), DropReason::kPacketTooBig, 100), 100);
}

TEST_F(RepliesTest, TheMaskSaysWhatIsLimited) {
  world.snapshot.icmp.ratemask4 = 1u << 3;  // unreachable, not time exceeded
  EXPECT_EQ(Sent(From4("10.0.0.2"), DropReason::kTtlExpired, 50), 50);
  EXPECT_EQ(Sent(From4("10.0.0.2"), DropReason::kNeighborFailed, 50), 6);
}

// ip_error: each costs a second, five may be saved up; then icmp_send's own limit.
TEST_F(RepliesTest, RoutesThatRefuse) {
  world.snapshot.icmp.ratemask4 = 0;
  EXPECT_EQ(Sent(From4("10.0.0.2"), DropReason::kNoRoute, 20), 5);
  now += Seconds(2);
  EXPECT_EQ(Sent(From4("10.0.0.2"), DropReason::kRouteProhibit, 20), 2);
}

TEST_F(RepliesTest, GlobalLimit) {
  world.snapshot.icmp.ratelimit4 = world.snapshot.icmp.ratelimit6 = Nanos();
  world.snapshot.icmp.msgs_per_sec = 1000;
  world.snapshot.icmp.msgs_burst = 50;
  // Each costs 0 to 2 of the credit.
  const int sent = Sent(From4("10.0.0.2"), DropReason::kTtlExpired, 1000);
  EXPECT_GT(sent, 25);
  EXPECT_LT(sent, 100);
  EXPECT_EQ(counters->icmp_rate_limited.Read(), 1000u - static_cast<uint64_t>(sent));
  EXPECT_EQ(Sent(From6("2001:db8::2"), DropReason::kTtlExpired, 10), 0) << "both families share it";
  now += Millis(20);
  EXPECT_GT(Sent(From6("2001:db8::2"), DropReason::kTtlExpired, 100), 0);
}

// icmpv6_xrlim_allow: a quarter of the interval for a /64, a sixteenth for the default route.
TEST_F(RepliesTest, PerHostLimit6) {
  world.snapshot.icmp.ratelimit6 = Seconds(1);
  EXPECT_EQ(Sent(From6("2001:db8::2"), DropReason::kTtlExpired, 20), 6);
  now += Millis(250);
  EXPECT_EQ(Sent(From6("2001:db8::2"), DropReason::kTtlExpired, 20), 1);
  now += Millis(249);
  EXPECT_EQ(Sent(From6("2001:db8::2"), DropReason::kTtlExpired, 20), 0);
}

// ip_rt_send_redirect: at doubling intervals, nine at most, then silence until it has been quiet.
TEST_F(RepliesTest, Redirect4BacksOff) {
  const Bytes frame = From4("10.0.0.2");
  EXPECT_EQ(Redirect4(frame), ReplyOutcome::kSend);
  EXPECT_EQ(message[20], 5);
  EXPECT_EQ(message[21], 1);
  EXPECT_EQ(Ipv4::FromWire(message.data() + 24), A4("10.0.0.9"));
  EXPECT_EQ(reply.message.generated, static_cast<uint8_t>(GeneratedKind::kRedirect));
  EXPECT_EQ(Redirect4(frame), ReplyOutcome::kNone);
  int sent = 1;
  for (int i = 1; i < 9; ++i) {
    now += Millis(20 << i);
    EXPECT_EQ(Redirect4(frame), ReplyOutcome::kNone) << i;
    now += Nanos(1);
    sent += Redirect4(frame) == ReplyOutcome::kSend ? 1 : 0;
  }
  EXPECT_EQ(sent, 9);
  now += Seconds(20);
  EXPECT_EQ(Redirect4(frame), ReplyOutcome::kNone);
  now += Seconds(21);
  EXPECT_EQ(Redirect4(frame), ReplyOutcome::kSend);
  // Never to an error, nor to a later fragment.
  EXPECT_EQ(Redirect4(FromHost().Ipv4("10.0.0.3", "203.0.113.1").Icmp(3, 1).Build()),
            ReplyOutcome::kNone);
  EXPECT_EQ(
      Redirect4(FromHost().Ipv4("10.0.0.3", "203.0.113.1").FragmentOffset(8).Udp(1, 2).Build()),
      ReplyOutcome::kNone);
}

TEST_F(RepliesTest, WhoGetsARedirect6) {
  EXPECT_EQ(Redirect6(From6("2001:db8::2"), "fe80::9"), ReplyOutcome::kSend);
  EXPECT_EQ(reply.message.out, kLan);
  EXPECT_EQ(reply.next_hop, IpAddress(A6("2001:db8::2")));
  EXPECT_EQ(Ipv6::FromWire(message.data() + 8), A6("fe80::1"));
  now += Seconds(60);
  EXPECT_EQ(Redirect6(From6("fe80::2"), "fe80::9"), ReplyOutcome::kSend);
  now += Seconds(60);
  EXPECT_EQ(Redirect6(From6("2001:db8::2"), "2001:db8:9::1"), ReplyOutcome::kSend)
      << "the destination";
  now += Seconds(60);
  EXPECT_EQ(Redirect6(From6("2001:db8::2"), "2001:db8::9"), ReplyOutcome::kNone)
      << "not link-local";
  EXPECT_EQ(Redirect6(From6("::"), "fe80::9"), ReplyOutcome::kNone);
  EXPECT_EQ(Redirect6(From6("2001:db8:1::2"), "fe80::9"), ReplyOutcome::kNone) << "on another link";
  world.Unicast("2001:db8:8::/48", {Via(kLan, kLanIndex, "fe80::9")});
  EXPECT_EQ(Redirect6(From6("2001:db8:8::2"), "fe80::9"), ReplyOutcome::kNone) << "behind a router";
  world.lan().addresses6[1].tentative = true;
  EXPECT_EQ(Redirect6(From6("2001:db8::2"), "fe80::9"), ReplyOutcome::kNone)
      << "no address to say it";
}

TEST_F(RepliesTest, Redirect6IsLimitedByDestinationAndBySender) {
  int sent = 0;
  for (int i = 0; i < 20; ++i) {
    sent += Redirect6(From6("2001:db8::2"), "fe80::9") == ReplyOutcome::kSend ? 1 : 0;
  }
  EXPECT_EQ(sent, 6);
  EXPECT_EQ(Redirect6(From6("2001:db8::3"), "fe80::9"), ReplyOutcome::kNone) << "same destination";
  now += Seconds(1);
  EXPECT_EQ(Redirect6(From6("2001:db8::3"), "fe80::9"), ReplyOutcome::kSend);
}

}  // namespace
}  // namespace sluice::dataplane
