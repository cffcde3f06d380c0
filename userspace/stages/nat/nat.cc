#include "stages/nat/nat.h"

#include <algorithm>
#include <bit>
#include <optional>
#include <utility>

#include "base/reason.h"
#include "stages/nat/nat_address.h"
#include "tables/flow_owner.h"
#include "wire/flow_hash.h"
#include "wire/protocol.h"

namespace sluice::stages {

using packet::Verdict;
using tables::Flow;
using tables::FlowDirection;
using tables::FlowIndex;
using tables::FlowTuple;
using tables::kNoFlow;
using tables::NatKind;
using tables::NatRequest;
using tables::TcpState;

namespace {

constexpr uint32_t kMaxAttempts = 128;   // NF_NAT_MAX_ATTEMPTS
constexpr uint32_t kMinAttempts = 16;    // a smaller round is the last one
constexpr uint32_t kEvictAttempts = 32;  // NF_NAT_HARDER_THRESH
constexpr uint32_t kRandomAll = tables::kNatRandom | tables::kNatFullyRandom;

// A manip's share of the reply tuple. What packets will have as their source, answers have as their
// destination; an ICMP identifier is the same in both directions.
Ipv6& AddressIn(FlowTuple& reply, NatManip manip) {
  return manip == NatManip::kSource ? reply.destination : reply.source;
}
uint16_t& PortIn(FlowTuple& reply, NatManip manip) {
  if (tables::IsIcmp(reply.protocol) || manip == NatManip::kDestination) return reply.source_port;
  return reply.destination_port;
}

IpAddress AddressOf(Family family, const Ipv6& bits) {
  IpAddress address;
  address.family = family;
  address.bits = bits;
  return address;
}
IpAddress SourceOf(const FlowTuple& reply) { return AddressOf(reply.family, reply.destination); }
IpAddress DestinationOf(const FlowTuple& reply) { return AddressOf(reply.family, reply.source); }

bool HasNumber(uint8_t protocol) { return tables::HasPorts(protocol) || tables::IsIcmp(protocol); }

uint64_t SourceHash(const FlowTuple& original) {
  uint64_t h = wire::internal::Mix(original.protocol, original.source.hi);
  h = wire::internal::Mix(h, original.source.lo);
  return wire::internal::Mix(h, original.source_port);
}

// Whether a closing flow may lose its tuple to a new one: its peer will find that the new one's
// sequence numbers lie ahead (nf_nat_may_kill, nf_seq_has_advanced).
bool MayEvict(const Flow& old, const Flow& flow) {
  if (old.tcp.state < static_cast<uint8_t>(TcpState::kTimeWait) || !old.Has(tables::kFlowSourceNat))
    return false;
  if (old.Has(tables::kFlowFixedTimeout | tables::kFlowDying)) return false;
  return static_cast<int32_t>(flow.tcp.peers[0].end - old.tcp.peers[0].end) > 0;
}

}  // namespace

// nf_nat_range2.
struct Nat::Range {
  uint32_t flags = 0;
  IpAddress min;
  IpAddress max;
  uint16_t min_port = 0;
  uint16_t max_port = 0;

  bool Has(uint32_t flag) const { return (flags & flag) != 0; }
  bool HoldsPort(const FlowTuple& reply, NatManip manip) const {
    if (!HasNumber(reply.protocol)) return true;
    FlowTuple copy = reply;
    const uint16_t port = PortIn(copy, manip);
    return port >= min_port && port <= max_port;
  }
  // in_range: for source manips.
  bool Holds(const FlowTuple& reply) const {
    if (Has(tables::kNatMapAddresses) &&
        (reply.destination < min.bits || reply.destination > max.bits)) {
      return false;
    }
    return !Has(tables::kNatPortsGiven) || HoldsPort(reply, NatManip::kSource);
  }
};

namespace {

Nat::Options Sound(Nat::Options options) {
  if (options.ports.first > options.ports.last) std::swap(options.ports.first, options.ports.last);
  options.ports.first = std::max<uint16_t>(options.ports.first, 1);
  options.ports.last = std::max(options.ports.last, options.ports.first);
  options.worker_count = std::max(options.worker_count, 1u);
  options.source_cache = std::bit_ceil(std::max(options.source_cache, 1u));
  return options;
}

}  // namespace

Nat::Nat(const Options& options, const tables::FlowTable& table)
    : options_(Sound(options)),
      table_(table),
      rng_(options.seed),
      by_source_(std::make_unique<FlowIndex[]>(options_.source_cache)) {
  std::fill_n(by_source_.get(), options_.source_cache, kNoFlow);
}

Nat::Result Nat::Setup(Flow& flow, const NatRequest& request, const Context& context) {
  if (flow.Has(tables::kFlowConfirmed)) return {};
  const NatManip manip = ManipOf(request.kind);
  const FlowTuple& reply = flow.tuple(FlowDirection::kReply);
  const FlowTuple& original = flow.tuple(FlowDirection::kOriginal);
  Range range{request.flags, request.min_address, request.max_address, request.min_port,
              request.max_port};
  if (range.min_port > range.max_port) std::swap(range.min_port, range.max_port);
  std::optional<IpAddress> address;
  switch (request.kind) {
    case NatKind::kMasquerade:
      // A host that asks for its address (DHCP) has none to hide.
      if (original.family == Family::kIpv4 && original.source.lo == 0) {
        return SetupNull(flow, manip);
      }
      address =
          MasqueradeAddress(context.snapshot, context.out, context.next_hop, DestinationOf(reply));
      if (!address) return {.verdict = Verdict::Drop(DropReason::kNatNoAddress)};
      break;
    case NatKind::kRedirect:
      address = RedirectAddress(context.snapshot, context.in, DestinationOf(reply));
      if (!address) return {.verdict = Verdict::Drop(DropReason::kNatNoAddress)};
      break;
    case NatKind::kSource:
    case NatKind::kDestination:
      if (!range.Has(tables::kNatMapAddresses)) break;
      // A rule of the other family says nothing about this flow.
      if (range.min.family != reply.family) return SetupNull(flow, manip);
      if (range.Has(tables::kNatNetmap)) {
        address = Netmap(manip == NatManip::kSource ? SourceOf(reply) : DestinationOf(reply),
                         range.min, range.max);
      }
      break;
  }
  if (address) {
    range.min = range.max = *address;
    range.flags |= tables::kNatMapAddresses;
  }
  const Result result = Apply(flow, range, manip);
  if (request.kind == NatKind::kMasquerade && result.verdict.is_continue()) {
    flow.status |= tables::kFlowMasquerade;
    flow.masquerade_slot = context.out;
  }
  return result;
}

std::optional<Nat::Destination> Nat::Foresee(const Flow& flow, const NatRequest& request,
                                             const Context& context) const {
  const FlowTuple& reply = flow.tuple(FlowDirection::kReply);
  const auto address = ForeseeAddress(reply, request, context);
  if (!address) return {};
  Destination d{*address, reply.source_port};
  if (!tables::HasPorts(reply.protocol) || (request.flags & tables::kNatPortsGiven) == 0) return d;
  const auto [first, last] = std::minmax(request.min_port, request.max_port);
  if ((request.flags & tables::kNatPortOffset) != 0) {
    d.port = static_cast<uint16_t>(first + d.port % (last - first + 1));
  } else if (d.port < first || d.port > last || (request.flags & kRandomAll) != 0) {
    d.port = first;
  }
  d.guessed = first != last && (request.flags & tables::kNatPortOffset) == 0;
  return d;
}

std::optional<IpAddress> Nat::ForeseeAddress(const FlowTuple& reply, const NatRequest& request,
                                             const Context& context) {
  const IpAddress destination = DestinationOf(reply);
  if (request.kind == NatKind::kRedirect) {
    return RedirectAddress(context.snapshot, context.in, destination);
  }
  if (request.kind != NatKind::kDestination) return {};
  if ((request.flags & tables::kNatMapAddresses) == 0) return destination;
  if (request.min_address.family != reply.family) return {};
  if ((request.flags & tables::kNatNetmap) != 0) {
    return Netmap(destination, request.min_address, request.max_address);
  }
  return PickFromRange(SourceOf(reply), destination, request.min_address, request.max_address,
                       (request.flags & tables::kNatPersistent) != 0, true);
}

Nat::Result Nat::SetupNull(Flow& flow, NatManip manip) {
  if (flow.Has(tables::kFlowConfirmed)) return {};
  const FlowTuple& reply = flow.tuple(FlowDirection::kReply);
  const IpAddress address = manip == NatManip::kSource ? SourceOf(reply) : DestinationOf(reply);
  return Apply(flow, {.flags = tables::kNatMapAddresses, .min = address, .max = address}, manip);
}

Nat::Result Nat::Apply(Flow& flow, const Range& range, NatManip manip) {
  Result result;
  FlowTuple reply;
  if (!Choose(flow, range, manip, reply, result.evict)) {
    counters_.exhausted.Add();
    return {.verdict = Verdict::Drop(DropReason::kNatExhausted)};
  }
  const FlowTuple& before = flow.tuple(FlowDirection::kReply);
  const bool source = manip == NatManip::kSource;
  if (reply != before) {
    counters_.translated.Add();
    if (source && (reply.destination_port != before.destination_port ||
                   reply.source_port != before.source_port)) {
      counters_.port_changed.Add();
    }
    flow.tuple(FlowDirection::kReply) = reply;
    flow.status |= source ? tables::kFlowSourceNat : tables::kFlowDestinationNat;
  }
  flow.status |= source ? tables::kFlowSourceNatDone : tables::kFlowDestinationNatDone;
  if (result.evict != kNoFlow) counters_.evicted.Add();
  result.foreign_reply = !IsOurs(reply);
  if (source && result.foreign_reply) counters_.foreign.Add();
  return result;
}

// get_unique_tuple.
bool Nat::Choose(const Flow& flow, const Range& range, NatManip manip, FlowTuple& reply,
                 FlowIndex& evict) {
  const FlowTuple& current = flow.tuple(FlowDirection::kReply);
  const bool source = manip == NatManip::kSource;
  const bool random = range.Has(kRandomAll);
  reply = current;
  if (source && !random) {
    if (range.Holds(current)) {
      if (!IsTaken(flow, current)) return true;
    } else if (FindMapping(flow, range, reply) && !IsTaken(flow, reply)) {
      return true;
    }
    reply = current;
  }
  if (range.Has(tables::kNatMapAddresses)) {
    AddressIn(reply, manip) = PickFromRange(SourceOf(current), DestinationOf(current), range.min,
                                            range.max, range.Has(tables::kNatPersistent), !source)
                                  .bits;
  }
  if (!random) {
    if (!range.Has(tables::kNatPortsGiven)) {
      if (!IsTaken(flow, reply)) return true;
    } else if (!range.Has(tables::kNatPortOffset) && range.HoldsPort(reply, manip)) {
      if (!IsTaken(flow, reply)) return true;
      // The only port there is. A destination's clash may still be mended at the source.
      if (range.min_port == range.max_port) return !source;
    }
  }
  return SearchPort(flow, range, manip, reply, evict);
}

// find_appropriate_src: the mapping that another flow of the same source has, if it fits.
bool Nat::FindMapping(const Flow& flow, const Range& range, FlowTuple& reply) const {
  const FlowTuple& original = flow.tuple(FlowDirection::kOriginal);
  const FlowIndex index = by_source_[SourceHash(original) & (options_.source_cache - 1)];
  if (index == kNoFlow) return false;
  const Flow& other = table_.at(index);
  const FlowTuple& theirs = other.tuple(FlowDirection::kOriginal);
  if (!other.Has(tables::kFlowSourceNat) || theirs.protocol != original.protocol ||
      theirs.family != original.family || theirs.source != original.source ||
      theirs.source_port != original.source_port) {
    return false;
  }
  FlowTuple mapping = other.tuple(FlowDirection::kReply);
  reply.destination = mapping.destination;
  PortIn(reply, NatManip::kSource) = PortIn(mapping, NatManip::kSource);
  return range.Holds(reply) && (IsOurs(reply) || !HasNumber(reply.protocol));
}

// nf_nat_l4proto_unique_tuple. The numbers that may be chosen from.
Nat::Numbers Nat::NumbersFor(const Range& range, const FlowTuple& reply) const {
  if (range.Has(tables::kNatPortsGiven)) {
    return {range.min_port, uint32_t{range.max_port} - range.min_port + 1};
  }
  if (tables::IsIcmp(reply.protocol)) return {0, 65536};
  if (reply.destination_port < 512) return {1, 511};
  if (reply.destination_port < 1024) return {600, 424};
  return {options_.ports.first, uint32_t{options_.ports.last} - options_.ports.first + 1};
}

bool Nat::SearchPort(const Flow& flow, const Range& range, NatManip manip, FlowTuple& reply,
                     FlowIndex& evict) {
  const bool source = manip == NatManip::kSource;
  const bool icmp = tables::IsIcmp(reply.protocol);
  // Nothing to vary: a destination's port without a rule's leave, or no port at all. For
  // destinations the source's turn comes; what clashes still is dropped at its confirmation.
  if (!HasNumber(reply.protocol) || (!source && !icmp && !range.Has(tables::kNatPortsGiven))) {
    return true;
  }
  const Numbers numbers = NumbersFor(range, reply);
  uint16_t& number = PortIn(reply, manip);
  // A destination takes the first free one of the range unless the rule says random.
  uint32_t offset = range.Has(tables::kNatPortOffset)     ? number
                    : source || range.Has(kRandomAll) ? Random16()
                                                          : 0;
  // A small range may hold none that leads answers to this worker: then any, and the caller is
  // told.
  const bool own = OwnNumberIn(numbers, reply, manip);
  const bool may_evict = reply.protocol == wire::kProtocolTcp &&
                         flow.tcp.state == static_cast<uint8_t>(TcpState::kSynSent);
  uint32_t attempts = std::min(numbers.count, kMaxAttempts);
  for (;;) {
    uint32_t left = attempts;
    for (uint32_t seen = 0; seen < numbers.count && left > 0; ++seen, ++offset) {
      number = static_cast<uint16_t>(numbers.first + offset % numbers.count);
      if (own && !IsOurs(reply)) continue;
      const auto found = table_.Find(reply, table_.Hash(reply));
      if (!found.found() || IsTwin(flow, found.flow)) return true;
      if (may_evict && left <= kEvictAttempts && found.direction == FlowDirection::kReply &&
          MayEvict(table_.at(found.flow), flow)) {
        evict = found.flow;
        return true;
      }
      --left;
    }
    if (attempts >= numbers.count || attempts < kMinAttempts) break;
    attempts /= 2;
    offset = Random16();
  }
  return !source;
}

bool Nat::OwnNumberIn(const Numbers& numbers, FlowTuple reply, NatManip manip) const {
  // Among this many the chance of none is below 10^-13.
  const uint32_t enough = std::min(numbers.count, 32 * options_.worker_count);
  for (uint32_t i = 0; i < enough; ++i) {
    PortIn(reply, manip) = static_cast<uint16_t>(numbers.first + i);
    if (IsOurs(reply)) return true;
  }
  return false;
}

// A flow with the same original tuple is this one again (its first packet was doubled): not a clash
// here, confirmation decides between them.
bool Nat::IsTwin(const Flow& flow, FlowIndex other) const {
  return table_.at(other).tuple(FlowDirection::kOriginal) == flow.tuple(FlowDirection::kOriginal);
}

bool Nat::IsTaken(const Flow& flow, const FlowTuple& reply) const {
  const auto found = table_.Find(reply, table_.Hash(reply));
  return found.found() && !IsTwin(flow, found.flow);
}

bool Nat::IsOurs(const FlowTuple& reply) const {
  return options_.worker_count == 1 ||
         tables::OwnerOf(reply, options_.worker_count) == options_.worker;
}

Verdict Nat::CheckOut(const Flow& flow, FlowDirection direction, IfaceSlot out) {
  if (flow.Has(tables::kFlowMasquerade) && direction == FlowDirection::kOriginal &&
      flow.masquerade_slot != out) {
    return Verdict::Drop(DropReason::kNatRouteChanged);
  }
  return Verdict::Continue();
}

void Nat::Remember(FlowIndex index) {
  const Flow& flow = table_.at(index);
  if (!flow.Has(tables::kFlowSourceNat)) return;
  by_source_[SourceHash(flow.tuple(FlowDirection::kOriginal)) & (options_.source_cache - 1)] =
      index;
}

}  // namespace sluice::stages
