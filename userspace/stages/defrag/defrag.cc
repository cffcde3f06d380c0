#include "stages/defrag/defrag.h"

#include <algorithm>
#include <bit>

#include "stages/defrag/assemble.h"
#include "wire/flow_hash.h"

namespace sluice::stages {

using packet::FrameIndex;
using packet::kNoFrame;
using packet::Packet;
using packet::Verdict;

namespace {

constexpr Nanos kTimerGranularity = Millis(100);
constexpr size_t kTimerSlots = 1024;  // a turn is longer than the usual timeouts

}  // namespace

Defrag::Defrag(const packet::FrameArena& arena, const DefragLimits& limits, uint64_t seed,
               Nanos start)
    : arena_(arena),
      limits_(limits),
      seed_(seed),
      entries_(limits.datagrams),
      buckets_(std::bit_ceil(std::max(limits.datagrams, 1u)), kNone),
      timers_(limits.datagrams, kTimerGranularity, kTimerSlots, start) {
  for (uint32_t i = limits.datagrams; i-- > 0;) {
    entries_[i].next_in_bucket = free_;
    free_ = i;
  }
}

Verdict Defrag::Add(Packet& p, const tables::DefragSettings& settings, Nanos now,
                    packet::FramePool& pool, WorkerCounters& counters) {
  const bool is_v4 = p.l3()[0] >> 4 == 4;
  Fragment f;
  if (!(is_v4 ? ReadFragment4(p, f) : ReadFragment6(p, f))) return Verdict::Continue();
  packet::TrimPacket(pool, p, f.data_at + (f.end - f.begin));

  const uint32_t hash = wire::FlowHashL4(f.key.source, f.key.destination, f.key.protocol,
                                         f.key.identification, seed_);
  const uint32_t bucket = hash & static_cast<uint32_t>(buckets_.size() - 1);
  uint32_t entry = Find(f.key, bucket);
  const uint64_t threshold = is_v4 ? settings.high_thresh4 : settings.high_thresh6;
  if (!MakeRoom(p.segment_count, is_v4 ? 0 : 1, threshold / arena_.chunk_size(), pool.size(),
                entry)) {
    return Verdict::Drop(DropReason::kFragmentLimit);
  }
  if (entry == kNone) {
    entry = Create(f.key, bucket, now + (is_v4 ? settings.timeout4 : settings.timeout6));
    if (entry == kNone) return Verdict::Drop(DropReason::kFragmentLimit);
  }
  switch (entries_[entry].datagram.Add(arena_, p, f)) {
    case Datagram::Outcome::kHeld:
      break;
    case Datagram::Outcome::kComplete:
      return Complete(entry, p, pool, counters);
    case Datagram::Outcome::kRefused:
      return Verdict::Drop(DropReason::kFragmentInvalid);
    case Datagram::Outcome::kPasses:
      Lose(entry, DropReason::kFragmentInvalid);
      return Verdict::Continue();
    case Datagram::Outcome::kInvalid:
      Lose(entry, DropReason::kFragmentInvalid);
      return Verdict::Drop(DropReason::kFragmentInvalid);
    case Datagram::Outcome::kOverlap:
      Lose(entry, DropReason::kFragmentOverlap);
      return Verdict::Drop(DropReason::kFragmentOverlap);
    case Datagram::Outcome::kLimit:
      Lose(entry, DropReason::kFragmentLimit);
      return Verdict::Drop(DropReason::kFragmentLimit);
  }
  frames_by_family_[is_v4 ? 0 : 1] += p.segment_count;
  groups_[entries_[entry].group].frames += p.segment_count;
  if (p.in.valid()) counters.of(p.in).held_packets.Add();
  return Verdict::Held();
}

// `p` is in the datagram's list, but not counted as held.
Verdict Defrag::Complete(uint32_t entry, Packet& p, packet::FramePool& pool,
                         WorkerCounters& counters) {
  const Datagram& d = entries_[entry].datagram;
  const bool may_be = MayAssemble(arena_, d);
  // Counted as held with the rest, so that what follows treats all alike.
  if (p.in.valid()) counters.of(p.in).held_packets.Add();
  frames_by_family_[d.IsIpv4() ? 0 : 1] += p.segment_count;
  groups_[entries_[entry].group].frames += p.segment_count;
  if (!may_be) {
    Lose(entry, DropReason::kFragmentInvalid);
    return Verdict::Held();  // for as long as it is among the lost
  }
  for (FrameIndex frame = d.first(); frame != kNoFrame;) {
    const packet::HeldPacket& held = packet::HeldOf(arena_, frame);
    if (held.packet.in.valid()) {
      InterfaceCounters& c = counters.of(held.packet.in);
      c.held_packets.Sub();
      if (frame != p.frame) c.merged_packets.Add();
    }
    frame = held.next;
  }
  const Datagram complete = d;
  Remove(entry);
  p = Assemble(pool, complete, p.in);
  return Verdict::Continue();
}

uint32_t Defrag::Find(const FragmentKey& key, uint32_t bucket) const {
  uint32_t entry = buckets_[bucket];
  while (entry != kNone && !(entries_[entry].datagram.key() == key)) {
    entry = entries_[entry].next_in_bucket;
  }
  return entry;
}

uint32_t Defrag::Create(const FragmentKey& key, uint32_t bucket, Nanos deadline) {
  if (free_ == kNone) {
    const uint32_t victim = Victim(0, kFamilies * kGroupsPerFamily);
    if (victim == kNone) return kNone;  // a limit of none at all
    Lose(victim, DropReason::kFragmentLimit);
  }
  const uint32_t entry = free_;
  Entry& e = entries_[entry];
  free_ = e.next_in_bucket;
  const uint32_t family = key.version == 4 ? 0 : 1;
  const uint32_t source = wire::FlowHashL3(key.source, Ipv6{}, 0, 0, seed_);
  e.datagram.Start(key);
  e.used = true;
  e.age = created_++;
  e.bucket = bucket;
  e.next_in_bucket = buckets_[bucket];
  buckets_[bucket] = entry;
  e.group = family * kGroupsPerFamily + source % kGroupsPerFamily;
  Group& group = groups_[e.group];
  e.older = group.newest;
  e.newer = kNone;
  (e.older == kNone ? group.oldest : entries_[e.older].newer) = entry;
  group.newest = entry;
  ++used_;
  timers_.Schedule(entry, deadline);
  return entry;
}

void Defrag::Remove(uint32_t entry) {
  Entry& e = entries_[entry];
  timers_.Cancel(entry);
  uint32_t* link = &buckets_[e.bucket];
  while (*link != entry) link = &entries_[*link].next_in_bucket;
  *link = e.next_in_bucket;
  Group& group = groups_[e.group];
  (e.older == kNone ? group.oldest : entries_[e.older].newer) = e.newer;
  (e.newer == kNone ? group.newest : entries_[e.newer].older) = e.older;
  group.frames -= e.datagram.frames();
  frames_by_family_[e.datagram.IsIpv4() ? 0 : 1] -= e.datagram.frames();
  e.used = false;
  e.next_in_bucket = free_;
  free_ = entry;
  --used_;
}

void Defrag::Lose(uint32_t entry, DropReason reason, bool report) {
  const Datagram& d = entries_[entry].datagram;
  const FrameIndex first = d.first();
  if (first != kNoFrame) {
    (lost_ == kNoFrame ? lost_ : packet::HeldOf(arena_, lost_last_).next) = first;
    for (FrameIndex frame = first; frame != kNoFrame;) {
      FragmentOf(arena_, frame).lost_reason = reason;
      FragmentOf(arena_, frame).report = report && d.has_first() && frame == first;
      lost_last_ = frame;
      frame = packet::HeldOf(arena_, frame).next;
    }
  }
  Remove(entry);
}

bool Defrag::TakeLost(LostFragment& lost, WorkerCounters& counters) {
  if (lost_ == kNoFrame) return false;
  const FrameIndex frame = lost_;
  lost_ = packet::HeldOf(arena_, frame).next;
  lost.packet = packet::HeldOf(arena_, frame).packet;
  lost.reason = FragmentOf(arena_, frame).lost_reason;
  lost.report = FragmentOf(arena_, frame).report;
  if (lost.packet.in.valid()) counters.of(lost.packet.in).held_packets.Sub();
  return true;
}

uint32_t Defrag::Victim(uint32_t first_group, uint32_t group_count) const {
  const Group* most = nullptr;
  for (uint32_t i = first_group; i < first_group + group_count; ++i) {
    const Group& g = groups_[i];
    if (g.oldest == kNone) continue;
    const bool more = most == nullptr || g.frames > most->frames ||
                      (g.frames == most->frames &&
                       entries_[g.oldest].age < entries_[most->oldest].age);
    if (more) most = &g;
  }
  return most == nullptr ? kNone : most->oldest;
}

bool Defrag::MakeRoom(uint32_t frames_more, uint32_t family, uint64_t threshold,
                      uint32_t pool_free, uint32_t keep) {
  if (frames_more > threshold || frames_more > limits_.frames) return false;
  // A short pool is relieved by as much as comes in.
  const uint32_t most = pool_free < limits_.keep_free ? std::min(limits_.frames, frames())
                                                      : limits_.frames;
  for (;;) {
    uint32_t victim = kNone;
    if (frames_by_family_[family] + frames_more > threshold) {
      victim = Victim(family * kGroupsPerFamily, kGroupsPerFamily);
    } else if (frames() + frames_more > most) {
      victim = Victim(0, kFamilies * kGroupsPerFamily);
    } else {
      return true;
    }
    if (victim == kNone) return false;
    Lose(victim, DropReason::kFragmentLimit);
    if (victim == keep) return false;
  }
}

void Defrag::Advance(Nanos now) {
  timers_.Advance(now, [&](uint32_t entry) { Lose(entry, DropReason::kFragmentTimeout, true); });
}

void Defrag::InterfaceDown(IfaceSlot slot) {
  for (uint32_t entry = 0; entry < entries_.size(); ++entry) {
    if (!entries_[entry].used) continue;
    FrameIndex frame = entries_[entry].datagram.first();
    while (frame != kNoFrame && packet::HeldOf(arena_, frame).packet.in != slot) {
      frame = packet::HeldOf(arena_, frame).next;
    }
    if (frame != kNoFrame) Lose(entry, DropReason::kInterfaceDown);
  }
}

}  // namespace sluice::stages
