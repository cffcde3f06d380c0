#include "tables/flow_table.h"

#include <algorithm>
#include <cstring>

#include "base/rng.h"
#include "wire/protocol.h"

namespace sluice::tables {
namespace {

// Both halves of the 128-bit product, folded: the mixing step of wyhash (Wang Yi, 2019).
uint64_t Mix(uint64_t a, uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  const Wide product = Wide{a} * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

uint64_t PortsAndProtocol(const FlowTuple& t) {
  return uint64_t{t.source_port} << 48 | uint64_t{t.destination_port} << 32 |
         uint64_t{t.protocol} << 8 | static_cast<uint8_t>(t.family);
}

uint32_t Reference(FlowIndex flow, FlowDirection direction, uint64_t high_tag) {
  return static_cast<uint32_t>(high_tag) | flow << 1 | static_cast<uint32_t>(direction);
}
constexpr uint32_t kHighTagMask = uint32_t{31} << 27;
FlowIndex FlowOf(uint32_t reference) { return (reference & ~kHighTagMask) >> 1; }
FlowDirection DirectionOf(uint32_t reference) {
  return static_cast<FlowDirection>(reference & 1);
}

// The end of a connection, for which the kernel may drop it early.
bool IsClosing(const Flow& flow) {
  const uint8_t protocol = flow.tuples[0].protocol;
  if (protocol == wire::kProtocolTcp) {
    const auto state = static_cast<TcpState>(flow.tcp.state);
    return state >= TcpState::kFinWait && state <= TcpState::kClose;
  }
  if (protocol == wire::kProtocolSctp) {
    const auto state = static_cast<SctpState>(flow.sctp.state);
    return state >= SctpState::kShutdownSent && state <= SctpState::kShutdownAckSent;
  }
  return false;
}

uint32_t BucketCount(uint32_t capacity, uint32_t places) {
  // Three quarters full with two entries per flow.
  return static_cast<uint32_t>(uint64_t{capacity} * 2 * 4 / (uint64_t{places} * 3)) + 2;
}

}  // namespace

FlowTable::FlowTable(const Options& options)
    : capacity_(std::clamp<uint32_t>(options.capacity, 1, kMaxCapacity)),
      bucket_count_(BucketCount(capacity_, kPlaces)),
      per_source_(options.per_source),
      limit_(capacity_),
      flow_memory_(size_t{capacity_} * sizeof(Flow), true),
      bucket_memory_(size_t{bucket_count_} * sizeof(Bucket), true),
      link_memory_(size_t{capacity_} * sizeof(FlowIndex), true),
      flows_(static_cast<Flow*>(flow_memory_.data())),
      buckets_(static_cast<Bucket*>(bucket_memory_.data())),
      links_(static_cast<FlowIndex*>(link_memory_.data())),
      tick_(options.start),
      timers_(capacity_, kTimerGranularity,
              static_cast<size_t>(kMaxTimerDelay / kTimerGranularity) + 2, options.start),
      sources_(per_source_ == 0 ? 0 : kSourceRows * kSourceColumns) {
  Rng rng(options.hash_seed);
  for (uint64_t& secret : secrets_) secret = rng.Next() | 1;
}

uint64_t FlowTable::Hash(const FlowTuple& t) const {
  const uint64_t source = Mix(t.source.hi ^ secrets_[0], t.source.lo ^ secrets_[1]);
  const uint64_t destination = Mix(t.destination.hi ^ secrets_[2], t.destination.lo ^ secrets_[3]);
  const uint64_t hash =
      Mix(source ^ PortsAndProtocol(t) ^ secrets_[4], destination ^ secrets_[5]);
  return hash == 0 ? 1 : hash;
}

// A bit for each place with this tag.
uint32_t FlowTable::Matches(const Bucket& bucket, uint8_t tag) {
  using Vector = char __attribute__((vector_size(16)));
  Vector tags;
  std::memcpy(&tags, &bucket, sizeof tags);
  const auto wanted = static_cast<char>(tag);
  const Vector all = {wanted, wanted, wanted, wanted, wanted, wanted, wanted, wanted,
                      wanted, wanted, wanted, wanted, wanted, wanted, wanted, wanted};
  const Vector equal = reinterpret_cast<Vector>(tags == all);
  return static_cast<uint32_t>(__builtin_ia32_pmovmskb128(equal)) & ((1u << kPlaces) - 1);
}

void FlowTable::PrefetchFlow(uint64_t hash) const {
  const Bucket& bucket = BucketOf(hash);
  const uint32_t matches = Matches(bucket, TagOf(hash));
  if (matches == 0) return;
  const auto* line = reinterpret_cast<const char*>(
      &flows_[FlowOf(bucket.references[static_cast<size_t>(__builtin_ctz(matches))])]);
  for (size_t at = 0; at < sizeof(Flow); at += 64) __builtin_prefetch(line + at, 1);
}

FlowTable::Found FlowTable::Find(const FlowTuple& tuple, uint64_t hash) const {
  const uint8_t tag = TagOf(hash);
  const uint32_t high_tag = HighTagOf(hash);
  for (uint32_t at = IndexOf(hash);; at = Next(at)) {
    const Bucket& bucket = buckets_[at];
    for (uint32_t matches = Matches(bucket, tag); matches != 0; matches &= matches - 1) {
      const uint32_t reference = bucket.references[static_cast<size_t>(__builtin_ctz(matches))];
      if ((reference & kHighTagMask) != high_tag) continue;
      const FlowIndex flow = FlowOf(reference);
      const FlowDirection direction = DirectionOf(reference);
      if (flows_[flow].tuple(direction) == tuple) return {flow, direction};
    }
    if (bucket.passed == 0) return {};
  }
}

void FlowTable::AddEntry(uint64_t hash, uint32_t reference) {
  for (uint32_t at = IndexOf(hash);; at = Next(at)) {
    Bucket& bucket = buckets_[at];
    const uint32_t unused = Matches(bucket, 0);
    if (unused != 0) {
      const auto place = static_cast<size_t>(__builtin_ctz(unused));
      bucket.tags[place] = TagOf(hash);
      bucket.references[place] = reference;
      return;
    }
    ++bucket.passed;
  }
}

void FlowTable::RemoveEntry(uint64_t hash, uint32_t reference) {
  for (uint32_t at = IndexOf(hash);; at = Next(at)) {
    Bucket& bucket = buckets_[at];
    for (uint32_t matches = Matches(bucket, TagOf(hash)); matches != 0; matches &= matches - 1) {
      const auto place = static_cast<size_t>(__builtin_ctz(matches));
      if (bucket.references[place] != reference) continue;
      bucket.tags[place] = 0;
      return;
    }
    --bucket.passed;  // it is behind
  }
}

void FlowTable::StartTick(Nanos now) {
  tick_ = now;
  if (++stamp_ == 0) stamp_ = 1;
  if (removed_ == kNoFlow) return;
  links_[removed_last_] = free_;
  free_ = removed_;
  removed_ = removed_last_ = kNoFlow;
}

FlowIndex FlowTable::TakeFree() {
  if (free_ != kNoFlow) {
    const FlowIndex flow = free_;
    free_ = links_[flow];
    return flow;
  }
  return fresh_ < capacity_ ? fresh_++ : kNoFlow;
}

FlowIndex FlowTable::ChooseVictim() {
  FlowIndex closing = kNoFlow;
  const uint32_t candidates = std::min(kEvictionCandidates, fresh_);
  for (uint32_t i = 0; i < candidates; ++i) {
    const FlowIndex candidate = hand_;
    hand_ = hand_ + 1 >= fresh_ ? 0 : hand_ + 1;
    const Flow& flow = flows_[candidate];
    if (!flow.Has(kFlowConfirmed) || flow.Has(kFlowDying) || flow.used_at == stamp_) continue;
    if (!flow.Has(kFlowAssured) || flow.expires <= tick_) return candidate;
    if (closing == kNoFlow && IsClosing(flow)) closing = candidate;
  }
  return closing;
}

void FlowTable::Free(FlowIndex flow) {
  flows_[flow].status = 0;
  links_[flow] = free_;
  free_ = flow;
  size_.Sub();
}

bool FlowTable::Insert(FlowIndex index) {
  Flow& flow = flows_[index];
  const std::array<uint64_t, 2> hashes = {Hash(flow.tuples[0]), Hash(flow.tuples[1])};
  for (size_t i = 0; i < 2; ++i) {
    if (Find(flow.tuples[i], hashes[i]).found()) return false;
  }
  for (size_t i = 0; i < 2; ++i) {
    AddEntry(hashes[i], Reference(index, static_cast<FlowDirection>(i), HighTagOf(hashes[i])));
  }
  flow.status |= kFlowConfirmed;
  if (per_source_ != 0 && !flow.Has(kFlowUncounted)) CountSource(flow.tuples[0], 1);
  SetTimer(index);
  return true;
}

void FlowTable::Remove(FlowIndex index) {
  Flow& flow = flows_[index];
  if (flow.Has(kFlowOffload) && observer_ != nullptr) observer_->Removed(index);
  for (size_t i = 0; i < 2; ++i) {
    const uint64_t hash = Hash(flow.tuples[i]);
    RemoveEntry(hash, Reference(index, static_cast<FlowDirection>(i), HighTagOf(hash)));
  }
  timers_.Cancel(index);
  if (per_source_ != 0 && !flow.Has(kFlowUncounted)) CountSource(flow.tuples[0], UINT32_MAX);
  flow.status |= kFlowDying;
  links_[index] = removed_;
  if (removed_ == kNoFlow) removed_last_ = index;
  removed_ = index;
  size_.Sub();
}

void FlowTable::SetTimer(FlowIndex flow) {
  timers_.Schedule(flow, std::min(flows_[flow].expires, tick_ + kMaxTimerDelay));
}

void FlowTable::Hasten(FlowIndex flow) {
  if (timers_.IsSet(flow)) SetTimer(flow);
}

std::array<size_t, FlowTable::kSourceRows> FlowTable::SourceCounters(
    const FlowTuple& original) const {
  // Whoever has one address of a /64 has all of them.
  const Ipv6 source = original.family == Family::kIpv4 ? original.source
                                                       : Ipv6(original.source.hi, 0);
  const uint64_t hash = Mix(source.hi ^ secrets_[2],
                            source.lo ^ static_cast<uint64_t>(original.family) << 56 ^ secrets_[1]);
  return {hash % kSourceColumns, kSourceColumns + (hash >> 32) % kSourceColumns};
}

void FlowTable::CountSource(const FlowTuple& original, uint32_t change) {
  for (const size_t at : SourceCounters(original)) sources_[at] += change;
}

bool FlowTable::SourceHasRoom(const FlowTuple& original) const {
  if (per_source_ == 0) return true;
  uint32_t count = UINT32_MAX;
  for (const size_t at : SourceCounters(original)) count = std::min(count, sources_[at]);
  return count < per_source_;
}

}  // namespace sluice::tables
