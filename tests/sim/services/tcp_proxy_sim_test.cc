// The TCP proxy: relaying, balance, retries, what happens when an end dies, limits.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>

#include "support/bulk_transfer.h"
#include "support/proxy_worlds.h"
#include "support/service_rig.h"

namespace sluice::test {
namespace {

using services::ServiceFailure;
using tables::Balance;
using tables::ServiceConfig;
using transport::SocketError;

TEST(TcpProxy, RelaysBothWaysAndFamiliesMix) {
  for (const bool client6 : {false, true}) {
    for (const bool backend6 : {false, true}) {
      ServiceRig rig;
      NamedServer server(rig, ServiceRig::Backend(8080, backend6), "one");
      ServiceConfig config = TcpProxyTo({});
      config.listen = {ServiceRig::Proxy(80, client6)};
      config.backends = {{ServiceRig::Backend(8080, backend6)}};
      rig.Apply({config});
      TextClient client(rig, ServiceRig::Proxy(80, client6), "hello");
      ASSERT_TRUE(rig.RunUntil([&] { return client.got == "one:hello"; }, Seconds(5)));
      client.Say(" again");
      client.Finish();
      ASSERT_TRUE(rig.RunUntil([&] { return client.closed; }, Seconds(5)));
      EXPECT_EQ(client.got, "one:hello again");
      EXPECT_EQ(rig.stats("web").accepted.Read(), 1u);
      EXPECT_EQ(rig.stats("web").bytes_in.Read(), 11u);
      EXPECT_EQ(rig.stats("web").bytes_out.Read(), 15u);
      EXPECT_EQ(rig.backend("web", 8080).connections.Read(), 1u);
      uint64_t timed = 0;
      for (const Counter& bucket : rig.stats("web").connect_time) timed += bucket.Read();
      EXPECT_EQ(timed, 1u);
      // One round trip of 20 ms, which is in the bucket up to 25 ms.
      EXPECT_EQ(rig.stats("web").connect_time[7].Read(), 1u);
      EXPECT_EQ(rig.Leftovers(), "");
      EXPECT_EQ(rig.stats("web").active.Read(), 0u);
      EXPECT_EQ(rig.backend("web", 8080).active.Read(), 0u);
    }
  }
}

TEST(TcpProxy, LargeTransfersBothWaysAtOnce) {
  for (const uint32_t loss : {0u, 100u}) {
    ServiceRig::Options options;
    options.link.forward.loss = options.link.backward.loss = loss;
    options.link.forward.delay = options.link.backward.delay = Millis(2);
    ServiceRig rig(options);
    rig.Apply({TcpProxyTo({8080})});
    ProxiedTransfer transfer(rig, 8080, 5'000'000, 3'000'000);
    EXPECT_TRUE(transfer.Run(Seconds(300))) << loss;
    EXPECT_EQ(rig.stats("web").bytes_in.Read(), 5'000'000u);
    EXPECT_EQ(rig.stats("web").bytes_out.Read(), 3'000'000u);
    EXPECT_EQ(rig.Leftovers(), "");
  }
}

// The client finishes first, and the answer comes afterwards: its FIN is passed on, and the other
// direction goes on.
TEST(TcpProxy, HalfClose) {
  ServiceRig rig;
  rig.Apply({TcpProxyTo({8080})});
  // The client sends little and finishes; the server answers much.
  {
    ProxiedTransfer down(rig, 8080, 10, 2'000'000);
    EXPECT_TRUE(down.Run(Seconds(60)));
  }
  // The server finishes at once; the client goes on.
  ProxiedTransfer up(rig, 8080, 2'000'000, 0);
  EXPECT_TRUE(up.Run(Seconds(60)));
  EXPECT_EQ(rig.Leftovers(), "");
}

TEST(TcpProxy, ClientThatFinishesBeforeTheBackendAnswers) {
  ServiceRig rig;
  NamedServer server(rig, ServiceRig::Backend(8080), "one");
  rig.Apply({TcpProxyTo({8080})});
  TextClient client(rig, ServiceRig::Proxy(80), "quick", /*finish=*/true);
  ASSERT_TRUE(rig.RunUntil([&] { return client.closed; }, Seconds(5)));
  EXPECT_EQ(client.got, "one:quick");
  EXPECT_EQ(rig.Leftovers(), "");
}

// So many connections, one after the other, and who got them.
std::map<uint16_t, int> Distribution(ServiceRig& rig, const ServiceConfig& config, int count,
                                     bool keep) {
  std::map<uint16_t, int> out;
  std::vector<std::unique_ptr<NamedServer>> servers;
  for (const auto& b : config.backends) {
    servers.push_back(std::make_unique<NamedServer>(rig, b.address, "s"));
  }
  rig.Apply({config});
  std::vector<std::unique_ptr<TextClient>> clients;
  for (int i = 0; i < count; ++i) {
    clients.push_back(std::make_unique<TextClient>(rig, ServiceRig::Proxy(80), "x"));
    EXPECT_TRUE(rig.RunUntil([&] { return clients.back()->got == "s:x"; }, Seconds(5)));
    if (!keep) {
      clients.back()->Finish();
      EXPECT_TRUE(rig.RunUntil([&] { return clients.back()->closed; }, Seconds(5)));
    }
  }
  for (size_t i = 0; i < servers.size(); ++i) {
    out[config.backends[i].address.port] = static_cast<int>(servers[i]->accepted);
  }
  return out;
}

TEST(TcpProxy, RoundRobinByWeight) {
  ServiceRig rig;
  ServiceConfig config = TcpProxyTo({8081, 8082, 8083});
  config.backends[1].weight = 3;
  EXPECT_EQ(Distribution(rig, config, 50, false),
            (std::map<uint16_t, int>{{8081, 10}, {8082, 30}, {8083, 10}}));
}

TEST(TcpProxy, LeastConnections) {
  ServiceRig rig;
  ServiceConfig config = TcpProxyTo({8081, 8082});
  config.balance = Balance::kLeastConnections;
  config.backends[1].weight = 2;
  EXPECT_EQ(Distribution(rig, config, 30, true),
            (std::map<uint16_t, int>{{8081, 10}, {8082, 20}}));
}

// All clients here have one address.
TEST(TcpProxy, MaglevKeepsAClientsBackend) {
  ServiceRig rig;
  ServiceConfig config = TcpProxyTo({8081, 8082, 8083}, Balance::kMaglev);
  const auto shares = Distribution(rig, config, 20, false);
  int used = 0;
  for (const auto& [port, count] : shares) used += count > 0;
  EXPECT_EQ(used, 1);
}

TEST(TcpProxy, TriesAnotherBackendWhenOneRefuses) {
  ServiceRig rig;
  NamedServer good(rig, ServiceRig::Backend(8083), "good");
  rig.Apply({TcpProxyTo({8081, 8082, 8083})});
  for (int i = 0; i < 3; ++i) {
    TextClient client(rig, ServiceRig::Proxy(80), "x", true);
    ASSERT_TRUE(rig.RunUntil([&] { return client.closed; }, Seconds(5)));
    EXPECT_EQ(client.got, "good:x");
  }
  EXPECT_EQ(rig.stats("web").retries.Read(),
            rig.backend("web", 8081).failures.Read() + rig.backend("web", 8082).failures.Read());
  EXPECT_GE(rig.stats("web").retries.Read(), 3u);
  EXPECT_EQ(rig.failed("web", ServiceFailure::kConnectFailed), 0u);
  EXPECT_EQ(rig.Leftovers(), "");
}

TEST(TcpProxy, TriesAnotherBackendWhenOneDoesNotAnswer) {
  ServiceRig rig;
  NamedServer dead(rig, ServiceRig::Backend(8081), "dead");
  NamedServer good(rig, ServiceRig::Backend(8082), "good");
  rig.Vanish(8081);
  ServiceConfig config = TcpProxyTo({8081, 8082});
  config.connect_timeout = Millis(300);
  rig.Apply({config});
  TextClient a(rig, ServiceRig::Proxy(80), "x", true);
  TextClient b(rig, ServiceRig::Proxy(80), "x", true);
  ASSERT_TRUE(rig.RunUntil([&] { return a.closed && b.closed; }, Seconds(2)));
  EXPECT_EQ(a.got + b.got, "good:xgood:x");
  EXPECT_EQ(rig.backend("web", 8081).failures.Read(), 1u);
  EXPECT_EQ(rig.Leftovers(), "");
}

TEST(TcpProxy, RetriesEnd) {
  ServiceRig rig;
  ServiceConfig config = TcpProxyTo({8081, 8082, 8083, 8084});
  config.retries = 1;
  rig.Apply({config});
  TextClient client(rig, ServiceRig::Proxy(80), "x");
  ASSERT_TRUE(rig.RunUntil([&] { return client.closed; }, Seconds(5)));
  EXPECT_EQ(client.error, SocketError::kReset);
  EXPECT_EQ(rig.stats("web").retries.Read(), 1u);
  EXPECT_EQ(rig.failed("web", ServiceFailure::kConnectFailed), 1u);
  EXPECT_EQ(rig.Leftovers(), "");
}

TEST(TcpProxy, BackendThatResetsInMidTransfer) {
  ServiceRig rig;
  NamedServer server(rig, ServiceRig::Backend(8080), "one");
  rig.Apply({TcpProxyTo({8080})});
  TextClient client(rig, ServiceRig::Proxy(80), "x");
  ASSERT_TRUE(rig.RunUntil([&] { return client.got == "one:x"; }, Seconds(5)));
  server.AbortAll();
  ASSERT_TRUE(rig.RunUntil([&] { return client.closed; }, Seconds(5)));
  EXPECT_EQ(client.error, SocketError::kReset);
  EXPECT_EQ(rig.failed("web", ServiceFailure::kBackendReset), 1u);
  EXPECT_EQ(rig.Leftovers(), "");
}

TEST(TcpProxy, BackendThatVanishesInMidTransfer) {
  ServiceRig rig;
  ServiceConfig config = TcpProxyTo({8080});
  config.idle_timeout = Seconds(20);
  rig.Apply({config});
  ProxiedTransfer transfer(rig, 8080, 50'000'000, 0);
  EXPECT_FALSE(transfer.Run(Millis(150)));
  rig.Vanish(8080);
  ASSERT_TRUE(rig.RunUntil([&] { return transfer.client.closed; }, Seconds(60)));
  EXPECT_EQ(transfer.client.error, SocketError::kReset);
  EXPECT_EQ(rig.failed("web", ServiceFailure::kIdleTimeout), 1u);
  EXPECT_EQ(rig.set().usage().relays, 0u);
  transfer.AbandonServer();
  EXPECT_EQ(rig.Leftovers(), "");
}

TEST(TcpProxy, ClientThatResets) {
  ServiceRig rig;
  NamedServer server(rig, ServiceRig::Backend(8080), "one");
  rig.Apply({TcpProxyTo({8080})});
  TextClient client(rig, ServiceRig::Proxy(80), "x");
  ASSERT_TRUE(rig.RunUntil([&] { return client.got == "one:x"; }, Seconds(5)));
  client.Abort();
  ASSERT_TRUE(rig.RunUntil([&] { return server.errors == 1; }, Seconds(5)));
  EXPECT_EQ(rig.failed("web", ServiceFailure::kClientReset), 1u);
  // And one that does so before the backend has answered.
  rig.Vanish(8080);
  TextClient early(rig, ServiceRig::Proxy(80), "x");
  ASSERT_TRUE(rig.RunUntil([&] { return early.connected; }, Seconds(5)));
  early.Abort();
  ASSERT_TRUE(rig.RunUntil([&] { return rig.stats("web").active.Read() == 0; }, Seconds(1)));
  EXPECT_EQ(rig.Leftovers(), "");
}

TEST(TcpProxy, IdleConnectionsEnd) {
  ServiceRig rig;
  NamedServer server(rig, ServiceRig::Backend(8080), "one");
  ServiceConfig config = TcpProxyTo({8080});
  config.idle_timeout = Seconds(10);
  rig.Apply({config});
  TextClient client(rig, ServiceRig::Proxy(80), "x");
  for (int i = 0; i < 5; ++i) {  // life is noticed either way
    rig.Run(Seconds(8));
    client.Say("y");
  }
  EXPECT_EQ(client.got, "one:xyyyy");
  rig.Run(Seconds(9));
  EXPECT_FALSE(client.closed);
  rig.Run(Seconds(2));
  EXPECT_TRUE(client.closed);
  EXPECT_EQ(rig.failed("web", ServiceFailure::kIdleTimeout), 1u);
  EXPECT_EQ(rig.Leftovers(), "");
}

TEST(TcpProxy, LimitsConnections) {
  ServiceRig::Options options;
  options.limits.workers = 2;
  ServiceRig rig(options);
  NamedServer server(rig, ServiceRig::Backend(8080), "s");
  ServiceConfig config = TcpProxyTo({8080});
  config.max_connections = 5;  // 3 for each of two workers
  rig.Apply({config});
  std::vector<std::unique_ptr<TextClient>> clients;
  for (int i = 0; i < 5; ++i) {
    clients.push_back(std::make_unique<TextClient>(rig, ServiceRig::Proxy(80), "x"));
  }
  rig.Run(Seconds(2));
  EXPECT_EQ(rig.stats("web").active.Read(), 3u);
  EXPECT_EQ(rig.failed("web", ServiceFailure::kLimit), 2u);
  clients.clear();
  EXPECT_EQ(rig.Leftovers(), "");
}

// Both sides together hold no more than two buffers each way, however much there would be.
TEST(TcpProxy, SlowReaderIsFeltByTheSender) {
  ServiceRig rig;
  ServiceConfig config = TcpProxyTo({8080});
  rig.Apply({config});
  ProxiedTransfer transfer(rig, 8080, 100'000'000, 0);
  transfer.server.slow = true;
  transfer.Run(Seconds(20));
  const auto usage = rig.link().host(1).tcp().usage();
  EXPECT_LT(usage.receive_frames + usage.send_frames, 1500u);
  EXPECT_GT(usage.receive_frames, 10u);
  const uint64_t passed = rig.stats("web").bytes_in.Read();
  EXPECT_LT(passed, 3'000'000u);
  // It goes on when the reader does.
  transfer.server.slow = false;
  transfer.server.Pull(rig.now(), SIZE_MAX);
  rig.Run(Seconds(5));
  EXPECT_GT(rig.stats("web").bytes_in.Read(), passed + 1'000'000);
  transfer.Abandon();
  EXPECT_EQ(rig.Leftovers(), "");
}

// Takes everything and gives nothing back, but only from when it is told to.
struct SlowSink : transport::TcpHandler {
  SlowSink(ServiceRig& r, uint16_t port) : rig(r) {
    EXPECT_EQ(rig.tcp().Listen(EndpointOf(ServiceRig::Backend(port)),
                               {.receive_buffer_max = 16 * 1024}, 1024, this, listener),
              SocketError::kNone);
  }
  ~SlowSink() override { rig.tcp().CloseListener(listener, rig.now()); }
  void OnAcceptable(transport::TcpListenerId id, Nanos) override {
    transport::TcpSocket s;
    while (rig.tcp().Accept(id, this, s) == SocketError::kNone) sockets.push_back(s);
  }
  void OnReadable(transport::TcpSocket s, Nanos now) override {
    if (asleep) return;
    transport::ReceivedData data;
    SocketError error;
    while ((error = rig.tcp().ReceivePacket(s, data, now)) == SocketError::kNone) {
      bytes += data.length;
      rig.tcp().Release(data);
    }
    if (error == SocketError::kEndOfData) rig.tcp().Close(s, now);
  }
  void WakeUp() {
    asleep = false;
    for (const transport::TcpSocket& s : sockets) OnReadable(s, rig.now());
  }
  ServiceRig& rig;
  transport::TcpListenerId listener;
  std::vector<transport::TcpSocket> sockets;
  bool asleep = true;
  uint64_t bytes = 0;
};

// More slow readers than the worker has memory for: it stays within its limits, others are served
// meanwhile, and all is delivered in the end.
TEST(TcpProxy, ManySlowReadersDoNotStarveOthers) {
  ServiceRig::Options options;
  options.link.hosts[0].frames = 60'000;
  options.link.hosts[0].config.tcp.limits.send_frames = 30'000;
  options.link.hosts[1].frames = 16'000;
  options.link.hosts[1].config.tcp.limits.send_frames = 2000;
  ServiceRig rig(options);
  NamedServer echo(rig, ServiceRig::Backend(8080), "s");
  SlowSink sink(rig, 8081);
  ServiceConfig slow = TcpProxyTo({8081});
  slow.name = "slow";
  slow.listen = {ServiceRig::Proxy(81)};
  rig.Apply({TcpProxyTo({8080}), slow});
  std::vector<std::unique_ptr<TextClient>> clients;
  const std::string text(400'000, 't');
  for (int i = 0; i < 100; ++i) {
    clients.push_back(std::make_unique<TextClient>(rig, ServiceRig::Proxy(81), text, true));
  }
  rig.Run(Seconds(10));
  // Without a limit each would have 64 KiB and more: 4,500 frames.
  EXPECT_LE(rig.link().host(1).tcp().usage().send_frames, 2000u);
  EXPECT_GE(rig.link().host(1).tcp().usage().send_frames, 1500u);
  for (int i = 0; i < 10; ++i) {
    TextClient client(rig, ServiceRig::Proxy(80), "x", true);
    EXPECT_TRUE(rig.RunUntil([&] { return client.closed; }, Seconds(1)));
    EXPECT_EQ(client.got, "s:x");
  }
  sink.WakeUp();
  EXPECT_TRUE(rig.RunUntil([&] { return sink.bytes == 100 * text.size(); }, Seconds(200)));
  EXPECT_EQ(rig.failed("slow", ServiceFailure::kMemory), 0u);
  rig.Run(Seconds(1));
  clients.clear();
  EXPECT_EQ(rig.Leftovers(), "");
}

TEST(TcpProxy, AThousandConnectionsWithLoss) {
  ServiceRig::Options options;
  options.link.forward.loss = options.link.backward.loss = 200;
  options.link.forward.reorder = options.link.backward.reorder = 200;
  options.link.forward.duplicate = options.link.backward.duplicate = 50;
  for (auto& host : options.link.hosts) {
    host.config.tcp.limits.connections = 6000;
    host.frames = 16'384;
  }
  ServiceRig rig(options);
  NamedServer a(rig, ServiceRig::Backend(8081), "s");
  NamedServer b(rig, ServiceRig::Backend(8082), "s");
  ServiceConfig config = TcpProxyTo({8081, 8082});
  config.connect_timeout = Seconds(30);
  rig.Apply({config});
  std::vector<std::unique_ptr<TextClient>> clients;
  const std::string text(3000, 't');
  for (int i = 0; i < 1000; ++i) {
    clients.push_back(std::make_unique<TextClient>(rig, ServiceRig::Proxy(80), text, true));
    if (i % 10 == 0) rig.Run(Millis(1));
  }
  const auto all_done = [&] {
    return std::all_of(clients.begin(), clients.end(), [](const auto& c) { return c->closed; });
  };
  ASSERT_TRUE(rig.RunUntil(all_done, Seconds(300)));
  for (const auto& c : clients) ASSERT_EQ(c->got, "s:" + text);
  EXPECT_EQ(rig.stats("web").accepted.Read(), 1000u);
  EXPECT_EQ(a.accepted + b.accepted, 1000u);
  EXPECT_EQ(a.accepted, 500u);
  EXPECT_EQ(rig.Leftovers(), "");
  EXPECT_EQ(rig.stats("web").active.Read(), 0u);
}

}  // namespace
}  // namespace sluice::test
