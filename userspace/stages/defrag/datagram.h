// One datagram of which fragments wait: what has come, and whether another fragment fits in.
//
// inet_frag_queue_insert, ip_frag_queue and nf_ct_frag6_queue decide:
//   all of its bytes are there already, in one run       ignored (IPFRAG_DUP)
//   it overlaps otherwise                                the whole datagram is discarded
//   another end than one before, or beyond the end       IPv4: the datagram; IPv6: it alone
//   empty                                                IPv4: the datagram; IPv6: it alone
//   more to follow, but no multiple of 8 bytes           IPv4: cut; IPv6: it passes as it is, the
//                                                        rest of the datagram is discarded
//   beyond 65535 bytes                                   IPv4: the datagram; IPv6: it alone
// A run is what came in order and without a gap at the end that the datagram then had; a fragment
// that fills a gap is a run of its own.
//
// ECN (RFC 3168 section 5.3): not-ECT together with anything else discards the datagram; CE in one
// marks the whole.
//
// Fragments stay in their frames: the Packet in HeldPacket, the rest in HeldFragment beside it; a
// list in the order of the datagram.
#ifndef SLUICE_STAGES_DEFRAG_DATAGRAM_H_
#define SLUICE_STAGES_DEFRAG_DATAGRAM_H_

#include <cstdint>

#include "base/reason.h"
#include "packet/frame_arena.h"
#include "packet/packet.h"
#include "stages/defrag/fragment_info.h"

namespace sluice::stages {

// In the first frame of a fragment that waits, at kHolderNoteOffset.
struct HeldFragment {
  uint32_t begin = 0;
  uint32_t end = 0;
  uint32_t data_at = 0;
  uint16_t next_header_at = 0;
  uint16_t fragment_header_at = 0;
  bool begins_run = true;
  DropReason lost_reason = DropReason::kFragmentTimeout;  // once its datagram has been given up
  bool report = false;
};
static_assert(packet::kHolderNoteOffset + sizeof(HeldFragment) <= packet::kHeadroom);

inline HeldFragment& FragmentOf(const packet::FrameArena& arena, packet::FrameIndex frame) {
  return *reinterpret_cast<HeldFragment*>(arena.Chunk(frame) + packet::kHolderNoteOffset);
}

class Datagram {
 public:
  static constexpr uint32_t kMaxFragments = 128;
  static constexpr uint32_t kMaxFrames = 255;  // Packet::segment_count

  enum class Outcome : uint8_t {
    kHeld,      // taken
    kComplete,  // taken, and nothing is missing any more
    kRefused,   // not taken, kFragmentInvalid; the rest waits on
    kPasses,    // not taken and not to be dropped; the rest is to be discarded, kFragmentInvalid
    kInvalid,   // not taken; it and the rest are to be discarded: as kFragmentInvalid,
    kOverlap,   // ... as kFragmentOverlap,
    kLimit,     // ... as kFragmentLimit
  };

  void Start(const FragmentKey& key) {
    *this = Datagram{};
    key_ = key;
  }
  Outcome Add(const packet::FrameArena& arena, const packet::Packet& p, const Fragment& f);

  const FragmentKey& key() const { return key_; }
  bool IsIpv4() const { return key_.version == 4; }
  packet::FrameIndex first() const { return first_; }  // by HeldPacket::next to kNoFrame
  uint32_t fragments() const { return fragments_; }
  uint32_t frames() const { return frames_; }
  bool has_first() const { return has_first_; }
  uint32_t length() const { return length_; }  // of the data, when complete

  // Of a complete one: may its fragments' ECN marks stand together, and what the whole's has set.
  bool EcnIsValid() const;
  uint8_t EcnToSet() const;
  uint32_t largest() const { return largest_; }
  // The largest had don't-fragment: it was to find the path's MTU (IPSKB_FRAG_PMTU).
  bool probes_mtu() const { return largest_ == largest_dont_fragment_; }

 private:
  Outcome CheckEnd(const Fragment& f);
  // Where it belongs: behind `previous`. kHeld, kRefused or kOverlap.
  Outcome FindPlace(const packet::FrameArena& arena, const Fragment& f,
                    packet::FrameIndex& previous) const;
  void Insert(const packet::FrameArena& arena, const packet::Packet& p, const Fragment& f,
              packet::FrameIndex previous);

  FragmentKey key_;
  packet::FrameIndex first_ = packet::kNoFrame;
  packet::FrameIndex last_ = packet::kNoFrame;
  uint32_t fragments_ = 0;
  uint32_t frames_ = 0;
  uint32_t length_ = 0;  // the farthest end so far; the end once it is known
  uint32_t have_ = 0;    // bytes
  bool has_first_ = false;
  bool has_last_ = false;
  uint8_t ecn_seen_ = 0;  // a bit for each of the four values
  uint32_t largest_ = 0;  // IP lengths
  uint32_t largest_dont_fragment_ = 0;
};

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_DEFRAG_DATAGRAM_H_
