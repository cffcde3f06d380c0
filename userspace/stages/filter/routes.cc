// What rules ask the routing tables: nft_fib_ipv4.c, nft_fib_ipv6.c, nft_rt.c.
#include <algorithm>

#include "stages/filter/evaluation.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"
#include "wire/protocol.h"

namespace sluice::stages {

using tables::HookPoint;
using tables::Interface;
using tables::Op;
using tables::Path;
using tables::Route;
using tables::RouteId;
using tables::RouteType;

namespace {

enum FibFlag : uint32_t { kSource = 1, kDestination = 2, kMark = 4, kIif = 8, kOif = 16, kPresent = 32 };
enum FibResult : uint8_t { kResultOif = 1, kResultOifName = 2, kResultType = 3 };
enum RtKey : uint8_t { kNextHop4 = 1, kNextHop6 = 2, kTcpMss = 3 };

// RTN_*
enum : uint32_t {
  kRtnUnspec, kRtnUnicast, kRtnLocal, kRtnBroadcast, kRtnAnycast, kRtnMulticast, kRtnBlackhole,
  kRtnUnreachable, kRtnProhibit,
};

bool UsesDevice(const Route& route, const Interface& device) {
  return std::any_of(route.paths.begin(), route.paths.end(),
                     [&](const Path& path) { return path.oif == device.ifindex; });
}

bool HasAddress(const Interface& device, Ipv4 address) {
  return std::any_of(device.addresses4.begin(), device.addresses4.end(),
                     [&](const auto& own) { return own.address == address; });
}

bool HasAddress(const Interface& device, const Ipv6& address) {
  return std::any_of(device.addresses6.begin(), device.addresses6.end(), [&](const auto& own) {
    return own.address == address && !own.tentative;
  });
}

// The broadcast addresses that the kernel puts into its local table for an address.
bool IsBroadcastOf(const Interface& device, Ipv4 address) {
  return std::any_of(device.addresses4.begin(), device.addresses4.end(), [&](const auto& own) {
    if (own.prefix_length >= 31) return false;
    const Ipv4Prefix prefix{own.address, own.prefix_length};
    return address.value == (own.address.value | ~prefix.mask());
  });
}

bool IsUnicast(const Ipv6& a) { return !a.IsMulticast() && !a.IsUnspecified(); }

}  // namespace

const Interface* Evaluation::FibDevice(const Op& op, bool oif_first) const {
  if (oif_first && (op.a & kOif) != 0) return context_.out;
  if ((op.a & kIif) != 0) return context_.in;
  return (op.a & kOif) != 0 ? context_.out : nullptr;
}

Evaluation::Step Evaluation::Fib(const Op& op) {
  if (family_slot_ == 2) return Step::kBreak;
  if ((is_v4() ? context_.snapshot.policy_routing4 : context_.snapshot.policy_routing6)) {
    return Verdict(kToKernel);
  }
  if (op.kind == kResultType) {
    registers_[op.dreg] = is_v4() ? FibType4(op) : FibType6(op);
    return Step::kNext;
  }
  return is_v4() ? FibRoute4(op) : FibRoute6(op);
}

// nft_fib_store_result, for a device, or one that is not served (then only its index is known).
Evaluation::Step Evaluation::FibStore(const Op& op, const Interface* device, IfIndex index) {
  if (device != nullptr) index = device->ifindex;
  if ((op.a & kPresent) != 0) {
    registers_[op.dreg] = index.value != 0 ? 1 : 0;
    return Step::kNext;
  }
  if (op.kind == kResultOif) {
    registers_[op.dreg] = index.value;
    return Step::kNext;
  }
  std::memset(Reg(op.dreg), 0, 16);
  if (index.value == 0) return Step::kNext;
  for (const Interface& i : context_.snapshot.interfaces) {
    if (!i.slot.valid() || i.ifindex != index) continue;
    std::memcpy(Reg(op.dreg), i.name.data(), std::min<size_t>(i.name.size(), 15));
    return Step::kNext;
  }
  return Verdict(kToKernel);  // it knows the name
}

// nft_fib4_eval.
Evaluation::Step Evaluation::FibRoute4(const Op& op) {
  const Interface* device = FibDevice(op, true);
  const wire::Ipv4View ip(context_.p.l3());
  const bool link_local_multicast = ip.destination().value >> 8 == 0xe00000;
  if (ip.source().value >> 24 == 0 &&
      (ip.destination().IsLimitedBroadcast() || link_local_multicast)) {
    return FibStore(op, context_.in, {});
  }
  const Ipv4 address = (op.a & kDestination) != 0 ? ip.destination() : ip.source();
  const RouteId id = context_.tables.fib4.Lookup(address);
  const Route& route = context_.tables.routes.Get(id);
  if (!id.valid()) return FibStore(op, nullptr, {});
  switch (route.type) {
    case RouteType::kUnicast:
      break;
    case RouteType::kPunt:
      return Verdict(kToKernel);
    case RouteType::kBroadcast:
    case RouteType::kMulticast:
    case RouteType::kAnycast:
      // Their device is not in the route; the interface's addresses tell.
      if (device == nullptr) return Verdict(kToKernel);
      if (IsBroadcastOf(*device, address)) return FibStore(op, device, {});
      return FibStore(op, nullptr, {});
    default:
      return FibStore(op, nullptr, {});
  }
  if (device == nullptr) {
    return FibStore(op, nullptr, route.paths.empty() ? IfIndex{} : route.paths[0].oif);
  }
  return FibStore(op, UsesDevice(route, *device) ? device : nullptr, {});
}

// nft_fib6_eval.
Evaluation::Step Evaluation::FibRoute6(const Op& op) {
  const Interface* device = FibDevice(op, false);
  const wire::Ipv6View ip(context_.p.l3());
  if ((tables::IsPrerouting(hook_) || hook_ == HookPoint::kIngress) &&
      context_.p.l4_protocol == wire::kProtocolIcmpv6 && ip.source().IsUnspecified() &&
      ip.destination().IsLinkLocal()) {
    return FibStore(op, context_.in, {});
  }
  const Ipv6 address = (op.a & kDestination) != 0 ? ip.destination() : ip.source();
  if (address.IsLinkLocal()) {  // each interface has the prefix
    const Interface* link = device != nullptr ? device : context_.in;
    if (link == nullptr) return Verdict(kToKernel);
    return FibStore(op, HasAddress(*link, address) ? nullptr : link, {});
  }
  const RouteId id = context_.tables.fib6.Lookup(address);
  if (!id.valid()) return FibStore(op, nullptr, {});
  const Route& route = context_.tables.routes.Get(id);
  if (route.type == RouteType::kPunt || route.type == RouteType::kMulticast) {
    return Verdict(kToKernel);
  }
  if (route.type != RouteType::kUnicast || route.paths.empty()) return FibStore(op, nullptr, {});
  if (device != nullptr && !UsesDevice(route, *device)) return FibStore(op, nullptr, {});
  return FibStore(op, device, route.paths[0].oif);
}

// inet_dev_addr_type: by the local table, of one device if there is one.
uint32_t Evaluation::FibType4(const Op& op) const {
  const Interface* device = FibDevice(op, false);
  const wire::Ipv4View ip(context_.p.l3());
  const Ipv4 address = (op.a & kDestination) != 0 ? ip.destination() : ip.source();
  if (address.value >> 24 == 0 || address.IsLimitedBroadcast()) return kRtnBroadcast;
  if (address.IsMulticast()) return kRtnMulticast;
  const RouteId id = context_.tables.fib4.Lookup(address);
  if (!id.valid()) return kRtnUnicast;
  switch (context_.tables.routes.Get(id).type) {
    case RouteType::kLocal:
      return device == nullptr || HasAddress(*device, address) ? kRtnLocal : kRtnUnicast;
    case RouteType::kBroadcast:
      return device == nullptr || IsBroadcastOf(*device, address) ? kRtnBroadcast : kRtnUnicast;
    default:
      return kRtnUnicast;
  }
}

uint32_t Evaluation::FibType6(const Op& op) const {
  const Interface* device = FibDevice(op, false);
  const wire::Ipv6View ip(context_.p.l3());
  const Ipv6 address = (op.a & kDestination) != 0 ? ip.destination() : ip.source();
  uint32_t local = device != nullptr && HasAddress(*device, address) ? kRtnLocal : kRtnUnspec;
  if (!address.IsLinkLocal() && !address.IsMulticast()) {
    const RouteId id = context_.tables.fib6.Lookup(address);
    if (!id.valid()) return kRtnUnreachable;
    switch (context_.tables.routes.Get(id).type) {
      case RouteType::kBlackhole:
        return kRtnBlackhole;
      case RouteType::kProhibit:
        return kRtnProhibit;
      case RouteType::kUnreachable:
        return kRtnUnreachable;
      case RouteType::kAnycast:
        return kRtnAnycast;
      case RouteType::kLocal:
        if (device == nullptr) local = kRtnLocal;
        break;
      default:
        break;
    }
  } else if (address.IsLinkLocal() && device == nullptr && context_.in != nullptr &&
             HasAddress(*context_.in, address)) {
    local = kRtnLocal;
  }
  if (local != kRtnUnspec) return local;
  if (address.IsMulticast()) return kRtnMulticast;
  return IsUnicast(address) ? kRtnUnicast : kRtnUnspec;
}

void Evaluation::ObserveRoutes(const Op& op) {
  SetFixed(op.dreg, std::max<size_t>(op.length, 4));
  const packet::Packet& p = context_.p;
  bool source;
  if (op.code == tables::OpCode::kFib) {
    source = (op.a & kDestination) == 0;
  } else {
    // The packet's own route, and of the maximum segment size the way back.
    if (p.route_id == 0 || op.kind != kTcpMss) return;
    source = true;
  }
  if (is_v4()) {
    const wire::Ipv4View ip(p.l3());
    ObserveRoute(source ? ip.source() : ip.destination());
  } else {
    const wire::Ipv6View ip(p.l3());
    ObserveRoute(source ? ip.source() : ip.destination());
  }
}

// dst_mtu of a route; false when it leads nowhere that we know the MTU of.
bool Evaluation::RouteMtu(const Route& route, uint32_t& mtu) const {
  if (route.mtu != 0) {
    mtu = route.mtu;
    return true;
  }
  if (route.paths.empty() || !route.paths[0].slot.valid()) return false;
  const Interface& device = context_.snapshot.at(route.paths[0].slot);
  if (!device.slot.valid()) return false;
  mtu = is_v4() ? device.mtu : device.mtu6;
  return true;
}

Evaluation::Step Evaluation::Rt(const Op& op) {
  const packet::Packet& p = context_.p;
  if (p.route_id == 0 || family_slot_ == 2) return Step::kBreak;
  const Route& route = context_.tables.routes.Get(RouteId{p.route_id});
  const Path* path = route.paths.empty() ? nullptr : &route.paths[0];
  for (const Path& candidate : route.paths) {
    if (candidate.slot == p.out && p.out.valid()) path = &candidate;
  }
  switch (op.kind) {
    case kNextHop4: {
      if (!is_v4()) return Step::kBreak;
      Ipv4 hop = wire::Ipv4View(p.l3()).destination();
      if (path != nullptr && path->has_gateway) {
        if (!path->gateway.is_v4()) return Verdict(kToKernel);
        hop = path->gateway.v4();
      }
      hop.ToWire(Reg(op.dreg));
      return Step::kNext;
    }
    case kNextHop6: {
      if (!is_v6()) return Step::kBreak;
      Ipv6 hop = wire::Ipv6View(p.l3()).destination();
      if (path != nullptr && path->has_gateway) hop = path->gateway.v6();
      hop.ToWire(Reg(op.dreg));
      return Step::kNext;
    }
    case kTcpMss: {  // get_tcpmss: of the way out and the way back
      uint32_t mtu = 0;
      if (!RouteMtu(route, mtu)) {
        if (context_.out == nullptr) return Verdict(kToKernel);
        mtu = is_v4() ? context_.out->mtu : context_.out->mtu6;
      }
      const RouteId back =
          is_v4() ? context_.tables.fib4.Lookup(wire::Ipv4View(p.l3()).source())
                  : context_.tables.fib6.Lookup(wire::Ipv6View(p.l3()).source());
      uint32_t back_mtu = 0;
      if (back.valid() && RouteMtu(context_.tables.routes.Get(back), back_mtu)) {
        mtu = std::min(mtu, back_mtu);
      }
      const uint32_t headers = is_v4() ? 40 : 60;
      constexpr uint32_t kDefaultMss = 536;
      registers_[op.dreg] = mtu <= headers || mtu > 0xffff ? kDefaultMss : mtu - headers;
      return Step::kNext;
    }
    default:
      return Verdict(kToKernel);
  }
}

}  // namespace sluice::stages
