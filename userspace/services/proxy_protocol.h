// The PROXY protocol, version 2 (haproxy's doc/proxy-protocol.txt, section 2.2): what a proxy says
// first to a backend, so that it learns who the client is. TCP over IPv4 and IPv6, and LOCAL, which
// says that the proxy speaks for itself (health checks). Pure functions.
#ifndef SLUICE_SERVICES_PROXY_PROTOCOL_H_
#define SLUICE_SERVICES_PROXY_PROTOCOL_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "transport/common/endpoint.h"

namespace sluice::services {

// A signature, and four bytes more; then addresses and what is attached.
inline constexpr size_t kProxyHeaderFixed = 16;
// The largest that is written here: of IPv6.
inline constexpr size_t kProxyHeaderMax = kProxyHeaderFixed + 36;

// Both write to the front of `out` and return the length. The ends must be of one family.
size_t WriteProxyHeader(const transport::Endpoint& client, const transport::Endpoint& listener,
                        std::span<uint8_t, kProxyHeaderMax> out);
size_t WriteLocalProxyHeader(std::span<uint8_t, kProxyHeaderMax> out);

struct ProxyHeader {
  enum class Outcome : uint8_t {
    kAddresses,   // client and listener are known
    kLocal,       // LOCAL, or a family that is none of ours: the connection's own ends count
    kIncomplete,  // more bytes are needed
    kInvalid,     // not a header of version 2
  };
  Outcome outcome = Outcome::kInvalid;
  transport::Endpoint client;
  transport::Endpoint listener;
  size_t length = 0;  // of the header with all that is attached; the data begins there
};
ProxyHeader ParseProxyHeader(std::span<const uint8_t> data);

}  // namespace sluice::services

#endif  // SLUICE_SERVICES_PROXY_PROTOCOL_H_
