// Real connections through the kernel: read from its table while they live, and carried on by it
// after they were written there.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "control/conntrack_sync/kernel_flows.h"
#include "support/network_namespace.h"
#include "unit/control/conntrack_sync/flows.h"
#include "unit/control/conntrack_sync/host.h"

namespace sluice::control {
namespace {

using tables::Flow;
using tables::FlowTuple;
using test::Host;
using test::NetworkNamespace;
using test::Socket;

// The rules that the connections began with.
constexpr const char* kMasquerade =
    "table inet t {\n"
    " chain forward {\n  type filter hook forward priority 0; policy accept;\n"
    "  ct state established accept\n }\n"
    " chain post {\n  type nat hook postrouting priority 100;\n  oifname wan masquerade\n }\n"
    "}\n";
// Rules under which nothing new comes through, and nothing new is translated: what goes on is what
// the table knows.
constexpr const char* kOnlyOld =
    "flush ruleset\n"
    "table inet t {\n"
    " chain forward {\n  type filter hook forward priority 0; policy drop;\n"
    "  ct state established accept\n }\n"
    " chain post {\n  type nat hook postrouting priority 100;\n }\n"
    " chain pre {\n  type nat hook prerouting priority -100;\n }\n"
    "}\n";

class LiveFlowsTest : public testing::Test {
 protected:
  LiveFlowsTest()
      : client_("lan", "10.0.0.1/24", "10.0.0.2/24", "fd00:1::1/64", "fd00:1::2/64"),
        server_("wan", "192.0.2.1/24", "192.0.2.2/24", "fd00:2::1/64", "fd00:2::2/64") {
    NetworkNamespace::Sysctl("net/ipv4/ip_forward", "1");
    NetworkNamespace::Sysctl("net/ipv6/conf/all/forwarding", "1");
  }
  std::vector<Flow> Read(uint8_t protocol) {
    std::vector<Flow> flows;
    const auto count = ReadKernelFlows(now_, [&](const Flow& flow) {
      if (flow.tuples[0].protocol == protocol) flows.push_back(flow);
    });
    EXPECT_TRUE(count.ok()) << count.status();
    return flows;
  }
  struct Connection {
    Socket client;
    Socket server;
  };
  Connection Connect(bool v6) {
    Socket listener = server_.Open(v6 ? AF_INET6 : AF_INET, SOCK_STREAM);
    const std::string address = v6 ? "fd00:2::2" : "192.0.2.2";
    listener.Bind(address, 8080);
    listener.Listen();
    Socket client = client_.Open(v6 ? AF_INET6 : AF_INET, SOCK_STREAM);
    EXPECT_TRUE(client.Connect(address, 8080));
    Connection connection{std::move(client), listener.Accept()};
    EXPECT_TRUE(connection.client.Send("hello"));
    EXPECT_EQ(connection.server.Receive(), "hello");
    EXPECT_TRUE(connection.server.Send("welcome"));
    EXPECT_EQ(connection.client.Receive(), "welcome");
    return connection;
  }

  NetworkNamespace namespace_;
  Host client_;
  Host server_;
  const Nanos now_ = Seconds(100'000);
};

TEST_F(LiveFlowsTest, AMasqueradedConnectionIsRead) {
  NetworkNamespace::Nft(kMasquerade);
  for (const bool v6 : {false, true}) {
    const Connection connection = Connect(v6);
    std::vector<Flow> flows = Read(wire::kProtocolTcp);
    std::erase_if(flows,
                  [&](const Flow& f) { return (f.tuples[0].family == Family::kIpv6) != v6; });
    ASSERT_EQ(flows.size(), 1u);
    const Flow& flow = flows[0];
    const uint16_t port = connection.client.port();
    EXPECT_EQ(flow.tuples[0], v6 ? Tuple("fd00:1::2", port, "fd00:2::2", 8080)
                                 : Tuple("10.0.0.2", port, "192.0.2.2", 8080));
    EXPECT_EQ(flow.tuples[1], v6 ? Tuple("fd00:2::2", 8080, "fd00:2::1", port)
                                 : Tuple("192.0.2.2", 8080, "192.0.2.1", port));
    EXPECT_TRUE(flow.Has(tables::kFlowSourceNat));
    EXPECT_FALSE(flow.Has(tables::kFlowDestinationNat));
    EXPECT_TRUE(flow.Has(tables::kFlowSourceNatDone));
    EXPECT_TRUE(flow.Has(tables::kFlowSeenReply));
    EXPECT_TRUE(flow.Has(tables::kFlowAssured));
    EXPECT_EQ(flow.tcp.state, static_cast<uint8_t>(tables::TcpState::kEstablished));
    for (const size_t d : {0, 1}) {
      EXPECT_TRUE(flow.tcp.flags[d] & tables::kTcpWindowScale);
      EXPECT_TRUE(flow.tcp.flags[d] & tables::kTcpSackPermitted);
      EXPECT_GT(flow.tcp.scales[d], 0);
    }
    EXPECT_GT(flow.expires, now_ + Seconds(100));
  }
}

TEST_F(LiveFlowsTest, AConnectionSurvivesTheWayThroughTheTable) {
  NetworkNamespace::Nft(kMasquerade);
  for (const bool v6 : {false, true}) {
    NetworkNamespace::Nft(std::string("flush ruleset\n") + kMasquerade);
    Connection connection = Connect(v6);
    const std::vector<Flow> flows = Read(wire::kProtocolTcp);
    NetworkNamespace::Nft(kOnlyOld);
    std::vector<FlowTuple> all;
    for (const Flow& flow : flows) all.push_back(flow.tuples[0]);
    const auto removed = RemoveKernelFlows(all);
    ASSERT_TRUE(removed.ok());
    EXPECT_EQ(*removed, flows.size());
    EXPECT_TRUE(Read(wire::kProtocolTcp).empty());
    // Now it is stuck: the router has forgotten it. (TCP tries again and again.)
    EXPECT_TRUE(connection.client.Send("still there?"));
    const auto written = WriteKernelFlows(flows, now_);
    ASSERT_TRUE(written.ok()) << written.status();
    EXPECT_EQ(written->written, flows.size()) << written->first_failure;
    EXPECT_EQ(connection.server.Receive(), "still there?");
    for (int i = 0; i < 50; ++i) {
      const std::string text(1000, static_cast<char>('a' + i % 26));
      ASSERT_TRUE(connection.server.Send(text));
      ASSERT_EQ(connection.client.Receive(), text);
      ASSERT_TRUE(connection.client.Send(text));
      ASSERT_EQ(connection.server.Receive(), text);
    }
    const std::vector<Flow> after = Read(wire::kProtocolTcp);
    EXPECT_EQ(after.size(), flows.size());
  }
}

// Flows that the kernel has never seen a packet of, as Sluice leaves them.
TEST_F(LiveFlowsTest, WrittenFlowsAreTranslated) {
  NetworkNamespace::Nft(kOnlyOld);
  const uint8_t udp = wire::kProtocolUdp;
  const Nanos later = now_ + Seconds(100);
  const std::vector<Flow> flows = {
      // A source with another port, a port forward, both families.
      Made(Tuple("10.0.0.2", 4000, "192.0.2.2", 53, udp),
           Tuple("192.0.2.1", 50007, "192.0.2.2", 53, udp), later),
      Made(Tuple("192.0.2.2", 4001, "192.0.2.1", 80, udp),
           Tuple("192.0.2.2", 4001, "10.0.0.2", 8080, udp), later),
      Made(Tuple("fd00:1::2", 4000, "fd00:2::2", 53, udp),
           Tuple("fd00:2::1", 50008, "fd00:2::2", 53, udp), later),
  };
  const auto written = WriteKernelFlows(flows, now_);
  ASSERT_TRUE(written.ok()) << written.status();
  EXPECT_EQ(written->written, flows.size()) << written->first_failure;
  const auto exchange = [](Host& from, const std::string& own, uint16_t own_port,
                           const std::string& to, uint16_t to_port, Host& at,
                           const std::string& listens, uint16_t listens_port,
                           const std::string& seen_as) {
    const int family = ParseIpAddress(own)->is_v4() ? AF_INET : AF_INET6;
    Socket receiver = at.Open(family, SOCK_DGRAM);
    receiver.Bind(listens, listens_port);
    Socket sender = from.Open(family, SOCK_DGRAM);
    sender.Bind(own, own_port);
    ASSERT_TRUE(sender.Connect(to, to_port));
    ASSERT_TRUE(sender.Send("question"));
    std::string who;
    ASSERT_EQ(receiver.Receive(&who), "question");
    EXPECT_EQ(who, seen_as);
    ASSERT_TRUE(receiver.Reply("answer"));
    EXPECT_EQ(sender.Receive(), "answer") << "connected: from the translated address only";
  };
  exchange(client_, "10.0.0.2", 4000, "192.0.2.2", 53, server_, "192.0.2.2", 53, "192.0.2.1:50007");
  exchange(server_, "192.0.2.2", 4001, "192.0.2.1", 80, client_, "10.0.0.2", 8080,
           "192.0.2.2:4001");
  exchange(client_, "fd00:1::2", 4000, "fd00:2::2", 53, server_, "fd00:2::2", 53,
           "fd00:2::1:50008");
}

// Many bytes at once: the kernel must not think that they are outside of a window.
TEST_F(LiveFlowsTest, ABusyConnectionIsNotHeldToAWindow) {
  NetworkNamespace::Nft(kMasquerade);
  Connection connection = Connect(false);
  const std::vector<Flow> flows = Read(wire::kProtocolTcp);
  ASSERT_EQ(flows.size(), 1u);
  const std::string chunk(60'000, 'x');
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(connection.client.Send(chunk));
    if (i == 10) {
      NetworkNamespace::Nft(kOnlyOld);
      const auto written = WriteKernelFlows(flows, now_);
      ASSERT_TRUE(written.ok());
      EXPECT_EQ(written->replaced, 1u);
    }
    for (size_t got = 0; got < chunk.size();) {
      const std::string piece = connection.server.Receive();
      ASSERT_FALSE(piece.empty());
      got += piece.size();
    }
  }
}

}  // namespace
}  // namespace sluice::control
