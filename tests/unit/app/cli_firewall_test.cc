// show rules, flows, nat; explain; trace: what the command line asks for, and prints.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pcap/pcap.h>

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "app/cli.h"
#include "app/client.h"
#include "app/control_server.h"
#include "app/trace_filter.h"
#include "control/packet_text/packet_text.h"
#include "telemetry/view_json.h"
#include "unit/app/fake_views.h"

namespace sluice::app {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

struct Outcome {
  int code;
  std::string out, err;
};

class CliFirewallTest : public ::testing::Test {
 protected:
  void SetUp() override {
    server_.HandleViews(views_);
    ASSERT_TRUE(server_.Start(path_).ok());
  }
  Outcome Ask(std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"--control", path_});
    std::ostringstream out, err;
    const int code = RunCli(std::move(arguments), out, err, [](const RunOptions&) { return 42; });
    return {code, out.str(), err.str()};
  }
  // The end of a stream is noticed on the server's thread.
  void WaitForTheTraceToEnd() {
    for (int i = 0; i < 5000 && views_.traces > 0; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    EXPECT_EQ(views_.traces, 0);
  }

  FakeViews views_;
  TemporaryDirectory directory_;
  const std::string path_ = directory_ / "s.sock";
  ControlServer server_;
};

TEST_F(CliFirewallTest, ShowRules) {
  const Outcome rules = Ask({"show", "rules"});
  EXPECT_EQ(rules.code, 0) << rules.err;
  EXPECT_THAT(rules.out, HasSubstr("worker  \t\tcounter packets 5 bytes 300 drop # handle 7\n"));
}

TEST_F(CliFirewallTest, ShowFlowsPassesItsFilterOn) {
  const Outcome flows = Ask({"show", "flows", "ip", "saddr", "10.0.0.0/8", "tcp", "dport", "443",
                             "--sort", "bytes", "--limit", "5"});
  EXPECT_EQ(flows.code, 0) << flows.err;
  EXPECT_EQ(views_.last_flow_query.filter, "ip saddr 10.0.0.0/8 tcp dport 443");
  EXPECT_EQ(views_.last_flow_query.sort, telemetry::FlowSort::kBytes);
  EXPECT_EQ(views_.last_flow_query.limit, 5u);
  EXPECT_EQ(Ask({"show", "flows", "mark 1/2 & %=?"}).code, 0);
  EXPECT_EQ(views_.last_flow_query.filter, "mark 1/2 & %=?");
  EXPECT_EQ(views_.last_flow_query.limit, 1000u);
  EXPECT_EQ(Ask({"show", "flows", "--conntrack"}).out, "tcp      6 1 x\n");
  EXPECT_THAT(Ask({"show", "flows", "--json"}).out, HasSubstr("\"state\": \"ESTABLISHED\""));
  const Outcome bad = Ask({"show", "flows", "bad"});
  EXPECT_EQ(bad.code, 2);
  EXPECT_EQ(bad.err, "sluice: character 1: unknown word\n");
}

TEST_F(CliFirewallTest, ShowNat) {
  const Outcome nat = Ask({"show", "nat", "--limit", "9"});
  EXPECT_EQ(nat.code, 0) << nat.err;
  EXPECT_EQ(views_.last_nat_query.limit, 9u);
  EXPECT_THAT(nat.out, HasSubstr("3 connections translated, 4 refused"));
}

TEST_F(CliFirewallTest, ExplainSendsTheFrameThatTheWordsDescribe) {
  const std::string words = "ip saddr 10.0.0.5 ip daddr 1.1.1.1 tcp dport 443 tcp flags syn";
  const Outcome explained = Ask({"explain", "--in", "lan0", words});
  EXPECT_EQ(explained.code, 0) << explained.err;
  EXPECT_EQ(views_.last_explain.interface, "lan0");
  EXPECT_EQ(views_.last_explain.frame, *control::ParsePacketText(words));
  EXPECT_EQ(explained.out,
            "packet   ip saddr 10.0.0.5\n"
            "arrives  lan0\n"
            "\n"
            "forward  accept\n"
            "           inet filter forward handle 7\n"
            "\n"
            "verdict  forwarded to wan0\n");
  EXPECT_EQ(Ask({"explain", "--in", "lan0", "ip", "saddr", "10.0.0.5", "ip", "daddr", "1.1.1.1",
                 "tcp", "dport", "443", "tcp", "flags", "syn"})
                .code,
            0);
  EXPECT_EQ(views_.last_explain.frame, *control::ParsePacketText(words));
  EXPECT_THAT(Ask({"explain", "--in", "lan0", "--json", words}).out,
              HasSubstr("\"verdict\": \"forwarded to wan0\""));
}

TEST_F(CliFirewallTest, ExplainTakesHex) {
  EXPECT_EQ(Ask({"explain", "--in", "lan0", "--hex", "0x01:02 ff"}).code, 0);
  EXPECT_THAT(views_.last_explain.frame, ElementsAre(1, 2, 255));
  const std::vector<uint8_t> large(telemetry::kMaxExplainFrame, 0xab);
  EXPECT_EQ(Ask({"explain", "--in", "lan0", "--hex", telemetry::ToHex(large)}).code, 0);
  EXPECT_EQ(views_.last_explain.frame, large);
  const std::vector<uint8_t> larger(telemetry::kMaxExplainFrame + 1, 0xab);
  const Outcome refused = Ask({"explain", "--in", "lan0", "--hex", telemetry::ToHex(larger)});
  EXPECT_EQ(refused.code, 2);
  EXPECT_THAT(refused.err, HasSubstr("1 to 65549 bytes"));
}

TEST_F(CliFirewallTest, ExplainReadsCaptures) {
  const std::string file = directory_ / "two.pcap";
  pcap_t* const pcap = pcap_open_dead(DLT_EN10MB, 65535);
  pcap_dumper_t* const dumper = pcap_dump_open(pcap, file.c_str());
  ASSERT_NE(dumper, nullptr);
  const std::vector<std::vector<uint8_t>> frames = {std::vector<uint8_t>(60, 1),
                                                    std::vector<uint8_t>(61, 2)};
  for (const auto& frame : frames) {
    pcap_pkthdr header{};
    header.caplen = header.len = static_cast<bpf_u_int32>(frame.size());
    pcap_dump(reinterpret_cast<u_char*>(dumper), &header, frame.data());
  }
  pcap_pkthdr cut{};
  cut.caplen = 10;
  cut.len = 100;
  pcap_dump(reinterpret_cast<u_char*>(dumper), &cut, frames[0].data());
  pcap_dump_close(dumper);
  pcap_close(pcap);

  EXPECT_EQ(Ask({"explain", "--in", "lan0", "--pcap", file}).code, 0);
  EXPECT_EQ(views_.last_explain.frame, frames[0]);
  EXPECT_EQ(Ask({"explain", "--in", "lan0", "--pcap", file, "--packet", "2"}).code, 0);
  EXPECT_EQ(views_.last_explain.frame, frames[1]);
  EXPECT_THAT(Ask({"explain", "--in", "lan0", "--pcap", file, "--packet", "3"}).err,
              HasSubstr("packet 3 was cut at 10 of 100 bytes"));
  EXPECT_THAT(Ask({"explain", "--in", "lan0", "--pcap", file, "--packet", "4"}).err,
              HasSubstr("there are only 3 packets"));
  std::ofstream(directory_ / "text") << "not a capture";
  const Outcome bad = Ask({"explain", "--in", "lan0", "--pcap", directory_ / "text"});
  EXPECT_EQ(bad.code, 2);
  EXPECT_NE(bad.err, "");
}

TEST_F(CliFirewallTest, ExplainSaysWhatTheServerRefuses) {
  const Outcome unknown = Ask({"explain", "--in", "wan9", "--hex", "00"});
  EXPECT_EQ(unknown.code, 1);
  EXPECT_EQ(unknown.err, "sluice: no interface wan9 is served\n");
  for (const char* body : {"", "{}", "[]", "{\"interface\":1,\"frame\":\"00\"}",
                           "{\"interface\":\"lan0\",\"frame\":\"0\"}",
                           "{\"interface\":\"lan0\",\"frame\":\"\"}"}) {
    const auto answer = ControlPost(path_, "/v1/explain", body);
    EXPECT_TRUE(absl::IsInvalidArgument(answer.status())) << body << ": " << answer.status();
  }
}

TEST_F(CliFirewallTest, TracePrintsUntilTheStreamEnds) {
  views_.lost = 7;
  const Outcome trace = Ask({"trace"});
  EXPECT_EQ(trace.code, 0) << trace.err;
  EXPECT_EQ(trace.out,
            "1.500000 lan0 ip saddr 10.0.0.1 (60 bytes): forwarded to wan0\n"
            "1.500000 lan0 ip saddr 10.0.0.2 (60 bytes): forwarded to wan0\n"
            "1.500000 lan0 ip saddr 10.0.0.3 (60 bytes): forwarded to wan0\n");
  EXPECT_EQ(trace.err, "sluice: 7 packets were not shown: more than can be printed\n");
  EXPECT_EQ(views_.last_trace.program, "");
  WaitForTheTraceToEnd();
}

TEST_F(CliFirewallTest, TraceEndsAtItsLimit) {
  views_.endless = true;
  const Outcome trace = Ask({"trace", "tcp", "port", "80", "--limit", "2", "--json"});
  EXPECT_EQ(trace.code, 0) << trace.err;
  EXPECT_EQ(std::count(trace.out.begin(), trace.out.end(), '\n'), 2);
  EXPECT_THAT(trace.out, StartsWith("{\"bytes\":\"\""));
  EXPECT_TRUE(ReadTraceFilter(views_.last_trace.program).ok());
  EXPECT_NE(views_.last_trace.program, "");
  WaitForTheTraceToEnd();
}

TEST_F(CliFirewallTest, OneTraceAtATimeAndOtherQuestionsMeanwhile) {
  views_.endless = true;
  int lines = 0;
  const absl::Status status = ControlStream(path_, "/v1/trace", "{}", [&](const std::string&) {
    if (++lines > 1) return lines < 4;
    const Outcome second = Ask({"trace"});
    EXPECT_EQ(second.code, 1);
    EXPECT_EQ(second.err, "sluice: another trace is running\n");
    EXPECT_EQ(Ask({"show", "status"}).code, 0);
    return true;
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(lines, 4);
  WaitForTheTraceToEnd();
}

TEST_F(CliFirewallTest, AServerThatEndsEndsItsTraces) {
  views_.endless = true;
  int lines = 0;
  std::thread stopper;
  const absl::Status status = ControlStream(path_, "/v1/trace", "{}", [&](const std::string&) {
    if (++lines == 1) stopper = std::thread([&] { server_.Stop(); });
    return true;
  });
  stopper.join();
  EXPECT_TRUE(absl::IsUnavailable(status) || status.ok()) << status;
  EXPECT_EQ(views_.traces, 0);
}

TEST(TraceFilterTest, CompilesAndChecks) {
  EXPECT_EQ(*CompileTraceFilter("  "), "");
  const auto program = CompileTraceFilter("udp port 53");
  ASSERT_TRUE(program.ok()) << program.status();
  const auto filter = ReadTraceFilter(*program);
  ASSERT_TRUE(filter.ok()) << filter.status();
  const auto matches = [&](const char* text) {
    const auto frame = *control::ParsePacketText(text);
    return filter->Matches(frame, static_cast<uint32_t>(frame.size()));
  };
  EXPECT_TRUE(matches("ip saddr 1.1.1.1 ip daddr 2.2.2.2 udp dport 53"));
  EXPECT_TRUE(matches("ip6 saddr ::1 ip6 daddr ::2 udp sport 53 udp dport 9"));
  EXPECT_FALSE(matches("ip saddr 1.1.1.1 ip daddr 2.2.2.2 udp dport 54"));
  EXPECT_FALSE(matches("ip saddr 1.1.1.1 ip daddr 2.2.2.2 tcp dport 53"));
  EXPECT_TRUE(absl::IsInvalidArgument(CompileTraceFilter("udp prt 53").status()));
  for (const char* bad : {"0", "zz", "0000000000000000", "06000000000000", "00060000000000000"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ReadTraceFilter(bad).status())) << bad;
  }
}

}  // namespace
}  // namespace sluice::app
