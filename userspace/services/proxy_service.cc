#include "services/proxy_service.h"

namespace sluice::services {

ProxyService::ProxyService(Context& context, ConfigPtr config, uint32_t timer)
    : Service(context, std::move(config), timer),
      pool_(context.counters, context.rng.Next()),
      checker_(context, *this) {}

void ProxyService::Start(Nanos now) { OnReconfigured(now); }

void ProxyService::OnReconfigured(Nanos now) {
  pool_.Configure(*config_, now);
  checker_.Configure(*config_, pool_, now);
  pool_.Collect();
}

void ProxyService::OnDrain(Nanos now) {
  checker_.Stop(pool_, now);
  pool_.ForEach([](Backend& b) { b.stats->up.Set(0); });
}

void ProxyService::Leave(Backend& backend) {
  backend.Ended();
  if (backend.removed && backend.connections == 0) pool_.Collect();
}

void ProxyService::ForEachBackend(const BackendVisitor& visit) const {
  pool_.ForEach([&](const Backend& b) {
    visit({.address = b.config.address,
           .weight = b.config.weight,
           .checked = b.probe != transport::kNoIndex,
           .up = b.up,
           .removed = b.removed,
           .connections = b.connections,
           .since = b.since,
           .stats = b.config.slot == tables::kNoServiceSlot ? nullptr : b.stats});
  });
}

}  // namespace sluice::services
