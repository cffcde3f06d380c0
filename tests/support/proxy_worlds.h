// Configurations of proxies on a ServiceRig, and a checked transfer through one.
#ifndef SLUICE_TESTS_SUPPORT_PROXY_WORLDS_H_
#define SLUICE_TESTS_SUPPORT_PROXY_WORLDS_H_

#include <cstdint>
#include <vector>

#include "support/bulk_transfer.h"
#include "support/service_rig.h"
#include "tables/maglev.h"

namespace sluice::test {

// Service `web`, which listens on port 80, with these ports of host 0 as backends.
inline tables::ServiceConfig TcpProxyTo(const std::vector<uint16_t>& ports,
                                        tables::Balance balance = tables::Balance::kRoundRobin) {
  tables::ServiceConfig c;
  c.name = "web";
  c.kind = tables::ServiceKind::kTcpProxy;
  c.listen = {ServiceRig::Proxy(80)};
  c.balance = balance;
  std::vector<tables::MaglevBackend> keys;
  for (const uint16_t port : ports) {
    c.backends.push_back({ServiceRig::Backend(port)});
    keys.push_back({tables::MixBits(port), 1});
  }
  if (balance == tables::Balance::kMaglev) c.maglev = tables::BuildMaglev(keys);
  return c;
}

// Service `dns`, which listens on port 53; sessions end by time.
inline tables::ServiceConfig UdpProxyTo(const std::vector<uint16_t>& ports) {
  tables::ServiceConfig c;
  c.name = "dns";
  c.kind = tables::ServiceKind::kUdpProxy;
  c.listen = {ServiceRig::Proxy(53)};
  c.idle_timeout = Seconds(30);
  for (const uint16_t port : ports) c.backends.push_back({ServiceRig::Backend(port)});
  return c;
}

// BulkTransfer through the proxy: from a client of `proxy_port` to a server at `backend_port`.
struct ProxiedTransfer {
  ProxiedTransfer(ServiceRig& r, uint16_t backend_port, uint64_t up, uint64_t down,
                  uint16_t proxy_port = 80, bool connect = true)
      : rig(r), port(proxy_port), client(r.tcp(), up, down), server(r.tcp(), down, up) {
    EXPECT_EQ(r.tcp().Listen(EndpointOf(ServiceRig::Backend(backend_port)), {}, 16, &server,
                             listener),
              transport::SocketError::kNone);
    if (connect) Connect();
  }
  ~ProxiedTransfer() { rig.tcp().CloseListener(listener, rig.now()); }
  void Connect() {
    EXPECT_EQ(rig.tcp().Connect({}, EndpointOf(ServiceRig::Proxy(port)), {}, &client, rig.now(),
                                client.socket),
              transport::SocketError::kNone);
  }
  bool Run(Nanos time) {
    rig.RunUntil([&] { return client.done() && server.done(); }, time);
    return client.right() && server.right();
  }
  void AbandonServer() {
    if (!server.closed) rig.tcp().Abort(server.socket, rig.now());
    server.closed = true;
  }
  void Abandon() {
    AbandonServer();
    if (!client.closed) rig.tcp().Abort(client.socket, rig.now());
    client.closed = true;
  }

  ServiceRig& rig;
  const uint16_t port;
  BulkEnd client;
  BulkEnd server;
  transport::TcpListenerId listener;
};

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_PROXY_WORLDS_H_
