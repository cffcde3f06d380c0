// The pipeline with a ruleset: each packet of a burst goes through netfilter's hooks and the routing
// between them before the next one begins.
#include "dataplane/pipeline.h"
#include "tables/flow_owner.h"
#include "wire/ethernet.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

namespace sluice::dataplane {

using packet::Verdict;
using tables::Interface;

template <>
tables::RouteId Pipeline::LookUp<Ipv4>(const Packet& p) const {
  return tables_.fib4.Lookup(wire::Ipv4View(p.l3()).destination());
}
template <>
tables::RouteId Pipeline::LookUp<Ipv6>(const Packet& p) const {
  return tables_.fib6.Lookup(wire::Ipv6View(p.l3()).destination());
}

// The worker that is to put the datagram together, and then the one that has the connection.
bool Pipeline::Reassemble(Packet& p, Family family, const Interface& in, const Snapshot& snapshot,
                          Nanos now) {
  const WorkerId owner = firewall_.OwnerOfFragment(p, family);
  if (owner != worker_) {
    HandOver(owner, p);
    return false;
  }
  const Judgement judgement = firewall_.BeforeReassembly(p, in, snapshot, now);
  if (!judgement.accepted()) {
    Carry(p, judgement, family, snapshot, now);
    return false;
  }
  const Verdict verdict =
      defrag_.Add(p, snapshot.defrag, now, outbox_.pool(), counters_);
  if (defrag_.has_lost()) SettleFragments(snapshot, now);
  if (verdict.kind() == Verdict::Kind::kDrop) Drop(p, verdict.drop_reason());
  return verdict.is_continue();
}

void Pipeline::SettleFragments(const Snapshot& snapshot, Nanos now) {
  stages::LostFragment lost;
  while (defrag_.TakeLost(lost, counters_)) {
    if (!lost.report) {
      Drop(lost.packet, lost.reason);
    } else if (lost.packet.l3()[0] >> 4 == 6) {
      Refuse6(lost.packet, lost.reason, snapshot, now);
    } else {
      // ip_expire tells the senders of packets for this machine only.
      const Ipv4 destination = wire::Ipv4View(lost.packet.l3()).destination();
      if (snapshot.own4.Contains(destination)) {
        Refuse4(lost.packet, lost.reason, snapshot, now);
      } else {
        Drop(lost.packet, lost.reason);
      }
    }
  }
}

void Pipeline::HandOver(WorkerId owner, Packet& p) {
  tracer_.Forget(p);
  if (!outbox_.HandOver(owner, p)) Drop(p, DropReason::kHandoffFull);
}

void Pipeline::Enlist(Packet& p, Family family, const Snapshot& snapshot, Nanos now) {
  Judged& judged = judged_[judged_count_];
  judged.packet = &p;
  judged.family = family;
  firewall_.Prepare(p, family, judged.key);
  if (!p.Has(packet::kFlagOwned)) {
    WorkerId owner = firewall_.OwnerOf(judged.key);
    if (owner == worker_) owner = firewall_.OwnerByAlias(judged.key, now);
    // Without connections sockets alone decide.
    if (sockets_.active() && !firewall_.tracks(family) && IsLocal(p, family)) [[unlikely]] {
      if (sockets_.MayConcern(p)) owner = sockets_.OwnerOf(p);
    }
    if (owner != worker_) {
      // The other one has the last word only where it is an alias that says so; what arrives by
      // the owner function may still be an alias there.
      if (firewall_.tracks(family) && owner != firewall_.OwnerOf(judged.key)) p.flags |= packet::kFlagOwned;
      return HandOver(owner, p);
    }
  }
  // Checksums are verified by conntrack, changed by NAT and read by rules.
  if (firewall_.tracks(family)) CompleteChecksum(p, snapshot);
  ++judged_count_;
}

void Pipeline::Judge(const Interface& in, const Snapshot& snapshot, Nanos now) {
  for (size_t i = 0; i < judged_count_; ++i) firewall_.Prefetch(judged_[i].key);
  for (size_t i = 0; i < judged_count_; ++i) {
    Judged& judged = judged_[i];
    if (judged.family == Family::kIpv4) {
      JudgeOne<Ipv4>(*judged.packet, judged.key, in, snapshot, now);
    } else {
      JudgeOne<Ipv6>(*judged.packet, judged.key, in, snapshot, now);
    }
  }
}

template <class Address>
void Pipeline::JudgeOne(Packet& p, const Firewall::Key& key, const Interface& in,
                        const Snapshot& snapshot, Nanos now) {
  constexpr bool kV4 = std::is_same_v<Address, Ipv4>;
  constexpr Family kFamily = kV4 ? Family::kIpv4 : Family::kIpv6;
  WatchRules(p, snapshot);
  if (offload_.enabled()) path_.Begin(p);
  const Judgement judgement = firewall_.BeforeRouting(p, key, in, snapshot, now);
  if (!judgement.accepted()) return Carry(p, judgement, kFamily, snapshot, now);

  // Once more, since the destination may be another now; and what it forbids, it forbids here.
  const Verdict verdict = kV4 ? stages::CheckBeforeLookup4(p, in, snapshot)
                              : stages::CheckBeforeLookup6(p, in, snapshot);
  if (verdict.kind() == Verdict::Kind::kDrop) return Drop(p, verdict.drop_reason());
  if (verdict.kind() == Verdict::Kind::kPunt) return Punt(p, verdict.punt_reason(), snapshot);

  Dispatch<Address>(p, Decide<Address>(p, LookUp<Address>(p), in, snapshot), in, snapshot, now);
}

bool Pipeline::PassesForward(Packet& p, Family family, const IpAddress& next_hop,
                             const Snapshot& snapshot, Nanos now) {
  const Interface& in = snapshot.at(p.in);
  const Interface& out = snapshot.at(p.out);
  WatchRules(p, snapshot);
  Judgement judgement = firewall_.Forwarding(p, in, out, snapshot, now);
  judged_flow_ = p.flow;
  if (judgement.accepted()) {
    judgement = firewall_.AfterRouting(p, in, out, next_hop, snapshot, now);
  }
  if (judged_flow_ != tables::kNoFlow &&
      firewall_.flows().at(judged_flow_).Has(tables::kFlowOffload)) [[unlikely]] {
    offload_.CheckMark(judged_flow_);
  }
  if (judgement.accepted()) return true;
  // The kernel counts the hop itself.
  if (judgement.kind == Judgement::Kind::kPunt) GiveBackHop(p);
  Carry(p, judgement, family, snapshot, now);
  return false;
}

void Pipeline::Carry(Packet& p, const Judgement& judgement, Family family,
                     const Snapshot& snapshot, Nanos now) {
  if (sockets_.active() && judgement.unsupported()) firewall_.Sever(p, sockets_, now);
  switch (judgement.kind) {
    case Judgement::Kind::kPunt:
      return Punt(p, judgement.punt, snapshot);
    case Judgement::Kind::kReject: {
      const Reply reply =
          judgement.reset
              ? replies_.Reset(p, family, snapshot, outbox_)
              : replies_.RejectError(p, family, judgement.reject_code, snapshot, now, outbox_);
      if (reply.outcome == ReplyOutcome::kSend) {
        if (judgement.reset) firewall_.conntrack().SetClosing(p, snapshot.conntrack, now);
        Send(reply, family, &p, snapshot, now);
      }
      return Drop(p, judgement.drop);
    }
    default:
      // With the ICMP error that belongs to the reason, if one does: no port for NAT.
      return family == Family::kIpv4 ? Refuse4(p, judgement.drop, snapshot, now)
                                     : Refuse6(p, judgement.drop, snapshot, now);
  }
}

}  // namespace sluice::dataplane
