// Received ARP, by the rules of RFC 826 and Linux' arp_process.
#include <gmock/gmock.h>

#include "unit/stages/neighbor_fixture.h"

namespace sluice::stages {
namespace {

using packet::Verdict;
using testing::ElementsAre;

const Verdict kIgnored = Verdict::Drop(DropReason::kArpIgnored);
const Verdict kInvalid = Verdict::Drop(DropReason::kArpInvalid);

class NeighborArpTest : public NeighborFixture {};

TEST_F(NeighborArpTest, RequestForUsIsAnsweredAndItsSenderLearned) {
  EXPECT_EQ(Arp(RequestFrom("10.0.0.9", "10.0.0.1")), Verdict::Local());
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].slot, kLan);
  EXPECT_EQ(sent[0].bytes, PacketBuilder()
                               .Ethernet(kLanMac, kHostMac)
                               .ArpReply(kLanMac, "10.0.0.1", kHostMac, "10.0.0.9")
                               .Build());
  EXPECT_EQ(State(A("10.0.0.9")), NeighborState::kStale);
  EXPECT_EQ(Info(A("10.0.0.9")).mac, kHostMac);
  EXPECT_EQ(copies, 0u);
  const auto kind = static_cast<size_t>(GeneratedKind::kArpReply);
  EXPECT_EQ(counters->generated[kind].Read(), 1u);
}

TEST_F(NeighborArpTest, PaddedAndUnicastRequestsAreRequests) {
  EXPECT_EQ(Arp(PacketBuilder()
                    .Ethernet(kHostMac, kLanMac)
                    .ArpRequest(kHostMac, "10.0.0.9", "10.0.0.1")
                    .PadTo(60)
                    .Build()),
            Verdict::Local());
  EXPECT_EQ(sent.size(), 1u);
}

TEST_F(NeighborArpTest, RequestWakesWaitingPackets) {
  Hold(A("10.0.0.9"), 5);
  Arp(RequestFrom("10.0.0.9", "10.0.0.1"));
  Drain();
  EXPECT_THAT(ready, ElementsAre(5));
}

// A request for us replaces the address at once, without regard to the lock time (neigh_event_ns).
TEST_F(NeighborArpTest, RequestForUsOverrides) {
  MakeReachable("10.0.0.9");
  Arp(RequestFrom("10.0.0.9", "10.0.0.1"));
  EXPECT_EQ(State(A("10.0.0.9")), NeighborState::kReachable) << "nothing new";
  Arp(RequestFrom("10.0.0.9", "10.0.0.1", kOtherMac));
  EXPECT_EQ(State(A("10.0.0.9")), NeighborState::kStale);
  EXPECT_EQ(Info(A("10.0.0.9")).mac, kOtherMac);
}

// RFC 5227: a probe has a sender address of zero.
TEST_F(NeighborArpTest, ProbeForOurAddressIsAnsweredWithoutLearning) {
  EXPECT_EQ(Arp(RequestFrom("0.0.0.0", "10.0.0.1")), Verdict::Local());
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].bytes, PacketBuilder()
                               .Ethernet(kLanMac, kHostMac)
                               .ArpReply(kLanMac, "10.0.0.1", kHostMac, "0.0.0.0")
                               .Build());
  EXPECT_TRUE(All().empty());
  EXPECT_EQ(Arp(RequestFrom("0.0.0.0", "10.0.0.77")), kIgnored);
}

// Linux answers for any of its addresses on any interface, unless arp_ignore says otherwise.
TEST_F(NeighborArpTest, ArpIgnore) {
  lan().addresses4.push_back({.address = A("10.50.0.1"), .prefix_length = 24});
  lan().addresses4.push_back({.address = A("10.60.0.1"), .prefix_length = 32, .scope = 254});
  struct Case {
    uint8_t arp_ignore;
    const char* sender;
    const char* target;
    bool answered;
  };
  const Case cases[] = {
      {0, "10.0.0.9", "10.0.0.1", true},   {0, "10.0.0.9", "192.0.2.1", true},
      {0, "10.0.0.9", "10.99.0.1", true},  {0, "10.0.0.9", "10.60.0.1", true},
      {1, "10.0.0.9", "10.0.0.1", true},   {1, "10.0.0.9", "192.0.2.1", false},
      {1, "10.0.0.9", "10.99.0.1", false}, {1, "10.0.0.9", "10.50.0.1", true},
      {1, "0.0.0.0", "10.0.0.1", true},    {1, "10.0.0.9", "10.60.0.1", true},
      {2, "10.0.0.9", "10.0.0.1", true},   {2, "10.0.0.9", "10.50.0.1", false},
      {2, "10.50.0.9", "10.50.0.1", true}, {2, "0.0.0.0", "10.50.0.1", true},
      {3, "10.0.0.9", "10.60.0.1", false}, {3, "10.0.0.9", "192.0.2.1", true},
      {4, "10.0.0.9", "192.0.2.1", true},  {8, "10.0.0.9", "10.0.0.1", false},
      {8, "0.0.0.0", "10.0.0.1", false},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(std::to_string(c.arp_ignore) + " " + c.sender + " " + c.target);
    lan().arp_ignore = c.arp_ignore;
    Publish();
    neighbors->InterfaceDown(kLan);
    ClearRecords();
    EXPECT_EQ(Arp(RequestFrom(c.sender, c.target)), c.answered ? Verdict::Local() : kIgnored);
    EXPECT_EQ(sent.size(), c.answered ? 1u : 0u);
    EXPECT_EQ(All().size(), c.answered && !A(c.sender).IsUnspecified() ? 1u : 0u);
  }
}

TEST_F(NeighborArpTest, RequestsAmongOthersAreIgnoredButKeepEntriesUpToDate) {
  EXPECT_EQ(Arp(RequestFrom("10.0.0.9", "10.0.0.77")), kIgnored);
  EXPECT_TRUE(All().empty()) << "nothing is created";
  MakeReachable("10.0.0.9");
  Run(Seconds(2));
  EXPECT_EQ(Arp(RequestFrom("10.0.0.9", "10.0.0.77")), kIgnored);
  EXPECT_EQ(State(A("10.0.0.9")), NeighborState::kReachable);
  ClearRecords();
  EXPECT_EQ(Arp(RequestFrom("10.0.0.9", "10.0.0.77", kOtherMac)), Verdict::Local());
  EXPECT_EQ(copies, 1u) << "the kernel should know that it has moved";
  EXPECT_EQ(Info(A("10.0.0.9")).mac, kOtherMac);
  EXPECT_EQ(State(A("10.0.0.9")), NeighborState::kStale);
  EXPECT_TRUE(sent.empty());
}

TEST_F(NeighborArpTest, ReplyToUsConfirmsAndIsShownToTheKernel) {
  Hold(A("10.0.0.9"), 1);
  EXPECT_EQ(Arp(ReplyFrom("10.0.0.9")), Verdict::Local());
  EXPECT_EQ(copies, 1u);
  EXPECT_EQ(State(A("10.0.0.9")), NeighborState::kReachable);
  ClearRecords();
  EXPECT_EQ(Arp(ReplyFrom("10.0.0.8")), Verdict::Local());
  EXPECT_EQ(copies, 1u) << "the kernel may have asked";
  EXPECT_EQ(State(A("10.0.0.8")), NeighborState::kNone) << "we have not";
}

// arp_process: broadcast replies do not assert reachability.
TEST_F(NeighborArpTest, BroadcastReplyDoesNotConfirm) {
  const auto reply = [](Mac mac) {
    return PacketBuilder()
        .Ethernet(mac, "ff:ff:ff:ff:ff:ff")
        .ArpReply(mac, "10.0.0.9", "02:00:00:00:00:ee", "10.0.0.50")
        .Build();
  };
  EXPECT_EQ(Arp(reply(kHostMac)), kIgnored);
  Hold(A("10.0.0.9"), 1);
  EXPECT_EQ(Arp(reply(kHostMac)), Verdict::Local());
  EXPECT_EQ(State(A("10.0.0.9")), NeighborState::kStale);
  EXPECT_EQ(copies, 1u);
}

// locktime, one second: of several answers the first counts.
TEST_F(NeighborArpTest, LockTime) {
  MakeReachable("10.0.0.9");
  Run(Seconds(1));
  Arp(ReplyFrom("10.0.0.9", kOtherMac));
  EXPECT_EQ(Info(A("10.0.0.9")).mac, kHostMac);
  Run(Millis(10));
  Arp(ReplyFrom("10.0.0.9", kOtherMac));
  EXPECT_EQ(Info(A("10.0.0.9")).mac, kOtherMac);
  EXPECT_EQ(State(A("10.0.0.9")), NeighborState::kReachable);
  Arp(ReplyFrom("10.0.0.9", kHostMac));
  EXPECT_EQ(Info(A("10.0.0.9")).mac, kOtherMac) << "locked again by the change";
}

// The lock is not prolonged by answers that change nothing.
TEST_F(NeighborArpTest, LockTimeRunsFromTheLastChange) {
  MakeReachable("10.0.0.9");
  Run(Millis(900));
  Arp(ReplyFrom("10.0.0.9"));
  Run(Millis(200));
  Arp(ReplyFrom("10.0.0.9", kOtherMac));
  EXPECT_EQ(Info(A("10.0.0.9")).mac, kOtherMac);
}

TEST_F(NeighborArpTest, GratuitousArpReplacesAtOnce) {
  MakeReachable("10.0.0.9");
  ClearRecords();
  EXPECT_EQ(Arp(PacketBuilder()
                    .Ethernet(kOtherMac, "ff:ff:ff:ff:ff:ff")
                    .GratuitousArp(kOtherMac, "10.0.0.9")
                    .Build()),
            Verdict::Local());
  EXPECT_EQ(copies, 1u);
  EXPECT_EQ(Info(A("10.0.0.9")).mac, kOtherMac);
  EXPECT_EQ(State(A("10.0.0.9")), NeighborState::kStale);
  // As a reply it must name the same MAC address as target.
  const auto reply = [](Mac target_mac) {
    return PacketBuilder()
        .Ethernet(kHostMac, "ff:ff:ff:ff:ff:ff")
        .ArpReply(kHostMac, "10.0.0.9", target_mac, "10.0.0.9")
        .Build();
  };
  Arp(reply(M("ff:ff:ff:ff:ff:ff")));
  EXPECT_EQ(Info(A("10.0.0.9")).mac, kOtherMac) << "within the lock time";
  Arp(reply(kHostMac));
  EXPECT_EQ(Info(A("10.0.0.9")).mac, kHostMac);
}

TEST_F(NeighborArpTest, ArpAcceptDecidesAboutCreation) {
  const Bytes gratuitous = PacketBuilder()
                               .Ethernet(kHostMac, "ff:ff:ff:ff:ff:ff")
                               .GratuitousArp(kHostMac, "10.0.0.9")
                               .Build();
  EXPECT_EQ(Arp(gratuitous), Verdict::Local());
  EXPECT_EQ(copies, 1u) << "the kernel may know it";
  EXPECT_TRUE(All().empty());
  lan().arp_accept = true;
  Publish();
  Arp(gratuitous);
  EXPECT_EQ(State(A("10.0.0.9")), NeighborState::kStale);
  Arp(ReplyFrom("10.0.0.8"));
  EXPECT_EQ(State(A("10.0.0.8")), NeighborState::kReachable);
  Arp(RequestFrom("10.0.0.7", "10.0.0.77"));
  EXPECT_EQ(State(A("10.0.0.7")), NeighborState::kNone);
  Arp(ReplyFrom("10.0.0.255"));
  EXPECT_EQ(State(A("10.0.0.255")), NeighborState::kNone) << "the subnet's broadcast address";
}

TEST_F(NeighborArpTest, DropGratuitousArp) {
  lan().drop_gratuitous_arp = true;
  Publish();
  EXPECT_EQ(Arp(PacketBuilder()
                    .Ethernet(kHostMac, "ff:ff:ff:ff:ff:ff")
                    .GratuitousArp(kHostMac, "10.0.0.9")
                    .Build()),
            kInvalid);
}

TEST_F(NeighborArpTest, ConflictsAreTheKernels) {
  for (const char* target : {"10.0.0.1", "10.0.0.77", "192.0.2.1"}) {
    ClearRecords();
    EXPECT_EQ(Arp(RequestFrom("10.0.0.1", target, kOtherMac)), Verdict::Local()) << target;
    EXPECT_EQ(copies, 1u);
    EXPECT_TRUE(sent.empty());
    EXPECT_TRUE(All().empty());
  }
}

TEST_F(NeighborArpTest, ProxyArpIsTheKernels) {
  lan().proxy_arp = true;
  Publish();
  EXPECT_EQ(Arp(RequestFrom("10.0.0.9", "203.0.113.5")), Verdict::Punt(PuntReason::kProxy));
  EXPECT_EQ(Arp(RequestFrom("10.0.0.9", "10.0.0.1")), Verdict::Local());
  EXPECT_EQ(Arp(RequestFrom("0.0.0.0", "203.0.113.5")), kIgnored);
  lan().forwarding4 = false;
  Publish();
  EXPECT_EQ(Arp(RequestFrom("10.0.0.9", "203.0.113.5")), kIgnored);
}

TEST_F(NeighborArpTest, ReversePathOfOffLinkSendersIsTheKernels) {
  lan().rp_filter = 1;
  Publish();
  EXPECT_EQ(Arp(RequestFrom("10.0.0.9", "10.0.0.1")), Verdict::Local());
  EXPECT_EQ(Arp(RequestFrom("172.20.0.9", "10.0.0.1")),
            Verdict::Punt(PuntReason::kNeighborDiscovery));
  lan().rp_filter = 0;
  Publish();
  EXPECT_EQ(Arp(RequestFrom("172.20.0.9", "10.0.0.1")), Verdict::Local());
}

TEST_F(NeighborArpTest, Malformed) {
  const Bytes good = RequestFrom("10.0.0.9", "10.0.0.1");
  struct Case {
    const char* what;
    size_t offset;
    uint8_t value;
    Verdict verdict;
  };
  const Case cases[] = {
      {"as it is", 0, 0xff, Verdict::Local()},
      {"hardware type IEEE 802", 15, 6, Verdict::Local()},
      {"hardware type 2", 15, 2, kInvalid},
      {"protocol", 16, 0x86, kInvalid},
      {"hardware length", 18, 8, kInvalid},
      {"protocol length", 19, 16, kInvalid},
      {"operation 3 (reverse ARP)", 21, 3, kInvalid},
      {"operation 0", 21, 0, kInvalid},
      {"target 234.0.0.1", 38, 234, kInvalid},
      {"target 127.0.0.1", 38, 127, kInvalid},
      {"sender 234.0.0.9", 28, 234, kInvalid},
      {"sender 127.0.0.9", 28, 127, kInvalid},
  };
  for (const Case& c : cases) {
    Bytes frame = good;
    frame[c.offset] = c.value;
    EXPECT_EQ(Arp(frame), c.verdict) << c.what;
  }
  for (size_t size = 14; size < good.size(); ++size) {
    EXPECT_EQ(Arp(Bytes(good.begin(), good.begin() + static_cast<ptrdiff_t>(size))), kInvalid);
  }
  EXPECT_EQ(Arp(PacketBuilder()
                    .Ethernet(kHostMac, kOtherMac)
                    .ArpRequest(kHostMac, "10.0.0.9", "10.0.0.1")
                    .Build()),
            Verdict::Drop(DropReason::kNotForUs));
}

TEST_F(NeighborArpTest, AnswersAlsoWithAFullTable) {
  Start(1);
  neighbors->UseSnapshot(snapshot);
  Hold(A("10.0.0.8"), 1);
  ClearRecords();
  EXPECT_EQ(Arp(RequestFrom("10.0.0.9", "10.0.0.1")), Verdict::Local());
  EXPECT_EQ(sent.size(), 1u);
  EXPECT_EQ(All().size(), 1u);
}

TEST_F(NeighborArpTest, AnswerThatCannotBeSentIsADrop) {
  constexpr IfaceSlot kQuiet{2};  // the outbox has no room for this one
  tables::Interface& i = snapshot.interfaces[kQuiet.value];
  i = lan();
  i.slot = kQuiet;
  Publish();
  EXPECT_EQ(Arp(RequestFrom("10.0.0.9", "10.0.0.1"), kQuiet),
            Verdict::Drop(DropReason::kTxRingFull));
  neighbors->InterfaceDown(kQuiet);

  packet::Packet p = Frame(RequestFrom("10.0.0.9", "10.0.0.1"));
  std::vector<packet::FrameIndex> taken;
  for (packet::FrameIndex f; (f = pool.Alloc()) != packet::kNoFrame;) taken.push_back(f);
  const Verdict verdict = neighbors->HandleArp(p, snapshot, now, outbox, *counters);
  for (const auto f : taken) pool.Free(f);
  EXPECT_EQ(Finish(p, verdict), Verdict::Drop(DropReason::kNoFrames));
}

TEST_F(NeighborArpTest, FrameStaysTheCallersWhenNoCopyFits) {
  for (uint32_t i = 0; i < packet::Outbox::kPunts; ++i) {
    ASSERT_TRUE(outbox.Punt(Transit(i), PuntReason::kLocal, true));
  }
  packet::Packet p = Frame(ReplyFrom("10.0.0.9"));
  EXPECT_EQ(neighbors->HandleArp(p, snapshot, now, outbox, *counters), Verdict::Local());
  EXPECT_NE(p.frame, packet::kNoFrame);
  Finish(p, Verdict::Local());
}

// The answer to a worker's question may arrive on another worker's queue.
TEST_F(NeighborArpTest, OtherWorkersLearnFromEvents) {
  Neighbors other(*arena, 16, 99, now);
  packet::Packet p = Transit(42);
  ASSERT_EQ(other.Hold(p, kLan, A("10.0.0.9"), snapshot, now, outbox, *counters), Verdict::Held());
  DrainOutbox();
  Arp(ReplyFrom("10.0.0.9"));
  EXPECT_TRUE(All().empty());
  ASSERT_EQ(neighbors->events().size(), 1u);
  other.ApplyPeerEvent(neighbors->events()[0], now);
  neighbors->ClearEvents();
  EXPECT_TRUE(other.events().empty()) << "events do not echo";
  ASSERT_TRUE(other.TakeReady(p, *counters));
  EXPECT_EQ(IdOf(p), 42u);
  packet::FreePacket(pool, p);
  EXPECT_EQ(other.table().count(NeighborState::kReachable).Read(), 1u);
  // Requests for us create the entry everywhere.
  Arp(RequestFrom("10.0.0.7", "10.0.0.1"));
  for (const NeighborEvent& e : neighbors->events()) other.ApplyPeerEvent(e, now);
  EXPECT_EQ(other.table().count(NeighborState::kStale).Read(), 1u);
  for (int i = 0; i < 1000; ++i) Arp(RequestFrom("10.0.0.7", "10.0.0.1"));
  EXPECT_EQ(neighbors->events().size(), NeighborEvents::kCapacity);
  EXPECT_EQ(neighbors->events_lost().Read(), 1001 - NeighborEvents::kCapacity);
}

}  // namespace
}  // namespace sluice::stages
