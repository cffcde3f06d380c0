// What `sluice show rules|flows|nat`, `sluice explain` and `sluice trace` tell: plain values, as in
// views.h, whose rules apply (field names are the JSON keys; added, not renamed).
//
// Thread: values. A TraceStream belongs to the thread that reads it.
#ifndef SLUICE_TELEMETRY_FIREWALL_VIEWS_H_
#define SLUICE_TELEMETRY_FIREWALL_VIEWS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/time.h"

namespace sluice::telemetry {

// One line of the firewall in `show status`.
struct FirewallView {
  uint64_t generation = 0;   // nf_tables' own generation id
  uint64_t rules = 0;        // in the ruleset
  uint64_t in_xdp = 0;       // of those, also enforced in XDP
  uint64_t in_workers = 0;   // run by the workers
  uint64_t unsupported = 0;  // left to the kernel
  uint64_t for_this_machine = 0;  // of input chains, which are the kernel's anyway
  std::string refused;       // why the newest ruleset is not in force (unsupported: refuse); or empty
  // XDP and workers are being brought in line with a new ruleset: a rule may count twice meanwhile.
  bool in_change = false;
  bool tracking4 = false;    // connections of the family are tracked
  bool tracking6 = false;
  uint64_t flows = 0;
  uint64_t flows_limit = 0;
};

// A line of `nft -a list ruleset`.
struct RuleLineView {
  std::string text;      // as nft prints it, with Sluice's counts
  std::string where;     // xdp, worker, kernel, or "-" (arp, bridge, egress: not Sluice's); empty: no rule
  std::string reason;    // kernel: why
  std::string family, table, chain;  // of rules and named counters
  uint64_t handle = 0;               // 0: not a rule
  uint64_t packets = 0;              // Sluice's count; 0 without a counter
  uint64_t bytes = 0;
};

struct RulesView {
  FirewallView firewall;
  std::vector<RuleLineView> lines;
};

// One direction of a flow. Ports: for ICMP queries the identifier is in `id`, type and code are
// given instead of ports.
struct TupleView {
  std::string source;
  std::string destination;
  std::optional<uint16_t> source_port, destination_port;
  std::optional<uint16_t> icmp_type, icmp_code, icmp_id;
  uint64_t packets = 0;
  uint64_t bytes = 0;
};

struct FlowView {
  std::string family;    // ipv4, ipv6
  std::string protocol;  // tcp, udp, icmp, icmpv6, gre, sctp, ..., or the number
  uint32_t protocol_number = 0;
  std::string state;     // ESTABLISHED, ...; empty for protocols without
  double timeout_seconds = 0;
  TupleView original;
  TupleView reply;
  std::string nat;                  // snat, dnat, snat+dnat, or empty
  std::vector<std::string> status;  // UNREPLIED ASSURED OFFLOAD KERNEL IMPORTED DYING EXPECTED
  uint32_t mark = 0;
  uint32_t worker = 0;
  std::string conntrack;  // the line that conntrack -L prints
};

enum class FlowSort : uint8_t { kNone, kBytes, kPackets, kTimeout };  // the largest first
std::optional<FlowSort> ParseFlowSort(std::string_view word);          // bytes packets timeout

inline constexpr uint64_t kFlowLimit = 1000;  // what is shown when nobody says
struct FlowQuery {
  std::string filter;  // see app/flow_filter.h; empty: all
  FlowSort sort = FlowSort::kNone;
  uint64_t limit = kFlowLimit;
};
inline constexpr uint64_t kMaxFlowLimit = 100'000;

struct FlowsView {
  uint64_t total = 0;    // in the tables, whatever the filter
  uint64_t matched = 0;  // that the filter let through, whatever the limit
  uint64_t limit = 0;    // how many the tables hold
  std::vector<FlowView> flows;
};

// A rule that translates.
struct NatRuleView {
  std::string family, table, chain;
  uint64_t handle = 0;
  std::string text;  // as nft prints it
  std::string kind;  // snat, dnat, masquerade, redirect
  std::string where;
  // Of its counter; a NAT rule sees the first packet of each connection. None without a counter.
  std::optional<uint64_t> connections;
};

// An address that sources are translated to, and the connections that have it.
struct NatAddressView {
  std::string address;
  uint64_t mappings = 0;
  std::vector<uint64_t> by_worker;
};

struct NatFlowView {
  std::string protocol;
  std::string from;    // 10.0.0.5:4000 -> 1.1.1.1:443
  std::string to;      // 192.0.2.1:4000 -> 1.1.1.1:443
  std::string nat;     // snat, dnat, snat+dnat
  double timeout_seconds = 0;
};

struct NatView {
  uint64_t mappings = 0;   // translated connections
  uint64_t exhausted = 0;  // connections refused since no port was free
  // What connections that cannot keep their port take; each worker has its share of every address.
  uint32_t ports_first = 0;
  uint32_t ports_last = 0;
  std::vector<NatRuleView> rules;
  std::vector<NatAddressView> addresses;  // at most kMaxNatAddresses, those with most first
  std::vector<NatFlowView> flows;  // the first NatQuery::limit
  bool truncated = false;
};

inline constexpr size_t kMaxNatAddresses = 1000;

inline constexpr uint64_t kNatLimit = 100;  // what is shown when nobody says
struct NatQuery {
  uint64_t limit = kNatLimit;  // of the translated flows
};

// A packet whose way through Sluice is asked for.
struct ExplainRequest {
  std::string interface;       // where it arrives
  std::vector<uint8_t> frame;  // from the Ethernet header on; zero MAC addresses: the interface's
};
inline constexpr size_t kMaxExplainFrame = 65'535 + 14;

struct ExplainStage {
  std::string stage;   // early_filter, parse, prerouting, conntrack, dnat, route, forward, ...
  std::string text;    // what it came to: "accept", "to wan0 via 192.0.2.254"
  std::string detail;  // the rule with its handle, the prefix, ...; several lines are fine
};

struct ExplainView {
  std::string packet;  // in nft's words, as understood
  std::string interface;
  std::vector<ExplainStage> stages;
  std::string verdict;  // "forwarded to wan0", "dropped: no_route", "left to the kernel: local"
};

// A packet that was seen by `sluice trace`.
struct TraceView {
  double time_seconds = 0;  // since the trace began
  uint32_t worker = 0;
  std::string interface;  // where it arrived
  std::string packet;     // in nft's words
  uint64_t length = 0;
  std::string verdict;    // forwarded, local, punted, dropped
  std::string reason;     // of a drop or punt
  std::string output;     // where it left
  std::string tier;       // worker, kernel, or xdp: XDP would have carried it, had nobody looked on
  std::string translated;  // in nft's words, how it left; empty when only the link header changed
  std::vector<std::string> rules;  // that decided, with their handles
  std::string bytes;               // hex, the first TraceRequest bytes of the frame as it arrived
};

struct TraceRequest {
  std::string program;  // see dataplane/packet_filter.h and app/trace_filter.h; empty: every packet
};

// Packets of a running trace. Ends when it is destroyed.
class TraceStream {
 public:
  virtual ~TraceStream() = default;
  // Appends what has been seen since the last call; waits at most `patience` for the first. False
  // when the trace is over (Sluice ends).
  virtual bool Next(Nanos patience, std::vector<TraceView>& out) = 0;
  // Packets that matched and were not shown, since the reader was slower than they.
  virtual uint64_t lost() const = 0;
};

}  // namespace sluice::telemetry

#endif  // SLUICE_TELEMETRY_FIREWALL_VIEWS_H_
