// The services of one worker: what `services:` in the configuration asks for, on its transport stack.
//
// A library without I/O, as the stack is: the worker feeds the stack, the stack calls the services
// back, and OnTimer must be called when NextDeadline has come. Each worker has its own, with its own
// connections, balance, and health of backends, of the flows that arrive there; `max_connections` is
// divided by the number of workers.
//
// Reload: Apply compares by name. An unchanged service is not touched. A changed one keeps its
// connections (a backend that is gone keeps those that it has). One that is gone, or of another kind
// now, stops to listen and drains: its connections live on until they end, or are reset after its
// drain_timeout. Before the program ends, apply an empty configuration and wait for Drained().
//
// Memory for connections is had at construction (ServiceLimits); Apply allocates, per packet and per
// connection nothing is. Thread: the worker's, for all but counters(), which anyone may read.
#ifndef SLUICE_SERVICES_SERVICE_SET_H_
#define SLUICE_SERVICES_SERVICE_SET_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/time.h"
#include "services/context.h"
#include "services/service.h"
#include "services/service_counters.h"
#include "tables/service_config.h"
#include "transport/transport.h"

namespace sluice::services {

class ServiceSet {
 public:
  // All of the arguments must outlive it; destroy it before the transport stack, which must not be
  // given anything in between. It comes without services.
  ServiceSet(transport::Transport& transport, const ServiceLimits& limits, PageSource& pages,
             const Randomness& random, Nanos now);
  ~ServiceSet();
  ServiceSet(const ServiceSet&) = delete;
  ServiceSet& operator=(const ServiceSet&) = delete;

  // With slots given out (tables::ServiceSlots). Null is as an empty one.
  void Apply(std::shared_ptr<const tables::ServicesConfig> config, Nanos now);

  void OnTimer(Nanos now);
  Nanos NextDeadline() const { return context_.timers.NextDeadline(); }

  // The page that PageSource::Request has asked for; null: there is none, and the client is told so.
  // A token that has had its answer, or whose connection is gone, is ignored.
  void OnPage(uint64_t token, std::shared_ptr<const std::string> page, Nanos now);

  const ServiceCounters& counters() const { return context_.counters; }
  // Nothing is left of the services that were taken away.
  bool Drained() const;

  // For `show services`: `visit(const Service&)`; first those configured, in order, then those that
  // drain. config(), stats(), active(), draining(), listening(), ForEachBackend tell of each.
  template <class Visitor>
  void ForEachService(Visitor&& visit) const {
    for (const auto& service : services_) visit(static_cast<const Service&>(*service));
    for (const auto& service : draining_) visit(static_cast<const Service&>(*service));
  }

  // For `show sockets`: whose a socket with this handler is. Null: nobody's, as one that has been closed
  // and lives on until its peer has everything.
  const Service* OwnerOf(const transport::TcpHandler* handler) const;
  const Service* OwnerOf(const transport::UdpHandler* handler) const;

  // What is in use, for metrics and tests; after all is drained everything is zero.
  struct Usage {
    uint32_t relays = 0;
    uint32_t probes = 0;  // health checks, at work or waiting for their turn
    uint32_t udp_sessions = 0;
    uint32_t http_connections = 0;
    uint32_t endpoint_connections = 0;
    uint32_t timers = 0;
  };
  Usage usage() const;

 private:
  template <class Test>
  const Service* FindService(Test&& test) const;
  using ServicePtr = std::unique_ptr<Service>;
  ServicePtr Make(Service::ConfigPtr config);
  void Drain(ServicePtr service, Nanos now);
  void Forget();
  void ResetSlots(const tables::ServicesConfig& config, Nanos now);
  void EndUsers(uint32_t slot, Nanos now);

  Context context_;
  transport::Slab<Service*> by_timer_;
  std::vector<ServicePtr> services_;
  std::vector<ServicePtr> draining_;
  std::vector<std::string> slot_names_;
  std::vector<std::string> backend_slot_names_;
};

}  // namespace sluice::services

#endif  // SLUICE_SERVICES_SERVICE_SET_H_
