// Queues of packets that wait, linked through the packets' own frames (packet::HeldOf): they need
// no memory of their own and no limit beyond the number of frames.
//
// Thread: the owning worker.
#ifndef SLUICE_STAGES_NEIGHBOR_PACKET_QUEUE_H_
#define SLUICE_STAGES_NEIGHBOR_PACKET_QUEUE_H_

#include "packet/packet.h"

namespace sluice::stages {

// First in, first out. A ring named by its last frame, so that it fits 4 bytes in an entry.
inline void PushHeld(const packet::FrameArena& arena, packet::FrameIndex& last,
                     const packet::Packet& p) {
  packet::HeldPacket& held = packet::HeldOf(arena, p.frame);
  held.packet = p;
  if (last == packet::kNoFrame) {
    held.next = p.frame;
  } else {
    packet::HeldPacket& before = packet::HeldOf(arena, last);
    held.next = before.next;
    before.next = p.frame;
  }
  last = p.frame;
}

// The ring must not be empty.
inline packet::Packet PopHeld(const packet::FrameArena& arena, packet::FrameIndex& last) {
  packet::HeldPacket& back = packet::HeldOf(arena, last);
  const packet::FrameIndex first = back.next;
  const packet::HeldPacket& front = packet::HeldOf(arena, first);
  if (first == last) {
    last = packet::kNoFrame;
  } else {
    back.next = front.next;
  }
  return front.packet;
}

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_NEIGHBOR_PACKET_QUEUE_H_
