// A packet on its way through a worker: where its bytes are, and what the stages found out about it.
//
// A Packet is a handle, one cache line, that owns the frame(s) it names. It is copied freely between
// the arrays of one worker, but exactly one copy is the owner: the one that ends in a transmit list,
// a punt list, a neighbour's queue, or FreePacket(). Frames are conserved; tests and metrics check it.
//
// A frame's chunk while it is in user space:
//   +0    SegmentLink  where the next piece of a multi-buffer (jumbo, reassembled) packet is
//   +16   FragmentNote the first frame's: how a reassembled datagram was cut when it arrived
//   +64   HeldPacket   the Packet itself while it waits in a list (neighbour queue, reassembly)
//   +192  what the stage that holds a packet notes about it (stages/defrag)
//   +256  data         (or later: the kernel says where)
#ifndef SLUICE_PACKET_PACKET_H_
#define SLUICE_PACKET_PACKET_H_

#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

#include "base/ids.h"
#include "packet/frame_arena.h"
#include "packet/frame_pool.h"

namespace sluice::packet {

// 18 = MAX_SKB_FRAGS + 1, what copy-mode transmit takes at most. A port never gives or takes more;
// between stages/defrag and stages/fragment a datagram may have up to 255.
inline constexpr uint8_t kMaxSegments = 18;
inline constexpr uint32_t kNoFlowIndex = 0xffffffff;  // tables::kNoFlow

struct Packet {
  uint8_t* data = nullptr;          // the Ethernet header
  FrameIndex frame = kNoFrame;      // the first segment's frame
  uint32_t length = 0;              // bytes in all segments, Ethernet header included, FCS not
  uint16_t segment_length = 0;      // bytes in the first segment
  uint8_t segment_count = 1;
  IfaceSlot in;                     // where it arrived; none for packets that Sluice made
  IfaceSlot out;                    // where it leaves, once routed
  uint8_t l4_protocol = 0;          // final protocol after IPv6 extension headers
  uint16_t l3_offset = 0;           // from data to the IP header
  uint16_t l4_offset = 0;           // from data to the transport header; 0 when there is none
  uint32_t route_id = 0;            // tables::RouteId of the lookup
  uint16_t flags = 0;               // PacketFlag
  uint8_t generated = 0;            // telemetry: what kind of packet of our own (GeneratedKind)
  uint8_t ct_state = 0;             // tables::CtState, once tracked
  uint8_t ct_direction = 0;         // tables::FlowDirection
  uint16_t fragment_size = 0;       // reassembled: IP length of its largest fragment; else 0
  uint32_t flow = kNoFlowIndex;     // tables::FlowIndex in the worker's table
  uint32_t mark = 0;                // what rules set (meta mark)

  uint8_t* l3() const { return data + l3_offset; }
  uint8_t* l4() const { return data + l4_offset; }
  uint32_t l3_length() const { return length - l3_offset; }

  bool Has(uint16_t flag) const { return (flags & flag) != 0; }
};
static_assert(sizeof(Packet) <= 64 && std::is_trivially_copyable_v<Packet>);

enum PacketFlag : uint16_t {
  kFlagFragment = 1,         // an IP fragment (any, also the first)
  kFlagLaterFragment = 2,    // a fragment without the transport header
  kFlagOptions = 4,          // IPv4 options or an IPv6 hop-by-hop header
  kFlagOptionsForKernel = 64,  // ... that ask a router to act: the kernel does
  kFlagRoutingHeader = 128,  // an IPv6 routing header with segments left
  kFlagPartialChecksum = 8,  // the L4 checksum is only the pseudo-header's: must be completed
  kFlagLinkMulticast = 16,   // link-layer destination is multicast or broadcast
  kFlagDontRedirect = 32,    // no ICMP redirect for this one (source routed)
  kFlagFragmentHeader = 512,  // IPv6: has a fragment header; a whole ("atomic") packet may
  kFlagOwned = 1024,         // has come to the worker that has its connection
  kFlagBegun = 2048,         // rules before reassembly have judged it, or the fragments it is made of
  kFlagStray = 4096,         // conntrack calls it invalid, and it is to an address that NAT has from us
  kFlagSocket = 8192,        // a socket of ours takes it, unless rules object
  kFlagTraced = 16384,       // a trace's filter has picked it
  kFlagFragmentPmtu = 256,   // reassembled, the largest fragment had DF: so have its new pieces
};

// The next piece of a packet, kept at the start of the piece before it.
struct SegmentLink {
  FrameIndex next = kNoFrame;
  uint16_t data_offset = 0;  // from the next chunk's start
  uint16_t length = 0;
  bool starts_fragment = false;  // the next piece began a fragment of its own (FragmentNote)
};

// Of a packet with a fragment_size.
struct FragmentNote {
  uint32_t identification = 0;  // IPv6; of IPv4 it stands in the header
  // Bit i: a fragment began 8 * i bytes into the L4 header, which is gathered in the first segment
  // even if it came in several. The other beginnings are those of segments, by SegmentLink.
  uint8_t early_starts = 0;
  // The kernel would have pulled the datagram's beginning into one piece: it is cut anew.
  bool gathered = false;
};

// A packet that waits, kept in its own first frame.
struct HeldPacket {
  Packet packet;
  FrameIndex next = kNoFrame;
};
inline constexpr uint32_t kFragmentNoteOffset = 16;
inline constexpr uint32_t kHeldPacketOffset = 64;
inline constexpr uint32_t kHolderNoteOffset = 192;
static_assert(sizeof(SegmentLink) <= kFragmentNoteOffset &&
              kFragmentNoteOffset + sizeof(FragmentNote) <= kHeldPacketOffset &&
              kHeldPacketOffset + sizeof(HeldPacket) <= kHolderNoteOffset);

inline SegmentLink& LinkOf(const FrameArena& arena, FrameIndex frame) {
  return *reinterpret_cast<SegmentLink*>(arena.Chunk(frame));
}
inline FragmentNote& FragmentNoteOf(const FrameArena& arena, FrameIndex frame) {
  return *reinterpret_cast<FragmentNote*>(arena.Chunk(frame) + kFragmentNoteOffset);
}
inline HeldPacket& HeldOf(const FrameArena& arena, FrameIndex frame) {
  return *reinterpret_cast<HeldPacket*>(arena.Chunk(frame) + kHeldPacketOffset);
}

// The kernel makes the first `bytes` of the L4 header writable (skb_ensure_writable), which moves them
// into one piece if the datagram's first fragment was shorter.
inline void GatherL4(const FrameArena& arena, const Packet& p, uint32_t bytes) {
  if (p.fragment_size == 0) return;
  FragmentNote& note = FragmentNoteOf(arena, p.frame);
  const uint32_t within = (1u << (bytes + 7) / 8) - 1;  // bits of places before `bytes`
  if ((note.early_starts & within) != 0) note.gathered = true;
}

// Calls `visit(std::span<uint8_t>)` for each piece of the packet, in order, starting `skip` bytes
// into it (skip must lie in the first segment).
template <class Visitor>
void ForEachSegment(const FrameArena& arena, const Packet& p, uint32_t skip, Visitor&& visit) {
  visit(std::span<uint8_t>(p.data + skip, p.segment_length - skip));
  FrameIndex frame = p.frame;
  for (uint8_t i = 1; i < p.segment_count; ++i) {
    const SegmentLink link = LinkOf(arena, frame);
    visit(std::span<uint8_t>(arena.Chunk(link.next) + link.data_offset, link.length));
    frame = link.next;
  }
}

// Returns all frames of the packet to the pool.
inline void FreePacket(FramePool& pool, const Packet& p) {
  FrameIndex frame = p.frame;
  for (uint8_t i = 1; i < p.segment_count; ++i) {
    const FrameIndex next = LinkOf(pool.arena(), frame).next;
    pool.Free(frame);
    frame = next;
  }
  pool.Free(frame);
}

// Cuts the packet to its first `length` bytes; pieces that fall away go back to the pool. (The
// kernel trims a frame to its IP length before it forwards it; Ethernet pads short ones.)
void CutPacket(FramePool& pool, Packet& p, uint32_t length);
inline void TrimPacket(FramePool& pool, Packet& p, uint32_t length) {
  if (length < p.length) CutPacket(pool, p, length);
}

// Copies `length` bytes from `offset` out of the packet, over pieces. The caller has checked that
// they are there.
void CopyOut(const FrameArena& arena, const Packet& p, uint32_t offset, uint8_t* out,
             uint32_t length);

}  // namespace sluice::packet

#endif  // SLUICE_PACKET_PACKET_H_
