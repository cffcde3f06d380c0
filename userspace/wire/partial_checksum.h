// Frames whose TCP or UDP checksum Linux has not filled in yet (CHECKSUM_PARTIAL).
//
// A container's or VM's stack leaves the rest of the checksum to the "hardware". Over veth or a TAP
// nobody does it, and an XDP program cannot see the mark. What it left in the field is known,
// though: the folded sum of the pseudo header, not complemented. ClassifyL4Checksum compares with
// that, which costs about ten additions and no look at the payload; only then CompleteL4Checksum
// reads all of it.
//
// Why that is sound:
// - No partial frame is missed: a non-zero sum has exactly one folded form, and a pseudo header's
// sum
//   is never zero (the protocol is in it).
// - A correct frame whose checksum equals that value by chance (1 in 65,536) is "completed" to the
//   value it already has, so nothing changes. A corrupt one is repaired wrongly with the same
//   chance.
// - A fragment is never partial: Linux completes the checksum before it fragments (ip_do_fragment
// and
//   ip6_fragment call skb_checksum_help). Do not ask about fragments, the first one included: its
//   length is not the datagram's, so the answer would mean nothing.
//
// Refuses: other protocols than TCP and UDP (ICMP is always computed in software), checksums inside
// tunnels (VXLAN or GRE of a container host), and IPv6 with a routing header that has segments left
// (its pseudo header names the last segment). Such frames count as kFilled.
#ifndef SLUICE_WIRE_PARTIAL_CHECKSUM_H_
#define SLUICE_WIRE_PARTIAL_CHECKSUM_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/byte_order.h"
#include "wire/checksum.h"
#include "wire/protocol.h"

namespace sluice::wire {

enum class L4Checksum : uint8_t {
  kNone,     // the protocol has no such field, or the header is cut short
  kAbsent,   // UDP with zero: the sender computed none (allowed on IPv4 only)
  kPartial,  // the payload's share is missing: CompleteL4Checksum
  kFilled,   // some value, right or wrong: L4ChecksumIsRight would tell
};

// Where the checksum stands in the L4 header; 0 for protocols without one here.
constexpr size_t L4ChecksumOffset(uint8_t protocol) {
  return protocol == kProtocolTcp ? 16 : protocol == kProtocolUdp ? 6 : 0;
}

// The cheap test. `l4` begins at the L4 header (its first piece will do); `pseudo_header_sum` is
// for the datagram's whole L4 length. Not for fragments.
inline L4Checksum ClassifyL4Checksum(uint8_t protocol, std::span<const uint8_t> l4,
                                     uint32_t pseudo_header_sum) {
  const size_t offset = L4ChecksumOffset(protocol);
  if (offset == 0 || l4.size() < offset + 2) return L4Checksum::kNone;
  const uint16_t field = LoadBe16(l4.data() + offset);
  if (field == Fold(pseudo_header_sum)) return L4Checksum::kPartial;
  if (field == 0 && protocol == kProtocolUdp) return L4Checksum::kAbsent;
  return L4Checksum::kFilled;
}

// Completes a kPartial frame in place. `first` begins at the L4 header and must hold the field (as
// ClassifyL4Checksum has seen); `rest` is what follows in other frames. Together they are the L4
// length, without the link layer's padding. A zero becomes 0xffff for UDP, as it must, and for TCP,
// where it means the same and Linux' skb_checksum_help does it too.
inline void CompleteL4Checksum(uint8_t protocol, std::span<uint8_t> first,
                               std::span<const std::span<const uint8_t>> rest = {}) {
  SumChain chain;  // the field holds the pseudo header's share already
  chain.Add(first);
  for (const auto piece : rest) chain.Add(piece);
  StoreBe16(first.data() + L4ChecksumOffset(protocol), NonZeroChecksum(chain.sum()));
}

// The costly test of a kFilled checksum, over all pieces of the L4 header and payload.
inline bool L4ChecksumIsRight(uint32_t pseudo_header_sum, std::span<const uint8_t> first,
                              std::span<const std::span<const uint8_t>> rest = {}) {
  SumChain chain(pseudo_header_sum);
  chain.Add(first);
  for (const auto piece : rest) chain.Add(piece);
  return Fold(chain.sum()) == 0xffff;
}

}  // namespace sluice::wire

#endif  // SLUICE_WIRE_PARTIAL_CHECKSUM_H_
