// The TCP options that Sluice's own sockets speak, as values: MSS (RFC 9293), window scale and
// timestamps (RFC 7323), SACK permitted and SACK blocks (RFC 2018).
//
// Parse takes any bytes. Unknown options are skipped by their length, and an option of a known kind
// with a wrong length counts as unknown. At one that does not fit it stops: `malformed`; what came
// before it counts. MSS, window scale and SACK permitted mean something in a SYN only, and are
// ignored elsewhere (RFC 9293 section 3.7.1, RFC 7323 section 2.2, RFC 2018 section 2).
//
// Emit writes the options in the order and with the padding that Linux uses, which every middlebox
// has seen: MSS, SACK permitted and timestamps, window scale; NOPs before, to fill words.
#ifndef SLUICE_WIRE_TCP_OPTIONS_H_
#define SLUICE_WIRE_TCP_OPTIONS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "wire/tcp_sequence.h"

namespace sluice::wire {

struct TcpSackBlock {
  TcpSeq left;   // the first sequence number of the block
  TcpSeq right;  // the one after its last
  constexpr bool operator==(const TcpSackBlock&) const = default;
};

struct TcpOptions {
  static constexpr size_t kMaxSackBlocks = 4;
  static constexpr uint8_t kMaxWindowScale = 14;  // RFC 7323 section 2.3: larger counts as this

  uint16_t mss = 0;  // 0: none
  bool has_window_scale = false;
  uint8_t window_scale = 0;
  bool sack_permitted = false;
  bool has_timestamps = false;
  uint32_t ts_value = 0;
  uint32_t ts_echo_reply = 0;
  uint8_t sack_count = 0;
  std::array<TcpSackBlock, kMaxSackBlocks> sack;
  bool malformed = false;
};

TcpOptions ParseTcpOptions(std::span<const uint8_t> options, bool syn);

// What EmitTcpOptions writes: a multiple of 4, at most 40 for what fits into a segment together.
size_t TcpOptionsLength(const TcpOptions& options);
// Returns the bytes written, 0 when `out` is too small (or there is nothing to write).
size_t EmitTcpOptions(std::span<uint8_t> out, const TcpOptions& options);

}  // namespace sluice::wire

#endif  // SLUICE_WIRE_TCP_OPTIONS_H_
