// What `services:` in the configuration says: a value, made by the control thread (control/
// config_services.h reads it), immutable once workers have it, and shared among them.
//
// A service is known by its name. Its `slot`, and those of its backends, say where each worker counts
// what it does (services/service_counters.h): the control thread gives them out (ServiceSlots), so
// that a name keeps its place over reloads and the control thread knows whose a place is. They are
// not part of what is compared; nor are the places of interfaces.
#ifndef SLUICE_TABLES_SERVICE_CONFIG_H_
#define SLUICE_TABLES_SERVICE_CONFIG_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/address.h"
#include "base/ids.h"
#include "base/time.h"
#include "tables/maglev.h"

namespace sluice::tables {

inline constexpr size_t kMaxServices = 64;
inline constexpr size_t kMaxBackends = 64;   // of one service
inline constexpr size_t kMaxAllBackends = 1024;
inline constexpr size_t kMaxListens = 16;    // of one service
inline constexpr size_t kMaxGroupListens = 64;  // of all, at addresses of groups
inline constexpr uint32_t kNoServiceSlot = 0xffffffff;

enum class ServiceKind : uint8_t { kTcpProxy, kUdpProxy, kHttp, kEcho, kDiscard, kChargen };
inline constexpr std::string_view kServiceKindNames[] = {"tcp_proxy", "udp_proxy", "http",
                                                         "echo",      "discard",   "chargen"};
constexpr std::string_view Name(ServiceKind k) { return kServiceKindNames[static_cast<size_t>(k)]; }

enum class Balance : uint8_t { kRoundRobin, kLeastConnections, kMaglev };
inline constexpr std::string_view kBalanceNames[] = {"round_robin", "least_connections", "maglev"};
constexpr std::string_view Name(Balance b) { return kBalanceNames[static_cast<size_t>(b)]; }

struct ServiceAddress {
  IpAddress address;
  uint16_t port = 0;
  bool operator==(const ServiceAddress&) const = default;
};
std::string ToString(const ServiceAddress& a);  // 192.0.2.1:80, [2001:db8::1]:80
inline bool IsGroup(const ServiceAddress& a) {
  return a.address.is_v4() ? a.address.v4().IsMulticast() : a.address.v6().IsMulticast();
}

struct BackendConfig {
  ServiceAddress address;
  uint32_t weight = 1;  // 1 to 256: its share of connections
  uint32_t slot = kNoServiceSlot;
  bool operator==(const BackendConfig& o) const {
    return address == o.address && weight == o.weight;
  }
};

struct HealthCheckConfig {
  enum class Kind : uint8_t { kNone, kTcp, kHttp };
  Kind kind = Kind::kNone;
  std::string path = "/";     // http: what is asked for by GET
  std::string host;           // http: the Host header; empty: the backend's address
  uint16_t first_status = 200;  // http: these answers are good, both included
  uint16_t last_status = 299;
  uint16_t port = 0;          // 0: the backend's own
  Nanos interval = Seconds(2);
  Nanos timeout = Seconds(1);
  uint32_t rise = 2;          // so many good checks in a row bring a backend up
  uint32_t fall = 3;          // so many bad ones take it down
  bool operator==(const HealthCheckConfig&) const = default;
};

struct ServiceConfig {
  std::string name;
  ServiceKind kind = ServiceKind::kTcpProxy;
  // At least one. Unspecified addresses only for TCP; of groups only where there is UDP alone.
  std::vector<ServiceAddress> listen;
  std::vector<std::string> group_interfaces;  // groups are joined on these; empty: on all
  bool tcp = true;                     // echo, discard, chargen: one of the two or both
  bool udp = true;

  // Proxies.
  std::vector<BackendConfig> backends;
  Balance balance = Balance::kRoundRobin;
  std::vector<uint8_t> maglev;  // MaglevTable of the weights; of kMaglev only
  HealthCheckConfig health;
  Nanos connect_timeout = Seconds(3);  // of one attempt
  uint32_t retries = 2;                // attempts at other backends after the first
  bool proxy_protocol = false;         // version 2, to the backend
  bool splice = true;                  // tcp_proxy: connections at rest are passed on, not ended here
  uint32_t replies = 0;                // udp_proxy: a session ends after so many; 0: by time only

  Nanos idle_timeout = Seconds(300);   // no byte or datagram either way
  uint32_t max_connections = 0;        // or sessions, of all workers together; 0: the worker's limit
  Nanos drain_timeout = Seconds(30);   // what is left of a service that was taken away, reset then

  uint32_t slot = kNoServiceSlot;
  IfaceSet group_slots = IfaceSet::All();  // those of group_interfaces; given out likewise

  bool operator==(const ServiceConfig& o) const {
    return name == o.name && kind == o.kind && listen == o.listen &&
           group_interfaces == o.group_interfaces && tcp == o.tcp && udp == o.udp &&
           backends == o.backends && balance == o.balance && health == o.health &&
           connect_timeout == o.connect_timeout && retries == o.retries &&
           proxy_protocol == o.proxy_protocol && splice == o.splice && replies == o.replies &&
           idle_timeout == o.idle_timeout && max_connections == o.max_connections &&
           drain_timeout == o.drain_timeout;
  }
  bool uses_tcp() const {
    return kind == ServiceKind::kTcpProxy || kind == ServiceKind::kHttp ||
           (kind != ServiceKind::kUdpProxy && tcp);
  }
  bool uses_udp() const {
    return kind == ServiceKind::kUdpProxy ||
           (kind != ServiceKind::kTcpProxy && kind != ServiceKind::kHttp && udp);
  }
};

struct ServicesConfig {
  std::vector<ServiceConfig> services;  // names differ, and so do the addresses of each protocol
  bool operator==(const ServicesConfig&) const = default;
};

// Gives out the slots. The control thread has one, and calls Assign for each configuration before the
// workers get it. A name (or a service's backend) keeps its slot while it is configured and as long
// after as nobody else needs it.
class ServiceSlots {
 public:
  static constexpr uint32_t kServices = 2 * kMaxServices;
  static constexpr uint32_t kBackends = 2048;

  // False: more backends than there are slots; the rest has none, and is not counted.
  bool Assign(ServicesConfig& config);

  struct Slot {
    std::string service;     // empty: never used
    ServiceKind kind = ServiceKind::kTcpProxy;
    ServiceAddress address;  // of backends
    uint64_t used = 0;       // the number of the Assign that last had it
  };
  const std::vector<Slot>& services() const { return services_; }
  const std::vector<Slot>& backends() const { return backends_; }
  // Whether the latest configuration has it.
  bool IsCurrent(const Slot& slot) const { return slot.used == round_ && !slot.service.empty(); }

 private:
  template <class Same>
  uint32_t Find(std::vector<Slot>& slots, uint32_t limit, Same&& same);

  std::vector<Slot> services_;
  std::vector<Slot> backends_;
  uint64_t round_ = 0;
};

}  // namespace sluice::tables

#endif  // SLUICE_TABLES_SERVICE_CONFIG_H_
