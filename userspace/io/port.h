// What a worker needs of something that frames come from and go to: one queue of one interface.
//
// Three kinds exist: io/af_xdp (a real NIC), io/sim (simulated links, fake clock) and the null port
// of benchmarks. The worker is a template over it: no virtual call per burst, no test-only branch.
//
// A port never owns frames in user space: it takes them from, and returns them to, the worker's
// FramePool that each call passes in. What it holds are frames in its rings (fill, tx), which
// `frames_in_fill()` and `frames_in_tx()` tell, so that every frame is accounted for.
//
// The way into the kernel, for packets that are the kernel's, is the interface's (PuntDevice): all
// workers use it, whether or not they have a queue of the interface, since a packet may have come to
// one worker and been handed over to another.
//
// Thread: the owning worker; of a PuntDevice: any worker, at the same time as others.
#ifndef SLUICE_IO_PORT_H_
#define SLUICE_IO_PORT_H_

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/ids.h"
#include "base/worker_counters.h"
#include "packet/frame_pool.h"
#include "packet/packet.h"

namespace sluice::io {

template <class P>
concept IoPort = requires(P& port, const P& cport, std::span<packet::Packet> packets,
                          packet::FramePool& pool, InterfaceCounters& counters) {
  // The interface it serves.
  { cport.slot() } -> std::same_as<IfaceSlot>;
  // Takes up to packets.size() received packets: fills data, frame, length, segments; `in` = slot().
  { port.RxBurst(packets, pool, counters) } -> std::same_as<size_t>;
  // Offers packets to the output ring; the first N (returned) now belong to the port.
  { port.TxBurst(packets, pool) } -> std::same_as<size_t>;
  // End of a tick: kick the kernel if it needs it, reap completions into the pool, refill the fill
  // ring from the pool. Errors of sending are counted.
  { port.Flush(pool, counters) } -> std::same_as<void>;
  { cport.frames_in_fill() } -> std::same_as<uint32_t>;
  { cport.frames_in_tx() } -> std::same_as<uint32_t>;
};

template <class D>
concept PuntDevice = requires(D& device, WorkerId by, const packet::FrameArena& arena,
                              const packet::Packet& packet) {
  // Gives the kernel a copy of the packet, as received by the interface. False: not taken.
  { device.Write(by, arena, packet) } -> std::same_as<bool>;
};

}  // namespace sluice::io

#endif  // SLUICE_IO_PORT_H_
