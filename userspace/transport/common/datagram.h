// An IP packet for the transport stack: its parts as found, or as built in a frame.
//
// Received ones are whole: the layer below has checked the IP header (wire/ipv4.h, wire/ipv6.h),
// trimmed padding, put fragments together and completed partial checksums. l4_offset and l4_protocol
// are set.
#ifndef SLUICE_TRANSPORT_COMMON_DATAGRAM_H_
#define SLUICE_TRANSPORT_COMMON_DATAGRAM_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "packet/frame_pool.h"
#include "packet/packet.h"
#include "transport/common/endpoint.h"
#include "wire/checksum.h"
#include "wire/ethernet.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"
#include "wire/partial_checksum.h"

namespace sluice::transport {

struct IpEnds {
  IpAddress source;
  IpAddress destination;
  uint8_t ecn = 0;
};

inline IpEnds EndsOf(const packet::Packet& p) {
  if (p.l3()[0] >> 4 == 4) {
    const wire::Ipv4View ip(p.l3());
    return {ip.source(), ip.destination(), ip.ecn()};
  }
  const wire::Ipv6View ip(p.l3());
  return {ip.source(), ip.destination(), ip.ecn()};
}

inline uint32_t PseudoSumOf(const IpAddress& source, const IpAddress& destination,
                            uint8_t protocol, uint32_t length) {
  return source.is_v4()
             ? wire::PseudoHeaderSum(source.v4(), destination.v4(), protocol, length)
             : wire::PseudoHeaderSum(source.v6(), destination.v6(), protocol, length);
}

inline uint32_t L4LengthOf(const packet::Packet& p) { return p.length - p.l4_offset; }
// The part of the L4 header and payload that lies in the first frame.
inline std::span<const uint8_t> FirstPieceOf(const packet::Packet& p) {
  return {p.l4(), static_cast<size_t>(p.segment_length - p.l4_offset)};
}

// Reads all of the L4 part.
inline bool L4ChecksumOf(const packet::FrameArena& arena, const packet::Packet& p,
                         const IpEnds& ends) {
  wire::SumChain chain(PseudoSumOf(ends.source, ends.destination, p.l4_protocol, L4LengthOf(p)));
  packet::ForEachSegment(arena, p, p.l4_offset,
                         [&](std::span<uint8_t> piece) { chain.Add(piece); });
  return wire::Fold(chain.sum()) == 0xffff;
}

inline constexpr uint32_t IpHeaderSize(bool v4) {
  return v4 ? wire::Ipv4View::kMinSize : wire::Ipv6View::kSize;
}

struct IpOptions {
  uint8_t ecn = 0;  // the codepoint
  uint8_t ttl = 64;
  bool dont_fragment = true;
  uint16_t id = 0;                  // IPv4's; must differ between datagrams without Don't Fragment
  uint16_t fragment_field = 0;      // IPv4's offset and More Fragments
};

// Begins a packet of `l4_length` bytes behind the IP header, which is written; false when no frame
// is free. All of it must fit a chunk. With Don't Fragment the IPv4 id is zero: RFC 6864 section 4.1
// lets an atomic datagram have any.
inline bool BeginDatagram(packet::FramePool& pool, const Tuple& t, uint8_t protocol,
                          uint32_t l4_length, const IpOptions& options, packet::Packet& p) {
  const packet::FrameIndex frame = pool.Alloc();
  if (frame == packet::kNoFrame) return false;
  p = packet::Packet{};
  p.frame = frame;
  p.data = pool.arena().Chunk(frame) + packet::kHeadroom;
  p.l3_offset = wire::kEthernetHeaderSize;
  const bool v4 = t.is_v4();
  const uint32_t ip_size = IpHeaderSize(v4);
  p.l4_offset = static_cast<uint16_t>(p.l3_offset + ip_size);
  p.l4_protocol = protocol;
  p.length = p.l4_offset + l4_length;
  p.segment_length = static_cast<uint16_t>(p.length);
  if (v4) {
    wire::EmitIpv4Header({p.l3(), ip_size},
                         {.tos = options.ecn,
                          .payload_length = static_cast<uint16_t>(l4_length),
                          .id = options.id,
                          .fragment_field = options.dont_fragment ? wire::kIpv4DontFragment
                                                                  : options.fragment_field,
                          .ttl = options.ttl,
                          .protocol = protocol,
                          .source = t.local.address.v4(),
                          .destination = t.remote.address.v4()});
  } else {
    wire::EmitIpv6Header({p.l3(), ip_size},
                         {.traffic_class = options.ecn,
                          .payload_length = static_cast<uint16_t>(l4_length),
                          .next_header = protocol,
                          .hop_limit = options.ttl,
                          .source = t.local.address.v6(),
                          .destination = t.remote.address.v6()});
  }
  return true;
}

}  // namespace sluice::transport

#endif  // SLUICE_TRANSPORT_COMMON_DATAGRAM_H_
