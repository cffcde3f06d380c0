// A received segment, taken apart, on its way through the state machine.
#ifndef SLUICE_TRANSPORT_TCP_SEGMENT_H_
#define SLUICE_TRANSPORT_TCP_SEGMENT_H_

#include <cstdint>

#include "packet/packet.h"
#include "transport/common/endpoint.h"
#include "wire/tcp.h"
#include "wire/tcp_options.h"
#include "wire/tcp_sequence.h"

namespace sluice::transport {

struct Segment {
  Tuple tuple;
  wire::TcpSeq seq;
  wire::TcpSeq ack;
  uint32_t payload = 0;  // bytes
  uint32_t payload_offset = 0;  // from packet->data
  uint16_t window = 0;   // as it stands in the header
  uint8_t flags = 0;
  uint8_t ecn = 0;       // of the IP header
  wire::TcpOptions options;
  packet::Packet* packet = nullptr;
  bool taken = false;    // somebody has the frames

  bool Has(uint8_t flag) const { return (flags & flag) != 0; }
  // SEG.LEN: SYN and FIN count.
  uint32_t length() const {
    return payload + (Has(wire::kTcpSyn) ? 1 : 0) + (Has(wire::kTcpFin) ? 1 : 0);
  }
  wire::TcpSeq end() const { return seq + length(); }
};

}  // namespace sluice::transport

#endif  // SLUICE_TRANSPORT_TCP_SEGMENT_H_
