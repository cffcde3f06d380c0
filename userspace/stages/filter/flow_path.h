// Whether further packets of a connection and direction would fare as this one did, for the flow
// tier, which carries packets out without asking a rule (bpf/include/offload_abi.h).
//
// An evaluation that is given a FlowPath (FilterContext::path) notes in it the counters that the
// packet counts, the routes that rules asked for, and the first reason why another packet could
// fare otherwise. All hooks that a packet passes are given the same FlowPath, after one Begin.
//
// What "another packet" is. Those that XDP carries out: the same arrival interface, addresses, ports
// and protocol (TCP or UDP); whole; without IPv4 options or IPv6 extension headers; TCP flags ACK or
// ACK and PSH; TTL above 1; addressed to this interface's MAC address. Lengths, TTL, DSCP and ECN,
// IP id, DF, flow label, the sender's MAC address, TCP sequence numbers, window, options and PSH,
// checksums, payload, and the time are anything. The ruleset, the snapshot, and the routes named
// here are as they are; the connection is established, its mark is the same, and it has been
// assured if it is now.
//
// How it knows. Evaluations are deterministic, so a packet that reads the same values goes the same
// way. For each bit that rules load it is known whether it varies (varying.cc), and followed through
// masks, shifts and byte order. A decision that comes out alike whatever those bits are is none: so
// `tcp flags & (fin|syn|rst|psh|ack|urg) == 0x0` keeps nobody back though PSH varies. Whatever is
// not proven says that it varies.
//
// Rules that XDP has applied before (tables/early_left_out.h) are not part of it: XDP applies and
// counts them for these packets, too.
//
// Limits: kCells counters, kRoutes addresses; more is a reason. A dry run notes what it would count.
// A FlowPath is a value; the cells belong to the Ruleset, and live while it (or one that has the
// same rules) does.
//
// Thread: the worker.
#ifndef SLUICE_STAGES_FILTER_FLOW_PATH_H_
#define SLUICE_STAGES_FILTER_FLOW_PATH_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/address.h"
#include "packet/packet.h"
#include "tables/ruleset/program.h"
#include "tables/ruleset/state_pool.h"

namespace sluice::stages {

// Why packets of one flow may fare differently.
enum class Variance : uint8_t {
  kNone,             // they fare alike
  kForm,             // the packet itself is not one that XDP carries out
  kHeaderField,      // a field that differs from packet to packet decides
  kPacketLength,
  kTcpFlags,
  kTcpOptions,
  kPayload,          // bytes behind the header
  kTime,
  kRandom,           // `numgen`, `meta random`
  kConnectionState,  // is not established, or not assured yet
  kConnectionCounts, // `ct bytes` and the like, `ct expiration`
  kConnectionMark,   // the packet has changed it
  kLimit,
  kQuota,
  kConnectionLimit,  // `ct count`
  kLast,
  kDynamicSet,       // packets add elements to it
  kTimedElement,     // an element that ends
  kLog,
  kReject,
  kWrite,            // the packet is written to
  kKernel,           // the kernel is to have it
  kManyCounters,
  kManyRoutes,
  kCount
};
inline constexpr size_t kVarianceCount = static_cast<size_t>(Variance::kCount);

std::string_view VarianceLabel(Variance reason);  // of a metric
std::string_view VarianceText(Variance reason);   // "the packet length decides"; empty for kNone

struct FlowPath {
  static constexpr size_t kCells = 8;
  static constexpr size_t kRoutes = 2;

  Variance variance = Variance::kNone;
  uint8_t cell_count = 0;
  uint8_t route_count = 0;
  uint32_t rule = tables::kNoRule;  // where it varies; kNoRule: not by a rule
  // What the packet has counted: the worker's own cells (a packets, b bytes of IP length). One may
  // be there twice, and counts twice then.
  std::array<tables::StateCell*, kCells> cells{};
  // Addresses whose routes decided (`fib`, `rt`), beside that of the packet's own route.
  std::array<IpAddress, kRoutes> routes{};

  // For the packet `p`, parsed, before its first hook.
  void Begin(const packet::Packet& p);

  bool varies() const { return variance != Variance::kNone; }
  std::span<tables::StateCell* const> counted() const { return {cells.data(), cell_count}; }
  std::span<const IpAddress> routes_of() const { return {routes.data(), route_count}; }

  // The first reason stays.
  void Vary(Variance reason, uint32_t of_rule) {
    if (varies()) return;
    variance = reason;
    rule = of_rule;
  }
  bool AddCell(tables::StateCell& cell) {
    if (cell_count == kCells) return false;
    cells[cell_count++] = &cell;
    return true;
  }
  bool AddRoute(const IpAddress& address);
};

// Whether XDP would carry out such a packet, if its flow is known; its size apart.
bool HasOffloadForm(const packet::Packet& p);

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_FILTER_FLOW_PATH_H_
