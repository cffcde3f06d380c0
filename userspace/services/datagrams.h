// Received datagrams one after the other, each as one run of bytes: that of the frame itself, or, of
// a reassembled one, a copy.
#ifndef SLUICE_SERVICES_DATAGRAMS_H_
#define SLUICE_SERVICES_DATAGRAMS_H_

#include <cstdint>
#include <span>

#include "base/ids.h"
#include "services/context.h"
#include "transport/transport.h"

namespace sluice::services {

class ReceivedDatagram {
 public:
  explicit ReceivedDatagram(Context& context) : context_(context) {}
  ~ReceivedDatagram() { Release(); }
  ReceivedDatagram(const ReceivedDatagram&) = delete;
  ReceivedDatagram& operator=(const ReceivedDatagram&) = delete;

  // Lets go of the one before. False: there is none.
  bool Next(transport::UdpSocket socket);
  std::span<const uint8_t> data() const { return data_; }  // until the next Next
  const transport::Endpoint& from() const { return from_; }
  // By which interface it came; whom it was sent to, and its sender; whether in one packet.
  IfaceSlot in() const { return received_.packet.in; }
  transport::Tuple arrived() const;
  bool whole() const {
    return received_.packet.fragment_size == 0 && received_.packet.segment_count == 1;
  }

 private:
  void Release() {
    if (held_) context_.transport.udp().Release(received_);
    held_ = false;
  }

  Context& context_;
  transport::ReceivedData received_;
  transport::Endpoint from_;
  std::span<const uint8_t> data_;
  bool held_ = false;
};

}  // namespace sluice::services

#endif  // SLUICE_SERVICES_DATAGRAMS_H_
