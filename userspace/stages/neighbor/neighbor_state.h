// What is known about a neighbour: states (RFC 4861 section 7.3.2 and the kernel's own), the record
// that is shown to people, and the evidence that workers pass to each other.
//
// The states are the kernel's NUD_* (include/uapi/linux/neighbour.h); ARP entries go through the
// same machine as ND ones, as in net/core/neighbour.c.
#ifndef SLUICE_STAGES_NEIGHBOR_NEIGHBOR_STATE_H_
#define SLUICE_STAGES_NEIGHBOR_NEIGHBOR_STATE_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/address.h"
#include "base/ids.h"
#include "base/time.h"

namespace sluice::stages {

// Ordered: from kStale on there is a MAC address that packets may be sent to.
enum class NeighborState : uint8_t {
  kNone,        // just created, within one call
  kIncomplete,  // asked, no answer yet; packets wait
  kFailed,      // did not answer
  kStale,       // known, but not confirmed of late
  kReachable,   // confirmed within the reachable time
  kDelay,       // was stale and is used again: soon to be probed
  kProbe,       // is being asked by unicast
  kPermanent,   // set by the administrator
  kNoArp,       // the kernel says that there is nothing to ask
};
inline constexpr size_t kNeighborStateCount = 9;
inline constexpr std::string_view kNeighborStates[kNeighborStateCount] = {
    "none", "incomplete", "failed", "stale", "reachable", "delay", "probe", "permanent", "noarp"};

// NUD_VALID and NUD_CONNECTED of the kernel.
constexpr bool IsUsable(NeighborState s) { return s >= NeighborState::kStale; }
constexpr bool IsFixed(NeighborState s) { return s >= NeighborState::kPermanent; }
constexpr bool IsConnected(NeighborState s) { return s == NeighborState::kReachable || IsFixed(s); }

// A line of `show neighbors`.
struct NeighborInfo {
  IpAddress address;
  Mac mac;
  IfaceSlot slot;
  NeighborState state = NeighborState::kNone;
  bool is_router = false;
  uint16_t probes = 0;
  uint16_t held = 0;
  Nanos confirmed;
  Nanos used;
  Nanos updated;
};

// How evidence is to be taken; the flags of the kernel's neigh_update under other names.
enum NeighborEventFlag : uint16_t {
  kEventHasMac = 1,
  kEventReachable = 2,     // the neighbour has answered us; else it only spoke
  kEventOverride = 4,      // replaces another MAC address
  kEventWeakOverride = 8,  // else: doubts a confirmed one
  kEventLockTime = 16,     // replaces another MAC address, unless that one is younger than a second
  kEventSetRouter = 32,    // kEventRouter says whether it is a router
  kEventRouter = 64,
  kEventCreate = 128,     // makes an entry where there is none
  kEventNotFailed = 256,  // means nothing to an entry that has failed
};

// What one received ARP or ND message says. The worker that received it applies it and shows it to
// the others, since the answer may arrive elsewhere than where packets wait for it.
struct NeighborEvent {
  IpAddress address;
  Mac mac;
  IfaceSlot slot;
  uint16_t flags = 0;  // NeighborEventFlag

  bool Has(uint16_t flag) const { return (flags & flag) != 0; }
  bool operator==(const NeighborEvent&) const = default;
};

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_NEIGHBOR_NEIGHBOR_STATE_H_
