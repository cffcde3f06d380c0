// Where the stages put packets that leave the worker: per output interface, and to the kernel.
//
// The worker empties it after each burst. Capacity is fixed; what does not fit is the caller's to
// drop (and to name). Ownership of the frame passes with a successful call.
//
// Thread: the owning worker only.
#ifndef SLUICE_PACKET_OUTBOX_H_
#define SLUICE_PACKET_OUTBOX_H_

#include <cstdint>
#include <memory>
#include <span>

#include "base/ids.h"
#include "base/reason.h"
#include "packet/frame_pool.h"
#include "packet/packet.h"

namespace sluice::packet {

struct PuntedPacket {
  Packet packet;
  PuntReason reason = PuntReason::kLocal;
  bool copy = false;  // the kernel is only shown it: the packet's outcome is counted elsewhere
};

// For another worker, which has the packet's connection.
struct HandedOver {
  Packet packet;
  WorkerId owner;
};

class Outbox {
 public:
  static constexpr uint32_t kPerInterface = 2048;  // an output ring's; an ACK may set free many segments
  static constexpr uint32_t kPunts = 256;
  static constexpr uint32_t kHandOvers = 128;

  explicit Outbox(FramePool& pool)
      : pool_(pool),
        transmit_(std::make_unique<List[]>(kMaxInterfaces)),
        punts_(std::make_unique<PuntedPacket[]>(kPunts)),
        handed_over_(std::make_unique<HandedOver[]>(kHandOvers)) {}

  FramePool& pool() { return pool_; }

  // A new packet of `length` bytes of Ethernet frame, contents undefined; false when no frame is
  // free. `length` must fit one chunk.
  bool NewPacket(uint32_t length, Packet& out) {
    const FrameIndex frame = pool_.Alloc();
    if (frame == kNoFrame) return false;
    out = Packet{};
    out.frame = frame;
    out.data = pool_.arena().Chunk(frame) + kHeadroom;
    out.length = length;
    out.segment_length = static_cast<uint16_t>(length);
    return true;
  }

  // Makes room for an interface's packets, once; allocates. Until then Transmit to it is refused.
  void Enable(IfaceSlot slot) {
    List& list = transmit_[slot.value];
    if (list.packets) return;
    list.packets = std::make_unique<Packet[]>(kPerInterface);
    list.capacity = kPerInterface;
  }

  // False, and the packet still the caller's, when the list is full.
  bool Transmit(IfaceSlot slot, const Packet& p) {
    List& list = transmit_[slot.value];
    if (list.count == list.capacity) return false;
    list.packets[list.count++] = p;
    active_ |= uint64_t{1} << slot.value;
    return true;
  }

  bool Punt(const Packet& p, PuntReason reason, bool copy = false) {
    if (punt_count_ == kPunts) return false;
    punts_[punt_count_++] = {p, reason, copy};
    return true;
  }

  bool HandOver(WorkerId owner, const Packet& p) {
    if (handed_over_count_ == kHandOvers) return false;
    handed_over_[handed_over_count_++] = {p, owner};
    return true;
  }

  // For the worker: a bit per interface that has packets, the lists, and the emptying of them.
  uint64_t active() const { return active_; }
  std::span<Packet> transmits(IfaceSlot slot) {
    return {transmit_[slot.value].packets.get(), transmit_[slot.value].count};
  }
  void ClearTransmits(IfaceSlot slot) {
    transmit_[slot.value].count = 0;
    active_ &= ~(uint64_t{1} << slot.value);
  }
  std::span<PuntedPacket> punts() { return {punts_.get(), punt_count_}; }
  void ClearPunts() { punt_count_ = 0; }
  std::span<HandedOver> handed_over() { return {handed_over_.get(), handed_over_count_}; }
  void ClearHandedOver() { handed_over_count_ = 0; }

 private:
  struct List {
    std::unique_ptr<Packet[]> packets;
    uint32_t count = 0;
    uint32_t capacity = 0;
  };

  FramePool& pool_;
  std::unique_ptr<List[]> transmit_;
  std::unique_ptr<PuntedPacket[]> punts_;
  uint32_t punt_count_ = 0;
  std::unique_ptr<HandedOver[]> handed_over_;
  uint32_t handed_over_count_ = 0;
  uint64_t active_ = 0;
};

}  // namespace sluice::packet

#endif  // SLUICE_PACKET_OUTBOX_H_
