#include "stages/neighbor/solicit.h"

#include <optional>

#include "stages/neighbor/generated.h"
#include "wire/arp.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"
#include "wire/ndp.h"

namespace sluice::stages {
namespace {

constexpr uint8_t kScopeLink = 253;  // RT_SCOPE_LINK

void SendArpRequest(const SolicitTarget& target, const tables::Snapshot& snapshot,
                    packet::Outbox& outbox, WorkerCounters& counters) {
  const tables::Interface& interface = snapshot.at(target.slot);
  const Ipv4 wanted = target.address.v4();
  Ipv4 source;
  if (target.waiting != nullptr) {
    const Ipv4 sender = Ipv4::FromWire(target.waiting->l3() + 12);
    if (snapshot.own4.Contains(sender)) source = sender;
  }
  if (source.IsUnspecified()) source = ChooseArpSource(snapshot, interface, wanted);
  const Mac destination = target.known_mac != nullptr ? *target.known_mac : Mac::Broadcast();
  SendGenerated(outbox, counters, target.slot, GeneratedKind::kArpRequest,
                wire::kEthernetHeaderSize + wire::ArpView::kSize, [&](std::span<uint8_t> out) {
                  return wire::EmitArpFrame(out, destination,
                                            wire::ArpRequestFor(wanted, interface.mac, source));
                });
}

// Whether `address` may be a sender on this interface.
bool IsUsable6(const tables::Interface& interface, const Ipv6& address) {
  for (const auto& own : interface.addresses6) {
    if (own.address == address) return !own.tentative;
  }
  return false;
}

std::optional<Ipv6> ChooseNdSource(const SolicitTarget& target,
                                   const tables::Interface& interface) {
  if (target.waiting != nullptr) {
    const Ipv6 sender = wire::Ipv6View(target.waiting->l3()).source();
    if (IsUsable6(interface, sender)) return sender;
  }
  for (const auto& own : interface.addresses6) {
    if (own.address.IsLinkLocal() && !own.tentative) return own.address;
  }
  return {};
}

void SendNeighborSolicitation(const SolicitTarget& target, const tables::Snapshot& snapshot,
                              packet::Outbox& outbox, WorkerCounters& counters) {
  const tables::Interface& interface = snapshot.at(target.slot);
  const std::optional<Ipv6> source = ChooseNdSource(target, interface);
  if (!source) return;
  const Ipv6 wanted = target.address.v6();
  const bool unicast = target.known_mac != nullptr;
  const Ipv6 destination = unicast ? wanted : wanted.SolicitedNode();
  const Mac mac = unicast ? *target.known_mac : wire::MulticastMac(destination);
  SendGenerated(outbox, counters, target.slot, GeneratedKind::kNeighborSolicitation,
                wire::kMaxNdFrameSize, [&](std::span<uint8_t> out) {
                  return wire::EmitNeighborSolicitationFrame(out, mac, interface.mac,
                                                             {.source = *source,
                                                              .destination = destination,
                                                              .target = wanted,
                                                              .link_layer = interface.mac});
                });
}

}  // namespace

Ipv4 ChooseArpSource(const tables::Snapshot& snapshot, const tables::Interface& interface,
                     Ipv4 target) {
  Ipv4 first;
  for (const auto& own : interface.addresses4) {
    if (own.secondary || own.scope > kScopeLink) continue;
    if (Ipv4Prefix{own.address, own.prefix_length}.Contains(target)) return own.address;
    if (first.IsUnspecified()) first = own.address;
  }
  if (!first.IsUnspecified()) return first;
  // An unnumbered interface borrows an address that is not bound to another link.
  for (const tables::Interface& other : snapshot.interfaces) {
    if (!other.slot.valid()) continue;
    for (const auto& own : other.addresses4) {
      if (!own.secondary && own.scope < kScopeLink) return own.address;
    }
  }
  return first;
}

void Solicit(const SolicitTarget& target, const tables::Snapshot& snapshot, packet::Outbox& outbox,
             WorkerCounters& counters) {
  if (!snapshot.at(target.slot).up) return;
  if (target.address.is_v4()) {
    SendArpRequest(target, snapshot, outbox, counters);
  } else {
    SendNeighborSolicitation(target, snapshot, outbox, counters);
  }
}

}  // namespace sluice::stages
