// Base chains at their hooks: net/netfilter/core.c (nf_hook_entries_grow) and nf_tables_api.c.
//
// Chains run by priority. Of equal ones the kernel puts the one that was registered last first. It
// does not tell when that was; tables are listed as they were made and chains have rising handles,
// which is taken for it.
#include <algorithm>
#include <optional>
#include <string_view>

#include "control/ruleset/ruleset_build.h"
#include "control/ruleset/set_shape.h"

namespace sluice::control {

using tables::ChainInfo;
using tables::HookPoint;
using tables::Program;

namespace {

enum InetHook : uint32_t {
  kHookPrerouting, kHookInput, kHookForward, kHookOutput, kHookPostrouting, kHookIngress,
};

constexpr int32_t kDefragPriority = -400;
constexpr int32_t kConntrackPriority = -200;
constexpr int32_t kDestinationNatPriority = -100;
constexpr int32_t kSourceNatPriority = 100;

// The part of a hook that a chain belongs to.
std::optional<HookPoint> PointOf(const nft::BaseChain& base) {
  const bool nat = base.type == "nat";
  switch (base.hook) {
    case kHookPrerouting:
      if (nat) return HookPoint::kPreroutingNat;
      if (base.priority < kDefragPriority) return HookPoint::kPreroutingFirst;
      if (base.priority < kConntrackPriority) return HookPoint::kPreroutingRaw;
      return base.priority <= kDestinationNatPriority ? HookPoint::kPreroutingEarly
                                                      : HookPoint::kPreroutingLate;
    case kHookInput:
      return nat ? HookPoint::kInputNat : HookPoint::kInput;
    case kHookForward:
      return HookPoint::kForward;
    case kHookOutput:
      if (nat) return HookPoint::kOutputNat;
      return base.priority < kConntrackPriority ? HookPoint::kOutputRaw : HookPoint::kOutput;
    case kHookPostrouting:
      if (nat) return HookPoint::kPostroutingNat;
      return base.priority <= kSourceNatPriority ? HookPoint::kPostroutingEarly
                                                 : HookPoint::kPostroutingLate;
    default:
      return {};
  }
}

struct Placed {
  int32_t priority;
  size_t order;  // of registration
  uint32_t chain;
};

std::vector<uint32_t> Order(std::vector<Placed> chains) {
  std::sort(chains.begin(), chains.end(), [](const Placed& a, const Placed& b) {
    return a.priority != b.priority ? a.priority < b.priority : a.order > b.order;
  });
  std::vector<uint32_t> out;
  for (const Placed& p : chains) out.push_back(p.chain);
  return out;
}

class Placement {
 public:
  explicit Placement(Program& program) : program_(program) {}

  void Add(const nft::Table& table, const nft::BaseChain& base, uint32_t chain, size_t order) {
    ChainInfo& info = program_.chains[chain];
    const Placed placed{base.priority, order, chain};
    const bool useful = info.rule_count > 0 || info.policy_drop;
    const bool netdev = table.family == nft::TableFamily::kNetdev;
    if (netdev || base.hook == kHookIngress) {
      if (netdev && base.hook != 0) return Ignore(table, base, info);
      info.hook = HookPoint::kIngress;
      for (const std::string& device : base.devices) {
        for (size_t slot = 0; slot < (netdev ? 3u : 2u); ++slot) {
          ingress_[device][slot].push_back(placed);
          if (!useful) continue;
          if (slot == 2) program_.ingress_other = true;
          if (slot < 2) program_.has[static_cast<size_t>(HookPoint::kIngress)][slot] = true;
        }
      }
      return;
    }
    const auto point = PointOf(base);
    if (!point) return Ignore(table, base, info);
    info.hook = *point;
    const auto hook = static_cast<size_t>(*point);
    for (size_t slot = 0; slot < 2; ++slot) {
      const auto own = slot == 0 ? nft::TableFamily::kIp : nft::TableFamily::kIp6;
      if (table.family != nft::TableFamily::kInet && table.family != own) continue;
      hooks_[hook][slot].push_back(placed);
      program_.has[hook][slot] = program_.has[hook][slot] || useful;
      if (IsNat(*point)) {
        program_.nat[slot] = true;
        program_.conntrack[slot] = true;
      }
    }
  }

  void Ignore(const nft::Table& table, const nft::BaseChain& base, const ChainInfo& info) {
    program_.ignored_chains.push_back(std::string(nft::FamilyName(table.family)) + " " +
                                      table.name + " " + info.name + " (hook " +
                                      std::to_string(base.hook) + ")");
  }

  void Finish() {
    for (size_t hook = 0; hook < tables::kHookPointCount; ++hook) {
      for (size_t slot = 0; slot < 2; ++slot) {
        program_.hooks[hook][slot] = Order(std::move(hooks_[hook][slot]));
      }
    }
    for (auto& [name, slots] : ingress_) {
      tables::IngressDevice device{name, {}};
      for (size_t slot = 0; slot < 3; ++slot) device.chains[slot] = Order(std::move(slots[slot]));
      program_.ingress.push_back(std::move(device));
    }
  }

 private:
  Program& program_;
  std::array<std::array<std::vector<Placed>, 2>, tables::kHookPointCount> hooks_;
  std::map<std::string, std::array<std::vector<Placed>, 3>> ingress_;
};

}  // namespace

void PlaceChains(const nft::Ruleset& model,
                 const std::map<std::tuple<uint8_t, std::string, std::string>, uint32_t>& chain_ids,
                 Program& program) {
  Placement placement(program);
  size_t order = 0;
  for (const nft::Table& table : model.tables) {
    if (table.dormant) continue;
    std::vector<const nft::Chain*> chains;
    for (const nft::Chain& chain : table.chains) {
      if (chain.base) chains.push_back(&chain);
    }
    std::sort(chains.begin(), chains.end(),
              [](const nft::Chain* a, const nft::Chain* b) { return a->handle < b->handle; });
    for (const nft::Chain* chain : chains) {
      if (!IsServed(table.family)) {
        ChainInfo info;
        info.name = chain->name;
        placement.Ignore(table, *chain->base, info);
        continue;
      }
      const auto id = chain_ids.find(
          {static_cast<uint8_t>(table.family), table.name, chain->name});
      placement.Add(table, *chain->base, id->second, order++);
    }
  }
  placement.Finish();
}

}  // namespace sluice::control
