#include "stages/defrag/datagram.h"

#include <algorithm>

#include "wire/ipv4.h"

namespace sluice::stages {

using packet::FrameArena;
using packet::FrameIndex;
using packet::kNoFrame;

namespace {

constexpr uint32_t kMostBytes = 65535;
constexpr uint8_t kNotEct = 1u << 0;
constexpr uint8_t kCe = 1u << wire::kEcnCongestionExperienced;

}  // namespace

// The order of the checks, and that a fragment which is then refused has set the end already, is
// the kernel's.
Datagram::Outcome Datagram::CheckEnd(const Fragment& f) {
  const Outcome bad = IsIpv4() ? Outcome::kInvalid : Outcome::kRefused;
  if (!IsIpv4() && f.end > kMostBytes) return Outcome::kRefused;
  if (!f.more) {
    if (f.end < length_ || (has_last_ && f.end != length_)) return bad;
    has_last_ = true;
    length_ = f.end;
  } else {
    if (f.end % 8 != 0) return Outcome::kPasses;  // IPv4 has cut it
    if (f.end > length_) {
      if (has_last_) return bad;
      length_ = f.end;
    }
  }
  return f.end == f.begin ? bad : Outcome::kHeld;
}

Datagram::Outcome Datagram::FindPlace(const FrameArena& arena, const Fragment& f,
                                      FrameIndex& previous) const {
  previous = last_;
  if (last_ == kNoFrame) return Outcome::kHeld;
  const uint32_t end_so_far = FragmentOf(arena, last_).end;
  if (end_so_far < f.end) {  // the usual case: it goes to the end
    return f.begin < end_so_far ? Outcome::kOverlap : Outcome::kHeld;
  }
  previous = kNoFrame;
  for (FrameIndex frame = first_; frame != kNoFrame;) {
    // The run that begins here, and the end of it.
    const uint32_t begin = FragmentOf(arena, frame).begin;
    FrameIndex tail = frame;
    FrameIndex next = packet::HeldOf(arena, frame).next;
    while (next != kNoFrame && !FragmentOf(arena, next).begins_run) {
      tail = next;
      next = packet::HeldOf(arena, next).next;
    }
    const uint32_t end = FragmentOf(arena, tail).end;
    if (f.end <= begin) return Outcome::kHeld;
    if (f.begin < end) {
      return f.begin >= begin && f.end <= end ? Outcome::kRefused : Outcome::kOverlap;
    }
    previous = tail;
    frame = next;
  }
  return Outcome::kHeld;
}

void Datagram::Insert(const FrameArena& arena, const packet::Packet& p, const Fragment& f,
                      FrameIndex previous) {
  HeldFragment& note = FragmentOf(arena, p.frame);
  note = HeldFragment{};
  note.begin = f.begin;
  note.end = f.end;
  note.data_at = f.data_at;
  note.next_header_at = f.next_header_at;
  note.fragment_header_at = f.fragment_header_at;
  // Only at the end is a run continued.
  note.begins_run =
      previous != last_ || last_ == kNoFrame || FragmentOf(arena, last_).end != f.begin;
  packet::HeldPacket& held = packet::HeldOf(arena, p.frame);
  held.packet = p;
  if (previous == kNoFrame) {
    held.next = first_;
    first_ = p.frame;
  } else {
    held.next = packet::HeldOf(arena, previous).next;
    packet::HeldOf(arena, previous).next = p.frame;
  }
  if (held.next == kNoFrame) last_ = p.frame;
  ++fragments_;
  frames_ += p.segment_count;
  have_ += f.end - f.begin;
}

Datagram::Outcome Datagram::Add(const FrameArena& arena, const packet::Packet& p,
                                const Fragment& f) {
  if (const Outcome end = CheckEnd(f); end != Outcome::kHeld) return end;
  FrameIndex previous = kNoFrame;
  if (const Outcome place = FindPlace(arena, f, previous); place != Outcome::kHeld) return place;
  if (fragments_ == kMaxFragments || frames_ + p.segment_count > kMaxFrames) return Outcome::kLimit;
  Insert(arena, p, f, previous);
  ecn_seen_ |= static_cast<uint8_t>(1u << f.ecn);
  largest_ = std::max(largest_, f.size);
  if (f.dont_fragment) largest_dont_fragment_ = std::max(largest_dont_fragment_, f.size);
  if (f.begin == 0) has_first_ = true;
  return has_first_ && has_last_ && have_ == length_ ? Outcome::kComplete : Outcome::kHeld;
}

bool Datagram::EcnIsValid() const {
  return (ecn_seen_ & kNotEct) == 0 || ecn_seen_ == kNotEct;
}

uint8_t Datagram::EcnToSet() const {
  const bool marked = (ecn_seen_ & kCe) != 0 && ecn_seen_ != kCe;
  return marked ? wire::kEcnCongestionExperienced : 0;
}

}  // namespace sluice::stages
