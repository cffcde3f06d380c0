#include "support/service_chaos.h"

#include <utility>

#include "support/proxy_worlds.h"

namespace sluice::test {

using tables::ServiceConfig;
using tables::ServiceKind;

ServiceChaos::ServiceChaos(const ServiceRig::Options& options, Draw draw)
    : rig_(options), draw_(std::move(draw)) {
  for (uint16_t i = 0; i < kBackends; ++i) {
    const auto at = ServiceRig::Backend(static_cast<uint16_t>(8080 + i));
    servers_.push_back(std::make_unique<NamedServer>(rig_, at, "s"));
    udp_servers_.push_back(std::make_unique<UdpServer>(rig_, at, "u"));
  }
  for (int i = 0; i < 4; ++i) udp_clients_.push_back(std::make_unique<UdpClient>(rig_));
}

ServiceConfig ServiceChaos::RandomService(uint16_t i) {
  std::vector<uint16_t> backends;
  for (uint16_t b = 0; b < kBackends; ++b) {
    if (!Chance(3)) backends.push_back(static_cast<uint16_t>(8080 + b));
  }
  if (backends.empty()) backends.push_back(8080);
  ServiceConfig c = TcpProxyTo(backends, static_cast<tables::Balance>(draw_(2)));
  c.kind = static_cast<ServiceKind>(draw_(6));
  c.name = "n" + std::to_string(i);
  c.listen = {ServiceRig::Proxy(static_cast<uint16_t>(80 + i))};
  if (c.kind == ServiceKind::kHttp || c.kind >= ServiceKind::kEcho) c.backends.clear();
  if (Chance(2)) c.tcp = false;
  c.connect_timeout = Millis(static_cast<int64_t>(50 + draw_(500)));
  c.idle_timeout = Seconds(static_cast<int64_t>(1 + draw_(20)));
  c.drain_timeout = Seconds(static_cast<int64_t>(1 + draw_(5)));
  c.retries = static_cast<uint32_t>(draw_(3));
  c.replies = static_cast<uint32_t>(draw_(2));
  c.proxy_protocol = Chance(4);
  c.splice = !Chance(4);
  if (Chance(3)) c.max_connections = static_cast<uint32_t>(1 + draw_(5));
  c.health.kind = static_cast<tables::HealthCheckConfig::Kind>(draw_(3));
  c.health.interval = Millis(static_cast<int64_t>(100 + draw_(1000)));
  c.health.timeout = Millis(static_cast<int64_t>(10 + draw_(200)));
  return c;
}

void ServiceChaos::Configure() {
  std::vector<ServiceConfig> all;
  for (uint16_t i = 0; i < kPorts; ++i) {
    if (!Chance(4)) all.push_back(RandomService(i));
  }
  rig_.Apply(std::move(all));
}

void ServiceChaos::NewClient() {
  if (clients_.size() > 100) {
    answered_ += !clients_.front()->got.empty();
    clients_.erase(clients_.begin());
  }
  static const std::string kTexts[] = {"hello", "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
                                       "GET /healthz HTTP/1.0\r\n\r\n", std::string(20'000, 'x'),
                                       ""};
  clients_.push_back(std::make_unique<TextClient>(
      rig_, ServiceRig::Proxy(static_cast<uint16_t>(80 + draw_(kPorts))),
      kTexts[draw_(std::size(kTexts))], Chance(2)));
  if (Chance(4)) clients_.back()->reading = false;
}

void ServiceChaos::Poke(TextClient& c) {
  if (c.closed) return;
  switch (draw_(5)) {
    case 0:
      return c.Say("GET / HTTP/1.1\r\n");
    case 1:
      return c.Finish();
    case 2:
      return c.Close();
    case 3:
      return c.Abort();
    case 4:
      c.reading = !c.reading;
      return c.OnReadable(c.socket, rig_.now());
  }
}

void ServiceChaos::Step() {
  switch (draw_(12)) {
    case 0:
      Configure();
      break;
    case 1:
    case 2:
    case 3:
      NewClient();
      break;
    case 4:
      if (!clients_.empty()) Poke(*clients_[draw_(clients_.size())]);
      break;
    case 5:
      servers_[draw_(kBackends)]->AbortAll();
      break;
    case 6:
      if (Chance(2)) {
        rig_.Vanish(static_cast<uint16_t>(8080 + draw_(kBackends)));
      } else {
        rig_.Reappear();
      }
      break;
    case 7:
      if (!rig_.tokens.empty()) {
        rig_.set().OnPage(rig_.tokens[draw_(rig_.tokens.size())],
                          Chance(4) ? nullptr
                                    : std::make_shared<const std::string>(draw_(50'000), 'p'),
                          rig_.now());
        if (rig_.tokens.size() > 20) rig_.tokens.clear();
      }
      break;
    case 8:
    case 9:
      udp_clients_[draw_(udp_clients_.size())]->Say(static_cast<uint16_t>(80 + draw_(kPorts)),
                                                    "q");
      break;
    case 10:
      rig_.Run(Millis(static_cast<int64_t>(draw_(20))));
      break;
    case 11:
      rig_.Run(Millis(static_cast<int64_t>(draw_(Chance(20) ? 20'000 : 500))));
      break;
  }
}

std::string ServiceChaos::Finish() {
  for (const auto& c : clients_) answered_ += !c->got.empty();
  rig_.Apply({});
  rig_.Reappear();
  rig_.Run(Seconds(6));
  std::string left = rig_.set().Drained() ? "" : "not drained ";
  clients_.clear();
  for (const auto& s : servers_) s->AbortAll();
  left += rig_.Leftovers();
  if (rig_.set().usage().timers != 0) left += "timers ";
  if (rig_.set().usage().probes != 0) left += "probes ";
  if (rig_.link().host(1).udp().sockets() != 0) left += "udp sockets ";
  if (rig_.link().host(1).tcp().usage().listeners != 0) left += "listeners ";
  for (uint32_t i = 0; i < tables::ServiceSlots::kServices; ++i) {
    const auto& stats = rig_.set().counters().service(i);
    if (stats.active.Read() != 0 || stats.listening.Read() != 0) left += "counts ";
  }
  for (uint32_t i = 0; i < tables::ServiceSlots::kBackends; ++i) {
    const auto& stats = rig_.set().counters().backend(i);
    if (stats.active.Read() != 0 || stats.up.Read() != 0) left += "backend counts ";
  }
  return left;
}

}  // namespace sluice::test
