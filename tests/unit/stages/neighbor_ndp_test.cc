// Received neighbour discovery, by RFC 4861 and Linux' ndisc.c.
#include <gmock/gmock.h>

#include "unit/stages/neighbor_fixture.h"

namespace sluice::stages {
namespace {

using packet::Verdict;
using testing::ElementsAre;

const Verdict kIgnored = Verdict::Drop(DropReason::kNdIgnored);
const Verdict kInvalid = Verdict::Drop(DropReason::kNdInvalid);
const Verdict kForKernel = Verdict::Punt(PuntReason::kNeighborDiscovery);
constexpr const char* kHost = "2001:db8::9";
constexpr const char* kOurs = "2001:db8::1";
constexpr const char* kOurGroup = "ff02::1:ff00:1";

class NeighborNdpTest : public NeighborFixture {
 protected:
  Bytes Solicit(const char* source, const char* destination, const char* target,
                const Mac* option = &kHostMac) {
    PacketBuilder b;
    b.Ethernet(kHostMac, kLanMac).Ipv6(source, destination).NeighborSolicitation(target);
    if (option != nullptr) b.SourceLinkLayer(*option);
    return b.Build();
  }
  Bytes Advertise(const char* target, bool router, bool solicited, bool override_flag,
                  const Mac* option = &kHostMac) {
    PacketBuilder b;
    b.Ethernet(kHostMac, kLanMac)
        .Ipv6(target, solicited ? "fe80::1" : "ff02::1")
        .NeighborAdvertisement(target, router, solicited, override_flag);
    if (option != nullptr) b.TargetLinkLayer(*option);
    return b.Build();
  }
};

// RFC 4861 7.2.4: "If the solicitation's IP Destination Address is not a multicast address, the
// Target Link-Layer Address option MAY be omitted"; otherwise it MUST be there.
TEST_F(NeighborNdpTest, SolicitationToTheGroupIsAnsweredWithOptionAndOverride) {
  EXPECT_EQ(Nd(Solicit(kHost, kOurGroup, kOurs)), Verdict::Local());
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].bytes, PacketBuilder()
                               .Ethernet(kLanMac, kHostMac)
                               .Ipv6(kOurs, kHost)
                               .NeighborAdvertisement(kOurs, true, true, true)
                               .TargetLinkLayer(kLanMac)
                               .Build());
  EXPECT_EQ(Info(A6(kHost)).mac, kHostMac);
  EXPECT_EQ(copies, 0u);
  const auto kind = static_cast<size_t>(GeneratedKind::kNeighborAdvertisement);
  EXPECT_EQ(counters->generated[kind].Read(), 1u);
}

TEST_F(NeighborNdpTest, UnicastSolicitationIsAnsweredWithoutEither) {
  EXPECT_EQ(Nd(Solicit(kHost, kOurs, kOurs)), Verdict::Local());
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].bytes, PacketBuilder()
                               .Ethernet(kLanMac, kHostMac)
                               .Ipv6(kOurs, kHost)
                               .NeighborAdvertisement(kOurs, true, true, false)
                               .Build());
}

TEST_F(NeighborNdpTest, RouterFlagIsForwarding) {
  lan().forwarding6 = false;
  Publish();
  Nd(Solicit(kHost, kOurs, kOurs));
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].bytes[58] & 0x80, 0);
}

// RFC 4861 7.2.3: an entry created by a solicitation is STALE. The answer is its first use.
TEST_F(NeighborNdpTest, SenderIsLearnedAndProbedLater) {
  Nd(Solicit(kHost, kOurGroup, kOurs));
  EXPECT_EQ(State(A6(kHost)), NeighborState::kDelay);
  ClearRecords();
  Run(Seconds(5));
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].destination(), kHostMac);
  EXPECT_EQ(State(A6(kHost)), NeighborState::kProbe);
  EXPECT_EQ(Nd(Advertise(kHost, false, true, false, nullptr)), Verdict::Local());
  EXPECT_EQ(State(A6(kHost)), NeighborState::kReachable);
}

TEST_F(NeighborNdpTest, SolicitationWithAnotherMacReplacesIt) {
  Hold(A6(kHost), 1);
  Nd(Advertise(kHost, false, true, true));
  Nd(Solicit(kHost, kOurs, kOurs, &kOtherMac));
  EXPECT_EQ(Info(A6(kHost)).mac, kOtherMac);
  EXPECT_EQ(sent.back().destination(), kOtherMac);
}

// RFC 4861 7.2.4: to the unspecified address' owner the answer goes to all nodes, not Solicited.
TEST_F(NeighborNdpTest, DuplicateAddressDetectionIsAnsweredToAllNodes) {
  EXPECT_EQ(Nd(Solicit("::", kOurGroup, kOurs, nullptr)), Verdict::Local());
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].bytes, PacketBuilder()
                               .Ethernet(kLanMac, "33:33:00:00:00:01")
                               .Ipv6(kOurs, "ff02::1")
                               .NeighborAdvertisement(kOurs, true, false, true)
                               .TargetLinkLayer(kLanMac)
                               .Build());
  EXPECT_TRUE(All().empty());
}

TEST_F(NeighborNdpTest, TentativeAddressesAreTheKernels) {
  lan().addresses6[0].tentative = true;
  Publish();
  EXPECT_EQ(Nd(Solicit("::", kOurGroup, kOurs, nullptr)), kForKernel);
  EXPECT_EQ(Nd(Solicit(kHost, kOurGroup, kOurs)), kForKernel);
  EXPECT_EQ(Nd(Advertise(kOurs, false, false, true)), kForKernel);
  EXPECT_TRUE(sent.empty());
  EXPECT_TRUE(All().empty());
}

TEST_F(NeighborNdpTest, OnlyAddressesOfTheInterfaceAreAnswered) {
  EXPECT_EQ(Nd(Solicit(kHost, "ff02::1:ff00:1", "2001:db8:1::1")), kIgnored);
  EXPECT_EQ(Nd(Solicit(kHost, "ff02::1:ff00:77", "2001:db8::77")), kIgnored);
  EXPECT_TRUE(All().empty());
  EXPECT_EQ(Nd(Solicit(kHost, "ff02::1:ff00:1", "fe80::1")), Verdict::Local());
}

TEST_F(NeighborNdpTest, ProxyAndAnycastAreTheKernels) {
  EXPECT_EQ(Nd(Solicit(kHost, "ff02::1:ff00:0", "2001:db8::")), Verdict::Punt(PuntReason::kProxy));
  lan().proxy_ndp = true;
  Publish();
  EXPECT_EQ(Nd(Solicit(kHost, "ff02::1:ff00:77", "2001:db8::77")),
            Verdict::Punt(PuntReason::kProxy));
  lan().forwarding6 = false;
  Publish();
  EXPECT_EQ(Nd(Solicit(kHost, "ff02::1:ff00:77", "2001:db8::77")), kIgnored);
  EXPECT_EQ(Nd(Solicit(kHost, "ff02::1:ff00:0", "2001:db8::")), kIgnored);
}

TEST_F(NeighborNdpTest, SolicitationWithoutOptionNeedsAnEntry) {
  EXPECT_EQ(Nd(Solicit(kHost, kOurs, kOurs, nullptr)), kForKernel);
  Nd(Solicit(kHost, kOurs, kOurs));
  ClearRecords();
  EXPECT_EQ(Nd(Solicit(kHost, kOurs, kOurs, nullptr)), Verdict::Local());
  EXPECT_EQ(sent.size(), 1u);
}

TEST_F(NeighborNdpTest, RouterDiscoveryAndRedirectsAreTheKernels) {
  const auto from = [](const char* source, const char* destination) {
    PacketBuilder b;
    b.Ethernet(kHostMac, kLanMac).Ipv6(source, destination);
    return b;
  };
  EXPECT_EQ(Nd(from(kHost, "ff02::2").RouterSolicitation().SourceLinkLayer(kHostMac).Build()),
            kForKernel);
  EXPECT_EQ(Nd(from("fe80::9", "ff02::1").RouterAdvertisement(1800).Build()), kForKernel);
  EXPECT_EQ(Nd(from("fe80::9", "fe80::1").Redirect("fe80::7", "2001:db8:5::1").Build()),
            kForKernel);
  EXPECT_EQ(Nd(from(kHost, kOurs).Icmpv6Echo(1, 2).Build()), Verdict::Continue());
}

TEST_F(NeighborNdpTest, Invalid) {
  const auto solicitation = [] {
    PacketBuilder b;
    b.Ethernet(kHostMac, kLanMac).Ipv6(kHost, kOurs).NeighborSolicitation(kOurs);
    return b;
  };
  EXPECT_EQ(Nd(solicitation().HopLimit(254).Build()), kInvalid);
  EXPECT_EQ(Nd(solicitation().BadChecksum().Build()), kInvalid);
  EXPECT_EQ(Nd(solicitation().NdOption({1, 0, 0, 0, 0, 0, 0, 0}).Build()), kInvalid);
  EXPECT_EQ(Nd(solicitation().PayloadLength(200).Build()), kInvalid);
  EXPECT_EQ(Nd(Solicit("::", kOurs, kOurs, nullptr)), kInvalid);
  EXPECT_EQ(Nd(Solicit(kHost, kOurs, "ff02::1")), kInvalid);
  packet::Packet p = Frame(Solicit(kHost, kOurs, kOurs));
  p.l4_offset = 54;
  p.flags |= packet::kFlagFragment;
  const Verdict verdict = neighbors->HandleNdp(p, snapshot, now, outbox, *counters);
  EXPECT_EQ(Finish(p, verdict), kInvalid) << "RFC 6980 forbids fragments";
  EXPECT_TRUE(sent.empty());
  EXPECT_TRUE(All().empty());
}

TEST_F(NeighborNdpTest, AdvertisementOfOurAddressIsTheKernels) {
  EXPECT_EQ(Nd(Advertise(kOurs, false, false, true)), kForKernel);
}

TEST_F(NeighborNdpTest, AdvertisementCreatesNothingAndWakesNothingThatFailed) {
  EXPECT_EQ(Nd(Advertise(kHost, false, true, true)), Verdict::Local());
  EXPECT_EQ(copies, 1u);
  EXPECT_TRUE(All().empty());
  Hold(A6(kHost), 1);
  Run(Seconds(4));
  Drain();
  Nd(Advertise(kHost, false, true, true));
  EXPECT_EQ(State(A6(kHost)), NeighborState::kFailed);
}

struct Expected {
  NeighborState state;
  Mac mac;
  bool is_router;
};

// RFC 4861 section 7.2.5, sentence by sentence, for an entry with kHostMac that was no router.
Expected ByTheRfc(NeighborState old, const Mac* option, bool router, bool solicited,
                  bool override_flag) {
  if (old == NeighborState::kIncomplete) {
    // "If the link layer has addresses and no Target Link-Layer Address option is included, the
    // receiving node SHOULD silently discard the received advertisement."
    if (option == nullptr) return {old, Mac{}, false};
    // "It records the link-layer address ... If the advertisement's Solicited flag is set, the
    // state of the entry is set to REACHABLE; otherwise, it is set to STALE. It sets the IsRouter
    // flag in the cache entry based on the Router flag." ("The Override flag is ignored".)
    return {solicited ? NeighborState::kReachable : NeighborState::kStale, *option, router};
  }
  const bool differs = option != nullptr && *option != kHostMac;
  if (!override_flag && differs) {
    // "a. If the state of the entry is REACHABLE, then set it to STALE, but do not update the entry
    // in any other way." "b. Otherwise, the received advertisement should be ignored".
    return {old == NeighborState::kReachable ? NeighborState::kStale : old, kHostMac, false};
  }
  // "The link-layer address in the Target Link-Layer Address option MUST be inserted in the cache
  // (if one is supplied and differs from the already recorded address). If the Solicited flag is
  // set, the state of the entry MUST be set to REACHABLE. If the Solicited flag is zero and the
  // link-layer address was updated with a different link-layer address, the state MUST be set to
  // STALE. Otherwise, the entry's state remains unchanged." "The IsRouter flag MUST be set".
  const NeighborState state = solicited ? NeighborState::kReachable
                              : differs ? NeighborState::kStale
                                        : old;
  return {state, differs ? *option : kHostMac, router};
}

TEST_F(NeighborNdpTest, AdvertisementsByTheTableOfTheRfc) {
  const NeighborState olds[] = {NeighborState::kIncomplete, NeighborState::kStale,
                                NeighborState::kReachable, NeighborState::kDelay,
                                NeighborState::kProbe};
  const Mac* options[] = {nullptr, &kHostMac, &kOtherMac};
  int cases = 0;
  for (const NeighborState old : olds) {
    for (const Mac* option : options) {
      for (int flags = 0; flags < 8; ++flags) {
        const bool router = flags & 4, solicited = flags & 2, override_flag = flags & 1;
        SCOPED_TRACE(testing::Message() << kNeighborStates[static_cast<size_t>(old)] << " option "
                                        << (option == nullptr ? "none" : ToString(*option)) << " R"
                                        << router << " S" << solicited << " O" << override_flag);
        neighbors->InterfaceDown(kLan);
        Drain();
        ClearRecords();
        Hold(A6(kHost), 1);
        if (old != NeighborState::kIncomplete) {
          Nd(Advertise(kHost, false, true, true));
          Drain();
        }
        if (old == NeighborState::kStale || old >= NeighborState::kDelay) {
          neighbors->RemoveKernelNeighbor(kLan, A6(kHost), now);
          Run(Seconds(6));
        }
        if (old >= NeighborState::kDelay) Resolve(A6(kHost));
        if (old == NeighborState::kProbe) Run(Seconds(5));
        ASSERT_EQ(State(A6(kHost)), old);

        EXPECT_EQ(Nd(Advertise(kHost, router, solicited, override_flag, option)), Verdict::Local());
        const Expected want = ByTheRfc(old, option, router, solicited, override_flag);
        const NeighborInfo got = Info(A6(kHost));
        EXPECT_EQ(got.state, want.state) << kNeighborStates[static_cast<size_t>(got.state)];
        EXPECT_EQ(got.mac, want.mac);
        EXPECT_EQ(got.is_router, want.is_router);
        const bool released = old != NeighborState::kIncomplete || option != nullptr;
        EXPECT_EQ(got.held, released ? 0 : 1);
        ++cases;
      }
    }
  }
  EXPECT_EQ(cases, 120);
}

TEST_F(NeighborNdpTest, RouterFlagGoesAndComes) {
  Hold(A6(kHost), 1);
  Nd(Advertise(kHost, true, true, true));
  EXPECT_TRUE(Info(A6(kHost)).is_router);
  Nd(Solicit(kHost, kOurs, kOurs));
  EXPECT_TRUE(Info(A6(kHost)).is_router) << "a solicitation says nothing about it";
  Nd(Advertise(kHost, false, false, false, nullptr));
  EXPECT_FALSE(Info(A6(kHost)).is_router);
}

TEST_F(NeighborNdpTest, OtherWorkersLearnFromEvents) {
  Neighbors other(*arena, 16, 99, now);
  packet::Packet p = Transit(42, true);
  ASSERT_EQ(other.Hold(p, kLan, A6(kHost), snapshot, now, outbox, *counters), Verdict::Held());
  DrainOutbox();
  Nd(Advertise(kHost, true, true, true));
  for (const NeighborEvent& e : neighbors->events()) other.ApplyPeerEvent(e, now);
  ASSERT_TRUE(other.TakeReady(p, *counters));
  EXPECT_EQ(LoadBe16(p.data + 12), 0x86dd);
  packet::FreePacket(pool, p);
  EXPECT_EQ(other.table().count(NeighborState::kReachable).Read(), 1u);
}

}  // namespace
}  // namespace sluice::stages
