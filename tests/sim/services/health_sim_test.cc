// Health checks, and the PROXY protocol that they and connections begin with.
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "base/byte_order.h"
#include "services/proxy_protocol.h"
#include "support/packet_builder.h"
#include "support/proxy_worlds.h"
#include "support/service_rig.h"
#include "wire/tcp.h"

namespace sluice::test {
namespace {

using services::ServiceFailure;
using tables::HealthCheckConfig;
using tables::ServiceConfig;
using transport::SocketError;

ServiceConfig Checked(const std::vector<uint16_t>& ports, HealthCheckConfig::Kind kind) {
  ServiceConfig c = TcpProxyTo(ports);
  c.health.kind = kind;
  c.health.interval = Seconds(2);
  c.health.timeout = Millis(500);
  c.health.rise = 2;
  c.health.fall = 3;
  c.retries = 0;
  return c;
}

bool IsUp(const ServiceRig& rig, uint16_t port) { return rig.backend("web", port).up.Read() == 1; }

TEST(HealthCheck, ByTcpConnect) {
  ServiceRig rig;
  NamedServer a(rig, ServiceRig::Backend(8081), "a");
  auto b = std::make_unique<NamedServer>(rig, ServiceRig::Backend(8082), "b");
  rig.Apply({Checked({8081, 8082, 8083}, HealthCheckConfig::Kind::kTcp)});
  EXPECT_TRUE(IsUp(rig, 8083));  // until it is known better
  rig.Run(Seconds(1));
  EXPECT_TRUE(IsUp(rig, 8081));
  EXPECT_TRUE(IsUp(rig, 8082));
  EXPECT_FALSE(IsUp(rig, 8083));  // at first checks come in quick succession
  EXPECT_EQ(rig.backend("web", 8083).checks_failed.Read(), 3u);
  EXPECT_EQ(rig.backend("web", 8083).went_down.Read(), 1u);
  // One that dies: after three checks.
  b.reset();
  rig.Run(Seconds(4));
  EXPECT_TRUE(IsUp(rig, 8082));
  rig.Run(Seconds(4));
  EXPECT_FALSE(IsUp(rig, 8082));
  for (int i = 0; i < 5; ++i) {
    TextClient client(rig, ServiceRig::Proxy(80), "x");
    rig.Run(Seconds(1));
    EXPECT_EQ(client.got, "a:x");
  }
  EXPECT_EQ(rig.stats("web").retries.Read(), 0u);
  // And comes back: after two.
  b = std::make_unique<NamedServer>(rig, ServiceRig::Backend(8082), "b");
  rig.Run(Seconds(1));
  EXPECT_FALSE(IsUp(rig, 8082));
  rig.Run(Seconds(5));
  EXPECT_TRUE(IsUp(rig, 8082));
  EXPECT_EQ(rig.backend("web", 8082).went_down.Read(), 1u);
  EXPECT_EQ(rig.backend("web", 8082).went_up.Read(), 1u);
  EXPECT_GT(rig.backend("web", 8081).checks_passed.Read(), 5u);
  EXPECT_EQ(rig.backend("web", 8081).checks_failed.Read(), 0u);
  EXPECT_GT(rig.backend("web", 8083).checks_failed.Read(), 5u);
  // The view says the same.
  std::string view;
  rig.Find("web")->ForEachBackend([&](const services::BackendView& v) {
    view += std::to_string(v.address.port) + (v.up ? "+" : "-") + (v.checked ? " " : "? ");
  });
  EXPECT_EQ(view, "8081+ 8082+ 8083- ");
  rig.Apply({});
  rig.Run(Seconds(1));
  EXPECT_EQ(rig.set().usage().probes, 0u);
  EXPECT_EQ(rig.Leftovers(), "");
}

TEST(HealthCheck, NoBackendUp) {
  ServiceRig rig;
  rig.Apply({Checked({8081, 8082}, HealthCheckConfig::Kind::kTcp)});
  rig.Run(Seconds(1));
  TextClient client(rig, ServiceRig::Proxy(80), "x");
  rig.Run(Seconds(1));
  EXPECT_EQ(client.error, SocketError::kReset);
  EXPECT_EQ(rig.failed("web", ServiceFailure::kNoBackend), 1u);
}

TEST(HealthCheck, TimesOut) {
  ServiceRig rig;
  NamedServer a(rig, ServiceRig::Backend(8081), "a");
  rig.Vanish(8081);
  ServiceConfig config = Checked({8081}, HealthCheckConfig::Kind::kTcp);
  config.health.fall = 1;
  rig.Apply({config});
  rig.Run(Millis(490));
  EXPECT_TRUE(IsUp(rig, 8081));
  rig.Run(Millis(30));
  EXPECT_FALSE(IsUp(rig, 8081));
  rig.Reappear();
  rig.Run(Seconds(5));
  EXPECT_TRUE(IsUp(rig, 8081));
}

// What this machine is short of is no news of the backend.
TEST(HealthCheck, NoPortOfOurOwnIsNoVerdict) {
  ServiceRig::Options options;
  options.link.hosts[1].config.tcp.first_port = 20'000;
  options.link.hosts[1].config.tcp.last_port = 20'000;
  ServiceRig rig(options);
  NamedServer a(rig, ServiceRig::Backend(8081), "a");
  ServiceConfig config = Checked({8081}, HealthCheckConfig::Kind::kTcp);
  config.health.interval = Seconds(60);
  rig.Apply({config});
  rig.Run(Seconds(1));
  ASSERT_EQ(rig.backend("web", 8081).checks_passed.Read(), 1u);
  // The only port towards the backend is this client's.
  TextClient client(rig, ServiceRig::Proxy(80), "x");
  rig.Run(Seconds(600));
  EXPECT_EQ(client.got, "a:x");
  EXPECT_EQ(rig.backend("web", 8081).checks_failed.Read(), 0u);
  EXPECT_GT(rig.backend("web", 8081).checks_skipped.Read(), 10u);
  EXPECT_TRUE(IsUp(rig, 8081));
  // Checks go on when there is a port again.
  client.Abort();
  rig.Run(Seconds(600));
  EXPECT_GT(rig.backend("web", 8081).checks_passed.Read(), 1u);
}

TEST(HealthCheck, NoMemoryOfOurOwnIsNoVerdict) {
  ServiceRig::Options options;
  options.link.hosts[1].config.tcp.limits.connections = 4;
  options.link.hosts[1].config.tcp.limits.time_wait = 1;
  ServiceRig rig(options);
  NamedServer a(rig, ServiceRig::Backend(8081), "a");
  ServiceConfig config = Checked({8081}, HealthCheckConfig::Kind::kTcp);
  config.health.fall = 1;
  rig.Apply({config});
  TextClient one(rig, ServiceRig::Proxy(80), "x");
  TextClient two(rig, ServiceRig::Proxy(80), "x");
  rig.Run(Seconds(60));
  ASSERT_EQ(one.got + two.got, "a:xa:x");
  ASSERT_EQ(rig.link().host(1).tcp().usage().connections, 4u);
  EXPECT_EQ(rig.backend("web", 8081).checks_failed.Read(), 0u);
  EXPECT_TRUE(IsUp(rig, 8081));
}

// The network is not there yet when the program starts: nobody is sent away for it.
TEST(HealthCheck, FirstChecksMayGoAstray) {
  ServiceRig rig;
  NamedServer a(rig, ServiceRig::Backend(8081), "a");
  rig.Vanish(8081);
  ServiceConfig config = Checked({8081}, HealthCheckConfig::Kind::kTcp);
  config.health.timeout = Millis(100);
  rig.Apply({config});
  rig.Run(Millis(200));
  rig.Reappear();
  EXPECT_EQ(rig.backend("web", 8081).checks_failed.Read(), 1u);
  EXPECT_TRUE(IsUp(rig, 8081));
  rig.Run(Seconds(1));
  EXPECT_TRUE(IsUp(rig, 8081));
  EXPECT_EQ(rig.backend("web", 8081).checks_failed.Read(), 1u);
  EXPECT_EQ(rig.backend("web", 8081).checks_passed.Read(), 1u);
}

// A failed connection makes the next check come soon, so that a dead backend is found before its turn.
TEST(HealthCheck, FailedConnectionsHurryIt) {
  ServiceRig rig;
  NamedServer a(rig, ServiceRig::Backend(8081), "a");
  auto b = std::make_unique<NamedServer>(rig, ServiceRig::Backend(8082), "b");
  ServiceConfig config = Checked({8081, 8082}, HealthCheckConfig::Kind::kTcp);
  config.health.interval = Seconds(60);
  config.health.fall = 1;
  config.retries = 1;
  rig.Apply({config});
  rig.Run(Seconds(20));
  b.reset();
  for (int i = 0; i < 2; ++i) {
    TextClient client(rig, ServiceRig::Proxy(80), "x");
    rig.Run(Seconds(1));
    EXPECT_EQ(client.got, "a:x");
  }
  EXPECT_FALSE(IsUp(rig, 8082));
  EXPECT_EQ(rig.stats("web").retries.Read(), 1u);
}

int HalfOpen(ServiceRig& rig, uint16_t port) {
  int count = 0;
  rig.tcp().ForEachConnection([&](const transport::Tcb& t) {
    count += t.tuple.local.port == port && t.state == transport::TcpState::kSynReceived;
  });
  return count;
}

// A backend dies under load: whoever is sent to it is sent on, until the checks have found out.
TEST(HealthCheck, LosesABackendAndNotARequest) {
  ServiceRig rig;
  NamedServer a(rig, ServiceRig::Backend(8081), "a");
  NamedServer b(rig, ServiceRig::Backend(8082), "b");
  auto c = std::make_unique<NamedServer>(rig, ServiceRig::Backend(8083), "c");
  ServiceConfig config = Checked({8081, 8082, 8083}, HealthCheckConfig::Kind::kTcp);
  config.retries = 2;
  rig.Apply({config});
  std::vector<std::unique_ptr<TextClient>> clients;
  for (int i = 0; i < 1000; ++i) {
    clients.push_back(std::make_unique<TextClient>(rig, ServiceRig::Proxy(80), "x", true));
    rig.Run(Millis(10));
    if (i == 300) {
      // It stops to listen, and serves what it has accepted. (What is between the two is reset, which a
      // relay passes on: the request may have been carried out.)
      ASSERT_TRUE(rig.RunUntil([&] { return HalfOpen(rig, 8083) == 0; }, Seconds(1)));
      rig.tcp().CloseListener(c->listener(), rig.now());
    }
  }
  rig.Run(Seconds(2));
  for (const auto& client : clients) {
    ASSERT_TRUE(client->closed);
    EXPECT_EQ(client->error, SocketError::kNone);
    EXPECT_TRUE(client->got.ends_with(":x"));
  }
  EXPECT_GT(rig.stats("web").retries.Read(), 0u);
  EXPECT_FALSE(IsUp(rig, 8083));
  EXPECT_NEAR(a.accepted, b.accepted, 60);
}

// Answers everything with a text, once a whole request has come.
struct HttpBackend : transport::TcpHandler {
  HttpBackend(ServiceRig& r, uint16_t port, std::string answer) : rig(r), text(std::move(answer)) {
    EXPECT_EQ(rig.tcp().Listen(EndpointOf(ServiceRig::Backend(port)), {}, 16, this, listener),
              SocketError::kNone);
  }
  void OnAcceptable(transport::TcpListenerId id, Nanos) override {
    transport::TcpSocket s;
    while (rig.tcp().Accept(id, this, s) == SocketError::kNone) request.clear();
  }
  void OnReadable(transport::TcpSocket s, Nanos now) override {
    uint8_t buffer[2000];
    for (;;) {
      const auto r = rig.tcp().Receive(s, buffer, now);
      if (!r.ok()) break;
      request.append(buffer, buffer + r.bytes);
    }
    if (request.size() < 4 || request.substr(request.size() - 4) != "\r\n\r\n") return;
    last = request;
    rig.tcp().Send(s, BytesOf(text), now);
    if (close) rig.tcp().Shutdown(s, now);
  }
  void OnError(transport::TcpSocket s, SocketError, Nanos now) override {
    rig.tcp().Close(s, now);
  }
  ServiceRig& rig;
  std::string text;
  bool close = true;
  std::string request, last;
  transport::TcpListenerId listener;
};

TEST(HealthCheck, ByHttp) {
  struct Case {
    std::string answer;
    bool good;
  };
  for (const Case& c : {Case{"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true},
                        Case{"HTTP/1.0 204 No Content\r\n\r\n", true},
                        Case{"HTTP/1.1 200 OK\r\n\r\nbody until the end", true},
                        Case{"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 299 X\r\n\r\n", true},
                        Case{"HTTP/1.1 100 Continue\r\n\r\n", false},
                        Case{"HTTP/1.1 301 Moved\r\nLocation: /\r\n\r\n", false},
                        Case{"HTTP/1.1 500 Oh\r\n\r\n", false},
                        Case{"SSH-2.0-OpenSSH_9.2\r\n", false},
                        Case{"HTTP/1.1 200", false},
                        Case{"", false}}) {
    ServiceRig rig;
    HttpBackend backend(rig, 8081, c.answer);
    ServiceConfig config = Checked({8081}, HealthCheckConfig::Kind::kHttp);
    config.health.path = "/health?deep=1";
    rig.Apply({config});
    rig.Run(Seconds(1));
    EXPECT_EQ(IsUp(rig, 8081), c.good) << c.answer;
    EXPECT_EQ(backend.last,
              "GET /health?deep=1 HTTP/1.1\r\nHost: 10.0.0.1:8081\r\nUser-Agent: sluice\r\n"
              "Connection: close\r\n\r\n");
    rig.Apply({});
    EXPECT_EQ(rig.Leftovers(), "");
  }
}

// The request cannot be sent for want of memory: no verdict, as in NoMemoryOfOurOwnIsNoVerdict.
TEST(HealthCheck, ByHttpWithoutMemoryForTheRequest) {
  ServiceRig::Options options;
  options.link.hosts[1].config.tcp.limits.send_frames = 0;
  ServiceRig rig(options);
  HttpBackend backend(rig, 8081, "HTTP/1.1 200 OK\r\n\r\n");
  ServiceConfig config = Checked({8081}, HealthCheckConfig::Kind::kHttp);
  config.health.fall = 1;
  rig.Apply({config});
  rig.Run(Seconds(60));
  EXPECT_EQ(backend.last, "");
  EXPECT_EQ(rig.backend("web", 8081).checks_failed.Read(), 0u);
  EXPECT_GT(rig.backend("web", 8081).checks_skipped.Read(), 10u);
  EXPECT_TRUE(IsUp(rig, 8081));
}

// A backend that resets at once, with its SYN-ACK in one burst: that is its failure, not a want of ours.
TEST(HealthCheck, ByHttpWithAResetBeforeTheRequest) {
  ServiceRig rig;
  HttpBackend backend(rig, 8081, "HTTP/1.1 200 OK\r\n\r\n");
  rig.link().filter = [&](int from, const std::vector<uint8_t>& packet) {
    const wire::L4PortsView ports(&packet[20]);
    if (from != 0 || ports.source_port() != 8081) return true;
    TransportHost& proxy = rig.link().host(1);
    proxy.stack().BeginBurst();
    proxy.Deliver(packet, rig.now());
    proxy.Deliver(PacketBuilder().Ipv4(Ipv4::FromWire(&packet[12]), Ipv4::FromWire(&packet[16]))
                      .Tcp(8081, ports.destination_port(), wire::kTcpRst)
                      .Sequence(LoadBe32(&packet[24]) + 1).Build(), rig.now());
    proxy.stack().EndBurst(rig.now());
    return false;
  };
  ServiceConfig config = Checked({8081}, HealthCheckConfig::Kind::kHttp);
  rig.Apply({config});
  rig.Run(Seconds(10));
  EXPECT_FALSE(IsUp(rig, 8081));
  EXPECT_GT(rig.backend("web", 8081).checks_failed.Read(), 3u);
  EXPECT_EQ(rig.backend("web", 8081).checks_skipped.Read(), 0u);
}

// Another port, another host, other statuses, and no answer at all.
TEST(HealthCheck, ByHttpAsConfigured) {
  ServiceRig rig;
  HttpBackend backend(rig, 9000, "HTTP/1.1 302 Found\r\n\r\n");
  backend.close = false;
  ServiceConfig config = Checked({8081}, HealthCheckConfig::Kind::kHttp);
  config.health.port = 9000;
  config.health.host = "www.example.org";
  config.health.first_status = 302;
  config.health.last_status = 302;
  rig.Apply({config});
  rig.Run(Seconds(1));
  EXPECT_TRUE(IsUp(rig, 8081));
  EXPECT_NE(backend.last.find("\r\nHost: www.example.org\r\n"), std::string::npos);
  backend.text = "";
  rig.Run(Seconds(10));
  EXPECT_FALSE(IsUp(rig, 8081));
}

// Reload: what is no longer checked counts as up, and state is kept where nothing changed.
TEST(HealthCheck, FollowsTheConfiguration) {
  ServiceRig rig;
  ServiceConfig config = Checked({8081}, HealthCheckConfig::Kind::kTcp);
  rig.Apply({config});
  rig.Run(Seconds(1));
  EXPECT_FALSE(IsUp(rig, 8081));
  config.backends.push_back({ServiceRig::Backend(8082)});
  rig.Apply({config});
  EXPECT_FALSE(IsUp(rig, 8081));
  EXPECT_TRUE(IsUp(rig, 8082));
  rig.Run(Seconds(1));
  EXPECT_FALSE(IsUp(rig, 8082));
  config.health.kind = HealthCheckConfig::Kind::kNone;
  rig.Apply({config});
  EXPECT_TRUE(IsUp(rig, 8081));
  EXPECT_EQ(rig.set().usage().probes, 0u);
}

// The backend is told who the client is before anything else; a check says LOCAL.
TEST(ProxyProtocol, TellsTheBackendWhoTheClientIs) {
  for (const bool v6 : {false, true}) {
    ServiceRig rig;
    NamedServer server(rig, ServiceRig::Backend(8080), "s");
    ServiceConfig config = TcpProxyTo({8080});
    config.listen = {ServiceRig::Proxy(80, v6)};
    config.proxy_protocol = true;
    rig.Apply({config});
    TextClient client(rig, ServiceRig::Proxy(80, v6), "hello");
    ASSERT_TRUE(rig.RunUntil([&] { return server.received.ends_with("hello"); }, Seconds(5)));
    const auto header = services::ParseProxyHeader(BytesOf(server.received));
    ASSERT_EQ(header.outcome, services::ProxyHeader::Outcome::kAddresses);
    EXPECT_EQ(header.client, rig.tcp().Find(client.socket)->tuple.local);
    EXPECT_EQ(header.listener, EndpointOf(ServiceRig::Proxy(80, v6)));
    EXPECT_EQ(server.received.substr(header.length), "hello");
  }
  // Also to one that speaks first, when the client says nothing.
  ServiceRig rig;
  NamedServer server(rig, ServiceRig::Backend(8080), "s");
  ServiceConfig config = TcpProxyTo({8080});
  config.proxy_protocol = true;
  rig.Apply({config});
  TextClient client(rig, ServiceRig::Proxy(80), "");
  EXPECT_TRUE(rig.RunUntil([&] { return server.received.size() == 28; }, Seconds(5)));
}

TEST(ProxyProtocol, ChecksSpeakForThemselves) {
  ServiceRig rig;
  HttpBackend backend(rig, 8081, "HTTP/1.1 200 OK\r\n\r\n");
  ServiceConfig config = Checked({8081}, HealthCheckConfig::Kind::kHttp);
  config.proxy_protocol = true;
  rig.Apply({config});
  rig.Run(Seconds(1));
  const auto header = services::ParseProxyHeader(BytesOf(backend.last));
  EXPECT_EQ(header.outcome, services::ProxyHeader::Outcome::kLocal);
  EXPECT_EQ(backend.last.substr(header.length, 5), "GET /");
}

}  // namespace
}  // namespace sluice::test
