// Could netfilter (or IPsec) judge packets? By address family, for packets in transit and packets
// for this machine. Where it could, Sluice leaves the packets to the kernel.
#ifndef SLUICE_CONTROL_NETFILTER_FIREWALL_PRESENCE_H_
#define SLUICE_CONTROL_NETFILTER_FIREWALL_PRESENCE_H_

#include <string>
#include <vector>

namespace sluice::control {

struct FirewallPresence {
  bool forward4 = false;
  bool forward6 = false;
  bool input4 = false;
  bool input6 = false;
  // One line for each chain or table that is the cause: "table inet filter, chain forward: ...".
  std::vector<std::string> reasons;

  bool operator==(const FirewallPresence&) const = default;
};

// What either says.
inline void Merge(const FirewallPresence& from, FirewallPresence& into) {
  into.forward4 |= from.forward4;
  into.forward6 |= from.forward6;
  into.input4 |= from.input4;
  into.input6 |= from.input6;
  into.reasons.insert(into.reasons.end(), from.reasons.begin(), from.reasons.end());
}

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_NETFILTER_FIREWALL_PRESENCE_H_
