// A port made of memory: what it "receives" is written into fresh frames, as the kernel does in copy
// mode, and what is transmitted is free again at once.
#ifndef SLUICE_BENCHMARKS_MICRO_MEMORY_PORT_H_
#define SLUICE_BENCHMARKS_MICRO_MEMORY_PORT_H_

#include <cstdint>
#include <functional>
#include <span>

#include "base/ids.h"
#include "base/worker_counters.h"
#include "packet/frame_pool.h"
#include "packet/packet.h"

namespace sluice {

inline constexpr uint32_t kFrameLength = 60;

// `Source` is called as source(uint8_t* frame): it writes kFrameLength bytes.
template <class Source>
class MemoryPort {
 public:
  struct PuntDevice {
    bool Write(WorkerId, const packet::FrameArena&, const packet::Packet&) { return true; }
  };

  explicit MemoryPort(IfaceSlot slot) : slot_(slot) {}

  Source& source() { return source_; }
  void set_receiving(bool receiving) { receiving_ = receiving; }
  IfaceSlot slot() const { return slot_; }
  size_t RxBurst(std::span<packet::Packet> out, packet::FramePool& pool, InterfaceCounters&) {
    if (!receiving_) return 0;
    for (packet::Packet& p : out) {
      p = packet::Packet{};
      p.frame = pool.Alloc();
      p.data = pool.arena().Chunk(p.frame) + packet::kHeadroom;
      source_(p.data);
      p.length = kFrameLength;
      p.segment_length = kFrameLength;
      p.in = slot_;
    }
    return out.size();
  }
  size_t TxBurst(std::span<packet::Packet> packets, packet::FramePool& pool) {
    for (const packet::Packet& p : packets) pool.Free(p.frame);
    return packets.size();
  }
  void Flush(packet::FramePool&, InterfaceCounters&) {}
  uint32_t frames_in_fill() const { return 0; }
  uint32_t frames_in_tx() const { return 0; }

 private:
  const IfaceSlot slot_;
  Source source_;
  bool receiving_ = false;
};

}  // namespace sluice

#endif  // SLUICE_BENCHMARKS_MICRO_MEMORY_PORT_H_
