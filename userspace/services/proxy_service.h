// What both proxies have: backends and their health checks.
#ifndef SLUICE_SERVICES_PROXY_SERVICE_H_
#define SLUICE_SERVICES_PROXY_SERVICE_H_

#include "services/backend_pool.h"
#include "services/health_checker.h"
#include "services/service.h"

namespace sluice::services {

class ProxyService : public Service, private HealthChecker::Observer {
 public:
  ProxyService(Context& context, ConfigPtr config, uint32_t timer);

  void Start(Nanos now) override;
  void ForEachBackend(const BackendVisitor& visit) const override;
  bool Handles(const transport::TcpHandler* handler) const override {
    return handler == &checker_ || Service::Handles(handler);
  }
  void GiveUpBackendSlot(uint32_t slot) override { pool_.GiveUpSlot(slot); }

 protected:
  void OnReconfigured(Nanos now) override;
  void OnDrain(Nanos now) override;
  // A health check has found it down.
  void OnBackendDown(Backend&, Nanos) override {}
  // One connection or session of the backend's less; it may be gone after that.
  void Leave(Backend& backend);

  BackendPool pool_;
  HealthChecker checker_;
};

}  // namespace sluice::services

#endif  // SLUICE_SERVICES_PROXY_SERVICE_H_
