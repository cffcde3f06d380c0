// One queue of a served interface as its worker sees it: the AF_XDP socket. The kernel's side, the
// punt device, is the interface's, and every worker's.
//
// Thread: the owning worker, between Worker::AddPort and RemovePort.
#ifndef SLUICE_APP_SERVED_PORT_H_
#define SLUICE_APP_SERVED_PORT_H_

#include "base/ids.h"
#include "dataplane/worker.h"
#include "io/af_xdp/port.h"
#include "io/af_xdp/punt_tap.h"

namespace sluice::app {

class ServedPort {
 public:
  // `port` must outlive this.
  ServedPort(io::af_xdp::AfXdpPort& port, WorkerId worker) : port_(port), worker_(worker) {}

  io::af_xdp::AfXdpPort& af_xdp() { return port_; }
  const io::af_xdp::AfXdpPort& af_xdp() const { return port_; }
  WorkerId worker() const { return worker_; }

  // dataplane::WorkerPort.
  using PuntDevice = io::af_xdp::PuntTap;
  IfaceSlot slot() const { return port_.slot(); }
  size_t RxBurst(std::span<packet::Packet> packets, packet::FramePool& pool,
                 InterfaceCounters& counters) {
    return port_.RxBurst(packets, pool, counters);
  }
  size_t TxBurst(std::span<packet::Packet> packets, packet::FramePool& pool) {
    return port_.TxBurst(packets, pool);
  }
  void Flush(packet::FramePool& pool, InterfaceCounters& counters) { port_.Flush(pool, counters); }
  uint32_t frames_in_fill() const { return port_.frames_in_fill(); }
  uint32_t frames_in_tx() const { return port_.frames_in_tx(); }

 private:
  io::af_xdp::AfXdpPort& port_;
  const WorkerId worker_;
};

static_assert(dataplane::WorkerPort<ServedPort>);

}  // namespace sluice::app

#endif  // SLUICE_APP_SERVED_PORT_H_
