// What `sluice show` and the control API tell: plain values, filled by the engine on request.
//
// One struct per WHAT. Field names are the JSON keys, so they are part of the contract: fields are
// added, not renamed. Text fields hold words for people and programs alike (state "up"), units are
// in the names. Rendering is in view_json.h and view_table.h.
//
// Thread: values; ViewSource is called by the control server (see app/control_server.h).
#ifndef SLUICE_TELEMETRY_VIEWS_H_
#define SLUICE_TELEMETRY_VIEWS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/address.h"
#include "telemetry/firewall_views.h"
#include "telemetry/service_views.h"

namespace sluice::telemetry {

// The terms of the conservation law, summed over interfaces and workers.
struct PacketTotals {
  uint64_t received = 0;
  uint64_t forwarded = 0;
  uint64_t local = 0;
  uint64_t punted = 0;
  uint64_t dropped = 0;
  uint64_t held = 0;
  uint64_t merged = 0;  // fragments, into a datagram that has its own outcome
};
// 0 when the law holds. The counters are read while workers count, so that under traffic a burst
// that is on its way shows here for a moment; at rest anything but 0 is a bug.
int64_t Unaccounted(const PacketTotals& totals);

// What to show for held_packets, which each worker has for itself. A packet handed over went up on
// the sender's gauge and comes down on the receiver's, so only their sum says anything, and a
// single one may be below zero. The result adds up to that sum, without a part below zero.
std::vector<uint64_t> ShareOutHeld(const std::vector<uint64_t>& by_worker);

struct ReasonCount {
  std::string reason;  // the metric's label
  std::string text;    // for people
  uint64_t packets = 0;
};

struct TableUse {
  std::string name;
  uint64_t used = 0;
  uint64_t limit = 0;
};

struct MirrorView {
  bool in_step = false;
  uint64_t divergence = 0;  // objects that differ from the kernel's, found by the last comparison
  uint64_t resyncs = 0;
  uint64_t corrections = 0;
  std::string last_resync_reason;  // empty when there was none
};

// How much of the traffic runs where.
struct TiersView {
  uint64_t xdp = 0;     // packets that XDP has carried by itself
  uint64_t worker = 0;
  uint64_t kernel = 0;  // punted
  bool offload = false;          // there is a flow tier
  uint64_t entries = 0;          // of it
  uint64_t limit = 0;
  std::vector<std::string> problems;  // interfaces that do not take part, and why
};

struct StatusView {
  std::string version;
  std::string kernel;
  int64_t pid = 0;
  double uptime_seconds = 0;
  bool ready = false;
  std::string not_ready_reason;  // empty when ready
  std::string config_file;
  std::string metrics_listen;  // "127.0.0.1:9470", or "off"
  uint64_t interfaces = 0;
  uint64_t interfaces_up = 0;
  uint64_t workers = 0;
  uint64_t workers_stalled = 0;
  PacketTotals packets;
  TiersView tiers;
  std::vector<ReasonCount> punts;  // those that are not 0
  std::vector<std::string>
      kernel_decides;  // why packets are left to the kernel; empty: they are not
  MirrorView mirror;
  std::optional<FirewallView> firewall;  // none: there are no rules
  std::vector<TableUse> tables;
};

struct InterfaceView {
  std::string name;
  uint32_t slot = 0;
  uint32_t ifindex = 0;
  std::string state;    // up, down, absent, failed
  std::string problem;  // why it is not up, or runs in a slower mode than asked for
  std::string mac;
  uint32_t mtu = 0;
  std::string driver;
  std::string mode;  // native, generic; empty when not attached
  bool zero_copy = false;
  bool multi_buffer = false;
  bool busy_poll = false;
  std::string checksum;  // trust, complete
  uint32_t queues = 0;
  std::vector<std::string> addresses;
  uint64_t rx_packets = 0;
  uint64_t rx_bytes = 0;
  uint64_t tx_packets = 0;
  uint64_t tx_bytes = 0;
  uint64_t tx_errors = 0;
  uint64_t drops = 0;
  uint64_t punts = 0;
  uint64_t held = 0;
  uint64_t xdp_redirect = 0;
  uint64_t xdp_pass = 0;
  uint64_t xdp_drop = 0;
  uint64_t xdp_forward = 0;
  uint64_t ring_full = 0;
};

struct RoutePathView {
  std::string via;  // empty: on link
  std::string dev;
  uint32_t weight = 1;
  bool served = false;  // leaves by an interface of Sluice's
};

struct RouteView {
  std::string prefix;
  std::string type;  // unicast, local, broadcast, blackhole, unreachable, prohibit, ...
  std::vector<RoutePathView> paths;
  uint32_t mtu = 0;           // the route's own; 0: the device's
  bool served = false;        // Sluice forwards by it; false: left to the kernel
  std::string not_served_by;  // why it is left to the kernel; empty when served
};

inline constexpr uint64_t kRouteLimit = 1000;  // what is shown when nobody says
struct RouteFilter {
  std::optional<IpAddress> destination;  // the route that this address would take
  uint64_t limit = kRouteLimit;
};
inline constexpr uint64_t kMaxRouteLimit = 100'000;

struct RoutesView {
  uint64_t total4 = 0;  // in the tables, whatever the filter
  uint64_t total6 = 0;
  bool truncated = false;  // more matched than the limit let through
  std::vector<RouteView> routes;
};

struct NeighborView {
  std::string address;
  std::string dev;
  std::string mac;    // empty when not known
  std::string state;  // incomplete, reachable, stale, delay, probe, failed, permanent
  uint64_t queued = 0;
  double age_seconds = 0;  // since it was last confirmed
  uint32_t worker = 0;
};

struct WorkerView {
  uint32_t worker = 0;
  std::optional<uint32_t> cpu;  // none: not pinned
  std::string state;            // running, sleeping, stalled, stopped
  double busy_ratio = 0;        // of recent time; 0 to 1
  uint64_t loops = 0;
  uint64_t sleeps = 0;
  uint64_t frames_free = 0;
  uint64_t frames_fill = 0;
  uint64_t frames_tx = 0;
  uint64_t frames_held = 0;
  uint64_t frames_sockets = 0;  // with data of Sluice's sockets
  uint64_t frames_handed_over = 0;
};

// All reasons of each interface, also those at 0, so that a program sees the whole list.
struct DropView {
  std::string interface;
  std::string reason;
  std::string text;
  uint64_t packets = 0;
};

struct ReadyView {
  bool ready = false;
  std::string reason;  // why not
};

// Implemented by the engine.
class ViewSource {
 public:
  virtual ~ViewSource() = default;
  virtual ReadyView Ready() = 0;
  virtual StatusView Status() = 0;
  virtual std::vector<InterfaceView> Interfaces() = 0;
  virtual RoutesView Routes(const RouteFilter& filter) = 0;
  virtual std::vector<NeighborView> Neighbors() = 0;
  virtual std::vector<WorkerView> Workers() = 0;
  virtual std::vector<DropView> Drops() = 0;
  virtual SocketsView Sockets(uint64_t limit) = 0;
  virtual std::vector<ServiceView> Services() = 0;
  virtual absl::StatusOr<RulesView> Rules() = 0;
  virtual absl::StatusOr<FlowsView> Flows(const FlowQuery& query) = 0;
  virtual absl::StatusOr<NatView> Nat(const NatQuery& query) = 0;
  virtual absl::StatusOr<ExplainView> Explain(const ExplainRequest& request) = 0;
  // ResourceExhausted while another trace runs. The stream is read on a thread of the server and
  // destroyed where Trace was called; or by the server's thread once Sluice ends.
  virtual absl::StatusOr<std::unique_ptr<TraceStream>> Trace(const TraceRequest& request) = 0;
};

}  // namespace sluice::telemetry

#endif  // SLUICE_TELEMETRY_VIEWS_H_
