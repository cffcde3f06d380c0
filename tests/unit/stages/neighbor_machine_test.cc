// The states of RFC 4861 section 7.3.2 and the kernel's rules between them, on a clock that stands
// still unless told. Kernel defaults are those of include/net/neighbour.h and Documentation/
// networking/ip-sysctl.rst: three questions a second apart, five seconds of DELAY, thirty of
// reachability.
#include <gmock/gmock.h>

#include "stages/neighbor/solicit.h"
#include "unit/stages/neighbor_fixture.h"

namespace sluice::stages {
namespace {

using packet::Verdict;
using testing::ElementsAre;
using testing::Pair;

class NeighborMachineTest : public NeighborFixture {
 protected:
  // When frames were sent, counted from `start`, in milliseconds.
  std::vector<int64_t> SentAt(Nanos start) const {
    std::vector<int64_t> at;
    for (const SentFrame& f : sent) at.push_back((f.at - start) / Millis(1));
    return at;
  }
};

// RFC 4861 7.2.2: "When a node has a unicast packet to send to a neighbor, but does not know the
// neighbor's link-layer address, it performs address resolution." The kernel asks at once.
TEST_F(NeighborMachineTest, FirstPacketAsksAtOnceAndWaits) {
  EXPECT_EQ(Resolve(A("10.0.0.9")), nullptr);
  EXPECT_EQ(Hold(A("10.0.0.9"), 1), Verdict::Held());
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].bytes, PacketBuilder()
                               .Ethernet(kLanMac, "ff:ff:ff:ff:ff:ff")
                               .ArpRequest(kLanMac, "10.0.0.1", "10.0.0.9")
                               .Build());
  EXPECT_EQ(State(A("10.0.0.9")), NeighborState::kIncomplete);
  EXPECT_EQ(Resolve(A("10.0.0.9")), nullptr);
  EXPECT_EQ(Held(), 1u);
  EXPECT_EQ(counters->interfaces[kWan.value].held_packets.Read(), 1u);  // of where it arrived
  const auto kind = static_cast<size_t>(GeneratedKind::kArpRequest);
  EXPECT_EQ(counters->generated[kind].Read(), 1u);
  EXPECT_EQ(Hold(A("10.0.0.9"), 2), Verdict::Held());
  EXPECT_EQ(sent.size(), 1u) << "one question is under way";
}

// The kernel: mcast_solicit questions, retrans_time apart, then FAILED and an ICMP error for each.
TEST_F(NeighborMachineTest, IncompleteFailsAfterThreeQuestions) {
  const Nanos start = now;
  for (uint32_t id = 1; id <= 3; ++id) Hold(A("10.0.0.9"), id);
  RunTo(start + Millis(2999));
  Drain();
  EXPECT_THAT(SentAt(start), ElementsAre(0, 1000, 2000));
  EXPECT_TRUE(lost.empty());
  EXPECT_EQ(State(A("10.0.0.9")), NeighborState::kIncomplete);
  RunTo(start + Seconds(3));
  EXPECT_TRUE(neighbors->has_settled());
  EXPECT_EQ(Held(), 3u) << "they count as held until they are taken";
  Drain();
  EXPECT_EQ(State(A("10.0.0.9")), NeighborState::kFailed);
  EXPECT_THAT(
      lost, ElementsAre(Pair(1, DropReason::kNeighborFailed), Pair(2, DropReason::kNeighborFailed),
                        Pair(3, DropReason::kNeighborFailed)));
  EXPECT_THAT(reported, ElementsAre(1, 2, 3));
  EXPECT_EQ(Held(), 0u);
  RunTo(start + Seconds(30));
  EXPECT_EQ(sent.size(), 3u) << "nobody asks for one that failed";
}

TEST_F(NeighborMachineTest, QuestionsFollowTheSysctls) {
  lan().neighbor4.mcast_solicit = 5;
  lan().neighbor4.retrans_time = Millis(200);
  Publish();
  const Nanos start = now;
  Hold(A("10.0.0.9"));
  Run(Seconds(10));
  Drain();
  EXPECT_THAT(SentAt(start), ElementsAre(0, 200, 400, 600, 800));
  EXPECT_EQ((Info(A("10.0.0.9")).updated - start) / Millis(1), 1000);
}

TEST_F(NeighborMachineTest, NoMulticastQuestionsMeansFailed) {
  lan().neighbor4.mcast_solicit = 0;
  Publish();
  EXPECT_EQ(Hold(A("10.0.0.9")), Verdict::Drop(DropReason::kNeighborFailed));
  EXPECT_TRUE(sent.empty());
  EXPECT_EQ(Held(), 0u);
}

// The kernel starts over with the next packet for an entry that failed.
TEST_F(NeighborMachineTest, FailedIsAskedForAgain) {
  Hold(A("10.0.0.9"), 1);
  Run(Seconds(4));
  Drain();
  ClearRecords();
  const Nanos start = now;
  EXPECT_EQ(Hold(A("10.0.0.9"), 2), Verdict::Held());
  EXPECT_EQ(State(A("10.0.0.9")), NeighborState::kIncomplete);
  Run(Seconds(4));
  Drain();
  EXPECT_THAT(SentAt(start), ElementsAre(0, 1000, 2000));
  EXPECT_THAT(reported, ElementsAre(2));
}

// RFC 4861 7.2.5: "If any packets have been queued ... transmits any packets queued for the
// neighbor awaiting address resolution" - in order.
TEST_F(NeighborMachineTest, AnswerReleasesInOrder) {
  for (uint32_t id = 1; id <= 20; ++id) Hold(A("10.0.0.9"), id);
  Run(Millis(500));
  Arp(ReplyFrom("10.0.0.9"));
  EXPECT_EQ(State(A("10.0.0.9")), NeighborState::kReachable);
  packet::Packet p;
  for (uint32_t id = 1; id <= 20; ++id) {
    ASSERT_TRUE(neighbors->TakeReady(p, *counters));
    EXPECT_EQ(IdOf(p), id);
    EXPECT_EQ(p.out, kLan);
    EXPECT_EQ(Mac::FromWire(p.data), kHostMac);
    EXPECT_EQ(Mac::FromWire(p.data + 6), kLanMac);
    EXPECT_EQ(LoadBe16(p.data + 12), 0x0800);
    EXPECT_EQ(Held(), 20 - id);
    packet::FreePacket(pool, p);
  }
  EXPECT_FALSE(neighbors->has_settled());
  ASSERT_NE(Resolve(A("10.0.0.9")), nullptr);
  EXPECT_EQ(*Resolve(A("10.0.0.9")), kHostMac);
}

// RFC 4861 7.2.2: "If the queue overflows, the new arrival SHOULD replace the oldest entry."
TEST_F(NeighborMachineTest, QueueKeepsTheNewest) {
  lan().neighbor4.unres_qlen_packets = 3;
  Publish();
  for (uint32_t id = 1; id <= 5; ++id) Hold(A("10.0.0.9"), id);
  EXPECT_EQ(Info(A("10.0.0.9")).held, 3);
  Drain();
  EXPECT_THAT(lost, ElementsAre(Pair(1, DropReason::kNeighborQueueFull),
                                Pair(2, DropReason::kNeighborQueueFull)));
  EXPECT_TRUE(reported.empty());
  Arp(ReplyFrom("10.0.0.9"));
  Drain();
  EXPECT_THAT(ready, ElementsAre(3, 4, 5));
}

TEST_F(NeighborMachineTest, QueueOfZeroStillHoldsOneAsTheKernelDoes) {
  lan().neighbor4.unres_qlen_packets = 0;
  Publish();
  Hold(A("10.0.0.9"), 1);
  Hold(A("10.0.0.9"), 2);
  Arp(ReplyFrom("10.0.0.9"));
  Drain();
  EXPECT_THAT(ready, ElementsAre(2));
}

TEST_F(NeighborMachineTest, SettingsOfTheFamilyAndInterfaceCount) {
  lan().neighbor6.unres_qlen_packets = 1;
  Publish();
  for (uint32_t id = 1; id <= 2; ++id) Hold(A("10.0.0.9"), id);
  for (uint32_t id = 11; id <= 12; ++id) Hold(A6("2001:db8::9"), id);
  EXPECT_EQ(Info(A("10.0.0.9")).held, 2);
  EXPECT_EQ(Info(A6("2001:db8::9")).held, 1);
}

// RFC 4861 6.3.4 and 10: ReachableTime is uniform between 0.5 and 1.5 times BaseReachableTime.
TEST_F(NeighborMachineTest, ReachableTimeIsDrawnAroundItsBase) {
  Nanos least = Nanos::Max(), most;
  for (uint64_t seed = 0; seed < 500; ++seed) {
    Start(16, seed);
    neighbors->UseSnapshot(snapshot);
    const Nanos t = neighbors->ReachableTime(kLan, Family::kIpv4, now);
    least = std::min(least, t);
    most = std::max(most, t);
    EXPECT_EQ(t, neighbors->ReachableTime(kLan, Family::kIpv4, now + Seconds(299)));
  }
  EXPECT_GE(least, Seconds(15));
  EXPECT_LT(least, Seconds(16));
  EXPECT_LT(most, Seconds(45));
  EXPECT_GT(most, Seconds(44));
  const Nanos before = neighbors->ReachableTime(kLan, Family::kIpv4, now);
  EXPECT_NE(before, neighbors->ReachableTime(kLan, Family::kIpv4, now + Seconds(301)));
  lan().neighbor4.base_reachable_time = Seconds(2);
  Publish();
  EXPECT_LT(neighbors->ReachableTime(kLan, Family::kIpv4, now), Seconds(3));
}

// RFC 4861 7.3.2 REACHABLE -> STALE: "More than ReachableTime milliseconds have elapsed since the
// last positive confirmation".
TEST_F(NeighborMachineTest, UnusedReachableBecomesStale) {
  const Nanos start = now;
  MakeReachable("10.0.0.9");
  const Nanos reachable = neighbors->ReachableTime(kLan, Family::kIpv4, now);
  RunTo(start + reachable - Millis(20));
  EXPECT_EQ(State(A("10.0.0.9")), NeighborState::kReachable);
  RunTo(start + reachable + Millis(20));
  EXPECT_EQ(State(A("10.0.0.9")), NeighborState::kStale);
  EXPECT_EQ(sent.size(), 1u) << "nothing is sent for one that nobody uses";
}

TEST_F(NeighborMachineTest, NewConfirmationProlongsReachable) {
  const Nanos start = now;
  MakeReachable("10.0.0.9");
  const Nanos reachable = neighbors->ReachableTime(kLan, Family::kIpv4, now);
  Run(Seconds(10));
  Arp(ReplyFrom("10.0.0.9"));
  RunTo(start + reachable + Seconds(9));
  EXPECT_EQ(State(A("10.0.0.9")), NeighborState::kReachable);
  RunTo(start + reachable + Seconds(10) + Millis(20));
  EXPECT_EQ(State(A("10.0.0.9")), NeighborState::kStale);
}

// The kernel: one that was used within delay_first_probe_time goes to DELAY without a rest.
TEST_F(NeighborMachineTest, UsedReachableBecomesDelay) {
  const Nanos start = now;
  MakeReachable("10.0.0.9");
  const Nanos reachable = neighbors->ReachableTime(kLan, Family::kIpv4, now);
  RunTo(start + reachable - Seconds(1));
  ASSERT_NE(Resolve(A("10.0.0.9")), nullptr);
  RunTo(start + reachable + Millis(20));
  EXPECT_EQ(State(A("10.0.0.9")), NeighborState::kDelay);
}

// RFC 4861 7.3.3: "The first time a node sends a packet to a neighbor whose entry is STALE, the
// sender changes the state to DELAY and sets a timer to expire in DELAY_FIRST_PROBE_TIME seconds."
TEST_F(NeighborMachineTest, StaleIsUsedThenProbedByUnicastThenFails) {
  MakeStale("10.0.0.9");
  ClearRecords();
  const Nanos start = now;
  ASSERT_NE(Resolve(A("10.0.0.9")), nullptr) << "a stale address is used";
  EXPECT_EQ(State(A("10.0.0.9")), NeighborState::kDelay);
  RunTo(start + Millis(4990));
  EXPECT_EQ(State(A("10.0.0.9")), NeighborState::kDelay);
  RunTo(start + Seconds(5));
  EXPECT_EQ(State(A("10.0.0.9")), NeighborState::kProbe);
  ASSERT_NE(Resolve(A("10.0.0.9")), nullptr) << "and used on while it is probed";
  RunTo(start + Millis(7990));
  EXPECT_THAT(SentAt(start), ElementsAre(5000, 6000, 7000));
  for (const SentFrame& f : sent) EXPECT_EQ(f.destination(), kHostMac);
  EXPECT_EQ(State(A("10.0.0.9")), NeighborState::kProbe);
  RunTo(start + Seconds(8));
  EXPECT_EQ(State(A("10.0.0.9")), NeighborState::kFailed);
  EXPECT_EQ(Resolve(A("10.0.0.9")), nullptr);
  EXPECT_EQ(sent.size(), 3u);
}

TEST_F(NeighborMachineTest, ProbeIsAnswered) {
  MakeStale("10.0.0.9");
  Resolve(A("10.0.0.9"));
  Run(Millis(5500));
  EXPECT_EQ(State(A("10.0.0.9")), NeighborState::kProbe);
  Arp(ReplyFrom("10.0.0.9"));
  EXPECT_EQ(State(A("10.0.0.9")), NeighborState::kReachable);
  ClearRecords();
  Run(Seconds(10));
  EXPECT_TRUE(sent.empty());
}

TEST_F(NeighborMachineTest, AnswerDuringDelayMakesReachable) {
  MakeStale("10.0.0.9");
  Resolve(A("10.0.0.9"));
  Run(Seconds(2));
  Arp(ReplyFrom("10.0.0.9"));
  EXPECT_EQ(State(A("10.0.0.9")), NeighborState::kReachable);
  ClearRecords();
  Run(Seconds(10));
  EXPECT_TRUE(sent.empty()) << "the delay's timer must be gone";
}

// The kernel: what was confirmed within delay_first_probe_time needs no probe.
TEST_F(NeighborMachineTest, DelayEndsReachableWhenConfirmedJustBefore) {
  MakeReachable("10.0.0.9");
  neighbors->RemoveKernelNeighbor(kLan, A("10.0.0.9"), now);  // makes it stale
  Resolve(A("10.0.0.9"));
  EXPECT_EQ(State(A("10.0.0.9")), NeighborState::kDelay);
  ClearRecords();
  Run(Seconds(5));
  EXPECT_EQ(State(A("10.0.0.9")), NeighborState::kReachable);
  EXPECT_TRUE(sent.empty());
}

TEST_F(NeighborMachineTest, Ipv6AsksTheSolicitedNodeGroupThenByUnicast) {
  Hold(A6("2001:db8::12:3456"), 1);
  ASSERT_EQ(sent.size(), 1u);
  // No address of the packet's is ours, so the link-local one asks.
  EXPECT_EQ(sent[0].bytes, PacketBuilder()
                               .Ethernet(kLanMac, "33:33:ff:12:34:56")
                               .Ipv6("fe80::1", "ff02::1:ff12:3456")
                               .NeighborSolicitation("2001:db8::12:3456")
                               .SourceLinkLayer(kLanMac)
                               .Build());
  Nd(PacketBuilder()
         .Ethernet(kHostMac, kLanMac)
         .Ipv6("2001:db8::12:3456", "fe80::1")
         .NeighborAdvertisement("2001:db8::12:3456", false, true, true)
         .TargetLinkLayer(kHostMac)
         .Build());
  Drain();
  EXPECT_THAT(ready, ElementsAre(1));
  EXPECT_EQ(State(A6("2001:db8::12:3456")), NeighborState::kReachable);
  neighbors->RemoveKernelNeighbor(kLan, A6("2001:db8::12:3456"), now);
  Run(Seconds(20));
  ClearRecords();
  Resolve(A6("2001:db8::12:3456"));
  Run(Seconds(5));
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].bytes, PacketBuilder()
                               .Ethernet(kLanMac, kHostMac)
                               .Ipv6("fe80::1", "2001:db8::12:3456")
                               .NeighborSolicitation("2001:db8::12:3456")
                               .SourceLinkLayer(kLanMac)
                               .Build());
}

TEST_F(NeighborMachineTest, Ipv6WithoutLinkLocalAddressCannotAsk) {
  lan().addresses6.pop_back();
  Publish();
  Hold(A6("2001:db8::9"), 1);
  Run(Seconds(5));
  Drain();
  EXPECT_TRUE(sent.empty());
  EXPECT_THAT(reported, ElementsAre(1));
}

TEST_F(NeighborMachineTest, ArpSourceAddresses) {
  lan().addresses4 = {{.address = A("10.0.0.1"), .prefix_length = 24},
                      {.address = A("10.0.0.2"), .prefix_length = 24, .secondary = true},
                      {.address = A("172.16.0.1"), .prefix_length = 16}};
  Publish();
  EXPECT_EQ(ChooseArpSource(snapshot, lan(), A("10.0.0.9")), A("10.0.0.1"));
  EXPECT_EQ(ChooseArpSource(snapshot, lan(), A("172.16.5.5")), A("172.16.0.1"));
  EXPECT_EQ(ChooseArpSource(snapshot, lan(), A("8.8.8.8")), A("10.0.0.1"));
  std::swap(lan().addresses4[0], lan().addresses4[1]);
  EXPECT_EQ(ChooseArpSource(snapshot, lan(), A("10.0.0.9")), A("10.0.0.1")) << "not a secondary";
  lan().addresses4.clear();
  Publish();
  EXPECT_EQ(ChooseArpSource(snapshot, lan(), A("10.0.0.9")), A("192.0.2.1")) << "unnumbered";
  // A packet of our own is announced by its source, also one of another interface.
  packet::Packet p = Frame(PacketBuilder()
                               .Ethernet(kLanMac, kHostMac)
                               .Ipv4("10.99.0.1", "203.0.113.1")
                               .Udp(1, 2)
                               .Build(),
                           IfaceSlot::None());
  EXPECT_EQ(neighbors->Hold(p, kLan, A("10.0.0.9"), snapshot, now, outbox, *counters),
            Verdict::Held());
  CollectSent();
  EXPECT_EQ(Ipv4::FromWire(sent.back().bytes.data() + 28), A("10.99.0.1"));
  EXPECT_EQ(Held(), 0u) << "our own packets are not counted as held";
}

TEST_F(NeighborMachineTest, InterfaceDownReturnsPacketsAndForgets) {
  Hold(A("10.0.0.9"), 1);
  MakeReachable("10.0.0.8");
  neighbors->ApplyKernelNeighbor(kLan, A("10.0.0.7"), kOtherMac, kNudPermanent, now);
  lan().up = false;
  Publish();
  Drain();
  EXPECT_THAT(lost, ElementsAre(Pair(1, DropReason::kInterfaceDown)));
  EXPECT_TRUE(reported.empty());
  EXPECT_EQ(All().size(), 1u);
  EXPECT_EQ(State(A("10.0.0.7")), NeighborState::kPermanent) << "the kernel says when it goes";
  EXPECT_EQ(Hold(A("10.0.0.9")), Verdict::Drop(DropReason::kInterfaceDown));
  ClearRecords();
  Run(Seconds(100));
  EXPECT_TRUE(sent.empty()) << "no timer is left";
}

TEST_F(NeighborMachineTest, AnotherMacOrDeviceIsAnotherInterface) {
  MakeReachable("10.0.0.8");
  lan().mtu = 9000;
  Publish();
  EXPECT_EQ(All().size(), 1u);
  lan().mac = kOtherMac;
  Publish();
  EXPECT_EQ(All().size(), 0u);
}

TEST_F(NeighborMachineTest, KernelSeedsWhatIsUnknown) {
  neighbors->ApplyKernelNeighbor(kLan, A("10.0.0.5"), kHostMac, kNudReachable, now);
  EXPECT_EQ(State(A("10.0.0.5")), NeighborState::kStale);
  Hold(A("10.0.0.9"), 7);
  neighbors->ApplyKernelNeighbor(kLan, A("10.0.0.9"), Mac{}, kNudIncomplete, now);
  EXPECT_EQ(State(A("10.0.0.9")), NeighborState::kIncomplete);
  neighbors->ApplyKernelNeighbor(kLan, A("10.0.0.9"), kHostMac, kNudDelay, now);
  EXPECT_EQ(State(A("10.0.0.9")), NeighborState::kStale);
  Drain();
  EXPECT_THAT(ready, ElementsAre(7));
  EXPECT_THAT(ready_macs, ElementsAre(kHostMac));
  // What we know ourselves stays, unless the kernel has a fresh answer and we have not.
  MakeReachable("10.0.0.6");
  neighbors->ApplyKernelNeighbor(kLan, A("10.0.0.6"), kOtherMac, kNudReachable, now);
  EXPECT_EQ(Info(A("10.0.0.6")).mac, kHostMac);
  neighbors->ApplyKernelNeighbor(kLan, A("10.0.0.5"), kOtherMac, kNudStale, now);
  EXPECT_EQ(Info(A("10.0.0.5")).mac, kHostMac);
  neighbors->ApplyKernelNeighbor(kLan, A("10.0.0.5"), kOtherMac, kNudReachable, now);
  EXPECT_EQ(Info(A("10.0.0.5")).mac, kOtherMac);
  neighbors->ApplyKernelNeighbor(kLan, A("224.0.0.5"), kOtherMac, kNudNoArp, now);
  EXPECT_EQ(State(A("224.0.0.5")), NeighborState::kNone);
}

TEST_F(NeighborMachineTest, PermanentStaysUntilTheKernelSaysOtherwise) {
  Hold(A("10.0.0.9"), 7);
  neighbors->ApplyKernelNeighbor(kLan, A("10.0.0.9"), kHostMac, kNudPermanent, now);
  Drain();
  EXPECT_THAT(ready, ElementsAre(7));
  EXPECT_EQ(neighbors->NextDeadline(), Nanos::Max());
  ClearRecords();
  Arp(ReplyFrom("10.0.0.9", kOtherMac));
  Run(Seconds(200));
  ASSERT_NE(Resolve(A("10.0.0.9")), nullptr);
  EXPECT_EQ(*Resolve(A("10.0.0.9")), kHostMac);
  Run(Seconds(200));
  EXPECT_TRUE(sent.empty());
  EXPECT_EQ(State(A("10.0.0.9")), NeighborState::kPermanent);
  neighbors->ApplyKernelNeighbor(kLan, A("10.0.0.9"), kOtherMac, kNudStale, now);
  EXPECT_EQ(State(A("10.0.0.9")), NeighborState::kStale);
  EXPECT_EQ(Info(A("10.0.0.9")).mac, kOtherMac);
  neighbors->ApplyKernelNeighbor(kLan, A("10.0.0.9"), kHostMac, kNudNoArp, now);
  EXPECT_EQ(State(A("10.0.0.9")), NeighborState::kNoArp);
  neighbors->RemoveKernelNeighbor(kLan, A("10.0.0.9"), now);
  EXPECT_EQ(All().size(), 0u);
}

TEST_F(NeighborMachineTest, KernelForgettingMakesOursStale) {
  MakeReachable("10.0.0.9");
  neighbors->RemoveKernelNeighbor(kLan, A("10.0.0.9"), now);
  EXPECT_EQ(State(A("10.0.0.9")), NeighborState::kStale);
  Hold(A("10.0.0.8"), 1);
  neighbors->RemoveKernelNeighbor(kLan, A("10.0.0.8"), now);
  EXPECT_EQ(State(A("10.0.0.8")), NeighborState::kIncomplete);
}

TEST_F(NeighborMachineTest, FullTableMakesRoomFromFailedThenStaleThenIdle) {
  Start(4);
  neighbors->UseSnapshot(snapshot);
  MakeReachable("10.0.0.2");
  Hold(A("10.0.0.3"), 1);
  Run(Seconds(4));
  Drain();  // .3 has failed
  MakeStale("10.0.0.4");
  Run(Seconds(1));
  MakeStale("10.0.0.5");
  ASSERT_EQ(neighbors->table().used(), 4u);
  EXPECT_EQ(Hold(A("10.0.0.6"), 2), Verdict::Held());
  EXPECT_EQ(State(A("10.0.0.3")), NeighborState::kNone) << "failed goes first";
  EXPECT_EQ(Hold(A("10.0.0.7"), 3), Verdict::Held());
  EXPECT_EQ(State(A("10.0.0.4")), NeighborState::kNone) << "then the stale one unused longest";
  EXPECT_EQ(Hold(A("10.0.0.8"), 4), Verdict::Held());
  EXPECT_EQ(State(A("10.0.0.5")), NeighborState::kNone);
  ASSERT_NE(Resolve(A("10.0.0.2")), nullptr);
  EXPECT_EQ(Hold(A("10.0.0.9"), 5), Verdict::Drop(DropReason::kNeighborTableFull))
      << "packets wait for all others, and .2 is in use";
  Arp(ReplyFrom("10.0.0.6"));
  Arp(ReplyFrom("10.0.0.7"));
  Arp(ReplyFrom("10.0.0.8"));
  Drain();
  Run(Seconds(6));
  EXPECT_EQ(Hold(A("10.0.0.9"), 6), Verdict::Held()) << "reachable ones unused for 5 s may go";
  EXPECT_EQ(neighbors->table().used(), 4u);
}

TEST_F(NeighborMachineTest, FixedEntriesNeverMakeRoom) {
  Start(2);
  neighbors->UseSnapshot(snapshot);
  neighbors->ApplyKernelNeighbor(kLan, A("10.0.0.2"), kHostMac, kNudPermanent, now);
  neighbors->ApplyKernelNeighbor(kLan, A("10.0.0.3"), kHostMac, kNudNoArp, now);
  Run(Seconds(1000));
  EXPECT_EQ(Hold(A("10.0.0.9")), Verdict::Drop(DropReason::kNeighborTableFull));
  EXPECT_EQ(Held(), 0u);
}

// gc_stale_time and gc_thresh1 of the kernel.
TEST_F(NeighborMachineTest, UnusedEntriesGoWhenThereAreMany) {
  for (uint32_t i = 0; i < 200; ++i) {
    neighbors->ApplyKernelNeighbor(kLan, Ipv4(0x0a000100 + i), kHostMac, kNudStale, now);
  }
  neighbors->ApplyKernelNeighbor(kLan, A("10.0.0.7"), kHostMac, kNudPermanent, now);
  Run(Seconds(59));
  EXPECT_EQ(neighbors->table().used(), 201u);
  Run(Seconds(10));
  EXPECT_EQ(neighbors->table().used(), NeighborMachine::kKeepEntries);
  EXPECT_EQ(State(A("10.0.0.7")), NeighborState::kPermanent);
}

TEST_F(NeighborMachineTest, CountsByState) {
  const auto count = [&](NeighborState s) { return neighbors->table().count(s).Read(); };
  MakeReachable("10.0.0.2");
  MakeStale("10.0.0.3");
  Hold(A("10.0.0.4"), 1);
  EXPECT_EQ(count(NeighborState::kReachable), 1u);
  EXPECT_EQ(count(NeighborState::kStale), 1u);
  EXPECT_EQ(count(NeighborState::kIncomplete), 1u);
  EXPECT_EQ(count(NeighborState::kNone), 0u);
  Run(Seconds(3));
  EXPECT_EQ(count(NeighborState::kIncomplete), 0u);
  EXPECT_EQ(count(NeighborState::kFailed), 1u);
  EXPECT_EQ(neighbors->table().used(), 3u);
  EXPECT_EQ(neighbors->table().limit(), 1024u);
}

TEST_F(NeighborMachineTest, TenThousandAtOnce) {
  constexpr uint32_t kMany = 10'000;
  Start(kMany);
  neighbors->UseSnapshot(snapshot);
  const auto address = [](uint32_t i) { return IpAddress(Ipv4(0x0a010000 + i)); };
  for (uint32_t i = 0; i < kMany; ++i) ASSERT_EQ(Hold(address(i), i), Verdict::Held());
  EXPECT_EQ(sent.size(), kMany);
  EXPECT_EQ(Held(), kMany);
  EXPECT_EQ(Hold(A("10.0.0.9")), Verdict::Drop(DropReason::kNeighborTableFull));
  // Half of them answer, the others fail; a call does a bounded part of the work.
  for (uint32_t i = 0; i < kMany; i += 2) {
    Mac mac = kHostMac;
    StoreBe32(mac.bytes.data() + 2, i);
    const auto from = ToString(address(i));
    Arp(ReplyFrom(from.c_str(), mac));
  }
  sent.clear();
  now += Seconds(1);
  neighbors->Advance(now, snapshot, outbox, *counters);
  CollectSent();
  EXPECT_GT(sent.size(), 0u);
  EXPECT_LE(sent.size(), NeighborMachine::kTimersPerAdvance);
  EXPECT_LE(neighbors->NextDeadline(), now);
  Run(Seconds(3));
  Drain();
  EXPECT_EQ(ready.size(), kMany / 2);
  EXPECT_EQ(lost.size(), kMany / 2);
  EXPECT_EQ(Held(), 0u);
  for (uint32_t i = 0; i < kMany; ++i) {
    const Mac* mac = Resolve(address(i));
    ASSERT_EQ(mac != nullptr, i % 2 == 0);
    if (mac != nullptr) {
      ASSERT_EQ(LoadBe32(mac->bytes.data() + 2), i);
    }
  }
}

TEST_F(NeighborMachineTest, QuestionThatCannotBeSentIsOneOfThree) {
  std::vector<packet::FrameIndex> taken;
  packet::Packet waiting = Transit(1);
  for (packet::FrameIndex f; (f = pool.Alloc()) != packet::kNoFrame;) taken.push_back(f);
  EXPECT_EQ(neighbors->Hold(waiting, kLan, A("10.0.0.9"), snapshot, now, outbox, *counters),
            Verdict::Held());
  EXPECT_EQ(outbox.active(), 0u);
  for (const auto f : taken) pool.Free(f);
  const Nanos start = now;
  Run(Seconds(5));
  Drain();
  EXPECT_THAT(SentAt(start), ElementsAre(1000, 2000));
  EXPECT_THAT(reported, ElementsAre(1));
  const auto kind = static_cast<size_t>(GeneratedKind::kArpRequest);
  EXPECT_EQ(counters->generated[kind].Read(), 2u);
}

}  // namespace
}  // namespace sluice::stages
