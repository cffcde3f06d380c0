// Hashes of a flow, for choosing one of several equal paths (ECMP).
//
// They cover what Linux' fib_multipath_hash_policy covers: policy 0 the addresses (IPv6: the flow
// label and protocol too), policy 1 the 5-tuple. Fragments have no ports: pass 0 for all of them,
// the first included, so that a datagram stays on one path. The values differ from Linux' (which
// are keyed per boot), so the same flow may take another path there; each keeps flows together.
//
// Two 64x64-bit multiplications for IPv4, four for IPv6. Not symmetric and not for tables that an
// attacker may fill: `seed` keeps routers in a row from choosing alike, no more.
#ifndef SLUICE_WIRE_FLOW_HASH_H_
#define SLUICE_WIRE_FLOW_HASH_H_

#include <cstdint>

#include "base/address.h"

namespace sluice::wire {

namespace internal {

inline constexpr uint64_t kHashKey0 = 0x9e3779b97f4a7c15ull;
inline constexpr uint64_t kHashKey1 = 0xd6e8feb86659fd93ull;

// Both halves of the product, so that every bit of the inputs reaches every bit of the result.
constexpr uint64_t MulFold(uint64_t a, uint64_t b) {
  const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

// One step of the chain: the second factor depends on the state too, so that order matters.
constexpr uint64_t Mix(uint64_t state, uint64_t a) {
  return MulFold(state ^ a ^ kHashKey0, kHashKey1 ^ (state << 32 | state >> 32));
}

constexpr uint32_t Finish(uint64_t state) {
  const uint64_t h = MulFold(state ^ kHashKey1, kHashKey0);
  return static_cast<uint32_t>(h >> 32);
}

}  // namespace internal

// `ports` is source << 16 | destination, as L4PortsView::both() has it; 0 where there are none.
constexpr uint32_t FlowHashL3(Ipv4 source, Ipv4 destination, uint64_t seed) {
  return internal::Finish(internal::Mix(seed, uint64_t{source.value} << 32 | destination.value));
}

constexpr uint32_t FlowHashL4(Ipv4 source, Ipv4 destination, uint8_t protocol, uint32_t ports,
                              uint64_t seed) {
  const uint64_t state = internal::Mix(seed, uint64_t{source.value} << 32 | destination.value);
  return internal::Finish(internal::Mix(state, uint64_t{ports} << 8 | protocol));
}

constexpr uint32_t FlowHashL3(const Ipv6& source, const Ipv6& destination, uint32_t flow_label,
                              uint8_t protocol, uint64_t seed) {
  uint64_t state = internal::Mix(seed, source.hi);
  state = internal::Mix(state, source.lo);
  state = internal::Mix(state, destination.hi);
  state = internal::Mix(state, destination.lo);
  return internal::Finish(internal::Mix(state, uint64_t{flow_label} << 8 | protocol));
}

constexpr uint32_t FlowHashL4(const Ipv6& source, const Ipv6& destination, uint8_t protocol,
                              uint32_t ports, uint64_t seed) {
  uint64_t state = internal::Mix(seed, source.hi);
  state = internal::Mix(state, source.lo);
  state = internal::Mix(state, destination.hi);
  state = internal::Mix(state, destination.lo);
  return internal::Finish(internal::Mix(state, uint64_t{ports} << 8 | protocol));
}

}  // namespace sluice::wire

#endif  // SLUICE_WIRE_FLOW_HASH_H_
