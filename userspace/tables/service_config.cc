#include "tables/service_config.h"

#include <algorithm>

namespace sluice::tables {

std::string ToString(const ServiceAddress& a) {
  const std::string address = sluice::ToString(a.address);
  const std::string port = std::to_string(a.port);
  return a.address.is_v4() ? address + ":" + port : "[" + address + "]:" + port;
}

// The slot that is `same`, else a new one, else the one that has been unused longest.
template <class Same>
uint32_t ServiceSlots::Find(std::vector<Slot>& slots, uint32_t limit, Same&& same) {
  const auto found = std::find_if(slots.begin(), slots.end(), same);
  if (found != slots.end()) return static_cast<uint32_t>(found - slots.begin());
  if (slots.size() < limit) {
    slots.emplace_back();
    return static_cast<uint32_t>(slots.size() - 1);
  }
  const auto oldest = std::min_element(
      slots.begin(), slots.end(), [](const Slot& a, const Slot& b) { return a.used < b.used; });
  return oldest->used < round_ ? static_cast<uint32_t>(oldest - slots.begin()) : kNoServiceSlot;
}

bool ServiceSlots::Assign(ServicesConfig& config) {
  ++round_;
  // First what has a slot, so that it is not given away to something new.
  for (const ServiceConfig& service : config.services) {
    for (Slot& slot : services_) {
      if (slot.service == service.name) slot.used = round_;
    }
    for (Slot& slot : backends_) {
      if (slot.service != service.name) continue;
      for (const BackendConfig& backend : service.backends) {
        if (backend.address == slot.address) slot.used = round_;
      }
    }
  }
  bool all = true;
  for (ServiceConfig& service : config.services) {
    service.slot = Find(services_, kServices,
                        [&](const Slot& s) { return s.service == service.name; });
    if (service.slot == kNoServiceSlot) {
      all = false;
    } else {
      services_[service.slot] = {service.name, service.kind, {}, round_};
    }
    for (BackendConfig& backend : service.backends) {
      backend.slot = Find(backends_, kBackends, [&](const Slot& s) {
        return s.service == service.name && s.address == backend.address;
      });
      if (backend.slot == kNoServiceSlot) {
        all = false;
      } else {
        backends_[backend.slot] = {service.name, service.kind, backend.address, round_};
      }
    }
  }
  return all;
}

}  // namespace sluice::tables
