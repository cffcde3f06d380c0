#include "telemetry/firewall_views.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "telemetry/view_json.h"
#include "telemetry/view_table.h"

namespace sluice::telemetry {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

FlowsView SampleFlows() {
  FlowsView v{.total = 12'000, .matched = 3, .limit = 262'144};
  v.flows = {{.family = "ipv4",
              .protocol = "tcp",
              .protocol_number = 6,
              .state = "ESTABLISHED",
              .timeout_seconds = 431'999,
              .original = {.source = "10.0.0.5", .destination = "1.1.1.1", .source_port = 4000,
                           .destination_port = 443, .packets = 10, .bytes = 1000},
              .reply = {.source = "1.1.1.1", .destination = "192.0.2.1", .source_port = 443,
                        .destination_port = 4000, .packets = 12, .bytes = 15'000},
              .nat = "masquerade",
              .status = {"ASSURED"},
              .mark = 16,
              .worker = 1,
              .conntrack = "tcp line"},
             {.family = "ipv6",
              .protocol = "icmpv6",
              .protocol_number = 58,
              .timeout_seconds = 30,
              .original = {.source = "2001:db8::1", .destination = "2001:db8::2", .icmp_type = 128,
                           .icmp_code = 0, .icmp_id = 7, .packets = 1, .bytes = 104},
              .status = {"UNREPLIED"},
              .conntrack = "icmpv6 line"}};
  return v;
}

TEST(FirewallViewTest, Flows) {
  EXPECT_EQ(ToTable(SampleFlows()),
            R"(proto   state           timeout  original                                        reply                         nat         status     mark  packets     bytes  worker
tcp     ESTABLISHED  4d 23h 59m  10.0.0.5:4000 > 1.1.1.1:443                     1.1.1.1:443 > 192.0.2.1:4000  masquerade  ASSURED    0x10       22  15.6 KiB       1
icmpv6  -                 30.0s  2001:db8::1 > 2001:db8::2 type 128 code 0 id 7  -                             -           UNREPLIED     -        1     104 B       0

2 shown of 3 that match, 12,000 connections in all (of 262,144); see --limit
)");
  EXPECT_EQ(ToConntrackLines(SampleFlows()), "tcp line\nicmpv6 line\n");
  EXPECT_THAT(ToTable(FlowsView{}), HasSubstr("no matching connections\n"));
}

TEST(FirewallViewTest, Nat) {
  NatView v{.mappings = 5, .exhausted = 1, .ports_first = 49'152, .ports_last = 65'535,
            .truncated = true};
  v.rules = {{"inet", "nat", "post", 17, "oifname \"wan0\" masquerade", "masquerade", "worker", 7},
             {"ip", "nat", "pre", 3, "tcp dport 80 dnat to 10.0.0.5", "dnat", "kernel", {}}};
  v.addresses = {{"192.0.2.1", 5, {3, 2}}};
  v.flows = {{"tcp", "10.0.0.5:4000 > 1.1.1.1:443", "192.0.2.1:4000 > 1.1.1.1:443", "masquerade", 60}};
  EXPECT_EQ(ToTable(v), R"(runs in  connections  kind        rule                           of
worker             7  masquerade  oifname "wan0" masquerade      inet nat post handle 17
kernel             -  dnat        tcp dport 80 dnat to 10.0.0.5  ip nat pre handle 3

Addresses
address    connections  by worker
192.0.2.1            5  3 2

Connections
proto  from                         becomes                       nat         timeout
tcp    10.0.0.5:4000 > 1.1.1.1:443  192.0.2.1:4000 > 1.1.1.1:443  masquerade    1m 0s

5 connections translated, 1 refused for want of a port (ports 49152-65535); more than shown, see --limit and show flows
)");
  EXPECT_EQ(ToTable(NatView{}),
            "no rule translates\n\n0 connections translated, 0 refused for want of a port (ports 0-0)\n");
  const auto back = FromJson<NatView>(ToJson(v));
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(ToTable(*back), ToTable(v));
}

TEST(FirewallViewTest, ExplainAndTrace) {
  const ExplainView explain{
      .packet = "ip saddr 10.0.0.5",
      .interface = "lan0",
      .stages = {{"route", "to wan0", "default via 192.0.2.254\nmetric 100"}, {"forward", "drop", ""}},
      .verdict = "dropped: filter"};
  EXPECT_EQ(ToTable(explain), R"(packet   ip saddr 10.0.0.5
arrives  lan0

route    to wan0
           default via 192.0.2.254
           metric 100
forward  drop

verdict  dropped: filter
)");
  EXPECT_EQ(ToTable(*FromJson<ExplainView>(ToJson(explain))), ToTable(explain));
  const TraceView trace{.time_seconds = 0.25,
                        .worker = 1,
                        .interface = "lan0",
                        .packet = "ip saddr 10.0.0.5",
                        .length = 60,
                        .verdict = "dropped",
                        .reason = "filter",
                        .translated = "ip saddr 192.0.2.1",
                        .rules = {"inet filter forward handle 3"}};
  EXPECT_EQ(ToLines(trace),
            "0.250000 lan0 ip saddr 10.0.0.5 (60 bytes): dropped: filter\n"
            "    as    ip saddr 192.0.2.1\n"
            "    rule  inet filter forward handle 3\n");
  EXPECT_EQ(ToLines(*FromJson<TraceView>(ToJson(trace))), ToLines(trace));
  const TraceView carried{.time_seconds = 1,
                          .interface = "lan0",
                          .packet = "ip saddr 10.0.0.5",
                          .length = 60,
                          .verdict = "forwarded",
                          .output = "wan0",
                          .tier = "xdp"};
  EXPECT_EQ(ToLines(*FromJson<TraceView>(ToJson(carried))),
            "1.000000 lan0 ip saddr 10.0.0.5 (60 bytes): forwarded to wan0 (by XDP, when it is not "
            "traced)\n");
}

TEST(FirewallViewTest, FlowsRoundTripThroughJson) {
  const std::string json = ToJson(SampleFlows());
  const auto back = FromJson<FlowsView>(json);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(ToTable(*back), ToTable(SampleFlows()));
  EXPECT_EQ(ToJson(*back), json);
  EXPECT_EQ(back->flows[1].original.source_port, std::nullopt);
}

TEST(FirewallViewTest, FirewallLine) {
  FirewallView v{.generation = 3, .rules = 1'200, .in_xdp = 100, .in_workers = 1'198,
                 .unsupported = 2, .tracking4 = true, .flows = 5, .flows_limit = 1'000};
  EXPECT_EQ(FirewallText(v), "1,200 rules: 1,198 in workers, 100 in XDP, 2 left to the kernel; "
                             "generation 3; 5 of 1,000 connections");
  v.refused = "inet filter forward handle 9: meta secmark";
  EXPECT_THAT(FirewallText(v), HasSubstr("; not in force: inet filter forward handle 9"));
  StatusView status;
  EXPECT_EQ(ToTable(status).find("firewall"), std::string::npos);
  status.firewall = v;
  EXPECT_THAT(ToTable(status), HasSubstr("\nfirewall        1,200 rules: "));
  const auto back = FromJson<StatusView>(ToJson(status));
  ASSERT_TRUE(back.ok()) << back.status();
  ASSERT_TRUE(back->firewall.has_value());
  EXPECT_EQ(back->firewall->refused, v.refused);
}

TEST(HexTest, BothWays) {
  EXPECT_EQ(ToHex(std::vector<uint8_t>{0, 0x1f, 0xff}), "001fff");
  EXPECT_THAT(*FromHex("0x001FfF"), ElementsAre(0, 0x1f, 0xff));
  EXPECT_THAT(*FromHex("00:1f\n ff"), ElementsAre(0, 0x1f, 0xff));
  EXPECT_THAT(*FromHex(""), ElementsAre());
  EXPECT_EQ(FromHex("1"), std::nullopt);
  EXPECT_EQ(FromHex("1g"), std::nullopt);
  EXPECT_EQ(FromHex("0x0x00"), std::nullopt);
}

}  // namespace
}  // namespace sluice::telemetry
