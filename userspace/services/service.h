// What all services have in common: a name, addresses that they listen on, and how they end.
//
// A service is the handler of all its sockets. It lives from the Apply that brought it until nothing
// of it is left after the one that took it away. Thread: the worker's.
#ifndef SLUICE_SERVICES_SERVICE_H_
#define SLUICE_SERVICES_SERVICE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "base/time.h"
#include "services/context.h"
#include "tables/service_config.h"
#include "transport/transport.h"

namespace sluice::services {

inline transport::Endpoint EndpointOf(const tables::ServiceAddress& a) { return {a.address, a.port}; }

class Service : public transport::TcpHandler, public transport::UdpHandler {
 public:
  // Of the configuration that it is a part of, which it keeps.
  using ConfigPtr = std::shared_ptr<const tables::ServiceConfig>;

  Service(Context& context, ConfigPtr config, uint32_t timer)
      : context_(context),
        config_(std::move(config)),
        timer_(timer),
        stats_(&context.counters.service(config_->slot)) {}
  ~Service() override = default;
  // Of both kinds of sockets.
  using transport::TcpHandler::OnError;
  using transport::TcpHandler::OnReadable;
  using transport::UdpHandler::OnError;
  using transport::UdpHandler::OnReadable;
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;

  // Once, before Listen.
  virtual void Start(Nanos) {}
  // Listens on what the configuration says, where it does not yet.
  void Listen();
  // ... and no longer on what it does not say.
  void CloseUnwanted(Nanos now);
  // A new configuration of the same name and kind; what there is goes on.
  void Reconfigure(ConfigPtr config, Nanos now);
  // From now on nothing new comes; Abort what is left at the deadline.
  void Drain(Nanos now);
  bool draining() const { return drain_deadline_ != Nanos::Max(); }

  // Connections or sessions that are left.
  uint32_t active() const { return active_; }
  const tables::ServiceConfig& config() const { return *config_; }
  const ServiceStats& stats() const { return *stats_; }
  uint32_t timer() const { return timer_; }
  // Whether sockets with this handler are of the service's.
  virtual bool Handles(const transport::TcpHandler* handler) const { return handler == this; }
  bool HandlesUdp(const transport::UdpHandler* handler) const { return handler == this; }
  uint32_t listening() const { return static_cast<uint32_t>(tcp_.size() + udp_.size()); }

  // The service's own timer, and that of an item of its own.
  void OnTimer(Nanos now);
  virtual void OnItemTimer(uint32_t, Nanos) {}
  // Ends all connections and sessions at once.
  virtual void AbortAll(Nanos now) = 0;

  // Backends for views: empty for those without.
  virtual void ForEachBackend(const BackendVisitor&) const {}
  // A backend's counters get another owner: those of a backend that is gone, or about to go.
  virtual void GiveUpBackendSlot(uint32_t) {}

 protected:
  struct TcpListening {
    tables::ServiceAddress address;
    transport::TcpListenerId id;
  };
  struct UdpListening {
    tables::ServiceAddress address;
    transport::UdpSocket socket;
  };

  // config() is the new one already.
  virtual void OnReconfigured(Nanos) {}
  virtual void OnDrain(Nanos) {}
  // `socket` has been closed, or is about to be.
  virtual void OnUdpClosed(const UdpListening&, Nanos) {}
  virtual transport::TcpSocketOptions ListenOptions() const { return {}; }
  // Work of its own by timer: what is due is done, and the next deadline returned.
  virtual Nanos OnWork(Nanos) { return Nanos::Max(); }
  void WantWork(Nanos deadline);

  // Counted in and out; Begin says false at max_connections.
  bool HasRoom() const;
  void Begin() {
    ++active_;
    stats_->accepted.Add();
    stats_->active.Add();
  }
  void End() {
    --active_;
    stats_->active.Sub();
    if (active_ == 0 && draining()) SetTimer();  // it can be forgotten
  }

  transport::Tcp& tcp() { return context_.transport.tcp(); }
  transport::Udp& udp() { return context_.transport.udp(); }

  Context& context_;
  ConfigPtr config_;
  const uint32_t timer_;
  ServiceStats* stats_;
  std::vector<TcpListening> tcp_;
  std::vector<UdpListening> udp_;

 private:
  void ListenUdp(const tables::ServiceAddress& a);
  template <class Wanted>
  void CloseUnless(Wanted&& wanted, Nanos now);
  void SetTimer();

  uint32_t active_ = 0;
  Nanos drain_deadline_ = Nanos::Max();
  Nanos work_deadline_ = Nanos::Max();
};

}  // namespace sluice::services

#endif  // SLUICE_SERVICES_SERVICE_H_
