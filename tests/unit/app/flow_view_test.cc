// Connections as they are shown and filtered. The lines of conntrack are those that conntrack 1.4.7
// printed for such entries (with its counters added, in the places of nf_conntrack_acct).
#include "app/flow_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "app/flow_collector.h"
#include "app/flow_filter.h"

namespace sluice::app {
namespace {

using tables::Flow;
using tables::FlowDirection;
using tables::FlowTuple;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr Nanos kNow = Seconds(1000);

FlowTuple Tuple4(Ipv4 source, uint16_t sport, Ipv4 destination, uint16_t dport, uint8_t protocol) {
  return {.source = Ipv6(0, source.value),
          .destination = Ipv6(0, destination.value),
          .source_port = sport,
          .destination_port = dport,
          .protocol = protocol,
          .family = Family::kIpv4};
}
FlowTuple TurnedRound(const FlowTuple& t) {
  FlowTuple out = t;
  std::swap(out.source, out.destination);
  std::swap(out.source_port, out.destination_port);
  return out;
}
Flow Untranslated(const FlowTuple& original) {
  Flow flow{};
  flow.tuples = {original, TurnedRound(original)};
  flow.expires = kNow + Seconds(99) + Millis(500);
  return flow;
}

const Ipv4 kClient(10, 0, 0, 1), kServer(10, 0, 0, 2), kOutside(192, 0, 2, 1);

Flow Established() {
  Flow flow = Untranslated(Tuple4(kClient, 1000, kServer, 80, 6));
  flow.tcp.state = 3;
  flow.status = tables::kFlowSeenReply | tables::kFlowAssured | tables::kFlowConfirmed;
  flow.counts = {{{3, 300}, {2, 2000}}};
  return flow;
}
Flow Masqueraded() {
  Flow flow = Untranslated(Tuple4(kClient, 1001, kServer, 80, 6));
  flow.tuple(FlowDirection::kReply).destination = Ipv6(0, kOutside.value);
  flow.tuple(FlowDirection::kReply).destination_port = 5000;
  flow.tcp.state = 1;
  flow.status = tables::kFlowSourceNat | tables::kFlowMasquerade;
  flow.mark = 7;
  return flow;
}
Flow Ping() {
  Flow flow = Untranslated(Tuple4(kClient, 77, kServer, 8 << 8, 1));
  flow.tuple(FlowDirection::kReply).source_port = 77;
  flow.tuple(FlowDirection::kReply).destination_port = 0;
  return flow;
}
Flow Dns6() {
  const FlowTuple t{.source = *ParseIpv6("2001:db8::1"),
                    .destination = *ParseIpv6("2001:db8::2"),
                    .source_port = 1,
                    .destination_port = 53,
                    .protocol = 17,
                    .family = Family::kIpv6};
  Flow flow = Untranslated(t);
  flow.status = tables::kFlowSeenReply;
  return flow;
}

TEST(ConntrackLineTest, LooksAsConntracksOwn) {
  EXPECT_EQ(ConntrackLine(Established(), kNow),
            "tcp      6 99 ESTABLISHED src=10.0.0.1 dst=10.0.0.2 sport=1000 dport=80 packets=3 "
            "bytes=300 src=10.0.0.2 dst=10.0.0.1 sport=80 dport=1000 packets=2 bytes=2000 "
            "[ASSURED] mark=0 use=1");
  EXPECT_EQ(ConntrackLine(Masqueraded(), kNow),
            "tcp      6 99 SYN_SENT src=10.0.0.1 dst=10.0.0.2 sport=1001 dport=80 packets=0 "
            "bytes=0 [UNREPLIED] src=10.0.0.2 dst=192.0.2.1 sport=80 dport=5000 packets=0 bytes=0 "
            "mark=7 use=1");
  EXPECT_EQ(ConntrackLine(Ping(), kNow),
            "icmp     1 99 src=10.0.0.1 dst=10.0.0.2 type=8 code=0 id=77 packets=0 bytes=0 "
            "[UNREPLIED] src=10.0.0.2 dst=10.0.0.1 type=0 code=0 id=77 packets=0 bytes=0 mark=0 "
            "use=1");
  EXPECT_EQ(ConntrackLine(Untranslated(Tuple4(kClient, 1, kServer, 2, 47)), kNow),
            "gre      47 99 src=10.0.0.1 dst=10.0.0.2 srckey=0x1 dstkey=0x2 packets=0 bytes=0 "
            "[UNREPLIED] src=10.0.0.2 dst=10.0.0.1 srckey=0x2 dstkey=0x1 packets=0 bytes=0 mark=0 "
            "use=1");
  EXPECT_EQ(ConntrackLine(Dns6(), kNow),
            "udp      17 99 src=2001:db8::1 dst=2001:db8::2 sport=1 dport=53 packets=0 bytes=0 "
            "src=2001:db8::2 dst=2001:db8::1 sport=53 dport=1 packets=0 bytes=0 mark=0 use=1");
  EXPECT_THAT(ConntrackLine(Untranslated(Tuple4(kClient, 0, kServer, 0, 2)), kNow),
              HasSubstr("unknown  2 99 src=10.0.0.1 dst=10.0.0.2 packets=0"));
  EXPECT_THAT(ConntrackLine(Established(), kNow + Seconds(500)), HasSubstr("tcp      6 0 EST"));
  Flow carried = Established();
  carried.status |= tables::kFlowOffload;
  EXPECT_THAT(ConntrackLine(carried, kNow), HasSubstr("bytes=2000 [OFFLOAD] mark=0"));
}

TEST(FlowViewTest, SaysEverythingThatIsKnown) {
  const telemetry::FlowView view = ViewOf(Masqueraded(), WorkerId{3}, kNow);
  EXPECT_EQ(view.family, "ipv4");
  EXPECT_EQ(view.protocol, "tcp");
  EXPECT_EQ(view.protocol_number, 6u);
  EXPECT_EQ(view.state, "SYN_SENT");
  EXPECT_DOUBLE_EQ(view.timeout_seconds, 99.5);
  EXPECT_EQ(view.original.source, "10.0.0.1");
  EXPECT_EQ(view.original.source_port, 1001);
  EXPECT_EQ(view.reply.destination, "192.0.2.1");
  EXPECT_EQ(view.reply.destination_port, 5000);
  EXPECT_EQ(view.nat, "masquerade");
  EXPECT_THAT(view.status, ElementsAre("UNREPLIED"));
  EXPECT_EQ(view.mark, 7u);
  EXPECT_EQ(view.worker, 3u);

  const telemetry::FlowView ping = ViewOf(Ping(), WorkerId{0}, kNow);
  EXPECT_EQ(ping.state, "");
  EXPECT_EQ(ping.original.source_port, std::nullopt);
  EXPECT_EQ(ping.original.icmp_type, 8);
  EXPECT_EQ(ping.reply.icmp_type, 0);
  EXPECT_EQ(ping.original.icmp_id, 77);

  Flow carried = Established();
  carried.status |= tables::kFlowOffload;
  EXPECT_THAT(ViewOf(carried, WorkerId{0}, kNow).status, ElementsAre("ASSURED", "OFFLOAD"));

  Flow flow = Established();
  flow.status |= tables::kFlowKernel | tables::kFlowImported | tables::kFlowDestinationNat |
                 tables::kFlowSourceNat;
  const telemetry::FlowView both = ViewOf(flow, WorkerId{0}, kNow + Seconds(500));
  EXPECT_EQ(both.nat, "snat+dnat");
  EXPECT_THAT(both.status, ElementsAre("ASSURED", "KERNEL", "IMPORTED"));
  EXPECT_EQ(both.timeout_seconds, 0);
}

TEST(FlowViewTest, ShowsTheTranslatedPacketTheWayItGoes) {
  const telemetry::NatFlowView view = NatViewOf(Masqueraded(), kNow);
  EXPECT_EQ(view.from, "10.0.0.1:1001 > 10.0.0.2:80");
  EXPECT_EQ(view.to, "192.0.2.1:5000 > 10.0.0.2:80");
  EXPECT_EQ(view.nat, "masquerade");
  EXPECT_EQ(NatViewOf(Ping(), kNow).from, "10.0.0.1 > 10.0.0.2 id 77");
}

TEST(FlowViewTest, EveryStateOfTcpHasItsName) {
  for (uint8_t state = 0; state < 10; ++state) {
    EXPECT_EQ(TcpStateOf(TcpStateName(state)), state);
  }
  EXPECT_EQ(TcpStateName(3), "ESTABLISHED");
  EXPECT_EQ(TcpStateName(7), "TIME_WAIT");
  EXPECT_EQ(TcpStateName(200), "NONE");
}

bool Matches(const std::string& filter, const Flow& flow, WorkerId worker = WorkerId{1}) {
  const auto parsed = FlowFilter::Parse(filter);
  EXPECT_TRUE(parsed.ok()) << filter << ": " << parsed.status();
  return parsed.ok() && parsed->Matches(flow, worker);
}

TEST(FlowFilterTest, EachTest) {
  const Flow flow = Masqueraded();
  for (const char* yes :
       {"", " ", "ip saddr 10.0.0.0/8", "ip saddr 10.0.0.1", "ip daddr 10.0.0.2", "ip addr 192.0.2.1",
        "saddr 10.0.0.1 daddr 10.0.0.2", "addr 10.0.0.2", "reply daddr 192.0.2.1",
        "reply saddr 10.0.0.2", "reply dport 5000", "port 5000", "port 80", "port 70-90",
        "tcp", "tcp dport 80", "tcp sport 1001 tcp dport 80", "dport 80", "sport 1000-1001",
        "ip protocol tcp", "meta l4proto 6", "state SYN_SENT", "state syn_sent", "status unreplied",
        "status snat", "status masquerade", "status nat", "mark 7", "mark 0x3/0x3", "worker 1"}) {
    EXPECT_TRUE(Matches(yes, flow)) << yes;
  }
  for (const char* no :
       {"ip saddr 10.0.0.2", "ip6 saddr ::/0", "ip daddr 10.0.0.1", "addr 10.0.0.3",
        "reply saddr 10.0.0.1", "reply sport 5000", "port 81", "udp", "udp dport 80",
        "tcp dport 81", "state ESTABLISHED", "status assured", "status dnat", "status kernel",
        "status imported", "status dying", "status expected", "mark 6", "mark 0/0x1", "worker 0",
        "tcp dport 80 mark 6"}) {
    EXPECT_FALSE(Matches(no, flow)) << no;
  }
}

TEST(FlowFilterTest, FamiliesAndProtocolsWithoutPorts) {
  EXPECT_TRUE(Matches("ip6 saddr 2001:db8::/32", Dns6()));
  EXPECT_FALSE(Matches("ip saddr 0.0.0.0/0", Dns6()));
  EXPECT_TRUE(Matches("ip6 nexthdr udp", Dns6()));
  EXPECT_TRUE(Matches("icmp", Ping()));
  EXPECT_FALSE(Matches("port 77", Ping())) << "an ICMP identifier is no port";
  EXPECT_FALSE(Matches("state NONE", Ping()));
  EXPECT_FALSE(Matches("status unreplied", Dns6()));
  Flow carried = Established();
  carried.status |= tables::kFlowOffload;
  EXPECT_TRUE(Matches("status offload", carried));
  EXPECT_FALSE(Matches("status offload", Established()));
}

TEST(FlowFilterTest, SaysWhereAndWhatIsWrong) {
  const auto error = [](const std::string& filter) {
    return std::string(FlowFilter::Parse(filter).status().message());
  };
  EXPECT_THAT(error("tcp dprt 443"), HasSubstr("character 5: unknown word \"dprt\""));
  EXPECT_THAT(error("ip saddr x"), HasSubstr("character 10: \"x\" is not an address"));
  EXPECT_THAT(error("ip saddr ::1"), HasSubstr("of that family"));
  EXPECT_THAT(error("ip saddr"), HasSubstr("is not an address"));
  EXPECT_THAT(error("ip ttl 3"), HasSubstr("expected saddr, daddr or addr"));
  EXPECT_THAT(error("dport 9-8"), HasSubstr("is not a port"));
  EXPECT_THAT(error("dport 65536"), HasSubstr("is not a port"));
  EXPECT_THAT(error("dport 1-"), HasSubstr("is not a port"));
  EXPECT_THAT(error("state up"), HasSubstr("is not a state"));
  EXPECT_THAT(error("status good"), HasSubstr("there are: assured"));
  EXPECT_THAT(error("mark x"), HasSubstr("is not a mark"));
  EXPECT_THAT(error("worker 32"), HasSubstr("is not a worker"));
  EXPECT_THAT(error("meta mark 1"), HasSubstr("only \"l4proto\""));
  EXPECT_THAT(error("meta l4proto x"), HasSubstr("is not a protocol"));
  EXPECT_THAT(error("reply"), HasSubstr("ends too early"));
}

TEST(FlowCollectorTest, SortsAndKeepsNoMoreThanTheLimit) {
  std::mt19937 random(7);
  std::vector<uint64_t> bytes;
  auto collector = FlowCollector::Create(
      {.filter = "tcp", .sort = telemetry::FlowSort::kBytes, .limit = 10}, kNow);
  ASSERT_TRUE(collector.ok());
  for (int i = 0; i < 1000; ++i) {
    Flow flow = Established();
    flow.count(FlowDirection::kOriginal).bytes = random() % 100'000;
    flow.count(FlowDirection::kReply).bytes = 1;
    bytes.push_back(flow.count(FlowDirection::kOriginal).bytes);
    collector->Add(flow, WorkerId{0});
    collector->Add(Ping(), WorkerId{0});
  }
  std::sort(bytes.rbegin(), bytes.rend());
  const telemetry::FlowsView view = collector->Take(2000, 5000);
  EXPECT_EQ(view.total, 2000u);
  EXPECT_EQ(view.limit, 5000u);
  EXPECT_EQ(view.matched, 1000u);
  ASSERT_EQ(view.flows.size(), 10u);
  for (size_t i = 0; i < 10; ++i) EXPECT_EQ(view.flows[i].original.bytes, bytes[i]);
}

TEST(FlowCollectorTest, SortsByPacketsAndTimeout) {
  Flow few = Established(), many = Established();
  few.expires = kNow + Seconds(500);
  many.count(FlowDirection::kReply).packets = 1000;
  for (const auto sort : {telemetry::FlowSort::kPackets, telemetry::FlowSort::kTimeout}) {
    auto collector = FlowCollector::Create({.filter = "", .sort = sort, .limit = 5}, kNow);
    collector->Add(few, WorkerId{0});
    collector->Add(many, WorkerId{1});
    const auto view = collector->Take(2, 2);
    EXPECT_EQ(view.flows[0].worker, sort == telemetry::FlowSort::kPackets ? 1u : 0u);
  }
}

TEST(FlowCollectorTest, NatOnlyAndCutOff) {
  FlowCollector collector = FlowCollector::ForNat({.limit = 2}, kNow);
  for (int i = 0; i < 3; ++i) {
    collector.Add(Masqueraded(), WorkerId{0});
    collector.Add(Established(), WorkerId{0});
  }
  telemetry::NatView view;
  collector.TakeInto(&view);
  EXPECT_EQ(view.flows.size(), 2u);
  EXPECT_TRUE(view.truncated);
  EXPECT_EQ(view.mappings, 3u);
  EXPECT_THAT(view.rules, IsEmpty());
}

TEST(NatAddressesTest, CountsConnectionsByAddressAndWorker) {
  NatAddresses addresses(2);
  Flow other = Masqueraded();
  other.tuple(FlowDirection::kReply).destination = Ipv6(0, Ipv4(192, 0, 2, 9).value);
  for (int i = 0; i < 3; ++i) addresses.Add(other, WorkerId{1});
  addresses.Add(Masqueraded(), WorkerId{0});
  addresses.Add(Established(), WorkerId{0});
  telemetry::NatView view;
  addresses.TakeInto(&view);
  ASSERT_EQ(view.addresses.size(), 2u);
  EXPECT_EQ(view.addresses[0].address, "192.0.2.9");
  EXPECT_EQ(view.addresses[0].mappings, 3u);
  EXPECT_THAT(view.addresses[0].by_worker, ElementsAre(0, 3));
  EXPECT_EQ(view.addresses[1].address, "192.0.2.1");
  EXPECT_THAT(view.addresses[1].by_worker, ElementsAre(1, 0));
}

}  // namespace
}  // namespace sluice::app
