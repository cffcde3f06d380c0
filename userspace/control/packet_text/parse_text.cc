#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "control/packet_text/names.h"
#include "control/packet_text/packet_spec.h"
#include "control/packet_text/packet_text.h"
#include "control/packet_text/words.h"
#include "wire/protocol.h"

namespace sluice::control {
namespace {

enum class Kind : uint8_t { kNumber, kMac, kAddress4, kAddress6, kFlags };

struct Field {
  std::string_view header;
  std::string_view name;
  PacketSpec::Number PacketSpec::*number;
  uint32_t most;
  std::span<const NumberName> (*names)() = nullptr;
  Kind kind = Kind::kNumber;
};

constexpr uint32_t kMost16 = 0xffff;
constexpr uint32_t kMost32 = 0xffff'ffff;

constexpr Field kFields[] = {
    {"ether", "saddr", nullptr, 0, nullptr, Kind::kMac},
    {"ether", "daddr", nullptr, 0, nullptr, Kind::kMac},
    {"ip", "saddr", nullptr, 0, nullptr, Kind::kAddress4},
    {"ip", "daddr", nullptr, 0, nullptr, Kind::kAddress4},
    {"ip", "ttl", &PacketSpec::ttl, 255},
    {"ip", "id", &PacketSpec::id, kMost16},
    {"ip", "dscp", &PacketSpec::dscp, 63, DscpNames},
    {"ip", "ecn", &PacketSpec::ecn, 3},
    {"ip", "frag-off", &PacketSpec::fragment, kMost16},
    {"ip", "length", &PacketSpec::length, kMost16},
    {"ip", "protocol", &PacketSpec::protocol, 255, ProtocolNames},
    {"ip6", "saddr", nullptr, 0, nullptr, Kind::kAddress6},
    {"ip6", "daddr", nullptr, 0, nullptr, Kind::kAddress6},
    {"ip6", "hoplimit", &PacketSpec::ttl, 255},
    {"ip6", "dscp", &PacketSpec::dscp, 63, DscpNames},
    {"ip6", "ecn", &PacketSpec::ecn, 3},
    {"ip6", "flowlabel", &PacketSpec::flow_label, 0xf'ffff},
    {"ip6", "length", &PacketSpec::length, kMost16},
    {"ip6", "nexthdr", &PacketSpec::protocol, 255, ProtocolNames},
    {"tcp", "sport", &PacketSpec::source_port, kMost16},
    {"tcp", "dport", &PacketSpec::destination_port, kMost16},
    {"tcp", "flags", &PacketSpec::flags, 255, TcpFlagNames, Kind::kFlags},
    {"tcp", "sequence", &PacketSpec::sequence, kMost32},
    {"tcp", "ackseq", &PacketSpec::acknowledgment, kMost32},
    {"tcp", "window", &PacketSpec::window, kMost16},
    {"tcp", "urgptr", &PacketSpec::urgent, kMost16},
    {"udp", "sport", &PacketSpec::source_port, kMost16},
    {"udp", "dport", &PacketSpec::destination_port, kMost16},
    {"udp", "checksum", &PacketSpec::udp_checksum, 0},
    {"sctp", "sport", &PacketSpec::source_port, kMost16},
    {"sctp", "dport", &PacketSpec::destination_port, kMost16},
    {"sctp", "vtag", &PacketSpec::tag, kMost32},
    {"icmp", "type", &PacketSpec::type, 255, IcmpTypeNames},
    {"icmp", "code", &PacketSpec::code, 255},
    {"icmp", "id", &PacketSpec::icmp_id, kMost16},
    {"icmp", "sequence", &PacketSpec::icmp_sequence, kMost16},
    {"icmp", "mtu", &PacketSpec::mtu, kMost16},
    {"icmpv6", "type", &PacketSpec::type, 255, Icmpv6TypeNames},
    {"icmpv6", "code", &PacketSpec::code, 255},
    {"icmpv6", "id", &PacketSpec::icmp_id, kMost16},
    {"icmpv6", "sequence", &PacketSpec::icmp_sequence, kMost16},
    {"icmpv6", "mtu", &PacketSpec::mtu, kMost32},
    {"payload", "size", &PacketSpec::payload, kMost16},
    {"meta", "l4proto", &PacketSpec::protocol, 255, ProtocolNames},
};

std::string Quoted(std::string_view word) { return "\"" + std::string(word) + "\""; }

class Parser {
 public:
  explicit Parser(std::string_view text) : words_(text) {}

  absl::StatusOr<PacketSpec> Parse() {
    if (words_.done()) return words_.Error("an empty description; see `sluice explain --help`");
    while (!words_.done()) {
      if (absl::Status s = Item(); !s.ok()) return s;
    }
    return spec_;
  }

 private:
  absl::Status Item() {
    const std::string_view header = words_.word();
    if (header == "vlan") {
      return words_.Error("frames with a VLAN tag are the kernel's: Sluice never sees them");
    }
    if (header == "arp") return words_.Error("ARP cannot be described; give the frame with --hex");
    const bool known = std::any_of(std::begin(kFields), std::end(kFields),
                                   [&](const Field& f) { return f.header == header; });
    if (!known) {
      return words_.Error("unknown word " + Quoted(header) + "; expected ether, ip, ip6, tcp, udp, "
                          "sctp, icmp, icmpv6, payload or meta");
    }
    if (absl::Status s = Header(header); !s.ok()) return s;
    words_.Take();
    if (header == "tcp" && words_.word() == "option") return TcpOption();
    const std::string_view name = words_.word();
    const auto* field = std::find_if(std::begin(kFields), std::end(kFields), [&](const Field& f) {
      return f.header == header && f.name == name;
    });
    if (field == std::end(kFields)) return UnknownField(header, name);
    if (!seen_.insert(std::string(header) + " " + std::string(name)).second) {
      return words_.Error(Quoted(std::string(header) + " " + std::string(name)) + " is said twice");
    }
    words_.Take();
    return Value(*field);
  }

  absl::Status UnknownField(std::string_view header, std::string_view name) const {
    std::string known;
    for (const Field& f : kFields) {
      if (f.header == header) known += (known.empty() ? "" : ", ") + std::string(f.name);
    }
    return words_.Error((name.empty() ? "the description ends after " + Quoted(header)
                                      : Quoted(header) + " has no " + Quoted(name)) +
                        "; there are: " + known);
  }

  // One family, one transport header.
  absl::Status Header(std::string_view header) {
    if (header == "ip" || header == "icmp") return SetFamily(Family::kIpv4, header);
    if (header == "ip6" || header == "icmpv6") return SetFamily(Family::kIpv6, header);
    if (header == "tcp") return SetTransport(wire::kProtocolTcp, header);
    if (header == "udp") return SetTransport(wire::kProtocolUdp, header);
    if (header == "sctp") return SetTransport(wire::kProtocolSctp, header);
    return absl::OkStatus();
  }

  absl::Status SetFamily(Family family, std::string_view header) {
    if (spec_.family && *spec_.family != family) {
      return words_.Error(Quoted(header) + " does not go with the other IP version, said before");
    }
    spec_.family = family;
    if (header == "icmp") return SetTransport(wire::kProtocolIcmp, header);
    if (header == "icmpv6") return SetTransport(wire::kProtocolIcmpv6, header);
    return absl::OkStatus();
  }

  absl::Status SetTransport(uint8_t protocol, std::string_view header) {
    if (spec_.protocol && *spec_.protocol != protocol) {
      return words_.Error(Quoted(header) + " does not go with the protocol said before");
    }
    spec_.protocol = protocol;
    return absl::OkStatus();
  }

  absl::Status TcpOption() {
    words_.Take();
    if (!words_.Skip("maxseg") || !words_.Skip("size")) {
      return words_.Error("of TCP options only \"tcp option maxseg size N\" can be given");
    }
    if (spec_.maxseg) return words_.Error("\"tcp option maxseg size\" is said twice");
    return Value({"tcp", "option maxseg size", &PacketSpec::maxseg, kMost16});
  }

  absl::Status Value(const Field& field) {
    const std::string what = std::string(field.header) + " " + std::string(field.name);
    if (words_.done()) return words_.Error("a value is missing after " + Quoted(what));
    const std::string_view word = words_.Take();
    switch (field.kind) {
      case Kind::kMac: {
        const auto mac = ParseMac(word);
        if (!mac) return words_.ErrorBefore(Quoted(word) + " is not an Ethernet address");
        (field.name == "saddr" ? spec_.ether_source : spec_.ether_destination) = *mac;
        return absl::OkStatus();
      }
      case Kind::kAddress4:
      case Kind::kAddress6: {
        const auto address = ParseIpAddress(word);
        if (!address || address->is_v4() != (field.kind == Kind::kAddress4)) {
          return words_.ErrorBefore(Quoted(word) + " is not an address for " + Quoted(what));
        }
        (field.name == "saddr" ? spec_.source : spec_.destination) = *address;
        return absl::OkStatus();
      }
      case Kind::kFlags:
        return Flags(word);
      case Kind::kNumber:
        return NumberValue(field, what, word);
    }
    return absl::OkStatus();
  }

  absl::Status NumberValue(const Field& field, const std::string& what, std::string_view word) {
    std::optional<uint64_t> number;
    if (field.names != nullptr) number = NumberOf(field.names(), word);
    if (!number) number = ParseNumber(word, field.most);
    if (!number) {
      return words_.ErrorBefore(Quoted(word) + " is not " + (field.names ? "a name or " : "") +
                                "a number from 0 to " + std::to_string(field.most) + " for " +
                                Quoted(what));
    }
    PacketSpec::Number& out = spec_.*field.number;
    if (out && *out != *number) {
      return words_.ErrorBefore(Quoted(what) + " does not go with what was said before");
    }
    out = static_cast<uint32_t>(*number);
    return absl::OkStatus();
  }

  // syn,ack or syn|ack, or a number.
  absl::Status Flags(std::string_view word) {
    uint32_t flags = 0;
    if (const auto number = ParseNumber(word, 255)) {
      flags = static_cast<uint32_t>(*number);
    } else {
      std::string_view rest = word;
      for (bool more = true; more;) {
        const size_t end = std::min(rest.find_first_of(",|"), rest.size());
        const auto flag = NumberOf(TcpFlagNames(), rest.substr(0, end));
        if (!flag) {
          return words_.ErrorBefore(Quoted(word) +
                                    " are not TCP flags; they look like syn or syn,ack");
        }
        flags |= *flag;
        more = end < rest.size();
        rest.remove_prefix(std::min(end + 1, rest.size()));
      }
    }
    spec_.flags = flags;
    return absl::OkStatus();
  }

  Words words_;
  PacketSpec spec_;
  std::set<std::string> seen_;
};

}  // namespace

absl::StatusOr<std::vector<uint8_t>> ParsePacketText(std::string_view text) {
  const absl::StatusOr<PacketSpec> spec = Parser(text).Parse();
  if (!spec.ok()) return spec.status();
  absl::StatusOr<std::vector<uint8_t>> frame = BuildFrame(*spec);
  if (!frame.ok()) return Words::ErrorAt(text.size() + 1, std::string(frame.status().message()));
  return frame;
}

}  // namespace sluice::control
