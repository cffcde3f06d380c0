#include "app/group_control.h"

#include <algorithm>
#include <set>
#include <vector>

#include "app/log.h"

namespace sluice::app {

namespace {

static_assert(tables::kMaxGroupListens <= SLUICE_MAX_GROUPS, "what a configuration may say fits");

constexpr uint32_t kSmallestMtuOfIpv6 = 1280;  // RFC 8200 section 5

bool WantsGroupsOf(const tables::ServiceConfig& service, const std::string& interface) {
  const std::vector<std::string>& names = service.group_interfaces;
  return names.empty() || std::find(names.begin(), names.end(), interface) != names.end();
}

std::set<IpAddress> GroupsOn(const tables::ServicesConfig& services, const std::string& interface) {
  std::set<IpAddress> groups;
  for (const tables::ServiceConfig& service : services.services) {
    if (!WantsGroupsOf(service, interface)) continue;
    for (const tables::ServiceAddress& a : service.listen) {
      if (IsGroup(a)) groups.insert(a.address);
    }
  }
  return groups;
}

}  // namespace

void GroupControl::Place(tables::ServicesConfig& services, Served interfaces) {
  for (tables::ServiceConfig& service : services.services) {
    if (service.group_interfaces.empty()) continue;
    service.group_slots = {};
    for (uint8_t i = 0; i < interfaces.size(); ++i) {
      const std::string& name = interfaces[i].config.name;
      if (!name.empty() && WantsGroupsOf(service, name)) service.group_slots.Add(IfaceSlot{i});
    }
  }
}

absl::Status GroupControl::Join(const IpAddress& group, const ServedInterface& served,
                                const control::KernelState& kernel) {
  // Below, the kernel lets go of all that it has of IPv6 there, memberships too, and does not tell who
  // holds them.
  const control::Link* const link = kernel.FindLink(served.config.name);
  if (!group.is_v4() && link != nullptr && link->mtu < kSmallestMtuOfIpv6) {
    return absl::FailedPreconditionError("its MTU is too small for IPv6");
  }
  return memberships_.Join({group, served.ifindex()});
}

void GroupControl::Follow(const tables::ServicesConfig& services, Served interfaces,
                          const control::KernelState& kernel) {
  std::set<control::GroupMembership> joined;
  std::map<Where, std::string> problems;
  used_ = 0;
  for (const ServedInterface& served : interfaces) {
    if (!served.attached() || served.leaving) continue;
    std::vector<IpAddress> here;
    for (const IpAddress& group : GroupsOn(services, served.config.name)) {
      const absl::Status status = Join(group, served, kernel);
      if (status.ok()) {
        here.push_back(group);
        joined.insert({group, served.ifindex()});
      } else {
        problems[{served.config.name, group}] = std::string(status.message());
      }
    }
    for (const auto& [group, status] : served.attachment->SetGroups(here)) {
      problems[{served.config.name, group}] = std::string(status.message());
    }
    used_ = std::max<uint64_t>(used_, served.attachment->groups());
  }
  memberships_.LeaveAllBut(joined);
  for (const auto& [where, problem] : problems) {
    const auto known = problems_.find(where);
    if (known != problems_.end() && known->second == problem) continue;
    LogWarning("{}: group {} is not joined: {}; tried again every second", where.first,
               ToString(where.second), problem);
  }
  problems_ = std::move(problems);
}

}  // namespace sluice::app
