#include "telemetry/exporter.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <set>
#include <string>

#include "telemetry/metrics.h"

namespace sluice::telemetry {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

// A socket to 127.0.0.1, for the client's and the squatter's side.
class Tcp {
 public:
  Tcp() : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {}
  ~Tcp() { close(fd_); }
  Tcp(const Tcp&) = delete;
  Tcp& operator=(const Tcp&) = delete;

  uint16_t Listen() {
    sockaddr_in a = Address(0);
    socklen_t length = sizeof a;
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&a), sizeof a), 0);
    EXPECT_EQ(listen(fd_, 1), 0);
    EXPECT_EQ(getsockname(fd_, reinterpret_cast<sockaddr*>(&a), &length), 0);
    return ntohs(a.sin_port);
  }
  // The whole answer to a GET.
  std::string Get(uint16_t port, const std::string& path) {
    sockaddr_in a = Address(port);
    EXPECT_EQ(connect(fd_, reinterpret_cast<sockaddr*>(&a), sizeof a), 0);
    const std::string request = "GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n";
    EXPECT_EQ(write(fd_, request.data(), request.size()), static_cast<ssize_t>(request.size()));
    std::string answer;
    char buffer[4096];
    for (ssize_t n; (n = read(fd_, buffer, sizeof buffer)) > 0;) {
      answer.append(buffer, static_cast<size_t>(n));
    }
    return answer;
  }

 private:
  static sockaddr_in Address(uint16_t port) {
    sockaddr_in a{};
    a.sin_family = AF_INET;
    a.sin_port = htons(port);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return a;
  }
  const int fd_;
};

class Source : public MetricSource {
 public:
  Source() {
    InterfaceCounters& c = counters->of(IfaceSlot{1});
    c.received_packets.Add(10);
    c.received_bytes.Add(640);
    c.forwarded_packets.Add(4);
    c.dropped_packets[static_cast<size_t>(DropReason::kNoRoute)].Add(6);
    c.punts[static_cast<size_t>(PuntReason::kLocal)].Add(2);
    c.tx_errors[static_cast<size_t>(TxError::kNoBuffers)].Add(3);
    counters->busy_ns.Add(1'500'000'000);
    counters->generated[static_cast<size_t>(GeneratedKind::kEchoReply)].Add(9);
    c.merged_packets.Add(3);
    counters->conntrack.current.Set(17);
    counters->conntrack.created.Add(20);
    counters->conntrack.early_dropped.Add(2);
    c.punted_packets.Add(2);
    c.offloaded_packets.Add(3);
    c.offloaded_bytes.Add(300);
    OffloadCounters& tier = counters->offload;
    tier.promoted.Add(41);
    tier.ended_idle.Add(42);
    tier.ended_flow.Add(43);
    tier.ended_stale.Add(44);
    tier.invalidations.Add(45);
    tier.refused_full.Add(46);
    tier.refused_ring.Add(47);
    tier.refused_rules.Add(48);
  }

  MetricSample Sample() override {
    MetricSample s;
    s.version = "0.1.0";
    s.kernel = "6.1.0";
    s.ready = true;
    s.interfaces = {
        {IfaceSlot{0}, "lan0", true, "veth", "native", false, 2, {}, 0},
        {IfaceSlot{1}, "wan0", false, "e1000e", "generic", false, 1, {{"pass", "not_ip", 7}}, 8}};
    s.workers = {{WorkerId{0}, counters.get(), true, {{"reachable", 5}}, {{"free", 100}}}};
    s.tables = {{"routes4", 11, 2'000'000}};
    s.frames_limit = 4096;
    s.offload_failed_orders = 49;
    s.neighbors_not_exported = 50;
    s.groups_not_joined = 52;
    s.interfaces[1].offload_lost = 51;
    s.mirror_divergence = 12;
    s.mirror_events = {{"route", 13}};
    s.workers[0].nat_translations = 21;
    s.workers[0].nat_port_changes = 22;
    s.workers[0].nat_exhausted = 23;
    s.workers[0].log_lost = 24;
    const MetricSample::Histogram times{{0.001, 0.01}, {1, 2, 3}, 0.5};
    MetricSample::Worker& w = s.workers[0];
    w.has_sockets = true;
    w.tcp_connections = {{"ESTABLISHED", 51}};
    w.tcp_segments = {{"sent", 52}};
    w.tcp_resets = {{"received", 53}};
    w.tcp_events = {{"timeout", 54}};
    w.tcp_round_trips = times;
    w.udp_datagrams = {{"sent", 55}};
    s.services = {{{.name = "web", .kind = "tcp_proxy", .active = 56},
                   /*failures=*/{{"no_backend", 57}},
                   /*connect_time=*/times,
                   /*backends=*/{{.address = "10.0.0.9:80", .up = true, .active = 58}}}};
    s.firewall = {.generation = 31,
                  .rules = {{"xdp", 1}, {"worker", 8}, {"kernel", 2}},
                  .compile_seconds = 0.25,
                  .refused = true,
                  .rule_counts = {{"inet", "filter", "forward", "7", false, 1, 10},
                                  {"inet", "filter", "forward", "web", true, 2, 20},
                                  {"inet", "filter", "forward", "web", true, 3, 30},
                                  {"ip", "filter", "forward", "web", true, 4, 40}},
                  .named_counters = {{"inet", "filter", "", "hits", false, 5, 50}},
                  .logged = {{"drop: ", 6}}};
    return s;
  }

  const std::unique_ptr<WorkerCounters> counters = std::make_unique<WorkerCounters>();
};

TEST(MetricsTableTest, NamesAndLabelsFollowPrometheus) {
  std::set<std::string_view> names;
  for (const MetricInfo& m : kMetrics) {
    EXPECT_TRUE(names.insert(m.name).second) << m.name << " is there twice";
    EXPECT_TRUE(m.name.starts_with("sluice_") || m.name.starts_with("process_")) << m.name;
    EXPECT_EQ(m.name.ends_with("_total"), m.type == MetricType::kCounter) << m.name;
    EXPECT_TRUE(m.help.ends_with(".")) << m.name;
  }
}

TEST(RenderMetricsTest, EveryMetricOfTheTableHasHelpTypeAndASample) {
  Source source;
  const std::string text = RenderMetrics(source.Sample());
  for (const MetricInfo& m : kMetrics) {
    const std::string name(m.name);
    EXPECT_THAT(text, HasSubstr("# HELP " + name + " " + std::string(m.help) + "\n"));
    const bool histogram = m.type == MetricType::kHistogram;
    const std::string type = histogram                          ? "histogram"
                             : m.type == MetricType::kCounter ? "counter"
                                                                : "gauge";
    EXPECT_THAT(text, HasSubstr("# TYPE " + name + " " + type + "\n"));
    const std::string series = name + (histogram ? "_count" : "");
    EXPECT_THAT(text, HasSubstr("\n" + series + (m.labels.empty() ? " " : "{"))) << name;
    if (!m.labels.empty()) {
      const std::string first(m.labels.substr(0, m.labels.find(',')));
      EXPECT_THAT(text, HasSubstr("\n" + series + "{" + first + "=\"")) << name;
    }
  }
}

// Buckets are cumulative, and the last one is +Inf.
TEST(RenderMetricsTest, Histograms) {
  Source source;
  const std::string text = RenderMetrics(source.Sample());
  for (const char* line :
       {"sluice_tcp_round_trip_seconds_count{worker=\"0\"} 6\n",
        "sluice_tcp_round_trip_seconds_sum{worker=\"0\"} 0.5\n",
        "sluice_tcp_round_trip_seconds_bucket{worker=\"0\",le=\"0.001\"} 1\n",
        "sluice_tcp_round_trip_seconds_bucket{worker=\"0\",le=\"0.01\"} 3\n",
        "sluice_tcp_round_trip_seconds_bucket{worker=\"0\",le=\"+Inf\"} 6\n"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST(RenderMetricsTest, ReadsTheCountersWhereTheyAre) {
  Source source;
  const std::string text = RenderMetrics(source.Sample());
  for (const char* line :
       {"sluice_received_packets_total{interface=\"wan0\",worker=\"0\"} 10\n",
        "sluice_received_packets_total{interface=\"lan0\",worker=\"0\"} 0\n",
        "sluice_received_bytes_total{interface=\"wan0\",worker=\"0\"} 640\n",
        "sluice_dropped_packets_total{interface=\"wan0\",worker=\"0\",reason=\"no_route\"} 6\n",
        "sluice_punts_total{interface=\"wan0\",worker=\"0\",reason=\"local\"} 2\n",
        "sluice_tx_errors_total{interface=\"wan0\",worker=\"0\",error=\"no_buffers\"} 3\n",
        "sluice_generated_packets_total{worker=\"0\",type=\"echo_reply\"} 9\n",
        "sluice_worker_busy_seconds_total{worker=\"0\"} 1.5\n",
        "sluice_worker_stalled{worker=\"0\"} 1\n",
        "sluice_neighbors{worker=\"0\",state=\"reachable\"} 5\n",
        "sluice_frames{worker=\"0\",state=\"free\"} 100\n",
        "sluice_frames_limit 4096\n",
        "sluice_merged_packets_total{interface=\"wan0\",worker=\"0\"} 3\n",
        "sluice_conntrack_flows{worker=\"0\"} 17\n",
        "sluice_conntrack_events_total{worker=\"0\",event=\"new\"} 20\n",
        "sluice_conntrack_events_total{worker=\"0\",event=\"early_drop\"} 2\n",
        "sluice_conntrack_events_total{worker=\"0\",event=\"full\"} 0\n",
        "sluice_nat_translations_total{worker=\"0\"} 21\n",
        "sluice_nat_port_changes_total{worker=\"0\"} 22\n",
        "sluice_nat_exhausted_total{worker=\"0\"} 23\n",
        "sluice_log_lost_packets_total{worker=\"0\"} 24\n",
        "sluice_tier_packets_total{interface=\"wan0\",tier=\"xdp\"} 3\n",
        "sluice_tier_packets_total{interface=\"wan0\",tier=\"worker\"} 5\n",
        "sluice_tier_packets_total{interface=\"wan0\",tier=\"kernel\"} 2\n",
        "sluice_tier_packets_total{interface=\"lan0\",tier=\"xdp\"} 0\n",
        "sluice_offloaded_bytes_total{interface=\"wan0\",worker=\"0\"} 300\n",
        "sluice_offload_promotions_total{worker=\"0\"} 41\n",
        "sluice_offload_ends_total{worker=\"0\",reason=\"idle\"} 42\n",
        "sluice_offload_ends_total{worker=\"0\",reason=\"flow\"} 43\n",
        "sluice_offload_ends_total{worker=\"0\",reason=\"stale\"} 44\n",
        "sluice_offload_invalidations_total{worker=\"0\"} 45\n",
        "sluice_offload_refusals_total{worker=\"0\",reason=\"full\"} 46\n",
        "sluice_offload_refusals_total{worker=\"0\",reason=\"ring_full\"} 47\n",
        "sluice_offload_refusals_total{worker=\"0\",reason=\"rules\"} 48\n",
        "sluice_offload_failed_orders_total 49\n",
        "sluice_neighbors_not_exported 50\n",
        "sluice_groups_not_joined 52\n",
        "sluice_offload_lost_frames_total{interface=\"wan0\"} 51\n",
        "sluice_ruleset_generation 31\n",
        "sluice_ruleset_rules{where=\"xdp\"} 1\n",
        "sluice_ruleset_rules{where=\"kernel\"} 2\n",
        "sluice_ruleset_compile_seconds 0.25\n",
        "sluice_ruleset_refused 1\n",
        "sluice_rule_packets_total{family=\"inet\",table=\"filter\",chain=\"forward\",rule=\"7\"} 1\n",
        "sluice_rule_packets_total{family=\"inet\",table=\"filter\",chain=\"forward\",rule=\"web\"} "
        "5\n",
        "sluice_rule_bytes_total{family=\"ip\",table=\"filter\",chain=\"forward\",rule=\"web\"} 40\n",
        "sluice_named_packets_total{family=\"inet\",table=\"filter\",name=\"hits\"} 5\n",
        "sluice_log_packets_total{prefix=\"drop: \"} 6\n",
        "sluice_table_used{table=\"routes4\"} 11\n",
        "sluice_table_limit{table=\"routes4\"} 2000000\n",
        "sluice_mirror_divergence 12\n",
        "sluice_mirror_events_total{object=\"route\"} 13\n",
        "sluice_interface_up{interface=\"lan0\"} 1\n",
        "sluice_interface_up{interface=\"wan0\"} 0\n",
        "sluice_interface_info{interface=\"wan0\",driver=\"e1000e\",mode=\"generic\",zero_copy="
        "\"no\",queues=\"1\"} 1\n",
        "sluice_xdp_packets_total{interface=\"wan0\",action=\"pass\",reason=\"not_ip\"} 7\n",
        "sluice_xdp_ring_full_total{interface=\"wan0\"} 8\n",
        "sluice_build_info{version=\"0.1.0\",kernel=\"6.1.0\"} 1\n",
        "sluice_ready 1\n"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
  EXPECT_THAT(text, Not(HasSubstr("type=\"none\"")));
  EXPECT_THAT(text, Not(HasSubstr("process_resident_memory_bytes 0\n")));
  EXPECT_THAT(text, Not(HasSubstr("process_open_fds 0\n")));
}

TEST(RenderMetricsTest, EveryDropReasonIsThereAlsoAtZero) {
  Source source;
  const std::string text = RenderMetrics(source.Sample());
  for (const ReasonText& reason : kDropReasons) {
    for (const char* interface : {"lan0", "wan0"}) {
      EXPECT_THAT(text,
                  HasSubstr("sluice_dropped_packets_total{interface=\"" + std::string(interface) +
                            "\",worker=\"0\",reason=\"" + std::string(reason.label) + "\"} "));
    }
  }
}

TEST(RenderMetricsTest, RulesAreBoundedAndThoseWithACommentComeFirst) {
  Source source;
  MetricSample sample = source.Sample();
  sample.firewall.rule_counts.clear();
  for (uint64_t i = 0; i < 2 * kMaxRuleSeries; ++i) {
    sample.firewall.rule_counts.push_back({"inet", "t", "c", std::to_string(i), false, i, i});
  }
  sample.firewall.rule_counts.push_back({"inet", "t", "c", "ssh", true, 77, 1});
  const std::string text = RenderMetrics(sample);
  size_t series = 0;
  for (size_t at = 0; (at = text.find("\nsluice_rule_packets_total{", at)) != std::string::npos; ++at) {
    ++series;
  }
  EXPECT_EQ(series, kMaxRuleSeries);
  EXPECT_THAT(text, HasSubstr("chain=\"c\",rule=\"ssh\"} 77\n"));
}

TEST(RenderMetricsTest, KeepsLargeCountsExact) {
  Source source;
  source.counters->of(IfaceSlot{0}).received_bytes.Set(9'007'199'254'740'991);  // 2^53 - 1
  EXPECT_THAT(RenderMetrics(source.Sample()),
              HasSubstr("sluice_received_bytes_total{interface=\"lan0\",worker=\"0\"} "
                        "9007199254740991\n"));
}

TEST(RenderMetricsTest, PromtoolFindsNothingToSay) {
  Source source;
  char path[] = "/tmp/sluice-metrics-XXXXXX";
  const int fd = mkstemp(path);
  ASSERT_GE(fd, 0);
  const std::string text = RenderMetrics(source.Sample());
  ASSERT_EQ(write(fd, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  close(fd);
  FILE* pipe = popen(("promtool check metrics < " + std::string(path) + " 2>&1").c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  std::string said;
  char buffer[512];
  while (fgets(buffer, sizeof buffer, pipe) != nullptr) said += buffer;
  EXPECT_EQ(pclose(pipe), 0);
  EXPECT_EQ(said, "");
  unlink(path);
}

TEST(ExporterTest, ServesAScrape) {
  Source source;
  Exporter exporter(source);
  ASSERT_TRUE(exporter.Start("127.0.0.1", 0).ok());
  ASSERT_NE(exporter.port(), 0);
  const std::string answer = Tcp().Get(exporter.port(), "/metrics");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(answer, HasSubstr("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
  EXPECT_THAT(answer, HasSubstr("\nsluice_frames_limit 4096\n"));
  const std::string other = Tcp().Get(exporter.port(), "/nothing");
  EXPECT_THAT(other, StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(other, HasSubstr("/metrics"));
  exporter.Stop();
  exporter.Stop();
}

TEST(ExporterTest, SaysThatThePortIsTaken) {
  Tcp squatter;
  const uint16_t port = squatter.Listen();
  Source source;
  Exporter exporter(source);
  const absl::Status status = exporter.Start("127.0.0.1", port);
  EXPECT_TRUE(absl::IsAlreadyExists(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("is taken"));

  Exporter first(source), second(source);  // two of our own
  ASSERT_TRUE(first.Start("127.0.0.1", 0).ok());
  EXPECT_TRUE(absl::IsAlreadyExists(second.Start("127.0.0.1", first.port())));
}

TEST(ExporterTest, AnAddressOfAnotherMachineIsAnError) {
  Source source;
  Exporter exporter(source);
  const absl::Status status = exporter.Start("192.0.2.1", 9470);
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("192.0.2.1 port 9470"));
}

}  // namespace
}  // namespace sluice::telemetry
