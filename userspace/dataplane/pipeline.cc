#include "dataplane/pipeline.h"

#include <algorithm>

#include "stages/fragment/refragment.h"
#include "stages/icmp/echo.h"
#include "stages/parse/parse.h"
#include "stages/rewrite/rewrite.h"
#include "wire/ethernet.h"
#include "wire/icmpv6.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

namespace sluice::dataplane {

using packet::Verdict;
using tables::Interface;

namespace {

// To a group, or to an address of the interface it came in by. (A neighbour message for another of
// our addresses is the kernel's to judge.)
bool IsForUs(const Interface& in, const Ipv6& destination) {
  if (destination.IsMulticast()) return true;
  return std::any_of(in.addresses6.begin(), in.addresses6.end(),
                     [&](const auto& own) { return own.address == destination; });
}

}  // namespace

Pipeline::Pipeline(WorkerId worker, const PipelineConfig& config, packet::FramePool& pool,
                   WorkerCounters& counters)
    : worker_(worker),
      tables_(config.tables),
      hash_seed_(config.seed),  // the same on all workers: a flow keeps its path wherever it is
      counters_(counters),
      outbox_(pool),
      neighbors_(pool.arena(), config.neighbor_limit, config.seed + worker.value + 1,
                 config.start),
      replies_(config.tables, counters, config.seed + 1000 + worker.value, config.start),
      sockets_(worker, config.firewall.worker_count, config.tables, *this),
      firewall_(worker, config.firewall, config.tables, pool.arena(), counters),
      defrag_(pool.arena(), config.fragments, config.seed + 2000 + worker.value, config.start),
      offload_(worker, config.offload, firewall_.flows(), counters) {
  firewall_.set_sockets(&sockets_);
  if (offload_.enabled()) firewall_.Record(&path_);
}

void Pipeline::Process(std::span<Packet> burst, IfaceSlot slot, const Snapshot& snapshot,
                       Nanos now) {
  SeeSnapshot(snapshot, now);
  if (tracer_.active()) [[unlikely]] {
    for (Packet& p : burst) tracer_.Begin(p, now);
  }
  const Interface& in = snapshot.at(slot);
  if (!in.slot.valid()) {  // its sockets are up before the mirror knows it, for a moment
    for (const Packet& p : burst) Drop(p, DropReason::kInterfaceDown);
    if (neighbors_.has_settled()) Settle(snapshot, now);  // what the new snapshot has put an end to
    return;
  }
  for (const Packet& p : burst) __builtin_prefetch(p.data);
  batch4_.count = 0;
  batch6_.count = 0;
  judged_count_ = 0;
  sockets_.BeginBurst();
  for (Packet& p : burst) Classify(p, in, snapshot, now);
  if (judged_count_ > 0) Judge(in, snapshot, now);
  if (batch4_.count > 0) Route(batch4_, in, snapshot, now);
  if (batch6_.count > 0) Route(batch6_, in, snapshot, now);
  sockets_.EndBurst(now);
  if (neighbors_.has_settled()) Settle(snapshot, now);
}

void Pipeline::SeeSnapshot(const Snapshot& snapshot, Nanos now) {
  now_ = now;
  sockets_.Use(snapshot);
  if (snapshot.generation == snapshot_generation_) return;
  snapshot_generation_ = snapshot.generation;
  most_free_ = std::max(most_free_, outbox_.pool().size());
  neighbors_.UseSnapshot(snapshot);
  if (snapshot.offload_generation != offload_generation_) offload_.ForgetRules(now);
  offload_generation_ = snapshot.offload_generation;
  firewall_.UseSnapshot(snapshot, now);
}

void Pipeline::Classify(Packet& p, const Interface& in, const Snapshot& snapshot, Nanos now) {
  const stages::ParseResult parsed = stages::Parse(p, in, outbox_.pool());
  if (!parsed.verdict.is_continue()) return Drop(p, parsed.verdict.drop_reason());
  if (p.Has(packet::kFlagFragment | packet::kFlagFragmentHeader)) [[unlikely]] {
    const Family family =
        parsed.protocol == stages::Protocol::kIpv4 ? Family::kIpv4 : Family::kIpv6;
    // What may be for a socket is, too: a socket takes whole datagrams.
    const bool whole =
        firewall_.tracks(family) ||
        (sockets_.active() && (IsLocal(p, family) || sockets_.HaveJoined(p)));
    if (whole && !Reassemble(p, family, in, snapshot, now)) return;
  }
  switch (parsed.protocol) {
    case stages::Protocol::kIpv4:
      return Classify4(p, in, snapshot, now);
    case stages::Protocol::kIpv6:
      return Classify6(p, in, snapshot, now);
    case stages::Protocol::kArp:
      if (!firewall_.AdmitsOther(p, in, snapshot, now)) return Drop(p, DropReason::kFirewallRule);
      return NeighborMessage(p, neighbors_.HandleArp(p, snapshot, now, outbox_, counters_),
                             snapshot, now);
    case stages::Protocol::kNone:
      break;
  }
  Drop(p, DropReason::kUnknownProtocol);
}

void Pipeline::Classify4(Packet& p, const Interface& in, const Snapshot& snapshot, Nanos now) {
  const Verdict verdict = stages::CheckBeforeLookup4(p, in, snapshot);
  if (verdict.kind() == Verdict::Kind::kPunt) {
    if (verdict.punt_reason() == PuntReason::kMulticast && sockets_.active()) [[unlikely]] {
      return ToGroup(p, Family::kIpv4, in, snapshot, now);
    }
    return Punt(p, verdict.punt_reason(), snapshot);
  }
  // Rules come before the kernel looks at addresses.
  if (firewall_.active(Family::kIpv4)) return Enlist(p, Family::kIpv4, snapshot, now);
  if (verdict.kind() == Verdict::Kind::kDrop) return Drop(p, verdict.drop_reason());
  batch4_.packets[batch4_.count] = &p;
  batch4_.destinations[batch4_.count++] = wire::Ipv4View(p.l3()).destination();
}

void Pipeline::Classify6(Packet& p, const Interface& in, const Snapshot& snapshot, Nanos now) {
  // ND first: it must work whatever the kernel's firewall says to forwarded packets; what is not
  // ours of it comes back as a punt.
  const wire::Ipv6View ip(p.l3());
  const Ipv6 destination = ip.destination();
  const bool is_nd = p.l4_protocol == wire::kProtocolIcmpv6 && ip.hop_limit() == 255 &&
                     p.l4_offset != 0 && p.segment_length > p.l4_offset &&
                     wire::IsNeighborDiscovery(p.l4()[0]);
  if (is_nd && IsForUs(in, destination)) {
    const Verdict verdict = neighbors_.HandleNdp(p, snapshot, now, outbox_, counters_);
    if (!verdict.is_continue()) return NeighborMessage(p, verdict, snapshot, now);
  }
  const Verdict verdict = stages::CheckBeforeLookup6(p, in, snapshot);
  if (verdict.kind() == Verdict::Kind::kPunt) {
    if (verdict.punt_reason() == PuntReason::kMulticast && sockets_.active()) [[unlikely]] {
      return ToGroup(p, Family::kIpv6, in, snapshot, now);
    }
    return Punt(p, verdict.punt_reason(), snapshot);
  }
  if (firewall_.active(Family::kIpv6)) return Enlist(p, Family::kIpv6, snapshot, now);
  if (verdict.kind() == Verdict::Kind::kDrop) return Drop(p, verdict.drop_reason());
  batch6_.packets[batch6_.count] = &p;
  batch6_.destinations[batch6_.count++] = destination;
}

namespace {

void LookupBatch(const stages::RoutingTables& tables, const Ipv4* destinations,
                 tables::RouteId* routes, size_t count) {
  tables.fib4.LookupBatch(destinations, routes, count);
}
void LookupBatch(const stages::RoutingTables& tables, const Ipv6* destinations,
                 tables::RouteId* routes, size_t count) {
  tables.fib6.LookupBatch(destinations, routes, count);
}

}  // namespace

// Three passes over the burst, so that the cache misses of one packet's FIB and neighbour lookups
// overlap with those of the others.
template <class Address>
void Pipeline::Route(Batch<Address>& b, const Interface& in, const Snapshot& snapshot, Nanos now) {
  LookupBatch(tables_, b.destinations.data(), b.routes.data(), b.count);
  for (size_t i = 0; i < b.count; ++i) {
    b.decisions[i] = Decide<Address>(*b.packets[i], b.routes[i], in, snapshot);
    const stages::RouteDecision& d = b.decisions[i];
    if (d.verdict.is_continue()) neighbors_.Prefetch(b.packets[i]->out, d.next_hop);
  }
  for (size_t i = 0; i < b.count; ++i) {
    Dispatch<Address>(*b.packets[i], b.decisions[i], in, snapshot, now);
  }
}

template <class Address>
stages::RouteDecision Pipeline::Decide(Packet& p, tables::RouteId id, const Interface& in,
                                       const Snapshot& snapshot) {
  if constexpr (std::is_same_v<Address, Ipv4>) {
    return stages::DecideIpv4(p, id, in, snapshot, tables_, hash_seed_);
  } else {
    return stages::DecideIpv6(p, id, in, snapshot, tables_, hash_seed_);
  }
}
template stages::RouteDecision Pipeline::Decide<Ipv4>(Packet&, tables::RouteId, const Interface&,
                                                      const Snapshot&);
template stages::RouteDecision Pipeline::Decide<Ipv6>(Packet&, tables::RouteId, const Interface&,
                                                      const Snapshot&);

template <class Address>
void Pipeline::Dispatch(Packet& p, const stages::RouteDecision& d, const Interface& in,
                        const Snapshot& snapshot, Nanos now) {
  constexpr bool kV4 = std::is_same_v<Address, Ipv4>;
  switch (d.verdict.kind()) {
    case Verdict::Kind::kContinue:
      return kV4 ? Forward4(p, d, snapshot, now) : Forward6(p, d, snapshot, now);
    case Verdict::Kind::kLocal:
      return kV4 ? Local4(p, in, snapshot, now) : Local6(p, in, snapshot, now);
    case Verdict::Kind::kPunt:
      return Punt(p, d.verdict.punt_reason(), snapshot);
    default:
      return kV4 ? Refuse4(p, d.verdict.drop_reason(), snapshot, now)
                 : Refuse6(p, d.verdict.drop_reason(), snapshot, now);
  }
}
template void Pipeline::Dispatch<Ipv4>(Packet&, const stages::RouteDecision&, const Interface&,
                                       const Snapshot&, Nanos);
template void Pipeline::Dispatch<Ipv6>(Packet&, const stages::RouteDecision&, const Interface&,
                                       const Snapshot&, Nanos);

void Pipeline::NeighborMessage(Packet& p, Verdict verdict, const Snapshot& snapshot, Nanos now) {
  switch (verdict.kind()) {
    case Verdict::Kind::kPunt:
      Punt(p, verdict.punt_reason(), snapshot);
      break;
    case Verdict::Kind::kDrop:
      Drop(p, verdict.drop_reason());
      break;
    default:
      counters_.of(p.in).local_packets.Add();
      tracer_.End(p, TraceOutcome::kLocal);
      // With a copy for the kernel the outbox has the frame, and the worker frees it.
      if (p.frame == packet::kNoFrame) {
        firewall_.TakeBackCounts(p, snapshot, now);
      } else {
        packet::FreePacket(outbox_.pool(), p);
      }
      break;
  }
  if (neighbors_.has_settled()) Settle(snapshot, now);
}

void Pipeline::Output(Packet& p, Family family, const IpAddress& next_hop,
                      const Snapshot& snapshot, Nanos now) {
  if (const Mac* const mac = neighbors_.Resolve(p.out, next_hop, now)) {
    const uint16_t ether_type =
        family == Family::kIpv4 ? wire::kEtherTypeIpv4 : wire::kEtherTypeIpv6;
    wire::WriteEthernet(p.data, *mac, snapshot.at(p.out).mac, ether_type);
    if (!outbox_.Transmit(p.out, p)) Drop(p, DropReason::kTxRingFull);
    return;
  }
  // Traffic to many addresses where nobody is must not take the frames of all other traffic.
  if (!MayHold()) return Drop(p, DropReason::kNeighborQueueFull);
  const Verdict verdict =
      neighbors_.Hold(p, p.out, next_hop, snapshot, now, outbox_, counters_);
  if (verdict.kind() == Verdict::Kind::kHeld) return;
  const DropReason reason = verdict.drop_reason();
  if (!p.in.valid()) return Drop(p, reason);
  if (family == Family::kIpv4) return Refuse4(p, reason, snapshot, now);
  Refuse6(p, reason, snapshot, now);
}

void Pipeline::Send(const Reply& reply, Family family, const Packet* cause,
                    const Snapshot& snapshot, Nanos now) {
  Packet message = reply.message;
  IpAddress next_hop = reply.next_hop;
  if (firewall_.active(family)) {
    const Judgement judgement = firewall_.OfOurOwn(message, reply.of_connection ? cause : nullptr,
                                                   next_hop, snapshot, now);
    // A rejected or punted one has nobody to tell.
    if (!judgement.accepted()) {
      counters_.generated[message.generated].Add();
      return Drop(message, DropReason::kFirewallRule);
    }
  }
  counters_.generated[message.generated].Add();
  Output(message, family, next_hop, snapshot, now);
}

void Pipeline::Settle(const Snapshot& snapshot, Nanos now) {
  Packet ready;
  while (neighbors_.TakeReady(ready, counters_)) {
    if (!outbox_.Transmit(ready.out, ready)) Drop(ready, DropReason::kTxRingFull);
  }
  stages::LostPacket lost;
  while (neighbors_.TakeLost(lost, counters_)) {
    if (!lost.report || !lost.packet.in.valid()) {
      Drop(lost.packet, lost.reason);
    } else if (lost.packet.l3()[0] >> 4 == 4) {
      Refuse4(lost.packet, lost.reason, snapshot, now);
    } else {
      Refuse6(lost.packet, lost.reason, snapshot, now);
    }
  }
}

void Pipeline::OnTimer(const Snapshot& snapshot, Nanos now) {
  SeeSnapshot(snapshot, now);
  if (sockets_.active()) [[unlikely]] sockets_.OnTimer(now);
  neighbors_.Advance(now, snapshot, outbox_, counters_);
  Settle(snapshot, now);
  firewall_.OnTimer(snapshot, now);
  defrag_.Advance(now);
  SettleFragments(snapshot, now);
  offload_.Scan(now, snapshot, neighbors_);
}

void Pipeline::ApplyPeerNeighbor(const stages::NeighborEvent& event, const Snapshot& snapshot,
                                 Nanos now) {
  neighbors_.ApplyPeerEvent(event, now);
  Settle(snapshot, now);
}

void Pipeline::ApplyKernelNeighbor(IfaceSlot slot, const IpAddress& address, const Mac& mac,
                                   uint16_t nud, const Snapshot& snapshot,
                                   Nanos now) {
  SeeSnapshot(snapshot, now);
  neighbors_.ApplyKernelNeighbor(slot, address, mac, nud, now);
  Settle(snapshot, now);
}

void Pipeline::RemoveKernelNeighbor(IfaceSlot slot, const IpAddress& address, Nanos now) {
  neighbors_.RemoveKernelNeighbor(slot, address, now);
}

void Pipeline::ForgetInterface(IfaceSlot slot) {
  neighbors_.InterfaceDown(slot);
  stages::LostPacket lost;
  while (neighbors_.TakeLost(lost, counters_)) Drop(lost.packet, lost.reason);
  defrag_.InterfaceDown(slot);
  stages::LostFragment fragment;
  while (defrag_.TakeLost(fragment, counters_)) Drop(fragment.packet, fragment.reason);
}

void Pipeline::Drop(const Packet& p, DropReason reason) {
  tracer_.End(p, TraceOutcome::kDropped, static_cast<uint8_t>(reason));
  if (p.flow != packet::kNoFlowIndex) {
    Packet ended = p;
    firewall_.Abandon(ended);
  }
  if (p.in.valid()) {
    counters_.of(p.in).dropped_packets[static_cast<size_t>(reason)].Add();
  } else {
    counters_.generated_dropped.Add();
  }
  packet::FreePacket(outbox_.pool(), p);
}

void Pipeline::Punt(Packet& p, PuntReason reason, const Snapshot& snapshot) {
  if (p.flow != packet::kNoFlowIndex) {
    firewall_.RestoreOriginal(p);
    firewall_.Abandon(p);
    p.flow = packet::kNoFlowIndex;
  }
  CompleteChecksum(p, snapshot);  // the kernel gets it from a TAP, without the sender's marks
  if (p.fragment_size != 0) return PuntPieces(p, reason, snapshot);
  // XDP keeps early rules from the one, so there is nothing that they have counted.
  if (reason != PuntReason::kDhcp) firewall_.TakeBackCounts(p, snapshot, now_);
  if (!outbox_.Punt(p, reason)) Drop(p, DropReason::kPuntFailed);
}

// A packet made for the kernel: a piece of another, or a copy. Takes it in any case. False: there is no
// room.
bool Pipeline::PuntPiece(Packet& piece, PuntReason reason, bool copy, const Snapshot& snapshot) {
  if (snapshot.left_out != nullptr) {
    static_cast<void>(stages::Parse(piece, snapshot.at(piece.in), outbox_.pool()));
    firewall_.TakeBackCounts(piece, snapshot, now_);
  }
  if (outbox_.Punt(piece, reason, copy)) return true;
  packet::FreePacket(outbox_.pool(), piece);
  return false;
}

// The kernel gets a datagram in the fragments it came in.
void Pipeline::PuntPieces(Packet& p, PuntReason reason, const Snapshot& snapshot) {
  bool punted = false;
  static_cast<void>(stages::Refragment(p, outbox_, [&](Packet& piece, bool first) {
    punted |= PuntPiece(piece, reason, /*copy=*/!first, snapshot) && first;
  }));
  if (!punted) return Drop(p, DropReason::kPuntFailed);
  tracer_.End(p, TraceOutcome::kPunted, static_cast<uint8_t>(reason));
  packet::FreePacket(outbox_.pool(), p);
}

void Pipeline::CompleteChecksum(Packet& p, const Snapshot& snapshot) {
  if (snapshot.at(p.in).checksum != tables::ChecksumMode::kComplete) return;
  const packet::FrameArena& arena = outbox_.pool().arena();
  const bool is_v4 = p.l3()[0] >> 4 == 4;
  const bool completed = is_v4 ? stages::CompletePartialChecksum4(arena, p)
                               : stages::CompletePartialChecksum6(arena, p);
  if (completed) counters_.of(p.in).checksums_completed.Add();
}

}  // namespace sluice::dataplane
