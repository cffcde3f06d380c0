// One tracked connection: its two tuples, what was seen of it, and how it is translated.
//
// Terms and rules are those of Linux' conntrack (net/netfilter/nf_conntrack_core.c): the tuple of
// the original direction is that of the first packet before any translation; the tuple of the reply
// direction is what answers look like before they are translated back. Without translation one is
// the other turned round.
//
// Memory: a Flow, its two hash slots and its timer together are at most 256 bytes (asserted in
// flow_table.h).
//
// Thread: the worker that owns the flow.
#ifndef SLUICE_TABLES_FLOW_H_
#define SLUICE_TABLES_FLOW_H_

#include <array>
#include <cstdint>

#include "base/address.h"
#include "base/ids.h"
#include "base/time.h"

namespace sluice::tables {

// A flow's place in its worker's table.
using FlowIndex = uint32_t;
inline constexpr FlowIndex kNoFlow = 0xffffffff;

enum class FlowDirection : uint8_t { kOriginal = 0, kReply = 1 };
constexpr FlowDirection Opposite(FlowDirection d) {
  return d == FlowDirection::kOriginal ? FlowDirection::kReply : FlowDirection::kOriginal;
}

// What `ct state` says about a packet.
enum class CtState : uint8_t { kNone, kInvalid, kNew, kEstablished, kRelated, kUntracked };

// Addresses are the packet's, IPv4 in the low 32 bits of `lo`, as in IpAddress. Ports are in host
// order. ICMP queries: source_port is the identifier, destination_port type << 8 | code. GRE: the
// keys of PPTP, else 0. Protocols without ports: 0.
struct FlowTuple {
  Ipv6 source;
  Ipv6 destination;
  uint16_t source_port = 0;
  uint16_t destination_port = 0;
  uint8_t protocol = 0;
  Family family = Family::kIpv4;
  uint16_t reserved = 0;
  constexpr bool operator==(const FlowTuple&) const = default;
};
static_assert(sizeof(FlowTuple) == 40);

// IPS_* of linux/netfilter/nf_conntrack_common.h, with the kernel's bit values: `ct status` matches
// on them.
enum FlowStatus : uint32_t {
  kFlowExpected = 1 << 0,
  kFlowSeenReply = 1 << 1,
  kFlowAssured = 1 << 2,
  kFlowConfirmed = 1 << 3,
  kFlowSourceNat = 1 << 4,
  kFlowDestinationNat = 1 << 5,
  kFlowSequenceAdjust = 1 << 6,
  kFlowSourceNatDone = 1 << 7,
  kFlowDestinationNatDone = 1 << 8,
  kFlowDying = 1 << 9,
  kFlowFixedTimeout = 1 << 10,
  kFlowNatMask = kFlowSourceNat | kFlowDestinationNat,
  // Ours.
  kFlowKernel = 1u << 24,      // the kernel judges this flow: punt its packets, both directions
  kFlowMasquerade = 1u << 25,  // ends when the address of `masquerade_slot` changes
  kFlowImported = 1u << 26,    // came from the kernel's table at the start
};

struct FlowCount {
  uint64_t packets = 0;
  uint64_t bytes = 0;  // IP length
};

// One peer's half of a TCP connection (ip_ct_tcp_state).
struct TcpPeer {
  uint32_t end = 0;       // highest sequence number seen, plus length
  uint32_t max_end = 0;   // highest that the other side's window allows
  uint32_t max_window = 0;
  uint32_t max_ack = 0;
  uint8_t scale = 0;
  uint8_t flags = 0;      // IP_CT_TCP_FLAG_*
};

struct TcpTracking {
  std::array<TcpPeer, 2> peers;  // by FlowDirection of the sender
  uint8_t state = 0;             // TCP_CONNTRACK_*
  uint8_t last_direction = 0;
  uint8_t last_index = 0;
  uint8_t retransmissions = 0;
  uint8_t last_window_scale = 0;
  uint8_t last_flags = 0;
  uint16_t last_window = 0;
  uint32_t last_sequence = 0;
  uint32_t last_ack = 0;
  uint32_t last_end = 0;
};

struct Flow {
  std::array<FlowTuple, 2> tuples;  // by FlowDirection
  std::array<FlowCount, 2> counts;
  TcpTracking tcp;                  // TCP only
  Nanos expires;
  uint32_t status = 0;              // FlowStatus
  uint32_t mark = 0;                // ct mark
  FlowIndex master = kNoFlow;       // of a related flow
  IfaceSlot masquerade_slot;
  uint8_t extra = 0;                // protocol's own: UDP stream, SCTP state

  const FlowTuple& tuple(FlowDirection d) const { return tuples[static_cast<size_t>(d)]; }
  FlowTuple& tuple(FlowDirection d) { return tuples[static_cast<size_t>(d)]; }
  FlowCount& count(FlowDirection d) { return counts[static_cast<size_t>(d)]; }
  const FlowCount& count(FlowDirection d) const { return counts[static_cast<size_t>(d)]; }
  bool Has(uint32_t bits) const { return (status & bits) != 0; }
};

}  // namespace sluice::tables

#endif  // SLUICE_TABLES_FLOW_H_
