#include "services/service_set.h"

#include <algorithm>
#include <utility>

#include "services/endpoint_service.h"
#include "services/http_service.h"
#include "services/tcp_proxy.h"
#include "services/udp_proxy.h"

namespace sluice::services {

namespace {

using tables::ServiceConfig;
using tables::ServiceKind;
using tables::ServicesConfig;

// Also where the backends are counted: one may get its place late, when others give up theirs. (A
// service's own place stays.) Likewise where interfaces have their places.
bool IsSame(const ServiceConfig& a, const ServiceConfig& b) {
  return a == b && a.group_slots == b.group_slots &&
         std::equal(a.backends.begin(), a.backends.end(), b.backends.begin(),
                    [](const tables::BackendConfig& x, const tables::BackendConfig& y) {
                      return x.slot == y.slot;
                    });
}

}  // namespace

ServiceSet::ServiceSet(transport::Transport& transport, const ServiceLimits& limits,
                       PageSource& pages, const Randomness& random, Nanos now)
    : context_(transport, limits, pages, random, now),
      by_timer_(kServiceTimers),
      slot_names_(tables::ServiceSlots::kServices),
      backend_slot_names_(tables::ServiceSlots::kBackends) {}

ServiceSet::~ServiceSet() = default;

ServiceSet::ServicePtr ServiceSet::Make(Service::ConfigPtr config) {
  const uint32_t timer = by_timer_.Alloc();
  ServicePtr service;
  switch (config->kind) {
    case ServiceKind::kTcpProxy:
      service = std::make_unique<TcpProxy>(context_, std::move(config), timer);
      break;
    case ServiceKind::kHttp:
      service = std::make_unique<HttpService>(context_, std::move(config), timer);
      break;
    case ServiceKind::kUdpProxy:
      service = std::make_unique<UdpProxy>(context_, std::move(config), timer);
      break;
    case ServiceKind::kEcho:
    case ServiceKind::kDiscard:
    case ServiceKind::kChargen:
      service = std::make_unique<EndpointService>(context_, std::move(config), timer);
      break;
  }
  by_timer_[timer] = service.get();
  return service;
}

// Whoever still counts at a slot that somebody else gets has been draining for long, and ends.
void ServiceSet::EndUsers(uint32_t slot, Nanos now) {
  for (const ServicePtr& service : draining_) {
    if (service->config().slot == slot) service->AbortAll(now);
  }
}

void ServiceSet::ResetSlots(const ServicesConfig& config, Nanos now) {
  for (const ServiceConfig& service : config.services) {
    if (service.slot < slot_names_.size() && slot_names_[service.slot] != service.name) {
      slot_names_[service.slot] = service.name;
      EndUsers(service.slot, now);
      Reset(context_.counters.service(service.slot));
    }
    for (const tables::BackendConfig& b : service.backends) {
      const std::string name = service.name + " " + ToString(b.address);
      if (b.slot >= backend_slot_names_.size() || backend_slot_names_[b.slot] == name) continue;
      backend_slot_names_[b.slot] = name;
      for (const auto* const list : {&services_, &draining_}) {
        for (const ServicePtr& user : *list) user->GiveUpBackendSlot(b.slot);
      }
      Reset(context_.counters.backend(b.slot));
    }
  }
}

void ServiceSet::Apply(std::shared_ptr<const ServicesConfig> config, Nanos now) {
  if (config == nullptr) config = std::make_shared<ServicesConfig>();
  ResetSlots(*config, now);
  std::vector<ServicePtr> before = std::exchange(services_, {});
  std::vector<ServicePtr> kept(config->services.size());
  for (size_t i = 0; i < kept.size(); ++i) {
    const ServiceConfig& wanted = config->services[i];
    const auto old = std::find_if(before.begin(), before.end(), [&](const ServicePtr& s) {
      return s != nullptr && s->config().name == wanted.name && s->config().kind == wanted.kind;
    });
    if (old != before.end()) kept[i] = std::move(*old);
  }
  // First all that stop, so that others may have their addresses.
  for (ServicePtr& service : before) {
    if (service != nullptr) Drain(std::move(service), now);
  }
  for (size_t i = 0; i < kept.size(); ++i) {
    const Service::ConfigPtr wanted(config, &config->services[i]);
    if (kept[i] != nullptr && !IsSame(kept[i]->config(), *wanted)) {
      kept[i]->Reconfigure(wanted, now);
      kept[i]->CloseUnwanted(now);
    }
  }
  for (size_t i = 0; i < kept.size(); ++i) {
    const Service::ConfigPtr wanted(config, &config->services[i]);
    if (kept[i] == nullptr) {
      kept[i] = Make(wanted);
      kept[i]->Start(now);
    }
    kept[i]->Listen();
  }
  services_ = std::move(kept);
  Forget();
}

void ServiceSet::Drain(ServicePtr service, Nanos now) {
  service->Drain(now);
  draining_.push_back(std::move(service));
  if (by_timer_.capacity() - by_timer_.used() < tables::kMaxServices) {
    draining_.front()->AbortAll(now);
    Forget();
  }
}

// Those of which nothing is left.
void ServiceSet::Forget() {
  std::erase_if(draining_, [&](const ServicePtr& service) {
    if (service->active() > 0) return false;
    context_.timers.Clear(TimerKind::kService, service->timer());
    by_timer_[service->timer()] = nullptr;
    by_timer_.Free(service->timer());
    return true;
  });
}

bool ServiceSet::Drained() const {
  return std::all_of(draining_.begin(), draining_.end(),
                     [](const ServicePtr& service) { return service->active() == 0; });
}

void ServiceSet::OnTimer(Nanos now) {
  context_.timers.Advance(now, [&](TimerKind kind, uint32_t index) {
    switch (kind) {
      case TimerKind::kService:
        return by_timer_[index]->OnTimer(now);
      case TimerKind::kEndpoint:
        return context_.endpoints[index].owner->OnItemTimer(index, now);
      case TimerKind::kRelay:
        return context_.relays[index].owner->OnItemTimer(index, now);
      case TimerKind::kProbe:
        return context_.probes[index].owner->OnTimer(index, now);
      case TimerKind::kHttp:
        return context_.http[index].owner->OnItemTimer(index, now);
    }
  });
  if (!draining_.empty()) Forget();
}

void ServiceSet::OnPage(uint64_t token, std::shared_ptr<const std::string> page, Nanos now) {
  const auto index = static_cast<uint32_t>(token);
  if (index >= context_.http.capacity()) return;
  HttpConnection& c = context_.http[index];
  if (c.owner == nullptr || c.TokenAt(index) != token) return;
  c.owner->OnPage(c, std::move(page), now);
}

template <class Test>
const Service* ServiceSet::FindService(Test&& test) const {
  const Service* found = nullptr;
  ForEachService([&](const Service& s) {
    if (test(s)) found = &s;
  });
  return found;
}

const Service* ServiceSet::OwnerOf(const transport::TcpHandler* handler) const {
  return FindService([&](const Service& s) { return s.Handles(handler); });
}

const Service* ServiceSet::OwnerOf(const transport::UdpHandler* handler) const {
  return FindService([&](const Service& s) { return s.HandlesUdp(handler); });
}

ServiceSet::Usage ServiceSet::usage() const {
  return {.relays = context_.relays.used(),
          .probes = context_.probes.used(),
          .udp_sessions = context_.sessions.used(),
          .http_connections = context_.http.used(),
          .endpoint_connections = context_.endpoints.used(),
          .timers = static_cast<uint32_t>(context_.timers.size())};
}

}  // namespace sluice::services
