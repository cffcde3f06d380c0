// Echo, discard and chargen, over TCP and UDP.
#include <gtest/gtest.h>

#include <string>

#include "support/service_rig.h"
#include "support/udp_ends.h"

namespace sluice::test {
namespace {

using services::ServiceFailure;
using tables::ServiceConfig;
using tables::ServiceKind;
using transport::SocketError;

ServiceConfig Endpoint(ServiceKind kind, uint16_t port, bool v6 = false) {
  ServiceConfig c;
  c.name = Name(kind);
  c.kind = kind;
  c.listen = {ServiceRig::Proxy(port, v6)};
  c.idle_timeout = Seconds(10);
  return c;
}

TEST(EndpointService, EchoOverTcp) {
  for (const bool v6 : {false, true}) {
    ServiceRig rig;
    rig.Apply({Endpoint(ServiceKind::kEcho, 7, v6)});
    const std::string text(300'000, 'e');
    TextClient client(rig, ServiceRig::Proxy(7, v6), text, /*finish=*/true);
    ASSERT_TRUE(rig.RunUntil([&] { return client.closed; }, Seconds(60)));
    EXPECT_EQ(client.got, text);
    EXPECT_EQ(rig.stats("echo").accepted.Read(), 1u);
    EXPECT_EQ(rig.stats("echo").bytes_in.Read(), text.size());
    EXPECT_EQ(rig.stats("echo").bytes_out.Read(), text.size());
    EXPECT_EQ(rig.Leftovers(), "");
    EXPECT_EQ(rig.stats("echo").active.Read(), 0u);
  }
}

TEST(EndpointService, DiscardOverTcp) {
  ServiceRig rig;
  rig.Apply({Endpoint(ServiceKind::kDiscard, 9)});
  TextClient client(rig, ServiceRig::Proxy(9), std::string(500'000, 'd'), /*finish=*/true);
  ASSERT_TRUE(rig.RunUntil([&] { return client.closed; }, Seconds(60)));
  EXPECT_EQ(client.got, "");
  EXPECT_EQ(rig.stats("discard").bytes_in.Read(), 500'000u);
  EXPECT_EQ(rig.Leftovers(), "");
}

// RFC 864: lines of 72 characters, each begins one character further.
TEST(EndpointService, ChargenOverTcp) {
  ServiceRig rig;
  rig.Apply({Endpoint(ServiceKind::kChargen, 19)});
  TextClient client(rig, ServiceRig::Proxy(19), "ignored");
  ASSERT_TRUE(rig.RunUntil([&] { return client.got.size() > 100'000; }, Seconds(60)));
  for (size_t line = 0; line * 74 + 74 < client.got.size(); ++line) {
    const std::string text = client.got.substr(line * 74, 74);
    ASSERT_EQ(text.substr(72), "\r\n") << line;
    for (size_t i = 0; i < 72; ++i) {
      ASSERT_EQ(text[i], static_cast<char>(' ' + (line + i) % 95)) << line;
    }
  }
  client.Abort();
  EXPECT_EQ(rig.Leftovers(), "");
}

// A client that does not read is not read from for ever, and what is kept for it is bounded.
TEST(EndpointService, EchoDoesNotReadWhatItCannotSend) {
  ServiceRig rig;
  rig.Apply({Endpoint(ServiceKind::kEcho, 7)});
  TextClient client(rig, ServiceRig::Proxy(7), std::string(20'000'000, 'x'), false,
                    {.receive_buffer_max = 64 * 1024});
  client.reading = false;
  rig.Run(Seconds(5));
  EXPECT_LT(rig.stats("echo").bytes_in.Read(), 5'000'000u);
  rig.Run(Seconds(20));  // idle
  EXPECT_EQ(rig.failed("echo", ServiceFailure::kIdleTimeout), 1u);
  EXPECT_EQ(client.error, SocketError::kReset);
  EXPECT_EQ(rig.Leftovers(), "");
}

TEST(EndpointService, LimitsConnections) {
  ServiceRig rig;
  ServiceConfig config = Endpoint(ServiceKind::kEcho, 7);
  config.max_connections = 2;
  rig.Apply({config});
  TextClient a(rig, ServiceRig::Proxy(7), "a");
  TextClient b(rig, ServiceRig::Proxy(7), "b");
  rig.Run(Seconds(1));
  TextClient c(rig, ServiceRig::Proxy(7), "c");
  rig.Run(Seconds(1));
  EXPECT_EQ(a.got + b.got + c.got, "ab");
  EXPECT_EQ(c.error, SocketError::kReset);
  EXPECT_EQ(rig.failed("echo", ServiceFailure::kLimit), 1u);
}

TEST(EndpointService, OverUdp) {
  ServiceRig rig;
  rig.Apply({Endpoint(ServiceKind::kEcho, 7), Endpoint(ServiceKind::kDiscard, 9),
             Endpoint(ServiceKind::kChargen, 19)});
  UdpClient client(rig);
  client.Say(7, "one");
  client.Say(9, "two");
  rig.Run(Seconds(1));
  EXPECT_EQ(client.got, (std::vector<std::string>{"one"}));
  for (int i = 0; i < 100; ++i) client.Say(19, "");
  rig.Run(Seconds(1));
  ASSERT_EQ(client.got.size(), 101u);
  size_t longest = 0;
  for (size_t i = 1; i < client.got.size(); ++i) longest = std::max(longest, client.got[i].size());
  EXPECT_GT(longest, 400u);
  EXPECT_LE(longest, 512u);
  EXPECT_EQ(rig.stats("discard").messages_in.Read(), 1u);
  EXPECT_EQ(rig.stats("discard").messages_out.Read(), 0u);
  EXPECT_EQ(rig.stats("chargen").messages_out.Read(), 100u);
  // Two echo services would talk for ever.
  UdpClient other(rig, 7);
  other.Say(7, "loop");
  rig.Run(Seconds(1));
  EXPECT_TRUE(other.got.empty());
  EXPECT_EQ(rig.failed("echo", ServiceFailure::kLoop), 1u);
  EXPECT_EQ(rig.Leftovers(), "");
}

// Two machines with the same service at another port than its own would talk for ever as well.
TEST(EndpointService, NoAnswerToItsOwnPort) {
  ServiceRig rig;
  rig.Apply({Endpoint(ServiceKind::kEcho, 7000)});
  UdpClient other(rig, 7000);
  other.Say(7000, "loop");
  UdpClient client(rig, 7001);
  client.Say(7000, "fine");
  rig.Run(Seconds(1));
  EXPECT_TRUE(other.got.empty());
  EXPECT_EQ(rig.failed("echo", ServiceFailure::kLoop), 1u);
  EXPECT_EQ(client.got, (std::vector<std::string>{"fine"}));
}

// One protocol only, changed while it runs: the other port is no longer claimed.
TEST(EndpointService, ProtocolsFollowTheConfiguration) {
  ServiceRig rig;
  ServiceConfig config = Endpoint(ServiceKind::kEcho, 7);
  rig.Apply({config});
  EXPECT_EQ(rig.stats("echo").listening.Read(), 2u);
  config.tcp = false;
  rig.Apply({config});
  EXPECT_EQ(rig.stats("echo").listening.Read(), 1u);
  TextClient client(rig, ServiceRig::Proxy(7), "x");
  UdpClient udp(rig);
  udp.Say(7, "y");
  rig.Run(Seconds(1));
  EXPECT_FALSE(client.connected);
  EXPECT_EQ(udp.got.size(), 1u);
  EXPECT_GE(rig.link().host(1).unclaimed(), 1u);
}

// A group is one of the addresses; answers come from one of the machine's own.
TEST(EndpointService, ListensToGroups) {
  for (const bool v6 : {false, true}) {
    ServiceRig rig;
    const tables::ServiceAddress group{*ParseIpAddress(v6 ? "ff05::1:3" : "239.1.2.3"), 7};
    ServiceConfig config = Endpoint(ServiceKind::kEcho, 7, v6);
    config.tcp = false;
    config.listen.push_back(group);
    rig.Apply({config});
    EXPECT_EQ(rig.stats("echo").listening.Read(), 2u);
    UdpClient client(rig, 0, v6);
    client.SayTo(group, "to all");
    rig.Run(Seconds(1));
    EXPECT_EQ(client.got, (std::vector<std::string>{"to all"}));
    EXPECT_EQ(client.from.address, ServiceRig::Proxy(7, v6).address);
    EXPECT_EQ(client.from.port, 7);
    // No longer.
    config.listen.pop_back();
    rig.Apply({config});
    EXPECT_EQ(rig.stats("echo").listening.Read(), 1u);
    client.SayTo(group, "to nobody");
    rig.Run(Seconds(1));
    EXPECT_EQ(client.got.size(), 1u);
    EXPECT_FALSE(rig.link().host(1).stack().udp().has_members());
  }
}

// One more than there is room for is said to fail; the others stay.
TEST(EndpointService, GroupsAreLimited) {
  ServiceRig rig;
  ServiceConfig config = Endpoint(ServiceKind::kDiscard, 9);
  config.tcp = false;
  const transport::UdpConfig limits;
  for (uint32_t i = 0; i < limits.memberships; ++i) {
    config.listen.push_back({Ipv4(239, 0, 0, static_cast<uint8_t>(i)), 9});
  }
  rig.Apply({config});
  EXPECT_EQ(rig.stats("discard").listening.Read(), limits.memberships + 1);
  EXPECT_EQ(rig.failed("discard", ServiceFailure::kListen), 0u);
  config.listen.push_back({Ipv4(239, 0, 1, 0), 9});
  rig.Apply({config});
  EXPECT_EQ(rig.stats("discard").listening.Read(), limits.memberships + 1);
  EXPECT_EQ(rig.failed("discard", ServiceFailure::kListen), 1u);
}

}  // namespace
}  // namespace sluice::test
