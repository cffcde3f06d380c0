// A packet described in nft's words, and a frame in those words: for `sluice explain` and `trace`.
//
//   ip saddr 10.0.0.5 ip daddr 1.1.1.1 tcp dport 443 tcp flags syn
//   ip6 saddr 2001:db8::5 ip6 daddr 2001:db8:1::1 icmpv6 type echo-request
//
// Words, each at most once:
//   ether saddr|daddr MAC
//   ip    saddr|daddr ADDRESS, ttl, id, dscp, ecn, protocol, frag-off (as it stands, with its flags),
//         length (of the datagram: what is behind the headers is filled up)
//   ip6   saddr|daddr ADDRESS, hoplimit, dscp, ecn, flowlabel, nexthdr, length (of what follows)
//   tcp   sport, dport, flags (syn,ack or syn|ack), sequence, ackseq, window, urgptr, option maxseg
//         size
//   udp   sport, dport, checksum (only 0: none);  sctp sport, dport, vtag
//   icmp, icmpv6   type, code, id, sequence, mtu
//   payload size N         behind the transport header; zeroes
//   meta l4proto P         the protocol, as with ip protocol
// Both addresses are needed, and a protocol; a destination port with TCP, UDP and SCTP. What is not
// said: port 49152 to come from, flags syn, echo-request, TTL 64, checksums right, MAC addresses
// zero (explain takes those of the interface).
//
// Refused, with the place: anything else, a word twice, two transport headers, VLAN tags (the kernel
// has those), lengths that do not fit.
//
// Thread: any; no state. Pure.
#ifndef SLUICE_CONTROL_PACKET_TEXT_PACKET_TEXT_H_
#define SLUICE_CONTROL_PACKET_TEXT_PACKET_TEXT_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace sluice::control {

// The frame, from the Ethernet header on. InvalidArgument begins with "character N: ".
absl::StatusOr<std::vector<uint8_t>> ParsePacketText(std::string_view text);

// The other way, for any bytes: what is there of the headers above, in words that ParsePacketText
// takes wherever it could have made the frame (extension headers, options and contents are left out).
// Frames that are not IP are named by their type. Ethernet addresses only when `with_ethernet`.
std::string DescribePacket(std::span<const uint8_t> frame, bool with_ethernet = false);

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_PACKET_TEXT_PACKET_TEXT_H_
