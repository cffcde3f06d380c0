// The keys of the configuration file, section by section.
#include <algorithm>
#include <cctype>
#include <map>
#include <set>

#include "base/ids.h"
#include "control/config_firewall.h"
#include "control/config_reader.h"
#include "control/config_services.h"

namespace sluice::control {
namespace {

constexpr uint32_t kMaxQueues = 1024;
constexpr uint32_t kMaxCpu = 8191;  // CONFIG_NR_CPUS of distribution kernels
constexpr uint32_t kMaxRoutes = 10'000'000;
constexpr uint32_t kMaxRouteResults = 1 << 20;
constexpr uint32_t kMaxNeighbors = 1 << 20;
constexpr uint32_t kMaxNeighborQueue = 4096;
constexpr uint32_t kMinFrames = 256;
constexpr uint32_t kMaxFrames = 1 << 24;
constexpr uint32_t kMinFlows = 1024;
constexpr uint32_t kMaxFlows = 1 << 26;  // 16 GiB
constexpr uint32_t kMaxFragments = 1 << 20;
constexpr uint32_t kMaxOffloads = 1 << 22;  // 2 GiB on four CPUs
constexpr uint32_t kMaxConnections = 1u << 20;

// The kernel's rule (dev_valid_name, and the two names that clash with its sysctl directories),
// tightened to what can be printed. Empty when the name is fine.
std::string InterfaceNameProblem(const std::string& name) {
  const std::string quoted = "\"" + name + "\" cannot be an interface's name: ";
  if (name.size() > 15) return quoted + "it has more than 15 characters";
  if (name == "." || name == ".." || name == "all" || name == "default") {
    return quoted + "the kernel reserves it";
  }
  for (const char c : name) {
    if (c == '/' || c == ':' || std::isspace(static_cast<unsigned char>(c)) ||
        std::iscntrl(static_cast<unsigned char>(c))) {
      return quoted + "it holds a space, \"/\", \":\" or a control character";
    }
  }
  return {};
}

struct ParsedPrefix {
  IpAddress address;
  uint8_t length = 0;
};

std::optional<ParsedPrefix> ParsePrefix(const std::string& text) {
  if (const auto v4 = ParseIpv4Prefix(text)) return ParsedPrefix{v4->address, v4->length};
  if (const auto v6 = ParseIpv6Prefix(text)) return ParsedPrefix{v6->address, v6->length};
  return {};
}

IpAddress CanonicalAddress(const ParsedPrefix& p) {
  if (p.address.is_v4()) return Ipv4Prefix{p.address.v4(), p.length}.Canonical().address;
  return Ipv6Prefix{p.address.v6(), p.length}.Canonical().address;
}

std::string PrefixText(const IpAddress& address, uint8_t length) {
  return ToString(address) + "/" + std::to_string(length);
}

class Parser {
 public:
  explicit Parser(std::string_view file) : reader_(file) {
    const size_t slash = file.rfind('/');
    if (slash != std::string_view::npos) directory_ = std::string(file.substr(0, slash + 1));
  }

  ConfigResult Parse(std::string_view text) {
    try {
      const std::vector<YAML::Node> documents = YAML::LoadAll(std::string(text));
      if (documents.size() > 1) {
        reader_.Error(documents[1].Mark(), "a second YAML document; there must be one");
      } else {
        ParseRoot(documents.empty() ? YAML::Node() : documents[0]);
      }
    } catch (const YAML::Exception& e) {  // yaml-cpp tells of bad syntax in no other way
      reader_.Error(e.mark, "YAML syntax: " + e.msg);
    }
    ConfigResult result;
    if (reader_.ok()) result.config = std::move(config_);
    result.errors = reader_.TakeErrors();
    return result;
  }

 private:
  void ParseRoot(const YAML::Node& root) {
    const YAML::Mark start{};
    bool has_interfaces = false;
    YAML::Mark services;
    std::vector<NamedInterface> named;
    reader_.Map({root, root.IsNull() ? start : root.Mark(), ""},
                {{"interfaces",
                  [&](const ConfigValue& v) {
                    has_interfaces = true;
                    ParseInterfaces(v);
                  }},
                 {"workers", [&](const ConfigValue& v) { ParseWorkers(v); }},
                 {"metrics", [&](const ConfigValue& v) { ParseMetrics(v); }},
                 {"limits", [&](const ConfigValue& v) { ParseLimits(v); }},
                 {"timeouts",
                  [&](const ConfigValue& v) { ReadTimeouts(reader_, v, &config_.timeouts); }},
                 {"unsupported",
                  [&](const ConfigValue& v) {
                    reader_.OneOf<UnsupportedRules>(v,
                                                    {{"kernel", UnsupportedRules::kKernel},
                                                     {"refuse", UnsupportedRules::kRefuse}},
                                                    &config_.unsupported);
                  }},
                 {"early_filter",
                  [&](const ConfigValue& v) { ReadChoice(v, &config_.early_filter); }},
                 {"flow_offload",
                  [&](const ConfigValue& v) { ReadChoice(v, &config_.flow_offload); }},
                 {"services",
                  [&](const ConfigValue& v) {
                    services = v.mark;
                    named = ReadServices(reader_, v, &config_.services);
                  }},
                 {"linux", [&](const ConfigValue& v) { ParseLinux(v); }}});
    if (const std::string problem = ServiceLimitsProblem(config_); !problem.empty()) {
      reader_.Error(services, problem);
    }
    std::vector<std::string_view> served;
    for (const InterfaceConfig& interface : config_.interfaces) served.push_back(interface.name);
    for (const NamedInterface& n : named) {
      if (std::find(served.begin(), served.end(), n.name) != served.end()) continue;
      reader_.Error(n.mark, "\"" + n.name + "\" is not one of \"interfaces\"" +
                                ConfigReader::DidYouMean(n.name, served));
    }
    if (!has_interfaces && (root.IsNull() || root.IsMap())) {
      reader_.Error(start,
                    "no \"interfaces\": name at least one, such as interfaces: [{name: eth0}]");
    }
  }

  std::optional<std::string> InterfaceName(const ConfigValue& v) {
    const auto name = reader_.Text(v, "an interface's name");
    if (!name) return {};
    const std::string problem = InterfaceNameProblem(*name);
    if (problem.empty()) return name;
    reader_.Error(v.mark, problem);
    return {};
  }

  void ParseInterfaces(const ConfigValue& value) {
    size_t count = 0;
    const bool is_list = reader_.List(value, [&](const ConfigValue& item) {
      if (++count == kMaxInterfaces + 1) {
        reader_.Error(item.mark, "more than " + std::to_string(kMaxInterfaces) + " interfaces");
      }
      ParseInterface(item);
    });
    if (is_list && count == 0) reader_.Error(value.mark, "\"interfaces\" must not be empty");
  }

  void ParseInterface(const ConfigValue& item) {
    InterfaceConfig interface;
    bool has_name = false;
    const auto choice = [&](Choice* out) {
      return [this, out](const ConfigValue& v) { ReadChoice(v, out); };
    };
    reader_.Map(item, {{"name",
                        [&](const ConfigValue& v) {
                          has_name = true;
                          ReadServedName(v, &interface.name);
                        }},
                       {"mode",
                        [&](const ConfigValue& v) {
                          reader_.OneOf<XdpMode>(v,
                                                 {{"auto", XdpMode::kAuto},
                                                  {"native", XdpMode::kNative},
                                                  {"generic", XdpMode::kGeneric}},
                                                 &interface.mode);
                        }},
                       {"zero_copy", choice(&interface.zero_copy)},
                       {"queues",
                        [&](const ConfigValue& v) {
                          reader_.NumberOr(v, "all", 1, kMaxQueues, &interface.queues);
                        }},
                       {"checksum", choice(&interface.checksum)},
                       {"busy_poll", choice(&interface.busy_poll)}});
    if (!has_name && (item.node.IsMap() || item.node.IsNull())) {
      reader_.Error(item.mark, "an interface needs a \"name\"");
    }
    config_.interfaces.push_back(std::move(interface));
  }

  void ReadServedName(const ConfigValue& v, std::string* out) {
    const auto name = InterfaceName(v);
    if (!name) return;
    const auto [previous, is_new] = interface_lines_.emplace(*name, v.mark.line + 1);
    if (*name == "lo") {
      reader_.Error(v.mark, "the loopback interface cannot be served");
    } else if (!is_new) {
      reader_.Error(v.mark, "interface \"" + *name + "\" is listed twice, first on line " +
                                std::to_string(previous->second));
    }
    *out = *name;
  }

  void ReadChoice(const ConfigValue& v, Choice* out) {
    // YAML's other spellings of a truth value mean the same here.
    Choice choice = Choice::kAuto;
    const std::string text = v.node.IsScalar() ? v.node.Scalar() : std::string();
    if (text == "true" || text == "yes") {
      choice = Choice::kOn;
    } else if (text == "false" || text == "no") {
      choice = Choice::kOff;
    } else {
      reader_.OneOf<Choice>(
          v, {{"auto", Choice::kAuto}, {"on", Choice::kOn}, {"off", Choice::kOff}}, &choice);
    }
    *out = choice;
  }

  void ParseWorkers(const ConfigValue& value) {
    WorkersConfig& workers = config_.workers;
    std::optional<YAML::Mark> cpus_mark;
    reader_.Map(value, {{"count",
                         [&](const ConfigValue& v) {
                           reader_.NumberOr(v, "auto", 1, kMaxWorkers, &workers.count);
                         }},
                        {"cpus", [&](const ConfigValue& v) {
                           cpus_mark = v.mark;
                           std::set<uint32_t> seen;
                           reader_.List(v, [&](const ConfigValue& item) {
                             const auto cpu = reader_.Number(item, 0, kMaxCpu);
                             if (!cpu) return;
                             if (!seen.insert(*cpu).second) {
                               reader_.Error(item.mark,
                                             "CPU " + std::to_string(*cpu) + " is listed twice");
                             }
                             workers.cpus.push_back(*cpu);
                           });
                         }}});
    if (workers.cpus.size() > kMaxWorkers) {
      reader_.Error(*cpus_mark, "more than " + std::to_string(kMaxWorkers) + " CPUs");
    } else if (workers.count && !workers.cpus.empty() && *workers.count != workers.cpus.size()) {
      reader_.Error(*cpus_mark, "\"count\" is " + std::to_string(*workers.count) +
                                    " but \"cpus\" names " + std::to_string(workers.cpus.size()));
    }
  }

  void ParseMetrics(const ConfigValue& value) {
    reader_.Map(value, {{"listen", [&](const ConfigValue& v) {
                           static constexpr char kExpected[] =
                               "ADDRESS:PORT (such as 127.0.0.1:9470 or \"[::1]:9470\") or off";
                           const auto text = reader_.Text(v, kExpected);
                           if (!text) return;
                           if (*text == "off" || *text == "false" || *text == "no") {
                             config_.metrics.listen.reset();
                           } else if (const auto listen = ParseListen(*text)) {
                             config_.metrics.listen = listen;
                           } else {
                             reader_.Error(v.mark, "\"listen\" must be " + std::string(kExpected) +
                                                       ", not \"" + *text + "\"");
                           }
                         }}});
  }

  void ParseLimits(const ConfigValue& value) {
    LimitsConfig& limits = config_.limits;
    const auto number = [this](uint32_t min, uint32_t max, uint32_t* out) {
      return [this, min, max, out](const ConfigValue& v) { reader_.NumberInto(v, min, max, out); };
    };
    reader_.Map(value, {{"routes4", number(1, kMaxRoutes, &limits.routes4)},
                        {"routes6", number(1, kMaxRoutes, &limits.routes6)},
                        {"route_results", number(16, kMaxRouteResults, &limits.route_results)},
                        {"neighbors", number(16, kMaxNeighbors, &limits.neighbors)},
                        {"neighbor_queue",
                         [&](const ConfigValue& v) {
                           reader_.NumberOr(v, "auto", 1, kMaxNeighborQueue,
                                            &limits.neighbor_queue);
                         }},
                        {"frames",
                         [&](const ConfigValue& v) {
                           reader_.NumberOr(v, "auto", kMinFrames, kMaxFrames, &limits.frames);
                         }},
                        {"frame_size",
                         [&](const ConfigValue& v) {
                           reader_.OneOf<std::optional<uint32_t>>(
                               v, {{"auto", std::nullopt}, {"2048", 2048}, {"4096", 4096}},
                               &limits.frame_size);
                         }},
                        {"flows",
                         [&](const ConfigValue& v) {
                           reader_.NumberOr(v, "auto", kMinFlows, kMaxFlows, &limits.flows);
                         }},
                        {"flows_per_source", number(0, kMaxFlows, &limits.flows_per_source)},
                        {"fragments", number(16, kMaxFragments, &limits.fragments)},
                        {"offloads", number(256, kMaxOffloads, &limits.offloads)},
                        {"connections", number(64, kMaxConnections, &limits.connections)},
                        {"udp_sessions", number(16, kMaxConnections, &limits.udp_sessions)},
                        {"socket_ports",
                         [&](const ConfigValue& v) {
                           ReadPortRange(reader_, v, "16384-32767", &limits.socket_ports);
                         }},
                        {"nat_ports", [&](const ConfigValue& v) {
                           ReadPortRange(reader_, v, "49152-65535", &limits.nat_ports);
                         }}});
  }

  void ParseLinux(const ConfigValue& value) {
    const auto list = [this](void (Parser::*parse)(const ConfigValue&)) {
      return [this, parse](const ConfigValue& v) {
        if (v.node.IsNull()) return;
        reader_.List(v, [this, parse](const ConfigValue& item) { (this->*parse)(item); });
      };
    };
    reader_.Map(value, {{"addresses", list(&Parser::ParseLinuxAddress)},
                        {"routes", list(&Parser::ParseLinuxRoute)},
                        {"nftables", [&](const ConfigValue& v) { ReadFile(v); }}});
  }

  // Relative to the configuration's own directory.
  void ReadFile(const ConfigValue& v) {
    if (v.node.IsNull()) return;
    const auto path = reader_.Text(v, "a file's name");
    if (!path) return;
    if (path->find('\0') != std::string::npos) {
      reader_.Error(v.mark, "\"" + v.key + "\" must be a file's name");
      return;
    }
    config_.linux_setup.nftables = path->front() == '/' ? *path : directory_ + *path;
  }

  void ParseLinuxAddress(const ConfigValue& item) {
    LinuxAddress out;
    bool has_interface = false;
    bool has_address = false;
    reader_.Map(item, {{"interface",
                        [&](const ConfigValue& v) {
                          has_interface = true;
                          out.interface = InterfaceName(v).value_or("");
                        }},
                       {"address", [&](const ConfigValue& v) {
                          has_address = true;
                          ReadAddress(v, &out);
                        }}});
    if (!item.node.IsMap() && !item.node.IsNull()) return;
    if (!has_interface) reader_.Error(item.mark, "an address needs an \"interface\"");
    if (!has_address) reader_.Error(item.mark, "an address needs an \"address\"");
    config_.linux_setup.addresses.push_back(std::move(out));
  }

  void ReadAddress(const ConfigValue& v, LinuxAddress* out) {
    const auto text = reader_.Text(v, "an address with its prefix length");
    if (!text) return;
    const auto prefix = ParsePrefix(*text);
    if (!prefix || text->find('/') == std::string::npos) {
      reader_.Error(v.mark, "\"" + *text +
                                "\" is not an address with its prefix length, such as "
                                "192.0.2.1/24 or 2001:db8::1/64");
      return;
    }
    const IpAddress a = prefix->address;
    if (a.is_v4() ? a.v4().IsUnspecified() || a.v4().IsMulticast() || a.v4().IsLimitedBroadcast()
                  : a.v6().IsUnspecified() || a.v6().IsMulticast()) {
      reader_.Error(v.mark, "\"" + *text + "\" cannot be the address of an interface");
      return;
    }
    out->address = a;
    out->prefix_length = prefix->length;
  }

  void ParseLinuxRoute(const ConfigValue& item) {
    LinuxRoute out;
    std::optional<ParsedPrefix> destination;
    std::optional<YAML::Mark> destination_mark, via_mark;
    bool is_default = false;
    reader_.Map(item,
                {{"destination",
                  [&](const ConfigValue& v) {
                    destination_mark = v.mark;
                    ReadDestination(v, &is_default, &destination);
                  }},
                 {"via",
                  [&](const ConfigValue& v) {
                    via_mark = v.mark;
                    const auto text = reader_.Text(v, "an address");
                    if (!text) return;
                    out.via = ParseIpAddress(*text);
                    if (!out.via) {
                      reader_.Error(v.mark, "\"" + *text + "\" is not an address");
                    }
                  }},
                 {"dev", [&](const ConfigValue& v) { out.dev = InterfaceName(v).value_or("?"); }}});
    if (!item.node.IsMap() && !item.node.IsNull()) return;
    if (!destination_mark) reader_.Error(item.mark, "a route needs a \"destination\"");
    if (!via_mark && out.dev.empty()) reader_.Error(item.mark, "a route needs \"via\" or \"dev\"");
    if (is_default && out.via) {
      destination = ParsedPrefix{out.via->is_v4() ? IpAddress(Ipv4()) : IpAddress(Ipv6()), 0};
    } else if (is_default && !via_mark && !out.dev.empty()) {
      reader_.Error(*destination_mark,
                    "\"default\" without \"via\" could be either family; "
                    "write 0.0.0.0/0 or ::/0");
    }
    if (!destination) return;
    if (out.via && out.via->is_v4() != destination->address.is_v4()) {
      reader_.Error(*via_mark, "\"via\" and \"destination\" are of different families");
    }
    out.destination = destination->address;
    out.prefix_length = destination->length;
    config_.linux_setup.routes.push_back(std::move(out));
  }

  void ReadDestination(const ConfigValue& v, bool* is_default,
                       std::optional<ParsedPrefix>* destination) {
    const auto text = reader_.Text(v, "a prefix or default");
    if (!text) return;
    if (*text == "default") {
      *is_default = true;
      return;
    }
    const auto prefix = ParsePrefix(*text);
    if (!prefix) {
      reader_.Error(v.mark, "\"" + *text +
                                "\" is not a prefix, such as 192.0.2.0/24, "
                                "2001:db8::/32 or default");
    } else if (const IpAddress base = CanonicalAddress(*prefix); base != prefix->address) {
      reader_.Error(v.mark, "\"" + *text +
                                "\" has bits set after its prefix length; did you mean \"" +
                                PrefixText(base, prefix->length) + "\"?");
    } else {
      *destination = prefix;
    }
  }

  ConfigReader reader_;
  std::string directory_;  // of the file, with a slash; empty: the working directory
  Config config_;
  std::map<std::string, int> interface_lines_;
};

}  // namespace

std::string ServiceLimitsProblem(const Config& config) {
  const PortRange& sockets = config.limits.socket_ports;
  const PortRange& nat = config.limits.nat_ports;
  if (config.services.services.empty() || sockets.first > nat.last || nat.first > sockets.last) {
    return "";
  }
  return "services need limits.socket_ports, and limits.nat_ports must have no port of them";
}

ConfigResult ParseConfig(std::string_view text, std::string_view filename) {
  return Parser(filename).Parse(text);
}

}  // namespace sluice::control
