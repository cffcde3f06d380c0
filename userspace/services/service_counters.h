// What the services of one worker count. Written by the worker, read by anyone at any time.
//
// Each service and each backend has a place of its own, by the slot that the control thread gave it
// (tables::ServiceSlots), which also knows their names. Sums over workers are the reader's to make.
// A slot that is given to another name starts at zero when the worker takes that configuration.
#ifndef SLUICE_SERVICES_SERVICE_COUNTERS_H_
#define SLUICE_SERVICES_SERVICE_COUNTERS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "base/counter.h"
#include "base/time.h"
#include "tables/service_config.h"

namespace sluice::services {

// Why a connection, a session or a datagram was not served to its end.
enum class ServiceFailure : uint8_t {
  kLimit,          // max_connections, or the worker's
  kNoBackend,      // none is up
  kConnectFailed,  // no backend could be connected to, all attempts made
  kClientReset,    // the client reset its connection, or vanished
  kBackendReset,   // likewise, after the connection stood
  kIdleTimeout,
  kDrainTimeout,   // the service was taken away, and this one did not end in time
  kMemory,         // the worker's buffers
  kBadRequest,     // http
  kEvicted,        // a UDP session, or an idle HTTP connection, that made room for a new one
  kSendFailed,     // a datagram that could not be passed on (too long, no route)
  kLoop,           // a datagram from a port that would answer the answer
  kListen,         // an address could not be listened on
};
inline constexpr std::string_view kServiceFailureNames[] = {
    "limit", "no_backend", "connect_failed", "client_reset", "backend_reset", "idle_timeout",
    "drain_timeout", "memory", "bad_request", "evicted", "send_failed", "loop", "listen"};
inline constexpr size_t kServiceFailureCount = std::size(kServiceFailureNames);
constexpr std::string_view Name(ServiceFailure f) {
  return kServiceFailureNames[static_cast<size_t>(f)];
}

// Upper ends of the connect-time histogram's buckets; one more holds the rest.
inline constexpr std::array<Nanos, 14> kConnectTimeBounds = {
    Micros(100), Micros(250), Micros(500), Millis(1),   Micros(2500), Millis(5),    Millis(10),
    Millis(25),  Millis(50),  Millis(100), Millis(250), Millis(500),  Seconds(1), Millis(2500)};

struct ServiceStats {
  Counter listening;  // a gauge: addresses and protocols that are open
  Counter accepted;   // connections, or UDP sessions
  Counter active;     // a gauge
  std::array<Counter, kServiceFailureCount> failed;
  Counter retries;      // attempts at another backend
  Counter bytes_in;     // from clients
  Counter bytes_out;    // to clients
  Counter messages_in;  // datagrams, or HTTP requests, from clients
  Counter messages_out;
  std::array<Counter, kConnectTimeBounds.size() + 1> connect_time;  // each bucket by itself
  Counter connect_time_ns;                                          // the sum

  void Fail(ServiceFailure f) { failed[static_cast<size_t>(f)].Add(); }
};

struct BackendStats {
  Counter up;           // a gauge: 1 or 0; absent backends have 0
  Counter active;       // a gauge: connections or sessions
  Counter connections;  // made (TCP), or sessions begun (UDP)
  Counter failures;     // connects that failed or took too long; ICMP errors (UDP)
  Counter went_up;      // health transitions
  Counter went_down;
  Counter checks_passed;
  Counter checks_failed;
  Counter checks_skipped;  // not made, for want of memory or ports of our own
};

// For a slot that another name takes over. On the worker's thread.
void Reset(ServiceStats& stats);
void Reset(BackendStats& stats);

class ServiceCounters {
 public:
  ServiceCounters()
      : services_(std::make_unique<ServiceStats[]>(kServices + 1)),
        backends_(std::make_unique<BackendStats[]>(kBackends + 1)) {}

  // Any slot; those that are out of range share one place that nobody looks at.
  ServiceStats& service(uint32_t slot) { return services_[slot < kServices ? slot : kServices]; }
  BackendStats& backend(uint32_t slot) { return backends_[slot < kBackends ? slot : kBackends]; }
  const ServiceStats& service(uint32_t slot) const {
    return services_[slot < kServices ? slot : kServices];
  }
  const BackendStats& backend(uint32_t slot) const {
    return backends_[slot < kBackends ? slot : kBackends];
  }

 private:
  static constexpr uint32_t kServices = tables::ServiceSlots::kServices;
  static constexpr uint32_t kBackends = tables::ServiceSlots::kBackends;
  const std::unique_ptr<ServiceStats[]> services_;
  const std::unique_ptr<BackendStats[]> backends_;
};

}  // namespace sluice::services

#endif  // SLUICE_SERVICES_SERVICE_COUNTERS_H_
