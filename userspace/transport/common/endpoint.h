// Who talks to whom: an address with a port, and the pair that names a connection.
#ifndef SLUICE_TRANSPORT_COMMON_ENDPOINT_H_
#define SLUICE_TRANSPORT_COMMON_ENDPOINT_H_

#include <cstdint>

#include "base/address.h"
#include "transport/common/siphash.h"

namespace sluice::transport {

struct Endpoint {
  [[no_unique_address]] IpAddress address;  // the port lies in its padding
  uint16_t port = 0;
  constexpr bool operator==(const Endpoint&) const = default;
};

struct Tuple {
  Endpoint local;
  Endpoint remote;
  constexpr bool operator==(const Tuple&) const = default;

  bool is_v4() const { return local.address.is_v4(); }
  uint64_t ports() const {
    return uint64_t{local.port} << 32 | uint64_t{remote.port} << 16 |
           static_cast<uint64_t>(local.address.family);
  }
};

// The unspecified address of a family: a socket bound to it takes all addresses of ours.
constexpr bool IsAny(const IpAddress& a) { return a.bits.IsUnspecified(); }

inline bool IsMulticast(const IpAddress& a) {
  return a.is_v4() ? a.v4().IsMulticast() : a.v6().IsMulticast();
}

inline uint64_t HashOf(const HashKey& key, const Tuple& t) {
  if (t.is_v4()) {
    return TableHash(key, {t.local.address.bits.lo << 32 | t.remote.address.bits.lo, t.ports()});
  }
  return TableHash(key, {t.local.address.bits.hi, t.local.address.bits.lo,
                         t.remote.address.bits.hi, t.remote.address.bits.lo, t.ports()});
}

}  // namespace sluice::transport

#endif  // SLUICE_TRANSPORT_COMMON_ENDPOINT_H_
