// Reassembly of fragments ahead of the rules, so that rules see ports and connections: what
// nf_defrag_ipv4 and nf_defrag_ipv6 do in PREROUTING (priority -400) while connection tracking is
// active. Rules: net/ipv4/ip_fragment.c, net/ipv4/inet_fragment.c,
// net/ipv6/netfilter/nf_conntrack_reasm.c (6.1 to 6.18), RFC 791, 815, 3168 section 5.3, 5722, 8200
// section 4.5. datagram.h has them in detail, assemble.h builds the whole.
//
// A held fragment stays in the frame it came in; a completed datagram is one Packet whose segments
// are those frames: no payload is copied. Only an L4 header that came in several tiny fragments is
// gathered in the first segment (64 bytes).
//
// Where to call it (dataplane/pipeline.cc):
//   1. Classify, after Parse and before ND and CheckBeforeLookup, while connection tracking is
//      active for the family: if (p.Has(kFlagFragment | kFlagFragmentHeader)) Add(p, ...). All fragments
//      of a datagram must reach one worker: with several, hand over by the addresses first.
//   2. After each Add that left has_lost(), after Advance and after InterfaceDown: TakeLost until it
//      is empty; Drop each with its reason. One with `report` may be answered (Refuse4/6): IPv6
//      always, IPv4 only if its destination is this machine's.
//   3. OnTimer: Advance(now). NextDeadline() is part of the pipeline's.
//   4. ForgetInterface(slot): InterfaceDown(slot).
//   5. Forward4/6: DecideMtu4/6 instead of comparing lengths, Ipv6Fragmenter beside Ipv4Fragmenter.
//   6. Punt: what has a fragment_size goes as Refragment makes it (fragment/refragment.h).
//
// Who counts what: held_packets up in Add (Held), down in TakeLost and on completion;
// merged_packets on completion, for all fragments but the last to arrive, whose `in` the whole has.
// The rest is the caller's.
//
// Limits, all per worker: datagrams, frames (those of the sysctls per family: bytes by a chunk's
// size; 0 is none at all), 128 fragments and 255 frames per datagram. At a limit the oldest
// datagram of the source (of 64 groups of sources per family, by a hash with a seed) that holds
// most frames is discarded as kFragmentLimit, so that a flood pays for itself. When the pool is
// down to keep_free frames, no more is held than is. The kernel refuses new fragments instead, and
// knows no limit per datagram; ipfrag_max_dist is not followed.
//
// Thread: the owning worker. O(1) per fragment that arrives in order, else O(fragments of its
// datagram). No allocation after construction: about 130 bytes per datagram of the limit.
#ifndef SLUICE_STAGES_DEFRAG_DEFRAG_H_
#define SLUICE_STAGES_DEFRAG_DEFRAG_H_

#include <array>
#include <cstdint>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "base/worker_counters.h"
#include "packet/frame_pool.h"
#include "packet/packet.h"
#include "packet/verdict.h"
#include "stages/defrag/datagram.h"
#include "stages/defrag/fragment_info.h"
#include "tables/snapshot.h"
#include "tables/timer_wheel.h"

namespace sluice::stages {

struct DefragLimits {
  uint32_t datagrams = 1024;
  uint32_t frames = 2048;     // in all datagrams together: a share of the worker's pool
  uint32_t keep_free = 1024;  // frames of the pool that others must find
};

// A fragment whose datagram will not be.
struct LostFragment {
  packet::Packet packet;
  DropReason reason = DropReason::kFragmentTimeout;
  bool report = false;  // the first fragment, in a timeout
};

class Defrag {
 public:
  Defrag(const packet::FrameArena& arena, const DefragLimits& limits, uint64_t seed, Nanos start);

  // Takes a parsed packet with kFlagFragment or kFlagFragmentHeader.
  //   Held      it waits for others; or it was the last, and the whole is bad: all are lost then
  //   Continue  `p` is the whole datagram now: fragment_size set, offsets and flags those of a
  //             packet that arrived whole. Or it is as before, flags too, where the kernel lets a
  //             fragment pass (IPv6: a first one without the whole L4 header, an end off an 8-byte
  //             boundary)
  //   Drop      `p` is the caller's to drop with this reason; others of its datagram may be lost
  packet::Verdict Add(packet::Packet& p, const tables::DefragSettings& settings, Nanos now,
                      packet::FramePool& pool, WorkerCounters& counters);

  // Gives up what has waited too long.
  void Advance(Nanos now);
  Nanos NextDeadline() const { return timers_.NextDeadline(); }
  // Gives up every datagram of which a fragment arrived by this interface.
  void InterfaceDown(IfaceSlot slot);

  bool has_lost() const { return lost_ != packet::kNoFrame; }
  // False: there is none.
  bool TakeLost(LostFragment& lost, WorkerCounters& counters);

  // For metrics and tests.
  uint32_t datagrams() const { return used_; }
  uint32_t frames() const { return frames_by_family_[0] + frames_by_family_[1]; }  // that they hold
  const DefragLimits& limits() const { return limits_; }

 private:
  using Packet = packet::Packet;

  static constexpr uint32_t kNone = UINT32_MAX;
  static constexpr uint32_t kFamilies = 2;
  static constexpr uint32_t kGroupsPerFamily = 64;

  struct Entry {
    Datagram datagram;
    uint32_t next_in_bucket = kNone;  // or in the list of free entries
    uint32_t older = kNone;           // within its group
    uint32_t newer = kNone;
    uint32_t bucket = 0;
    uint32_t group = 0;
    uint64_t age = 0;  // counts up
    bool used = false;
  };
  // Sources that share a hash: their datagrams, the oldest first, and what they hold.
  struct Group {
    uint32_t oldest = kNone;
    uint32_t newest = kNone;
    uint32_t frames = 0;
  };

  uint32_t Find(const FragmentKey& key, uint32_t bucket) const;
  uint32_t Create(const FragmentKey& key, uint32_t bucket, Nanos deadline);
  // Off all lists; its frames are no longer counted as held.
  void Remove(uint32_t entry);
  // To the lost ones, with a reason.
  void Lose(uint32_t entry, DropReason reason, bool report = false);
  // The entry to discard for the sake of others: of this family, or of both.
  uint32_t Victim(uint32_t first_group, uint32_t group_count) const;
  // False: there is no room for `frames` more, or `keep` had to go.
  bool MakeRoom(uint32_t frames, uint32_t family, uint64_t threshold, uint32_t pool_free,
                uint32_t keep);
  packet::Verdict Complete(uint32_t entry, Packet& p, packet::FramePool& pool,
                           WorkerCounters& counters);

  const packet::FrameArena& arena_;
  const DefragLimits limits_;
  const uint64_t seed_;
  std::vector<Entry> entries_;
  std::vector<uint32_t> buckets_;
  std::array<Group, kFamilies * kGroupsPerFamily> groups_;
  std::array<uint32_t, kFamilies> frames_by_family_{};
  tables::TimerWheel timers_;
  uint32_t free_ = kNone;
  uint32_t used_ = 0;
  uint64_t created_ = 0;
  packet::FrameIndex lost_ = packet::kNoFrame;  // by HeldPacket::next
  packet::FrameIndex lost_last_ = packet::kNoFrame;
};

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_DEFRAG_DEFRAG_H_
