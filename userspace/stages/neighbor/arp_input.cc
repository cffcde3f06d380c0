#include "stages/neighbor/arp_input.h"

#include <span>

#include "stages/neighbor/generated.h"
#include "wire/arp.h"
#include "wire/ethernet.h"

namespace sluice::stages {
namespace {

using packet::Verdict;
using tables::Interface;
using tables::Ipv4InterfaceAddress;

constexpr uint8_t kScopeHost = 254;  // RT_SCOPE_HOST

Ipv4Prefix SubnetOf(const Ipv4InterfaceAddress& own) { return {own.address, own.prefix_length}; }

bool IsOnLink(const Interface& interface, Ipv4 ip) {
  for (const auto& own : interface.addresses4) {
    if (SubnetOf(own).Contains(ip)) return true;
  }
  return false;
}

bool IsSubnetBroadcast(const Interface& interface, Ipv4 ip) {
  for (const auto& own : interface.addresses4) {
    const uint32_t mask = SubnetOf(own).mask();
    if (own.prefix_length < 31 && ip.value == (own.address.value | ~mask)) return true;
  }
  return false;
}

// Whether arp_ignore forbids an answer for `target`, which is ours, to `sender` (0.0.0.0: anybody).
bool IsIgnored(const tables::Snapshot& snapshot, const Interface& interface, Ipv4 sender,
               Ipv4 target) {
  switch (interface.arp_ignore) {
    case 1:
    case 2: {
      bool configured = false;
      bool same_subnet = interface.arp_ignore == 1 || sender.IsUnspecified();
      for (const auto& own : interface.addresses4) {
        configured |= own.address == target && own.scope <= kScopeHost;
        same_subnet |= SubnetOf(own).Contains(target) && SubnetOf(own).Contains(sender);
      }
      return !configured || !same_subnet;
    }
    case 3:
      for (const Interface& other : snapshot.interfaces) {
        for (const auto& own : other.addresses4) {
          if (own.address == target && own.scope >= kScopeHost) return true;
        }
      }
      return false;
    case 8:
      return true;
    default:
      return false;  // 0; 4 to 7 are reserved and mean 0
  }
}

Verdict Answer(const wire::ArpView& request, const Interface& interface, InputContext& c) {
  const auto failed =
      SendGenerated(c.outbox, c.counters, interface.slot, GeneratedKind::kArpReply,
                    wire::kEthernetHeaderSize + wire::ArpView::kSize, [&](std::span<uint8_t> out) {
                      return wire::EmitArpFrame(out, request.sender_mac(),
                                                wire::ArpReplyTo(request, interface.mac));
                    });
  return failed ? Verdict::Drop(*failed) : Verdict::Local();
}

Verdict HandleRequestForUs(const wire::ArpView& arp, const Interface& interface, InputContext& c) {
  const Ipv4 sender = arp.sender_ip();
  if (IsIgnored(c.snapshot, interface, sender, arp.target_ip())) {
    return Verdict::Drop(DropReason::kArpIgnored);
  }
  if (!sender.IsUnspecified()) {
    if (interface.rp_filter != 0 && !IsOnLink(interface, sender)) {
      return Verdict::Punt(PuntReason::kNeighborDiscovery);
    }
    c.Learn({.address = sender,
             .mac = arp.sender_mac(),
             .slot = interface.slot,
             .flags = kEventHasMac | kEventOverride | kEventCreate});
  }
  return Answer(arp, interface, c);
}

// Everything but requests for us: what it says about its sender.
Verdict HandleNews(packet::Packet& p, const wire::ArpView& arp, bool to_us_alone,
                   const Interface& interface, InputContext& c) {
  const Ipv4 sender = arp.sender_ip();
  const bool reply = arp.operation() == wire::kArpReply;
  const bool is_host = !IsSubnetBroadcast(interface, sender);
  const bool gratuitous =
      sender == arp.target_ip() && is_host && (!reply || arp.target_mac() == arp.sender_mac());
  uint16_t flags = kEventHasMac;
  flags |= gratuitous ? kEventOverride : kEventLockTime;
  if (reply && to_us_alone) flags |= kEventReachable;
  if (interface.arp_accept && is_host && (gratuitous || reply)) flags |= kEventCreate;
  const bool changed =
      c.Learn({.address = sender, .mac = arp.sender_mac(), .slot = interface.slot, .flags = flags});
  if (gratuitous || changed || (reply && to_us_alone)) return LocalWithCopy(p, c.outbox);
  return Verdict::Drop(DropReason::kArpIgnored);
}

}  // namespace

Verdict HandleArp(packet::Packet& p, InputContext& c) {
  const Interface& interface = c.snapshot.at(p.in);
  const Mac destination = wire::EthernetView(p.data).destination();
  const bool to_us_alone = destination == interface.mac;
  if (!to_us_alone && !destination.IsMulticast()) return Verdict::Drop(DropReason::kNotForUs);

  const auto arp = wire::ArpView::Parse(
      std::span<const uint8_t>(p.l3(), size_t{p.segment_length} - p.l3_offset));
  if (!arp) return Verdict::Drop(DropReason::kArpInvalid);
  const bool request = arp->operation() == wire::kArpRequest;
  if (!request && arp->operation() != wire::kArpReply) {
    return Verdict::Drop(DropReason::kArpInvalid);
  }
  const Ipv4 sender = arp->sender_ip();
  const Ipv4 target = arp->target_ip();
  if (target.IsMulticast() || (target.IsLoopback() && !interface.route_localnet) ||
      (sender == target && interface.drop_gratuitous_arp) || sender.IsMulticast() ||
      sender.IsLimitedBroadcast() || sender.IsLoopback()) {
    return Verdict::Drop(DropReason::kArpInvalid);
  }
  // Somebody else with one of our addresses, or our own frame come back: nothing to learn from.
  if (c.snapshot.own4.Contains(sender)) return LocalWithCopy(p, c.outbox);

  if (request && c.snapshot.own4.Contains(target)) return HandleRequestForUs(*arp, interface, c);
  if (sender.IsUnspecified()) return Verdict::Drop(DropReason::kArpIgnored);
  if (request && interface.forwarding4 && interface.proxy_arp && sender != target) {
    return Verdict::Punt(PuntReason::kProxy);
  }
  return HandleNews(p, *arp, to_us_alone, interface, c);
}

}  // namespace sluice::stages
