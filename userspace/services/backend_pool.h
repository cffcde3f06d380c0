// The backends of one service on one worker, and which of them gets the next connection.
//
// round_robin      in turns by weight, evenly mixed rather than in runs
// least_connections  the one with the fewest connections of this worker for its weight
// maglev           by the client's address: the same everywhere and always, and when a backend is
//                  down only its clients go to others (and come back)
//
// Pick never names a backend that is down, or one of `tried`. Its cost is the number of backends, but
// for maglev, which is one load. Thread: the worker's. Only Configure allocates.
#ifndef SLUICE_SERVICES_BACKEND_POOL_H_
#define SLUICE_SERVICES_BACKEND_POOL_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "base/address.h"
#include "base/time.h"
#include "services/service_counters.h"
#include "tables/service_config.h"

namespace sluice::services {

// Its address stays where it is until it is gone: connections point to it.
struct Backend {
  tables::BackendConfig config;
  BackendStats* stats = nullptr;
  uint32_t index = 0;        // among those configured
  uint32_t connections = 0;
  uint32_t probe = 0xffffffff;  // health_checker.h
  int64_t credit = 0;        // round robin's
  bool up = true;
  bool removed = false;      // by a reload; lives until its connections have ended
  Nanos since;               // of `up`

  void Began() {
    ++connections;
    stats->active.Add();
  }
  void Ended() {
    --connections;
    stats->active.Sub();
  }
};

// Backends by index.
using BackendMask = uint64_t;
static_assert(tables::kMaxBackends <= 64);

class BackendPool {
 public:
  BackendPool(ServiceCounters& counters, uint64_t seed) : counters_(counters), seed_(seed) {}

  // Those that stay (by address) keep their state. The configuration must outlive the next Configure.
  // Those that are gone live on while they have connections: Collect.
  void Configure(const tables::ServiceConfig& config, Nanos now);

  // Null: there is none.
  Backend* Pick(const IpAddress& client, BackendMask tried);

  // Somebody else counts at this place from now on; nobody looks at what is left of who did.
  void GiveUpSlot(uint32_t slot);

  // Forgets backends that were removed and have no connections any more.
  void Collect();

  // Those configured, in order.
  const std::vector<Backend*>& current() const { return current_; }
  template <class Visitor>
  void ForEach(Visitor&& visit) const {  // with those removed
    for (const auto& b : all_) visit(*b);
  }

 private:
  static bool Eligible(const Backend& b, BackendMask tried) {
    return b.up && (tried >> b.index & 1) == 0;
  }
  Backend* PickInTurns(BackendMask tried);
  Backend* PickLeastConnections(BackendMask tried);
  Backend* PickByClient(const IpAddress& client, BackendMask tried);

  ServiceCounters& counters_;
  const uint64_t seed_;
  const tables::ServiceConfig* config_ = nullptr;
  std::vector<std::unique_ptr<Backend>> all_;
  std::vector<Backend*> current_;
  uint32_t next_ = 0;  // where least_connections begins to look, so that equals take turns
};

}  // namespace sluice::services

#endif  // SLUICE_SERVICES_BACKEND_POOL_H_
