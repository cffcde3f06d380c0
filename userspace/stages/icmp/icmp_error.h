// ICMP and ICMPv6 errors: whether a packet may be answered by one, which one, and the message.
//
// Rules: RFC 1812 section 4.3.2, RFC 4443 section 2.4, as Linux' icmp_send and icmp6_send apply
// them. How much is quoted, TOS and addresses are Linux' too. Limits on their rate and the way back
// to the sender are the caller's business (dataplane/replies.h).
//
// No state; the hot path never gets here.
#ifndef SLUICE_STAGES_ICMP_ICMP_ERROR_H_
#define SLUICE_STAGES_ICMP_ICMP_ERROR_H_

#include <cstdint>
#include <optional>

#include "base/address.h"
#include "base/reason.h"
#include "base/worker_counters.h"
#include "packet/outbox.h"
#include "packet/packet.h"

namespace sluice::stages {

struct IcmpError {
  uint8_t type = 0;
  uint8_t code = 0;
  uint32_t rest = 0;  // bytes 4 to 7 of the message: MTU, gateway
};

// The one place that maps drop reasons to errors. Empty: this drop is silent. `mtu` is that of the
// way out, for the reasons that are about it.
std::optional<IcmpError> ErrorFor4(DropReason reason, uint32_t mtu);
std::optional<IcmpError> ErrorFor6(DropReason reason, uint32_t mtu);

// Must this packet stay unanswered: a later fragment, an ICMP error, to a group, from nobody.
bool MayBeAnswered4(const packet::Packet& p);
bool MayBeAnswered6(const packet::Packet& p);

// Builds the message, from its IP header on, in a new packet (l3_offset set, Ethernet header left
// blank). False when no frame is free. `mtu` is that of the interface it will leave by.
bool BuildError4(const packet::Packet& offending, const IcmpError& error, Ipv4 source, uint8_t ttl,
                 uint16_t ip_id, uint32_t mtu, packet::Outbox& outbox, packet::Packet& message);
bool BuildError6(const packet::Packet& offending, const IcmpError& error, const Ipv6& source,
                 uint8_t hop_limit, packet::Outbox& outbox, packet::Packet& message);

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_ICMP_ICMP_ERROR_H_
