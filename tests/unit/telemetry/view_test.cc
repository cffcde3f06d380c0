#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "telemetry/text_table.h"
#include "telemetry/view_json.h"
#include "telemetry/view_table.h"

namespace sluice::telemetry {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

StatusView SampleStatus() {
  StatusView v;
  v.version = "0.1.0";
  v.kernel = "6.1.0";
  v.pid = 42;
  v.uptime_seconds = 93784;
  v.ready = true;
  v.config_file = "/etc/sluice.yaml";
  v.metrics_listen = "127.0.0.1:9470";
  v.interfaces = 2;
  v.interfaces_up = 1;
  v.workers = 2;
  v.packets = {1'234'567, 1'000'000, 34'567, 150'000, 49'000, 100, 900};
  v.tiers = {.xdp = 900'000, .worker = 184'567, .kernel = 150'000, .offload = true, .entries = 1'200,
             .limit = 65'536};
  v.punts = {{"local", "for this machine", 150'000}};
  v.kernel_decides = {"ip rules beyond the default ones", "netfilter chain inet filter forward"};
  v.mirror = {true, 0, 1, 0, "socket overflow"};
  v.tables = {{"routes4", 100'000, 2'000'000}, {"neighbors", 3, 16'384}};
  return v;
}

TEST(ViewTableTest, Status) {
  EXPECT_EQ(ToTable(SampleStatus()),
            R"(sluice          0.1.0, kernel 6.1.0, pid 42, up 1d 2h 3m
state           ready: packets are being forwarded
configuration   /etc/sluice.yaml
metrics         http://127.0.0.1:9470/metrics
interfaces      1 of 2 up
workers         2
mirror          in step with the kernel, 1 resyncs, 0 corrections (last: socket overflow)
tiers           XDP 72.9%, workers 14.9%, kernel 12.2% of packets; 1,200 of 65,536 entries
kernel decides  ip rules beyond the default ones
                netfilter chain inet filter forward

Packets
                      packets
  received          1,234,567
  forwarded         1,000,000
  local                34,567
  punted to kernel    150,000
  dropped              49,000
  held                    100
  merged fragments        900
  every packet accounted for

Punted to the kernel
  packets  reason  why
  150,000  local   for this machine

Tables
  table         used      limit  full
  routes4    100,000  2,000,000  5.0%
  neighbors        3     16,384  0.0%
)");
}

TEST(ViewTableTest, StatusSaysWhatIsWrong) {
  StatusView v = SampleStatus();
  v.ready = false;
  v.not_ready_reason = "no interface is up";
  v.packets.dropped -= 7;
  v.workers_stalled = 1;
  v.metrics_listen = "off";
  v.mirror = {false, 3, 2, 1, ""};
  v.kernel_decides.clear();
  const std::string text = ToTable(v);
  EXPECT_THAT(text, HasSubstr("state           not ready: no interface is up\n"));
  EXPECT_THAT(text, HasSubstr("  7 not accounted for"));
  EXPECT_THAT(text, HasSubstr("workers         2, 1 stalled\n"));
  EXPECT_THAT(text, HasSubstr("metrics         off\n"));
  EXPECT_THAT(text, HasSubstr("not in step: 3 differences, 2 resyncs, 1 corrections\n"));
  EXPECT_THAT(text, HasSubstr("kernel decides  only about packets for this machine\n"));
}

TEST(ViewTableTest, StatusSaysWhatKeepsPacketsFromXdp) {
  StatusView v = SampleStatus();
  v.tiers.problems = {"lan0: XDP runs in generic mode", "wan0: no NAPI"};
  EXPECT_THAT(ToTable(v), HasSubstr("of 65,536 entries\n"
                                    "                not in XDP: lan0: XDP runs in generic mode\n"
                                    "                not in XDP: wan0: no NAPI\n"));
  v.tiers = {.offload = true, .limit = 65'536};  // no packet yet
  EXPECT_THAT(ToTable(v), HasSubstr("tiers           XDP 0.0%, workers 0.0%, kernel 0.0% of packets; "
                                    "0 of 65,536 entries\n"));
  v.tiers = {.worker = 5};
  EXPECT_THAT(ToTable(v),
              HasSubstr("tiers           the flow tier is off: workers carry everything\n"));
}

TEST(ViewTableTest, Interfaces) {
  InterfaceView up;
  up.name = "lan0";
  up.state = "up";
  up.mac = "02:00:00:00:00:01";
  up.mtu = 1500;
  up.driver = "veth";
  up.mode = "native";
  up.multi_buffer = true;
  up.checksum = "complete";
  up.queues = 2;
  up.rx_packets = 1'234'567;
  up.rx_bytes = 1'610'612'736;
  up.tx_packets = 10;
  up.tx_bytes = 999;
  up.drops = 3;
  up.punts = 4;
  up.xdp_redirect = 1'234'567;
  up.xdp_pass = 5;
  up.xdp_forward = 70;
  up.ring_full = 6;
  InterfaceView gone;
  gone.name = "wan0";
  gone.slot = 1;
  gone.state = "absent";
  gone.problem = "no such interface; it is served when it appears";
  EXPECT_EQ(
      ToTable(std::vector{up, gone}),
      R"(interface  state   slot  mac                 mtu  driver  mode    memory  jumbo  queues  checksum
lan0       up         0  02:00:00:00:00:01  1500  veth    native  copy    yes         2  complete
wan0       absent     1  -                     0  -       -       -       no          0  -

Traffic
interface  rx packets  rx bytes  tx packets  tx bytes  punted  dropped  tx errors
lan0        1,234,567   1.5 GiB          10     999 B       4        3          0
wan0                0       0 B           0       0 B       0        0          0

XDP
interface  forwarded  to sluice  to kernel  dropped  ring full
lan0              70  1,234,567          5        0          6
wan0               0          0          0        0          0

wan0: no such interface; it is served when it appears
)");
}

TEST(ViewTableTest, Routes) {
  RoutesView v;
  v.total4 = 100'001;
  v.total6 = 2;
  v.truncated = true;
  v.routes = {{"0.0.0.0/0", "unicast", {{"10.0.0.254", "wan0", 1, true}}, 0, true, ""},
              {"10.1.0.0/16",
               "unicast",
               {{"10.0.0.2", "lan0", 1, true}, {"10.0.0.3", "lan0", 2, true}},
               1400,
               true,
               ""},
              {"10.2.0.0/16", "unicast", {{"", "wg0", 1, false}}, 0, false, "wg0 is not served"},
              {"10.3.0.0/16", "blackhole", {}, 0, true, ""}};
  EXPECT_EQ(ToTable(v), R"(prefix       type       path                             mtu  served
0.0.0.0/0    unicast    via 10.0.0.254 dev wan0            -  yes
10.1.0.0/16  unicast    via 10.0.0.2 dev lan0 weight 1  1400  yes
                        via 10.0.0.3 dev lan0 weight 2
10.2.0.0/16  unicast    dev wg0                            -  no: wg0 is not served
10.3.0.0/16  blackhole  -                                  -  yes

4 shown of 100,001 IPv4 and 2 IPv6 routes (more match; see --limit and --destination)
)");
}

TEST(ViewTableTest, NeighborsWorkersAndDrops) {
  EXPECT_EQ(ToTable(std::vector<NeighborView>{
                {"10.0.0.2", "lan0", "02:00:00:00:00:02", "reachable", 0, 12.34, 1},
                {"2001:db8::2", "wan0", "", "incomplete", 3, 0, 0}}),
            R"(address      dev   mac                state       queued    age  worker
10.0.0.2     lan0  02:00:00:00:00:02  reachable        0  12.3s       1
2001:db8::2  wan0  -                  incomplete       3   0.0s       0
)");
  EXPECT_EQ(ToTable(std::vector<WorkerView>{{0, 3, "running", 0.125, 1000, 20, 1, 2, 3, 4, 5, 6},
                                            {1, std::nullopt, "sleeping", 0, 0, 0, 0, 0, 0, 0, 0, 0}}),
            R"(worker  cpu  state      busy  loops  sleeps  free  fill  tx  held  sockets  handed over
     0    3  running   12.5%  1,000      20     1     2   3     4        5            6
     1    -  sleeping   0.0%      0       0     0     0   0     0        0            0

free, fill, tx, held and sockets count frames of memory
)");
  const std::vector<DropView> drops = {{"lan0", "no_route", "no route to the destination", 1234},
                                       {"lan0", "reverse_path", "rp_filter", 0}};
  EXPECT_EQ(ToTable(drops, false), R"(interface  packets  reason    what happened
lan0         1,234  no_route  no route to the destination

1,234 packets dropped
)");
  EXPECT_THAT(ToTable(drops, true), HasSubstr("lan0             0  reverse_path  rp_filter\n"));
}

TEST(ViewTableTest, EmptyListsSaySo) {
  EXPECT_EQ(ToTable(std::vector<InterfaceView>{}), "no interfaces\n");
  EXPECT_EQ(ToTable(std::vector<NeighborView>{}), "no neighbors\n");
  EXPECT_EQ(ToTable(std::vector<WorkerView>{}), "no workers\n");
  EXPECT_EQ(ToTable(std::vector<DropView>{}, false), "no drops\n");
  EXPECT_THAT(ToTable(RoutesView{}), HasSubstr("no matching routes\n"));
}

TEST(TextTableTest, Numbers) {
  EXPECT_EQ(Grouped(uint64_t{0}), "0");
  EXPECT_EQ(Grouped(uint64_t{999}), "999");
  EXPECT_EQ(Grouped(uint64_t{1000}), "1,000");
  EXPECT_EQ(Grouped(~uint64_t{0}), "18,446,744,073,709,551,615");
  EXPECT_EQ(Grouped(int64_t{-1234}), "-1,234");
  EXPECT_EQ(HumanBytes(0), "0 B");
  EXPECT_EQ(HumanBytes(1023), "1023 B");
  EXPECT_EQ(HumanBytes(1024), "1.0 KiB");
  EXPECT_EQ(HumanBytes((uint64_t{1} << 20) - 1), "1.0 MiB");
  EXPECT_EQ(HumanBytes(~uint64_t{0}), "16.0 EiB");
  EXPECT_EQ(HumanSeconds(59.94), "59.9s");
  EXPECT_EQ(HumanSeconds(61), "1m 1s");
  EXPECT_EQ(HumanSeconds(3661), "1h 1m");
}

TEST(ViewJsonTest, StatusComesBackAsItWas) {
  const StatusView v = SampleStatus();
  const auto back = FromJson<StatusView>(ToJson(v));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(ToTable(*back), ToTable(v));
  EXPECT_EQ(ToJson(*back), ToJson(v));
}

TEST(ViewJsonTest, FieldNamesAreTheContract) {
  EXPECT_EQ(ToJson(std::vector<DropView>{{"lan0", "no_route", "no route", 5}}),
            R"([{"interface":"lan0","packets":5,"reason":"no_route","text":"no route"}])");
  EXPECT_EQ(ToJson(ReadyView{false, "starting"}), R"({"ready":false,"reason":"starting"})");
  const std::string status = ToJson(SampleStatus());
  EXPECT_THAT(status, HasSubstr(R"("balanced":true)"));
  EXPECT_THAT(status, HasSubstr(R"("unaccounted":0)"));
  EXPECT_THAT(status, HasSubstr(R"("tiers":{"entries":1200,"kernel":150000,"limit":65536,)"
                                R"("offload":true,"problems":[],"worker":184567,"xdp":900000})"));
  EXPECT_THAT(ToJson(std::vector<WorkerView>{{}}), HasSubstr(R"("cpu":null)"));
  EXPECT_EQ(FromJson<std::vector<WorkerView>>(R"([{"cpu":7}])")->at(0).cpu, 7u);
}

TEST(ViewJsonTest, ReadsAnotherVersionsJson) {
  const auto view = FromJson<StatusView>(R"({"version":"9","something_new":{"a":1}})");
  ASSERT_TRUE(view.ok());
  EXPECT_EQ(view->version, "9");
  EXPECT_FALSE(view->ready);
}

TEST(ViewJsonTest, RefusesWhatDoesNotFit) {
  EXPECT_FALSE(FromJson<StatusView>("").ok());
  EXPECT_FALSE(FromJson<StatusView>("{").ok());
  EXPECT_FALSE(FromJson<StatusView>(R"({"version":5})").ok());
  EXPECT_FALSE(FromJson<std::vector<DropView>>("{}").ok());
}

TEST(ViewJsonTest, BytesThatAreNotUtf8DoNotThrow) {
  EXPECT_THAT(ToJson(std::vector<DropView>{{"\xff", "r", "t", 1}}), HasSubstr("interface"));
}

TEST(ViewTest, WhatIsHeldAddsUpAndIsNowhereBelowZero) {
  const uint64_t minus_seven = uint64_t{0} - 7;
  const auto shown = [](std::vector<uint64_t> gauges) { return ShareOutHeld(gauges); };
  EXPECT_THAT(shown({3, 0, 4}), ElementsAre(3, 0, 4));
  EXPECT_THAT(shown({minus_seven, 7}), ElementsAre(0, 0));
  EXPECT_THAT(shown({7, minus_seven, 2}), ElementsAre(2, 0, 0));
  EXPECT_THAT(shown({minus_seven, 10}), ElementsAre(0, 3));
  EXPECT_THAT(shown({minus_seven, 6}), ElementsAre(0, 0)) << "read while a packet moved";
}

TEST(ViewJsonTest, Errors) {
  EXPECT_EQ(ErrorJson("it \"broke\""), R"({"error":"it \"broke\""})");
  EXPECT_EQ(ErrorFromJson(ErrorJson("it \"broke\"")), "it \"broke\"");
  EXPECT_EQ(ErrorFromJson("plain"), "plain");
  EXPECT_EQ(ErrorFromJson("{}"), "{}");
  EXPECT_EQ(PrettyJson(R"({"b":1,"a":[]})"), "{\n  \"b\": 1,\n  \"a\": []\n}\n");
  EXPECT_EQ(PrettyJson("not json"), "not json");
}

}  // namespace
}  // namespace sluice::telemetry
