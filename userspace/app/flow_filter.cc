#include "app/flow_filter.h"

#include <algorithm>
#include <string>

#include "app/flow_view.h"
#include "control/packet_text/names.h"
#include "control/packet_text/words.h"

namespace sluice::app {
namespace {

using control::ParseNumber;
using tables::Flow;
using tables::FlowDirection;
using tables::FlowTuple;

struct StatusWord {
  std::string_view word;
  uint32_t bits;
  bool set;  // else: these bits must not be set
};
constexpr StatusWord kStatusWords[] = {
    {"assured", tables::kFlowAssured, true},
    {"offload", tables::kFlowOffload, true},
    {"unreplied", tables::kFlowSeenReply, false},
    {"kernel", tables::kFlowKernel, true},
    {"imported", tables::kFlowImported, true},
    {"expected", tables::kFlowExpected, true},
    {"dying", tables::kFlowDying, true},
    {"snat", tables::kFlowSourceNat, true},
    {"dnat", tables::kFlowDestinationNat, true},
    {"masquerade", tables::kFlowMasquerade, true},
    {"nat", tables::kFlowNatMask, true},
};

std::string Quoted(std::string_view word) { return "\"" + std::string(word) + "\""; }

std::string Upper(std::string_view word) {
  std::string out(word);
  for (char& c : out) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  return out;
}

bool Contains(const IpAddress& prefix, uint8_t length, const FlowTuple& tuple, const Ipv6& address) {
  if (prefix.family != tuple.family) return false;
  if (prefix.is_v4()) {
    return Ipv4Prefix{prefix.v4(), length}.Contains(Ipv4(static_cast<uint32_t>(address.lo)));
  }
  return Ipv6Prefix{prefix.v6(), length}.Contains(address);
}

bool HasPorts(const FlowTuple& tuple) {
  return tuple.protocol == 6 || tuple.protocol == 17 || tuple.protocol == 33 ||
         tuple.protocol == 132 || tuple.protocol == 136;
}

bool InRange(const FlowTuple& tuple, uint16_t port, uint32_t low, uint32_t high) {
  return HasPorts(tuple) && port >= low && port <= high;
}

}  // namespace

class FlowFilter::Parser {
 public:
  explicit Parser(std::string_view text) : words_(text) {}

  absl::StatusOr<std::vector<Test>> Parse() {
    while (!words_.done()) {
      if (absl::Status s = Item(); !s.ok()) return s;
    }
    return std::move(tests_);
  }

 private:
  absl::Status Item() {
    const FlowDirection direction =
        words_.Skip("reply") ? FlowDirection::kReply : FlowDirection::kOriginal;
    const std::string_view word = words_.word();
    if (word == "ip" || word == "ip6") {
      words_.Take();
      if (words_.Skip(word == "ip" ? "protocol" : "nexthdr")) return Protocol();
      return Address(direction, word == "ip" ? Family::kIpv4 : Family::kIpv6);
    }
    if (word == "saddr" || word == "daddr" || word == "addr") return Address(direction, {});
    if (word == "sport" || word == "dport" || word == "port") return Port(direction);
    if (words_.Skip("meta")) {
      if (words_.Skip("l4proto")) return Protocol();
      return words_.Error("\"meta\" has only \"l4proto\" here");
    }
    if (words_.Skip("state")) return State();
    if (words_.Skip("status")) return Status();
    if (words_.Skip("mark")) return Mark();
    if (words_.Skip("worker")) return Worker();
    const auto protocol = control::NumberOf(control::ProtocolNames(), word);
    if (!protocol) {
      return words_.Error((word.empty() ? std::string("the filter ends too early")
                                        : "unknown word " + Quoted(word)) +
                          "; there are: ip, ip6, saddr, daddr, addr, sport, dport, port, tcp, udp, "
                          "icmp, ..., meta l4proto, reply, state, status, mark, worker");
    }
    words_.Take();
    tests_.push_back({.what = What::kProtocol, .low = *protocol});
    const std::string_view next = words_.word();
    if (next == "sport" || next == "dport" || next == "port") return Port(direction);
    return absl::OkStatus();
  }

  absl::Status Address(FlowDirection direction, std::optional<Family> family) {
    Test test{.direction = direction};
    const std::string_view which = words_.word();
    if (which == "saddr") {
      test.what = What::kSource;
    } else if (which == "daddr") {
      test.what = What::kDestination;
    } else if (which == "addr") {
      test.what = What::kAnyAddress;
    } else {
      return words_.Error("expected saddr, daddr or addr, not " + Quoted(which));
    }
    words_.Take();
    const std::string_view text = words_.Take();
    if (const auto v4 = ParseIpv4Prefix(text); v4 && family != Family::kIpv6) {
      test.address = v4->address;
      test.prefix_length = v4->length;
    } else if (const auto v6 = ParseIpv6Prefix(text); v6 && family != Family::kIpv4) {
      test.address = v6->address;
      test.prefix_length = v6->length;
    } else {
      return words_.ErrorBefore(Quoted(text) + " is not an address or prefix" +
                                (family ? " of that family" : ""));
    }
    tests_.push_back(test);
    return absl::OkStatus();
  }

  absl::Status Port(FlowDirection direction) {
    const std::string_view which = words_.Take();
    Test test{.what = which == "sport"   ? What::kSourcePort
                      : which == "dport" ? What::kDestinationPort
                                         : What::kAnyPort,
              .direction = direction};
    const std::string_view text = words_.Take();
    const size_t dash = std::min(text.find('-'), text.size());
    const auto low = ParseNumber(text.substr(0, dash), 65'535);
    const auto high = dash < text.size() ? ParseNumber(text.substr(dash + 1), 65'535) : low;
    if (!low || !high || *low > *high) {
      return words_.ErrorBefore(Quoted(text) + " is not a port or a range of ports");
    }
    test.low = static_cast<uint32_t>(*low);
    test.high = static_cast<uint32_t>(*high);
    tests_.push_back(test);
    return absl::OkStatus();
  }

  absl::Status Protocol() {
    const std::string_view text = words_.Take();
    std::optional<uint64_t> number = control::NumberOf(control::ProtocolNames(), text);
    if (!number) number = ParseNumber(text, 255);
    if (!number) return words_.ErrorBefore(Quoted(text) + " is not a protocol");
    tests_.push_back({.what = What::kProtocol, .low = static_cast<uint32_t>(*number)});
    return absl::OkStatus();
  }

  absl::Status State() {
    const std::string_view text = words_.Take();
    const auto state = TcpStateOf(Upper(text));
    if (!state) {
      return words_.ErrorBefore(Quoted(text) +
                                " is not a state of TCP, such as ESTABLISHED or SYN_SENT");
    }
    tests_.push_back({.what = What::kState, .low = *state});
    return absl::OkStatus();
  }

  absl::Status Status() {
    const std::string_view text = words_.Take();
    std::string known;
    for (const StatusWord& w : kStatusWords) {
      if (w.word == text) {
        tests_.push_back({.what = w.set ? What::kStatus : What::kNotStatus, .low = w.bits});
        return absl::OkStatus();
      }
      known += " " + std::string(w.word);
    }
    return words_.ErrorBefore(Quoted(text) + " is not a status; there are:" + known);
  }

  absl::Status Mark() {
    const std::string_view text = words_.Take();
    const size_t slash = std::min(text.find('/'), text.size());
    const auto value = ParseNumber(text.substr(0, slash), 0xffff'ffff);
    const auto mask = slash < text.size() ? ParseNumber(text.substr(slash + 1), 0xffff'ffff)
                                          : std::optional<uint64_t>(0xffff'ffff);
    if (!value || !mask) return words_.ErrorBefore(Quoted(text) + " is not a mark");
    tests_.push_back({.what = What::kMark,
                      .low = static_cast<uint32_t>(*value),
                      .high = static_cast<uint32_t>(*mask)});
    return absl::OkStatus();
  }

  absl::Status Worker() {
    const std::string_view text = words_.Take();
    const auto number = ParseNumber(text, kMaxWorkers - 1);
    if (!number) return words_.ErrorBefore(Quoted(text) + " is not a worker's number");
    tests_.push_back({.what = What::kWorker, .low = static_cast<uint32_t>(*number)});
    return absl::OkStatus();
  }

  control::Words words_;
  std::vector<Test> tests_;
};

absl::StatusOr<FlowFilter> FlowFilter::Parse(std::string_view text) {
  auto tests = Parser(text).Parse();
  if (!tests.ok()) return tests.status();
  FlowFilter filter;
  filter.tests_ = *std::move(tests);
  return filter;
}

bool FlowFilter::Matches(const Flow& flow, WorkerId worker) const {
  return std::all_of(tests_.begin(), tests_.end(),
                     [&](const Test& test) { return Holds(test, flow, worker); });
}

bool FlowFilter::Holds(const Test& t, const Flow& flow, WorkerId worker) {
  const FlowTuple& tuple = flow.tuple(t.direction);
  const FlowTuple& other = flow.tuple(Opposite(t.direction));
  const auto address = [&](const FlowTuple& of, const Ipv6& a) {
    return Contains(t.address, t.prefix_length, of, a);
  };
  const auto port = [&](const FlowTuple& of, uint16_t p) { return InRange(of, p, t.low, t.high); };
  switch (t.what) {
    case What::kSource:
      return address(tuple, tuple.source);
    case What::kDestination:
      return address(tuple, tuple.destination);
    case What::kAnyAddress:
      return address(tuple, tuple.source) || address(tuple, tuple.destination) ||
             address(other, other.source) || address(other, other.destination);
    case What::kSourcePort:
      return port(tuple, tuple.source_port);
    case What::kDestinationPort:
      return port(tuple, tuple.destination_port);
    case What::kAnyPort:
      return port(tuple, tuple.source_port) || port(tuple, tuple.destination_port) ||
             port(other, other.source_port) || port(other, other.destination_port);
    case What::kProtocol:
      return tuple.protocol == t.low;
    case What::kState:
      return tuple.protocol == 6 && flow.tcp.state == t.low;
    case What::kStatus:
      return flow.Has(t.low);
    case What::kNotStatus:
      return !flow.Has(t.low);
    case What::kMark:
      return (flow.mark & t.high) == t.low;
    case What::kWorker:
      return worker.value == t.low;
  }
  return false;
}

}  // namespace sluice::app
