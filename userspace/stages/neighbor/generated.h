// Makes a small packet of our own and hands it to the outbox: ARP and neighbour discovery.
#ifndef SLUICE_STAGES_NEIGHBOR_GENERATED_H_
#define SLUICE_STAGES_NEIGHBOR_GENERATED_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/ids.h"
#include "base/reason.h"
#include "base/worker_counters.h"
#include "packet/outbox.h"
#include "wire/ethernet.h"

namespace sluice::stages {

// `emit(std::span<uint8_t>)` writes a frame of at most `capacity` bytes and returns its length.
// Counts it in counters.generated. Returns why it could not be sent, if so; no frame is lost then.
template <class Emit>
std::optional<DropReason> SendGenerated(packet::Outbox& outbox, WorkerCounters& counters,
                                        IfaceSlot slot, GeneratedKind kind, size_t capacity,
                                        Emit&& emit) {
  packet::Packet p;
  if (!outbox.NewPacket(static_cast<uint32_t>(capacity), p)) return DropReason::kNoFrames;
  p.length = static_cast<uint32_t>(emit(std::span<uint8_t>(p.data, capacity)));
  p.segment_length = static_cast<uint16_t>(p.length);
  p.out = slot;
  p.l3_offset = wire::kEthernetHeaderSize;
  p.generated = static_cast<uint8_t>(kind);
  if (!outbox.Transmit(slot, p)) {
    packet::FreePacket(outbox.pool(), p);
    return DropReason::kTxRingFull;
  }
  counters.generated[static_cast<size_t>(kind)].Add();
  return {};
}

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_NEIGHBOR_GENERATED_H_
