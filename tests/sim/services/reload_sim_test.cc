// ServiceSet::Apply: what is untouched, what changes, what drains.
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "support/proxy_worlds.h"
#include "support/service_rig.h"

namespace sluice::test {
namespace {

using services::ServiceFailure;
using tables::ServiceConfig;
using tables::ServiceKind;
using transport::SocketError;

ServiceConfig Echo(uint16_t port) {
  ServiceConfig c;
  c.name = "echo";
  c.kind = ServiceKind::kEcho;
  c.listen = {ServiceRig::Proxy(port)};
  return c;
}

TEST(Reload, UnchangedServicesAreNotTouched) {
  ServiceRig rig;
  NamedServer server(rig, ServiceRig::Backend(8080), "s");
  rig.Apply({TcpProxyTo({8080}), Echo(7)});
  const services::Service* const web = rig.Find("web");
  TextClient client(rig, ServiceRig::Proxy(80), "x");
  rig.Run(Seconds(1));
  rig.Apply({TcpProxyTo({8080})});
  rig.Apply({Echo(8), TcpProxyTo({8080})});
  EXPECT_EQ(rig.Find("web"), web);
  client.Say("y");
  rig.Run(Seconds(1));
  EXPECT_EQ(client.got, "s:xy");
  TextClient other(rig, ServiceRig::Proxy(80), "z");
  rig.Run(Seconds(1));
  EXPECT_EQ(other.got, "s:z");
  EXPECT_TRUE(rig.set().Drained());
}

// Its connections go on, its port is closed, and after the last of them it is gone.
TEST(Reload, RemovedServiceDrains) {
  ServiceRig rig;
  NamedServer server(rig, ServiceRig::Backend(8080), "s");
  rig.Apply({TcpProxyTo({8080})});
  TextClient client(rig, ServiceRig::Proxy(80), "x");
  rig.Run(Seconds(1));
  rig.Apply({});
  EXPECT_FALSE(rig.set().Drained());
  ASSERT_NE(rig.Find("web"), nullptr);
  EXPECT_TRUE(rig.Find("web")->draining());
  EXPECT_EQ(rig.stats("web").listening.Read(), 0u);
  TextClient late(rig, ServiceRig::Proxy(80), "x");
  client.Say("y");
  rig.Run(Seconds(1));
  EXPECT_EQ(client.got, "s:xy");
  EXPECT_FALSE(late.connected);
  client.Finish();
  rig.Run(Seconds(1));
  EXPECT_TRUE(client.closed);
  EXPECT_TRUE(rig.set().Drained());
  EXPECT_EQ(rig.Find("web"), nullptr);
  late.Abort();
  EXPECT_EQ(rig.Leftovers(), "");
  EXPECT_EQ(rig.set().usage().timers, 0u);
}

TEST(Reload, DrainTimeoutEndsWhatIsLeft) {
  ServiceRig rig;
  NamedServer server(rig, ServiceRig::Backend(8080), "s");
  ServiceConfig config = TcpProxyTo({8080});
  config.drain_timeout = Seconds(20);
  rig.Apply({config});
  TextClient client(rig, ServiceRig::Proxy(80), "x");
  rig.Run(Seconds(1));
  rig.Apply({});
  for (int i = 0; i < 9; ++i) {
    client.Say("y");
    rig.Run(Seconds(2));
  }
  EXPECT_FALSE(client.closed);
  rig.Run(Seconds(3));
  EXPECT_EQ(client.error, SocketError::kReset);
  EXPECT_EQ(rig.failed("web", ServiceFailure::kDrainTimeout), 1u);
  EXPECT_TRUE(rig.set().Drained());
  EXPECT_EQ(rig.Leftovers(), "");
}

// The same name and address, another kind: the new one has the port at once, the old connection
// lives on.
TEST(Reload, AnotherKindTakesThePortOver) {
  ServiceRig rig;
  NamedServer server(rig, ServiceRig::Backend(8080), "s");
  rig.Apply({TcpProxyTo({8080})});
  TextClient client(rig, ServiceRig::Proxy(80), "x");
  rig.Run(Seconds(1));
  ServiceConfig echo = Echo(80);
  echo.name = "web";
  rig.Apply({echo});
  TextClient other(rig, ServiceRig::Proxy(80), "echoed");
  client.Say("y");
  rig.Run(Seconds(1));
  EXPECT_EQ(client.got, "s:xy");
  EXPECT_EQ(other.got, "echoed");
  EXPECT_EQ(rig.stats("web").active.Read(), 2u);
  client.Finish();
  other.Finish();
  rig.Run(Seconds(1));
  EXPECT_EQ(rig.stats("web").active.Read(), 0u);
  EXPECT_EQ(rig.Leftovers(), "");
}

// A backend that is gone keeps its connections and gets no new ones; one that comes gets some.
TEST(Reload, ChangedBackends) {
  ServiceRig rig;
  NamedServer a(rig, ServiceRig::Backend(8081), "a");
  NamedServer b(rig, ServiceRig::Backend(8082), "b");
  rig.Apply({TcpProxyTo({8081})});
  TextClient client(rig, ServiceRig::Proxy(80), "x");
  rig.Run(Seconds(1));
  rig.Apply({TcpProxyTo({8082})});
  for (int i = 0; i < 3; ++i) {
    TextClient other(rig, ServiceRig::Proxy(80), "x");
    rig.Run(Seconds(1));
    EXPECT_EQ(other.got, "b:x");
  }
  client.Say("y");
  rig.Run(Seconds(1));
  EXPECT_EQ(client.got, "a:xy");
  std::string view;
  const auto backends = [&] {
    view.clear();
    rig.Find("web")->ForEachBackend([&](const services::BackendView& v) {
      view += std::to_string(v.address.port) + (v.removed ? " removed " : " ") +
              std::to_string(v.connections) + "; ";
    });
    return view;
  };
  EXPECT_EQ(backends(), "8081 removed 1; 8082 0; ");
  client.Finish();
  rig.Run(Seconds(1));
  EXPECT_EQ(backends(), "8082 0; ");
  EXPECT_EQ(rig.Leftovers(), "");
}

TEST(Reload, ChangedAddresses) {
  ServiceRig rig;
  NamedServer server(rig, ServiceRig::Backend(8080), "s");
  ServiceConfig config = TcpProxyTo({8080});
  config.listen = {ServiceRig::Proxy(80), ServiceRig::Proxy(81)};
  rig.Apply({config});
  TextClient client(rig, ServiceRig::Proxy(80), "x");
  rig.Run(Seconds(1));
  config.listen = {ServiceRig::Proxy(81), ServiceRig::Proxy(82)};
  rig.Apply({config});
  EXPECT_EQ(rig.stats("web").listening.Read(), 2u);
  TextClient gone(rig, ServiceRig::Proxy(80), "x");
  TextClient stays(rig, ServiceRig::Proxy(81), "x");
  TextClient fresh(rig, ServiceRig::Proxy(82), "x");
  client.Say("y");
  rig.Run(Seconds(1));
  EXPECT_EQ(client.got, "s:xy");
  EXPECT_FALSE(gone.connected);
  EXPECT_EQ(stays.got + fresh.got, "s:xs:x");
  EXPECT_TRUE(rig.set().Drained());
}

// Two services exchange their addresses in one step.
TEST(Reload, AddressesSwap) {
  ServiceRig rig;
  NamedServer server(rig, ServiceRig::Backend(8080), "s");
  rig.Apply({TcpProxyTo({8080}), Echo(7)});
  ServiceConfig web = TcpProxyTo({8080});
  web.listen = {ServiceRig::Proxy(7)};
  rig.Apply({web, Echo(80)});
  TextClient to_web(rig, ServiceRig::Proxy(7), "x");
  TextClient to_echo(rig, ServiceRig::Proxy(80), "x");
  rig.Run(Seconds(1));
  EXPECT_EQ(to_web.got, "s:x");
  EXPECT_EQ(to_echo.got, "x");
  EXPECT_EQ(rig.failed("web", ServiceFailure::kListen), 0u);
}

// An address that cannot be had is counted, and tried again with the next configuration.
TEST(Reload, AddressInUse) {
  ServiceRig rig;
  transport::TcpListenerId other;
  ASSERT_EQ(rig.link().host(1).tcp().Listen(EndpointOf(ServiceRig::Proxy(7)), {}, 1, nullptr,
                                            other),
            SocketError::kNone);
  rig.Apply({Echo(7)});
  EXPECT_EQ(rig.failed("echo", ServiceFailure::kListen), 1u);
  EXPECT_EQ(rig.stats("echo").listening.Read(), 1u);  // UDP
  rig.link().host(1).tcp().CloseListener(other, rig.now());
  rig.Apply({Echo(7)});
  EXPECT_EQ(rig.stats("echo").listening.Read(), 2u);
}

// Many reloads under load: nothing leaks, and every client that was served to its end was served right.
TEST(Reload, AtRandomUnderLoad) {
  Rng rng(7);
  ServiceRig rig;
  NamedServer a(rig, ServiceRig::Backend(8081), "s");
  NamedServer b(rig, ServiceRig::Backend(8082), "s");
  std::vector<std::unique_ptr<TextClient>> clients;
  int served = 0;
  for (int round = 0; round < 150; ++round) {
    std::vector<ServiceConfig> config;
    for (int i = 0; i < 6; ++i) {
      if (rng.Chance(1, 3)) continue;
      ServiceConfig c = rng.Chance(1, 2) ? TcpProxyTo({8081}) : TcpProxyTo({8081, 8082});
      if (rng.Chance(1, 4)) c = Echo(0);
      c.name = "s" + std::to_string(i);
      c.listen = {ServiceRig::Proxy(static_cast<uint16_t>(80 + i))};
      c.drain_timeout = Seconds(2);
      if (rng.Chance(1, 4)) c.health.kind = tables::HealthCheckConfig::Kind::kTcp;
      config.push_back(c);
    }
    rig.Apply(config);
    for (int i = 0; i < 6; ++i) {
      clients.push_back(std::make_unique<TextClient>(
          rig, ServiceRig::Proxy(static_cast<uint16_t>(80 + i)), "text", rng.Chance(2, 3)));
    }
    rig.Run(Millis(static_cast<int64_t>(rng.Below(300))));
    while (clients.size() > 40) {
      const auto& c = *clients.front();
      EXPECT_TRUE(c.got.empty() || c.got == "text" || c.got == "s:text") << c.got;
      served += c.got.ends_with("text");
      clients.erase(clients.begin());
    }
  }
  EXPECT_GT(served, 300);
  clients.clear();
  rig.Apply({});
  rig.Run(Seconds(5));
  EXPECT_TRUE(rig.set().Drained());
  EXPECT_EQ(rig.Leftovers(), "");
  EXPECT_EQ(rig.set().usage().timers, 0u);
  EXPECT_EQ(rig.set().usage().probes, 0u);
  for (int i = 0; i < 6; ++i) EXPECT_EQ(rig.stats("s" + std::to_string(i)).active.Read(), 0u);
}

// A slot that somebody else gets, after more names than there are slots, counts from zero, and whoever
// still drained there has ended.
TEST(Reload, SlotsThatAreGivenAway) {
  ServiceRig rig;
  NamedServer server(rig, ServiceRig::Backend(8080), "s");
  ServiceConfig first = TcpProxyTo({8080});
  first.name = "first";
  first.drain_timeout = Seconds(3600);
  rig.Apply({first});
  TextClient client(rig, ServiceRig::Proxy(80), "x");
  rig.Run(Seconds(1));
  for (uint32_t i = 0; i < tables::ServiceSlots::kServices; ++i) {
    ServiceConfig c = Echo(7);
    c.name = "n" + std::to_string(i);
    rig.Apply({c});
    EXPECT_EQ(client.closed, false);
    rig.Run(Millis(100));
    EXPECT_EQ(rig.stats(c.name).accepted.Read(), 0u);
    EXPECT_EQ(rig.stats(c.name).active.Read(), 0u);
  }
  EXPECT_TRUE(client.closed);
  EXPECT_TRUE(rig.set().Drained());
}

// A backend that is gone keeps its connections in a service that stays, but not its place: whoever gets
// that counts from zero and is not counted down when those end.
TEST(Reload, BackendSlotsThatAreGivenAway) {
  ServiceRig rig;
  NamedServer server(rig, ServiceRig::Backend(8080), "s");
  rig.Apply({TcpProxyTo({8080})});
  std::vector<std::unique_ptr<TextClient>> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(std::make_unique<TextClient>(rig, ServiceRig::Proxy(80), "x"));
  }
  rig.Run(Seconds(1));
  ASSERT_EQ(rig.backend("web", 8080).active.Read(), 3u);
  const services::BackendStats* const place = &rig.backend("web", 8080);
  // More backends than there are places, one after the other.
  uint16_t port = 10'000;
  const services::BackendStats* last = nullptr;
  for (uint32_t i = 0; last != place && i < 2 * tables::ServiceSlots::kBackends; i += 64) {
    std::vector<uint16_t> ports;
    for (int n = 0; n < 64; ++n) ports.push_back(port++);
    rig.Apply({TcpProxyTo(ports)});
    for (const uint16_t p : ports) {
      if (&rig.backend("web", p) == place) last = place;
      EXPECT_EQ(rig.backend("web", p).active.Read(), 0u);
    }
  }
  ASSERT_EQ(last, place) << "somebody has it";
  // It comes back, with its connections, to another place.
  rig.Apply({TcpProxyTo({8080})});
  EXPECT_NE(&rig.backend("web", 8080), place);
  EXPECT_EQ(rig.backend("web", 8080).active.Read(), 3u);
  clients[0]->Finish();
  rig.Run(Seconds(1));
  EXPECT_EQ(rig.backend("web", 8080).active.Read(), 2u);
  rig.Apply({TcpProxyTo({8081})});
  clients.clear();
  rig.Run(Seconds(1));
  EXPECT_EQ(place->active.Read(), 0u);
  EXPECT_EQ(place->up.Read() + rig.backend("web", 8081).active.Read(), 0u);
  EXPECT_EQ(rig.backend("web", 8080).active.Read(), 0u);
  EXPECT_EQ(rig.Leftovers(), "");
}

// More backends than places: one that gets its place when others have gone is counted there from then on.
TEST(Reload, BackendThatGetsItsSlotLate) {
  ServiceRig rig;
  NamedServer server(rig, ServiceRig::Backend(8080), "s");
  const auto apply = [&](uint32_t slot) {
    auto config = std::make_shared<tables::ServicesConfig>();
    config->services = {TcpProxyTo({8080})};
    config->services[0].slot = 0;
    config->services[0].backends[0].slot = slot;
    rig.set().Apply(config, rig.now());
  };
  apply(tables::kNoServiceSlot);
  TextClient one(rig, ServiceRig::Proxy(80), "x");
  rig.Run(Seconds(1));
  EXPECT_EQ(one.got, "s:x");
  apply(5);
  const services::BackendStats& place = rig.set().counters().backend(5);
  EXPECT_EQ(place.active.Read(), 1u);
  EXPECT_EQ(place.up.Read(), 1u);
  TextClient two(rig, ServiceRig::Proxy(80), "x");
  rig.Run(Seconds(1));
  EXPECT_EQ(two.got, "s:x");
  EXPECT_EQ(place.active.Read(), 2u);
  EXPECT_EQ(place.connections.Read(), 1u);
  one.Close();
  two.Close();
  rig.Run(Seconds(1));
  EXPECT_EQ(place.active.Read(), 0u);
  EXPECT_EQ(rig.Leftovers(), "");
}

// While a client waits for a backend, others come and go: those that were tried are not tried again,
// and those that were not are.
TEST(Reload, BackendsThatWereTriedAreKnownByAddress) {
  ServiceRig rig;
  NamedServer good(rig, ServiceRig::Backend(8083), "good");
  rig.Vanish(8081);
  ServiceConfig config = TcpProxyTo({8083, 8081});  // it begins with the second
  config.connect_timeout = Seconds(3);
  config.retries = 1;
  rig.Apply({config});
  TextClient client(rig, ServiceRig::Proxy(80), "x");
  rig.Run(Seconds(1));
  ASSERT_EQ(rig.stats("web").active.Read(), 1u);
  ASSERT_EQ(client.got, "") << "8081 is being tried";
  // 8083 has the number that 8081 had.
  ServiceConfig changed = TcpProxyTo({8081, 8083});
  changed.connect_timeout = config.connect_timeout;
  changed.retries = config.retries;
  rig.Apply({changed});
  rig.Run(Seconds(10));
  EXPECT_EQ(client.got, "good:x");
  EXPECT_EQ(rig.backend("web", 8081).failures.Read(), 1u);
}

// More services that drain than there is room for: the oldest end at once.
TEST(Reload, ManyDrainingServices) {
  ServiceRig rig;
  NamedServer server(rig, ServiceRig::Backend(8080), "s");
  std::vector<std::unique_ptr<TextClient>> clients;
  for (int i = 0; i < 300; ++i) {
    ServiceConfig c = TcpProxyTo({8080});
    c.name = "n" + std::to_string(i);
    c.drain_timeout = Seconds(3600);
    rig.Apply({c});
    clients.push_back(std::make_unique<TextClient>(rig, ServiceRig::Proxy(80), "x"));
    rig.Run(Millis(200));
  }
  EXPECT_TRUE(clients.front()->closed);
  EXPECT_FALSE(clients.back()->closed);
  EXPECT_EQ(clients.back()->got, "s:x");
  clients.clear();
  rig.Apply({});
  rig.Run(Seconds(5));
  EXPECT_TRUE(rig.set().Drained());
}

}  // namespace
}  // namespace sluice::test
