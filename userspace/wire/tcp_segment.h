// The TCP header written (RFC 9293 section 3.1): the counterpart of TcpView.
#ifndef SLUICE_WIRE_TCP_SEGMENT_H_
#define SLUICE_WIRE_TCP_SEGMENT_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/byte_order.h"
#include "wire/checksum.h"
#include "wire/tcp.h"
#include "wire/tcp_options.h"
#include "wire/tcp_sequence.h"

namespace sluice::wire {

struct TcpFields {
  uint16_t source_port = 0;
  uint16_t destination_port = 0;
  TcpSeq sequence;
  TcpSeq acknowledgment;
  uint8_t flags = 0;
  uint16_t window = 0;  // as it stands in the header: already shifted
  uint16_t urgent_pointer = 0;
};

// Writes header and options, the checksum zero. Returns the header's length, 0 when it does not fit
// `out` or the 60 bytes that a header may have.
inline size_t EmitTcpHeader(std::span<uint8_t> out, const TcpFields& f, const TcpOptions& options) {
  const size_t size = TcpView::kMinSize + TcpOptionsLength(options);
  if (out.size() < size || size > 60) return 0;
  uint8_t* p = out.data();
  StoreBe16(p, f.source_port);
  StoreBe16(p + 2, f.destination_port);
  StoreBe32(p + 4, f.sequence.value());
  StoreBe32(p + 8, f.acknowledgment.value());
  p[12] = static_cast<uint8_t>(size / 4 << 4);
  p[13] = f.flags;
  StoreBe16(p + 14, f.window);
  StoreBe16(p + 16, 0);
  StoreBe16(p + 18, f.urgent_pointer);
  EmitTcpOptions(out.subspan(TcpView::kMinSize), options);
  return size;
}

// Fills in the checksum of a segment that is complete otherwise and has zero there.
inline void FillTcpChecksum(std::span<uint8_t> segment, uint32_t pseudo_header_sum) {
  StoreBe16(segment.data() + 16, Checksum(uint64_t{pseudo_header_sum} + Sum(segment)));
}

}  // namespace sluice::wire

#endif  // SLUICE_WIRE_TCP_SEGMENT_H_
