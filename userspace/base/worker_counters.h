// What one worker counts. Written by the worker, read by the metrics exporter at any time.
//
// Conservation law, per arrival interface, summed over workers:
//   received = forwarded + local + punted + sum(dropped) + held + merged
// `forwarded` is counted when the output ring has taken the packet, so a full ring is a drop.
// `merged` are fragments that have become part of a datagram: of N fragments, the one that completes
// it stands for the whole from then on, and the N - 1 that were held until then end as merged.
#ifndef SLUICE_BASE_WORKER_COUNTERS_H_
#define SLUICE_BASE_WORKER_COUNTERS_H_

#include <array>
#include <cstddef>
#include <string_view>

#include "base/counter.h"
#include "base/ids.h"
#include "base/reason.h"

namespace sluice {

// Packets that Sluice makes itself.
enum class GeneratedKind : uint8_t {
  kNone, kArpRequest, kArpReply, kNeighborSolicitation, kNeighborAdvertisement,
  kEchoReply, kIcmpError, kRedirect, kFragment, kTcpReset,
  kSocket,
};
inline constexpr std::string_view kGeneratedKinds[] = {
    "none", "arp_request", "arp_reply", "neighbor_solicitation", "neighbor_advertisement",
    "echo_reply", "icmp_error", "redirect", "fragment", "tcp_reset", "socket"};
inline constexpr size_t kGeneratedKindCount = sizeof kGeneratedKinds / sizeof kGeneratedKinds[0];

// What the kernel said when it was asked to send.
enum class TxError : uint8_t { kBusy, kNoBuffers, kDown, kOther };
inline constexpr std::string_view kTxErrors[] = {"busy", "no_buffers", "down", "other"};
inline constexpr size_t kTxErrorCount = sizeof kTxErrors / sizeof kTxErrors[0];

struct alignas(64) InterfaceCounters {
  // By arrival interface: the terms of the conservation law.
  Counter received_packets;
  Counter received_bytes;
  Counter forwarded_packets;
  Counter local_packets;
  Counter punted_packets;
  Counter held_packets;    // a gauge
  Counter merged_packets;  // fragments: part of another packet now, which has its own outcome
  std::array<Counter, kDropReasonCount> dropped_packets;
  std::array<Counter, kPuntReasonCount> punts;  // punted_packets by reason
  Counter punt_copies;                          // ARP/ND handled here and shown to the kernel as well
  Counter checksums_completed;
  // Of received, and of forwarded or (relays of sockets) local: what XDP has carried by itself.
  Counter offloaded_packets;
  Counter offloaded_bytes;
  // By output interface.
  Counter transmitted_packets;
  Counter transmitted_bytes;
  std::array<Counter, kTxErrorCount> tx_errors;
};

// For a slot that another interface takes over. On the counters' own thread.
inline void Reset(InterfaceCounters& c) {
  for (Counter* counter :
       {&c.received_packets, &c.received_bytes, &c.forwarded_packets, &c.local_packets,
        &c.punted_packets, &c.held_packets, &c.merged_packets, &c.punt_copies,
        &c.checksums_completed, &c.offloaded_packets, &c.offloaded_bytes, &c.transmitted_packets,
        &c.transmitted_bytes}) {
    counter->Set(0);
  }
  for (Counter& counter : c.dropped_packets) counter.Set(0);
  for (Counter& counter : c.punts) counter.Set(0);
  for (Counter& counter : c.tx_errors) counter.Set(0);
}

// What a worker's connection tracking did.
struct ConntrackCounters {
  Counter current;        // flows in the table, a gauge
  Counter created;        // new flows
  Counter invalid;        // packets that break the rules of their protocol, or belong to no flow
  Counter expired;        // flows whose time was up
  Counter early_dropped;  // flows that had to go for a new one in a full table
  Counter full;           // packets dropped because no flow could go
  Counter per_source;     // packets dropped because their source has too many flows
  Counter clashed;        // new flows that were another one's double when they were confirmed
};

// What a worker's part of the flow tier did.
struct OffloadCounters {
  Counter entries;        // in force or about to be made anew, a gauge
  Counter promoted;
  Counter ended_idle;     // no packets for a while, sooner when entries are scarce
  Counter ended_flow;     // the connection, or the relay, ended or closes
  Counter ended_stale;    // what it rested on has changed, and nothing has come since
  Counter invalidations;  // of all entries, by this worker: a neighbour has changed
  Counter refused_full;   // no entry free
  Counter refused_ring;   // the control thread is behind with orders
  Counter refused_rules;  // a rule wants to see each packet
};

struct WorkerCounters {
  std::array<InterfaceCounters, kMaxInterfaces> interfaces;
  std::array<Counter, kGeneratedKindCount> generated;
  Counter generated_dropped;  // packets of our own that no output ring took
  Counter sockets_refused;    // of them, packets of sockets that rules of OUTPUT have rejected
  Counter icmp_rate_limited;  // ICMP errors not sent because of the limits
  Counter loops;              // turns of the worker's loop
  Counter busy_ns;            // time in turns that had work
  Counter sleeps;             // times it waited in poll()
  Counter frames_handed_over; // to other workers
  Counter aliases_lost;       // connections whose replies go astray: the ring to their worker was full
  ConntrackCounters conntrack;
  OffloadCounters offload;

  InterfaceCounters& of(IfaceSlot slot) { return interfaces[slot.value]; }
  const InterfaceCounters& of(IfaceSlot slot) const { return interfaces[slot.value]; }
};

}  // namespace sluice

#endif  // SLUICE_BASE_WORKER_COUNTERS_H_
