// One tracked connection: its two tuples, what was seen of it, and how it is translated.
//
// Terms and rules are those of Linux' conntrack (net/netfilter/nf_conntrack_core.c): the tuple of
// the original direction is that of the first packet before any translation; the tuple of the reply
// direction is what answers look like before they are translated back. Without translation one is
// the other turned round.
//
// Memory: a Flow is three cache lines; with its two hash slots, its timer and its place in the list
// of free entries it is at most 256 bytes (asserted in flow_table.h).
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
  kFlowOffload = 1 << 14,  // XDP may carry packets of it: see tables/offload.h
  kFlowNatMask = kFlowSourceNat | kFlowDestinationNat,
  // Ours.
  kFlowKernel = 1u << 24,      // the kernel judges this flow: punt its packets, both directions
  kFlowMasquerade = 1u << 25,  // ends when the address of `masquerade_slot` changes
  kFlowImported = 1u << 26,    // came from the kernel's table at the start
  kFlowForeignReply = 1u << 27,  // answers arrive at another worker, which has an alias
  kFlowAlias = 1u << 28,       // no connection: its packets are those of worker `owner`
  kFlowUncounted = 1u << 29,   // counts for no source: see FlowTable's `per_source`
};

struct FlowCount {
  uint64_t packets = 0;
  uint64_t bytes = 0;  // IP length
};

// One peer's half of a TCP connection (ip_ct_tcp_state).
struct TcpPeer {
  uint32_t end = 0;         // highest sequence number seen, plus length
  uint32_t max_end = 0;     // highest that the other side's window allows
  uint32_t max_window = 0;  // largest window it has offered, scaled
  uint32_t max_ack = 0;
};

// ip_ct_tcp. Arrays are by FlowDirection of the sender.
struct TcpTracking {
  std::array<TcpPeer, 2> peers;
  std::array<uint8_t, 2> scales = {};  // window scale, 0 to 14
  std::array<uint8_t, 2> flags = {};   // TcpPeerFlag
  uint8_t state = 0;                   // TcpState
  uint8_t last_direction = 0;
  uint8_t last_kind = 0;  // what kind of segment: the index of the kernel's table
  uint8_t retransmissions = 0;
  uint8_t last_window_scale = 0;
  uint8_t last_flags = 0;
  uint16_t last_window = 0;
  uint32_t last_sequence = 0;
  uint32_t last_ack = 0;
  uint32_t last_end = 0;
};

// IP_CT_TCP_FLAG_* (linux/netfilter/nf_conntrack_tcp.h), with the kernel's values.
enum TcpPeerFlag : uint8_t {
  kTcpWindowScale = 0x01,
  kTcpSackPermitted = 0x02,
  kTcpCloseInit = 0x04,
  kTcpBeLiberal = 0x08,
  kTcpDataUnacknowledged = 0x10,
  kTcpMaxAckSet = 0x20,
  // Of last_flags only.
  kTcpExpectChallengeAck = 0x40,
  kTcpSimultaneousOpen = 0x80,
};

// TCP_CONNTRACK_*, with the kernel's values.
enum class TcpState : uint8_t {
  kNone, kSynSent, kSynReceived, kEstablished, kFinWait, kCloseWait, kLastAck, kTimeWait, kClose,
  kSynSent2,
};

// SCTP_CONNTRACK_*, with the kernel's values.
enum class SctpState : uint8_t {
  kNone, kClosed, kCookieWait, kCookieEchoed, kEstablished, kShutdownSent, kShutdownReceived,
  kShutdownAckSent, kHeartbeatSent,
};

// ip_ct_sctp. Arrays are by FlowDirection of the packet.
struct SctpTracking {
  std::array<uint32_t, 2> tags = {};  // verification tags
  std::array<bool, 2> init = {};      // an INIT was seen
  uint8_t state = 0;                  // SctpState
  uint8_t last_direction = 0;         // of a heartbeat with another tag
  bool heartbeat_failed = false;
};

struct alignas(64) Flow {
  std::array<FlowTuple, 2> tuples;  // by FlowDirection
  std::array<FlowCount, 2> counts;
  union {
    TcpTracking tcp = {};  // TCP
    SctpTracking sctp;     // SCTP
    Nanos stream_from;     // UDP: replies after this make it a stream
  };
  Nanos expires;
  uint32_t status = 0;         // FlowStatus
  uint32_t mark = 0;           // ct mark
  FlowIndex master = kNoFlow;  // of a related flow
  IfaceSlot masquerade_slot;
  uint8_t owner = 0;           // of an alias: the worker that has the connection
  uint16_t used_at = 0;        // FlowTable's: a stamp of the tick that used it last

  const FlowTuple& tuple(FlowDirection d) const { return tuples[static_cast<size_t>(d)]; }
  FlowTuple& tuple(FlowDirection d) { return tuples[static_cast<size_t>(d)]; }
  FlowCount& count(FlowDirection d) { return counts[static_cast<size_t>(d)]; }
  const FlowCount& count(FlowDirection d) const { return counts[static_cast<size_t>(d)]; }
  bool Has(uint32_t bits) const { return (status & bits) != 0; }
};
static_assert(sizeof(Flow) == 192);

}  // namespace sluice::tables

#endif  // SLUICE_TABLES_FLOW_H_
