// The ICMPv6 redirect (RFC 4861 section 8.2): "you could have sent this to TARGET yourself".
// (The ICMP one is an IcmpError like others: type 5, code 1, the gateway in `rest`.)
#ifndef SLUICE_STAGES_ICMP_REDIRECT_H_
#define SLUICE_STAGES_ICMP_REDIRECT_H_

#include <optional>

#include "base/address.h"
#include "packet/outbox.h"
#include "packet/packet.h"

namespace sluice::stages {

// From `source`, our link-local address on the link, to the sender of `offending`. Carries the
// target's MAC when it is known and as much of the packet as fits 1280 bytes. False: no free frame.
bool BuildRedirect6(const packet::Packet& offending, const Ipv6& source, const Ipv6& target,
                    const std::optional<Mac>& target_mac, packet::Outbox& outbox,
                    packet::Packet& message);

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_ICMP_REDIRECT_H_
