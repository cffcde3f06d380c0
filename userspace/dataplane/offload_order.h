// Keys and rewrites of the flow tier's entries, as they are in orders. Only for offload.cc and
// offload_relay.cc.
#ifndef SLUICE_DATAPLANE_OFFLOAD_ORDER_H_
#define SLUICE_DATAPLANE_OFFLOAD_ORDER_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/address.h"
#include "base/ids.h"
#include "tables/flow.h"
#include "tables/offload.h"
#include "wire/checksum.h"

namespace sluice::dataplane {

inline uint32_t WireAddress(const IpAddress& a) {
  uint32_t word;
  uint8_t bytes[4];
  a.v4().ToWire(bytes);
  std::memcpy(&word, bytes, sizeof word);
  return word;
}
inline void WireAddress(const Ipv6& a, uint32_t (&words)[4]) {
  uint8_t bytes[16];
  a.ToWire(bytes);
  std::memcpy(words, bytes, sizeof words);
}
inline uint16_t WirePort(uint16_t port) { return __builtin_bswap16(port); }

inline IpAddress AddressOf(Family family, const Ipv6& bits) {
  if (family == Family::kIpv4) return Ipv4(static_cast<uint32_t>(bits.lo));
  return bits;
}

// What replacing words adds to a one's-complement sum of 16-bit words as they are in memory
// (RFC 1624): ~m + m', of those that change.
inline uint64_t Difference(const uint32_t* before, const uint32_t* after, size_t count) {
  uint64_t sum = 0;
  for (size_t i = 0; i < count; ++i) {
    if (before[i] == after[i]) continue;
    sum += (after[i] & 0xffff) + (after[i] >> 16) + (~before[i] & 0xffff) + (~before[i] >> 16);
  }
  return sum;
}

inline uint64_t Difference(uint16_t before, uint16_t after) {
  return before == after ? 0 : uint64_t{static_cast<uint16_t>(~before)} + after;
}

inline void FillKeyPorts(auto& key, const tables::FlowTuple& tuple, IfaceSlot in) {
  key.source_port = WirePort(tuple.source_port);
  key.destination_port = WirePort(tuple.destination_port);
  key.protocol = tuple.protocol;
  key.slot = in.value;
}

// The key of packets that arrive with this tuple.
inline void FillKey(tables::OffloadChange& order, const tables::FlowTuple& tuple, IfaceSlot in) {
  if (order.family == Family::kIpv4) {
    order.key4 = {};
    order.key4.source = WireAddress(AddressOf(tuple.family, tuple.source));
    order.key4.destination = WireAddress(AddressOf(tuple.family, tuple.destination));
    FillKeyPorts(order.key4, tuple, in);
  } else {
    order.key6 = {};
    WireAddress(tuple.source, order.key6.source);
    WireAddress(tuple.destination, order.key6.destination);
    FillKeyPorts(order.key6, tuple, in);
  }
}

inline void FillKey(tables::OffloadChange& order, const IpAddress& source,
                    const IpAddress& destination, IfaceSlot in) {
  if (order.family == Family::kIpv4) {
    order.key4 = {};
    order.key4.source = WireAddress(source);
    order.key4.destination = WireAddress(destination);
    order.key4.slot = in.value;
  } else {
    order.key6 = {};
    WireAddress(source.bits, order.key6.source);
    WireAddress(destination.bits, order.key6.destination);
    order.key6.slot = in.value;
  }
}

// What becomes of a packet with tuple `before`: `reply` is what its answers look like.
inline void FillRewrite(tables::OffloadChange& order, const tables::FlowTuple& before,
                        const tables::FlowTuple& reply) {
  sluice_offload_action& action = order.action();
  action.source_port = WirePort(reply.destination_port);
  action.destination_port = WirePort(reply.source_port);
  const uint64_t ports =
      Difference(WirePort(before.source_port), action.source_port) +
      Difference(WirePort(before.destination_port), action.destination_port);
  uint64_t addresses;
  if (order.family == Family::kIpv4) {
    order.entry4.source = WireAddress(AddressOf(reply.family, reply.destination));
    order.entry4.destination = WireAddress(AddressOf(reply.family, reply.source));
    addresses = Difference(&order.key4.source, &order.entry4.source, 1) +
                Difference(&order.key4.destination, &order.entry4.destination, 1);
    action.l3_delta = wire::Fold(addresses);
  } else {
    WireAddress(reply.destination, order.entry6.source);
    WireAddress(reply.source, order.entry6.destination);
    addresses = Difference(order.key6.source, order.entry6.source, 4) +
                Difference(order.key6.destination, order.entry6.destination, 4);
  }
  action.l4_delta = wire::Fold(addresses + ports);
  const bool translated = reply.destination != before.source ||
                          reply.source != before.destination ||
                          reply.destination_port != before.source_port ||
                          reply.source_port != before.destination_port;
  if (translated) action.flags |= SLUICE_OFFLOAD_REWRITE;
}

inline uint16_t BucketOf(const IpAddress& address) {
  return address.is_v4() ? tables::OffloadBucket(address.v4())
                         : tables::OffloadBucket(address.v6());
}

}  // namespace sluice::dataplane

#endif  // SLUICE_DATAPLANE_OFFLOAD_ORDER_H_
