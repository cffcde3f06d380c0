// Active health checks of one service's backends, from one worker.
//
// Each backend is checked every interval, give or take a tenth. A check connects; http then asks for a
// path and looks at the status of the answer. A backend counts as up until `fall` bad checks in a row
// take it down; `rise` good ones bring it back. Until it is known how it is (a first good check, or down)
// they come eight times as often, so that one that is dead is found out soon, and one whose first check
// went astray (a network that is just coming up) is not lost. The connection is reset afterwards, which
// leaves no TIME-WAIT behind. One that this machine has no port or memory for is neither good nor bad:
// it is tried again soon, and counted (checks_skipped).
//
// Thread: the worker's. Probes come from a slab; without one a backend is not checked, and stays up.
#ifndef SLUICE_SERVICES_HEALTH_CHECKER_H_
#define SLUICE_SERVICES_HEALTH_CHECKER_H_

#include <http_parser.h>

#include <cstdint>
#include <string>

#include "base/time.h"
#include "services/backend_pool.h"
#include "tables/service_config.h"
#include "transport/transport.h"

namespace sluice::services {

struct Context;
class HealthChecker;

struct Probe {
  HealthChecker* owner = nullptr;
  Backend* backend = nullptr;
  transport::TcpSocket socket;
  Nanos started;
  uint32_t in_a_row = 0;  // checks that spoke against what it is
  uint16_t status = 0;    // of the answer; 0: not there yet
  bool running = false;
  bool decided = false;   // it is known how the backend is
  http_parser parser{};
};

class HealthChecker final : public transport::TcpHandler {
 public:
  class Observer {
   public:
    virtual ~Observer() = default;
    virtual void OnBackendDown(Backend& backend, Nanos now) = 0;
  };

  HealthChecker(Context& context, Observer& observer) : context_(context), observer_(observer) {}
  ~HealthChecker() override = default;

  // Begins to check what is configured and not yet checked, and ends what is no longer.
  void Configure(const tables::ServiceConfig& config, BackendPool& pool, Nanos now);
  void Stop(BackendPool& pool, Nanos now);
  // A connection to it has failed: look soon.
  void Hurry(const Backend& backend, Nanos now);

  void OnTimer(uint32_t probe, Nanos now);
  void OnConnected(transport::TcpSocket socket, Nanos now) override;
  void OnReadable(transport::TcpSocket socket, Nanos now) override;
  void OnError(transport::TcpSocket socket, transport::SocketError error, Nanos now) override;

 private:
  Probe& Of(transport::TcpSocket socket);
  void Start(Probe& probe, Nanos now);
  void End(Backend& backend, Nanos now);
  void Result(Probe& probe, bool good, Nanos now);
  void Skip(Probe& probe, Nanos now);
  void Stop(Probe& probe, Nanos now);
  void Schedule(const Probe& probe, Nanos interval, Nanos now);
  void SetUp(Backend& backend, bool up, Nanos now);

  Context& context_;
  Observer& observer_;
  tables::HealthCheckConfig config_;
  bool proxy_protocol_ = false;
  std::string host_;
};

}  // namespace sluice::services

#endif  // SLUICE_SERVICES_HEALTH_CHECKER_H_
