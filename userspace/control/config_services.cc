#include "control/config_services.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <tuple>
#include <vector>

#include "control/config_firewall.h"

namespace sluice::control {
namespace {

using tables::Balance;
using tables::BackendConfig;
using tables::HealthCheckConfig;
using tables::ServiceAddress;
using tables::ServiceConfig;
using tables::ServiceKind;

struct ServiceKey {
  std::string_view key;
  std::string_view kinds;
};
constexpr ServiceKey kServiceKeys[] = {
#define SLUICE_SERVICE_KEY(key, kinds, value, standard, text) {key, kinds},
#include "control/service_keys.inc"
#undef SLUICE_SERVICE_KEY
};

// Whether services of this kind have the key.
bool Knows(ServiceKind kind, std::string_view key) {
  for (const ServiceKey& k : kServiceKeys) {
    if (k.key == key) {
      return k.kinds == "all" || k.kinds.find(Name(kind)) != std::string_view::npos;
    }
  }
  return false;
}

constexpr uint32_t kMaxWeight = 256;
constexpr uint32_t kMaxConnections = 1 << 24;
constexpr uint32_t kMaxRetries = tables::kMaxBackends;

std::optional<uint32_t> Digits(std::string_view text, uint32_t most) {
  uint32_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (text.empty() || error != std::errc() || stop != end || number > most) return {};
  return number;
}

// Groups that routers do not pass on (RFC 5771 section 4, RFC 4291 section 2.7) are the kernel's.
bool StaysOnLink(const ServiceAddress& group) {
  const IpAddress& a = group.address;
  return a.is_v4() ? a.v4().value >> 8 == 0xe00000 : (a.v6().hi >> 48 & 0xf) <= 2;
}

bool MayListenToGroups(ServiceKind kind) {
  return kind == ServiceKind::kUdpProxy || kind == ServiceKind::kEcho ||
         kind == ServiceKind::kDiscard;
}

// A name stands in metrics and tables.
bool IsName(std::string_view text) {
  return text.size() <= 64 && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '-' || c == '_' || c == '.';
         });
}

bool IsVisible(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < 0x7f; });
}

uint64_t KeyOf(const ServiceAddress& a) {
  uint64_t key = tables::MixBits(a.address.bits.hi);
  key = tables::MixBits(key ^ a.address.bits.lo);
  return tables::MixBits(key ^ (uint64_t{a.port} << 8 | static_cast<uint64_t>(a.address.family)));
}

class ServicesParser {
 public:
  ServicesParser(ConfigReader& reader, tables::ServicesConfig* out) : reader_(reader), out_(out) {}
  const std::vector<NamedInterface>& interfaces() const { return interfaces_; }

  void Parse(const ConfigValue& value) {
    if (value.node.IsNull()) return;
    reader_.List(value, [&](const ConfigValue& item) {
      if (out_->services.size() == tables::kMaxServices) {
        reader_.Error(item.mark, "more than " + std::to_string(tables::kMaxServices) + " services");
      }
      if (out_->services.size() <= tables::kMaxServices) ParseService(item);
    });
  }

 private:
  using Field = ConfigReader::Field;

  static constexpr char kAddressForm[] =
      "ADDRESS:PORT (such as 192.0.2.1:80 or \"[2001:db8::1]:80\")";

  void ParseService(const ConfigValue& item) {
    ServiceConfig service;
    // The kind decides which keys there are.
    std::optional<ServiceKind> kind;
    if (item.node.IsMap()) {
      for (size_t i = 0; i < std::size(tables::kServiceKindNames); ++i) {
        if (!item.node[std::string(tables::kServiceKindNames[i])].IsDefined()) continue;
        if (!kind) kind = static_cast<ServiceKind>(i);
      }
    }
    service.kind = kind.value_or(ServiceKind::kTcpProxy);
    if (service.kind == ServiceKind::kUdpProxy) service.idle_timeout = Seconds(30);
    if (service.kind == ServiceKind::kHttp) service.idle_timeout = Seconds(60);

    std::vector<Field> fields;
    for (size_t i = 0; i < std::size(tables::kServiceKindNames); ++i) {
      const auto k = static_cast<ServiceKind>(i);
      fields.emplace_back(tables::kServiceKindNames[i], [this, &service, k](const ConfigValue& v) {
        if (k == service.kind) {
          ReadName(v, &service.name);
        } else {
          reader_.Error(v.mark, "a service is of one kind; this one is \"" +
                                    std::string(Name(service.kind)) + "\" already");
        }
      });
    }
    for (Field& field : AllFields(service)) {
      if (Knows(service.kind, field.first)) fields.push_back(std::move(field));
    }
    const ConfigValue named{item.node, item.mark,
                            kind ? std::string(Name(*kind)) : std::string("services")};
    reader_.Map(named, fields);
    if (!item.node.IsMap()) {
      if (item.node.IsNull()) reader_.Error(item.mark, KindMissing());
      return;
    }
    if (!kind) {
      reader_.Error(item.mark, KindMissing());
      return;
    }
    Complete(item, service);
    out_->services.push_back(std::move(service));
  }

  static std::string KindMissing() {
    std::string words;
    for (const std::string_view name : tables::kServiceKindNames) {
      words += (words.empty() ? "" : ", ") + std::string(name);
    }
    return "a service needs its kind, one of " + words + ", with a name, such as tcp_proxy: web";
  }

  // Of all kinds.
  std::vector<Field> AllFields(ServiceConfig& s) {
    const auto duration = [this](Nanos* out) {
      return [this, out](const ConfigValue& v) { ReadDuration(v, out); };
    };
    const auto number = [this](uint32_t min, uint32_t max, uint32_t* out) {
      return [this, min, max, out](const ConfigValue& v) { reader_.NumberInto(v, min, max, out); };
    };
    return {{"listen", [this, &s](const ConfigValue& v) { ReadListens(v, &s); }},
            {"group_interfaces", [this, &s](const ConfigValue& v) { ReadGroupInterfaces(v, &s); }},
            {"backends", [this, &s](const ConfigValue& v) { ReadBackends(v, &s); }},
            {"balance",
             [this, &s](const ConfigValue& v) {
               reader_.OneOf<Balance>(v,
                                      {{"round_robin", Balance::kRoundRobin},
                                       {"least_connections", Balance::kLeastConnections},
                                       {"maglev", Balance::kMaglev}},
                                      &s.balance);
             }},
            {"health_check", [this, &s](const ConfigValue& v) { ReadHealth(v, &s.health); }},
            {"connect_timeout", duration(&s.connect_timeout)},
            {"retries", number(0, kMaxRetries, &s.retries)},
            {"proxy_protocol",
             [this, &s](const ConfigValue& v) {
               reader_.OneOf<bool>(v, {{"off", false}, {"v2", true}}, &s.proxy_protocol);
             }},
            {"splice",
             [this, &s](const ConfigValue& v) {
               reader_.OneOf<bool>(v, {{"off", false}, {"on", true}}, &s.splice);
             }},
            {"replies", number(0, kMaxConnections, &s.replies)},
            {"protocol",
             [this, &s](const ConfigValue& v) {
               using Pair = std::pair<bool, bool>;
               Pair protocols{true, true};
               reader_.OneOf<Pair>(
                   v, {{"tcp", {true, false}}, {"udp", {false, true}}, {"both", {true, true}}},
                   &protocols);
               std::tie(s.tcp, s.udp) = protocols;
             }},
            {"idle_timeout", duration(&s.idle_timeout)},
            {"max_connections", number(1, kMaxConnections, &s.max_connections)},
            {"drain_timeout", duration(&s.drain_timeout)}};
  }

  void ReadName(const ConfigValue& v, std::string* out) {
    const auto name = reader_.Text(v, "the service's name");
    if (!name) return;
    const auto [previous, is_new] = names_.emplace(*name, v.mark.line + 1);
    if (!IsName(*name)) {
      reader_.Error(v.mark, "\"" + *name + "\" cannot be a service's name: letters, digits and " +
                                "-_. only, and at most 64 of them");
    } else if (!is_new) {
      reader_.Error(v.mark, "service \"" + *name + "\" is there twice, first on line " +
                                std::to_string(previous->second));
    }
    *out = *name;
  }

  void ReadDuration(const ConfigValue& v, Nanos* out) {
    static constexpr char kExpected[] = "a time such as 500ms, 30s, 5m or 2h (at most 365d)";
    const auto text = reader_.Text(v, kExpected);
    if (!text) return;
    if (const auto duration = ParseShortDuration(*text)) {
      *out = *duration;
    } else {
      reader_.Error(v.mark, "\"" + v.key + "\" must be " + kExpected + ", not \"" + *text + "\"");
    }
  }

  std::optional<ServiceAddress> ReadServiceAddress(const ConfigValue& v, bool may_be_group) {
    const auto text = reader_.Text(v, kAddressForm);
    if (!text) return {};
    const auto parsed = ParseListen(*text);
    if (!parsed) {
      reader_.Error(v.mark,
                    "\"" + v.key + "\" must be " + kAddressForm + ", not \"" + *text + "\"");
      return {};
    }
    const ServiceAddress address{parsed->address, parsed->port};
    const bool broadcast = address.address.is_v4() && address.address.v4().IsLimitedBroadcast();
    if (broadcast || (IsGroup(address) && !may_be_group)) {
      reader_.Error(v.mark, "\"" + *text + "\" is not one machine's address");
      return {};
    }
    if (IsGroup(address) && StaysOnLink(address)) {
      reader_.Error(v.mark, "\"" + *text + "\" is a group of one link's own, which is the kernel's");
      return {};
    }
    return address;
  }

  // Calls `each` for the value, or for each element if it is a list.
  template <class Each>
  void OneOrMore(const ConfigValue& v, Each&& each) {
    if (v.node.IsSequence()) {
      reader_.List(v, each);
    } else {
      each(v);
    }
  }

  void ReadListens(const ConfigValue& v, ServiceConfig* s) {
    listen_mark_ = v.mark;
    listen_marks_.clear();
    OneOrMore(v, [&](const ConfigValue& item) {
      const auto address = ReadServiceAddress(item, MayListenToGroups(s->kind));
      if (!address) return;
      if (s->listen.size() == tables::kMaxListens) {
        reader_.Error(item.mark, "more than " + std::to_string(tables::kMaxListens) +
                                     " addresses for one service");
      }
      s->listen.push_back(*address);
      listen_marks_.push_back(item.mark);
    });
  }

  // Whether they are served is the caller's to look at, who knows them all.
  void ReadGroupInterfaces(const ConfigValue& v, ServiceConfig* s) {
    group_interfaces_mark_ = v.mark;
    OneOrMore(v, [&](const ConfigValue& item) {
      if (const auto name = reader_.Text(item, "an interface's name")) {
        s->group_interfaces.push_back(*name);
        interfaces_.push_back({*name, item.mark});
      }
    });
  }

  void ReadBackends(const ConfigValue& v, ServiceConfig* s) {
    OneOrMore(v, [&](const ConfigValue& item) {
      BackendConfig backend;
      std::optional<ServiceAddress> address;
      YAML::Mark mark = item.mark;
      if (item.node.IsMap()) {
        bool has_address = false;
        reader_.Map(item, {{"address",
                            [&](const ConfigValue& a) {
                              has_address = true;
                              mark = a.mark;
                              address = ReadServiceAddress(a, /*may_be_group=*/false);
                            }},
                           {"weight", [&](const ConfigValue& w) {
                              reader_.NumberInto(w, 1, kMaxWeight, &backend.weight);
                            }}});
        if (!has_address) reader_.Error(item.mark, "a backend needs an \"address\"");
      } else {
        address = ReadServiceAddress(item, /*may_be_group=*/false);
      }
      if (!address) return;
      if (address->address.bits.IsUnspecified()) {
        reader_.Error(mark, "\"" + ToString(*address) + "\" is not one machine's address");
        return;
      }
      backend.address = *address;
      for (const BackendConfig& other : s->backends) {
        if (other.address == backend.address) {
          reader_.Error(mark, "backend " + ToString(*address) + " is there twice");
          return;
        }
      }
      if (s->backends.size() == tables::kMaxBackends) {
        reader_.Error(mark, "more than " + std::to_string(tables::kMaxBackends) + " backends");
      }
      if (s->backends.size() <= tables::kMaxBackends) s->backends.push_back(backend);
    });
  }

  void ReadHealth(const ConfigValue& v, HealthCheckConfig* out) {
    if (v.node.IsScalar() && !v.node.Scalar().empty()) {
      reader_.OneOf<HealthCheckConfig::Kind>(
          v, {{"off", HealthCheckConfig::Kind::kNone}, {"tcp", HealthCheckConfig::Kind::kTcp}},
          &out->kind);
      return;
    }
    out->kind = HealthCheckConfig::Kind::kTcp;
    const auto number = [this](uint32_t most, uint32_t* to) {
      return [this, most, to](const ConfigValue& n) { reader_.NumberInto(n, 1, most, to); };
    };
    const auto word = [this](std::string* text, bool path) {
      return [this, text, path](const ConfigValue& w) {
        const auto read = reader_.Text(w, path ? "a path such as /healthz" : "a host's name");
        if (!read) return;
        if (read->size() > 200 || !IsVisible(*read) || (path && read->front() != '/')) {
          reader_.Error(w.mark, path ? "\"http\" must be a path such as /healthz"
                                     : "\"host\" must be a host's name");
        }
        *text = *read;
      };
    };
    uint32_t port = 0;
    std::optional<YAML::Mark> http_only;
    reader_.Map(v, {{"http",
                     [&](const ConfigValue& p) {
                       out->kind = HealthCheckConfig::Kind::kHttp;
                       word(&out->path, true)(p);
                     }},
                    {"expect",
                     [&](const ConfigValue& e) {
                       http_only = e.mark;
                       ReadStatus(e, out);
                     }},
                    {"host",
                     [&](const ConfigValue& h) {
                       http_only = h.mark;
                       word(&out->host, false)(h);
                     }},
                    {"port", number(65'535, &port)},
                    {"interval", [&](const ConfigValue& d) { ReadDuration(d, &out->interval); }},
                    {"timeout", [&](const ConfigValue& d) { ReadDuration(d, &out->timeout); }},
                    {"rise", number(100, &out->rise)},
                    {"fall", number(100, &out->fall)}});
    out->port = static_cast<uint16_t>(port);
    if (http_only && out->kind != HealthCheckConfig::Kind::kHttp) {
      reader_.Error(*http_only, "this is for HTTP checks: give \"http\" with a path as well");
    }
  }

  void ReadStatus(const ConfigValue& v, HealthCheckConfig* out) {
    static constexpr char kExpected[] = "an HTTP status or a range, such as 200 or 200-399";
    const auto text = reader_.Text(v, kExpected);
    if (!text) return;
    const size_t dash = text->find('-');
    const std::string_view all(*text);
    const auto first = Digits(all.substr(0, dash), 599);
    const auto last = dash == std::string::npos ? first : Digits(all.substr(dash + 1), 599);
    if (!first || !last || *first < 100 || *first > *last) {
      reader_.Error(v.mark,
                    "\"" + v.key + "\" must be " + kExpected + ", not \"" + *text + "\"");
      return;
    }
    out->first_status = static_cast<uint16_t>(*first);
    out->last_status = static_cast<uint16_t>(*last);
  }

  // What only the whole service tells.
  void Complete(const ConfigValue& item, ServiceConfig& s) {
    const bool proxy = s.kind == ServiceKind::kTcpProxy || s.kind == ServiceKind::kUdpProxy;
    const std::string what = "service \"" + s.name + "\"";
    if (!listen_mark_) {
      reader_.Error(item.mark, what + " needs \"listen\", an " + std::string(kAddressForm));
    }
    if (proxy && !item.node["backends"].IsDefined()) {
      reader_.Error(item.mark, what + " needs \"backends\"");
    } else if (proxy && s.backends.empty() && reader_.ok()) {
      reader_.Error(item.mark, what + " has no backends");
    }
    const size_t before = all_backends_;
    all_backends_ += s.backends.size();
    if (before <= tables::kMaxAllBackends && all_backends_ > tables::kMaxAllBackends) {
      reader_.Error(item.mark, "more than " + std::to_string(tables::kMaxAllBackends) +
                                   " backends of all services together");
    }
    for (size_t i = 0; i < s.listen.size(); ++i) CheckListen(s, s.listen[i], listen_marks_[i]);
    listen_mark_.reset();
    if (group_interfaces_mark_ && std::none_of(s.listen.begin(), s.listen.end(), tables::IsGroup)) {
      reader_.Error(*group_interfaces_mark_, "this is for groups: " + what + " listens to none");
    }
    group_interfaces_mark_.reset();
    if (s.balance == Balance::kMaglev && reader_.ok()) {
      std::vector<tables::MaglevBackend> backends;
      for (const BackendConfig& b : s.backends) backends.push_back({KeyOf(b.address), b.weight});
      s.maglev = tables::BuildMaglev(backends);
    }
  }

  void CheckListen(const ServiceConfig& s, const ServiceAddress& a, const YAML::Mark& mark) {
    if (s.uses_udp() && a.address.bits.IsUnspecified()) {
      reader_.Error(mark, "\"" + ToString(a) +
                              "\": UDP needs one address, which answers come from");
    }
    if (IsGroup(a)) {
      if (s.uses_tcp()) {
        reader_.Error(mark, "\"" + ToString(a) + "\" is a group, which only UDP can be sent to: say "
                                "\"protocol: udp\", and give other addresses a service of their own");
        return;
      }
      if (++all_groups_ == tables::kMaxGroupListens + 1) {
        reader_.Error(mark, "more than " + std::to_string(tables::kMaxGroupListens) +
                                " addresses of groups, of all services together");
      }
    }
    for (const bool udp : {false, true}) {
      if (udp ? !s.uses_udp() : !s.uses_tcp()) continue;
      const auto [previous, is_new] =
          listens_.emplace((udp ? "UDP " : "TCP ") + ToString(a), mark.line + 1);
      if (!is_new) {
        reader_.Error(mark, previous->first + " is listened on already, on line " +
                                std::to_string(previous->second));
      }
    }
  }

  ConfigReader& reader_;
  tables::ServicesConfig* const out_;
  std::map<std::string, int> names_;    // -> line
  std::map<std::string, int> listens_;  // likewise
  size_t all_backends_ = 0;
  size_t all_groups_ = 0;  // addresses of theirs
  std::vector<NamedInterface> interfaces_;
  std::optional<YAML::Mark> group_interfaces_mark_;
  std::optional<YAML::Mark> listen_mark_;
  std::vector<YAML::Mark> listen_marks_;
};

}  // namespace

std::optional<ListenAddress> ParseListen(const std::string& text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos) return {};
  std::string host = text.substr(0, colon);
  const bool bracketed = host.size() >= 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  const auto address = ParseIpAddress(host);
  if (!address || address->is_v4() == bracketed) return {};
  const auto port = Digits(std::string_view(text).substr(colon + 1), 65'535);
  if (!port || *port < 1) return {};
  return ListenAddress{*address, static_cast<uint16_t>(*port)};
}

std::optional<Nanos> ParseShortDuration(std::string_view text) {
  if (!text.ends_with("ms")) return ParseDuration(text);
  text.remove_suffix(2);
  const auto number = Digits(text, 1'000'000'000);
  if (!number || *number < 1) return {};
  return Millis(*number);
}

std::vector<NamedInterface> ReadServices(ConfigReader& reader, const ConfigValue& value,
                                         tables::ServicesConfig* out) {
  ServicesParser parser(reader, out);
  parser.Parse(value);
  return parser.interfaces();
}

}  // namespace sluice::control
