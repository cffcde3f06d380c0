#include "stages/nat/stale.h"

#include <algorithm>

namespace sluice::stages {

using tables::FlowTuple;
using tables::Interface;

namespace {

// Answers come to the reply tuple's destination.
bool HasAddress(const Interface& interface, const FlowTuple& reply) {
  if (!interface.slot.valid()) return false;
  if (reply.family == Family::kIpv4) {
    return std::any_of(interface.addresses4.begin(), interface.addresses4.end(),
                       [&](const auto& own) { return own.address.value == reply.destination.lo; });
  }
  return std::any_of(interface.addresses6.begin(), interface.addresses6.end(),
                     [&](const auto& own) { return own.address == reply.destination; });
}

}  // namespace

bool IsStale(const tables::Flow& flow, const tables::Snapshot& snapshot) {
  if (!flow.Has(tables::kFlowMasquerade) || !flow.masquerade_slot.valid()) return false;
  const FlowTuple& reply = flow.tuple(tables::FlowDirection::kReply);
  const Interface& out = snapshot.at(flow.masquerade_slot);
  if (!out.slot.valid()) return true;
  if (HasAddress(out, reply)) return false;
  // An interface without addresses borrows one of another's.
  return std::none_of(snapshot.interfaces.begin(), snapshot.interfaces.end(),
                      [&](const Interface& other) { return HasAddress(other, reply); });
}

}  // namespace sluice::stages
