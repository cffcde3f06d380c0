#include "app/cli.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "app/control_server.h"
#include "support/network_namespace.h"
#include "unit/app/fake_views.h"

namespace sluice::app {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

struct Outcome {
  int code;
  std::string out, err;
};

class CliTest : public ::testing::Test {
 protected:
  Outcome Run(std::vector<std::string> arguments) {
    std::ostringstream out, err;
    const int code = RunCli(std::move(arguments), out, err, [this](const RunOptions& options) {
      run_ = options;
      return 42;
    });
    return {code, out.str(), err.str()};
  }
  // With the control socket of the test.
  Outcome Ask(std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"--control", path_});
    return Run(std::move(arguments));
  }
  void StartServer() {
    server_.HandleViews(views_);
    ASSERT_TRUE(server_.Start(path_).ok());
  }

  FakeViews views_;
  TemporaryDirectory directory_;
  const std::string path_ = directory_ / "s.sock";
  ControlServer server_;
  std::optional<RunOptions> run_;
};

TEST_F(CliTest, HelpAndVersion) {
  const Outcome version = Run({"--version"});
  EXPECT_EQ(version.code, 0);
  EXPECT_THAT(version.out, ::testing::MatchesRegex("sluice [0-9]+\\.[0-9]+\\.[0-9]+\n"));
  const Outcome help = Run({"--help"});
  EXPECT_EQ(help.code, 0);
  for (const char* word :
       {"run", "check", "wait-ready", "show", "explain", "trace", "--control"}) {
    EXPECT_THAT(help.out, HasSubstr(word));
  }
}

TEST_F(CliTest, TheHelpOfShowHasWhatThereIs) {
  const Outcome help = Run({"show", "--help"});
  EXPECT_EQ(help.code, 0);
  const std::string list = Run({"show", "everything"}).err;  // ... there are: status interfaces ...
  const std::string marker = "there are:";
  ASSERT_THAT(list, HasSubstr(marker));
  std::istringstream words(list.substr(list.find(marker) + marker.size()));
  size_t count = 0;
  for (std::string what; words >> what; ++count) {
    EXPECT_THAT(help.out, ::testing::ContainsRegex("[ ,]" + what + "(,| or |\n)"));
  }
  EXPECT_GE(count, 11u);
  EXPECT_THAT(help.out, HasSubstr("routes, flows, nat, sockets: at most N (1000, 1000, 100, 1000)"));
}

TEST_F(CliTest, BadUsageIsTwo) {
  for (const std::vector<std::string>& bad :
       std::vector<std::vector<std::string>>{{},
                                             {"nothing"},
                                             {"run"},
                                             {"check"},
                                             {"show"},
                                             {"show", "status", "extra"},
                                             {"run", "--config"},
                                             {"run", "--config", "f", "--log-level", "loud"},
                                             {"wait-ready", "--timeout", "soon"},
                                             {"wait-ready", "--timeout", "-1"},
                                             {"show", "everything"},
                                             {"show", "status", "--limit", "5"},
                                             {"show", "status", "--all"},
                                             {"show", "routes", "--destination", "here"},
                                             {"show", "routes", "tcp"},
                                             {"show", "nat", "--sort", "bytes"},
                                             {"show", "flows", "--sort", "age"},
                                             {"show", "flows", "--json", "--conntrack"},
                                             {"show", "rules", "--conntrack"},
                                             {"explain", "ip", "saddr", "10.0.0.5"},
                                             {"explain", "--in", "lan0"},
                                             {"explain", "--in", "lan0", "tcp", "dport", "http"},
                                             {"explain", "--in", "lan0", "--hex", "0"},
                                             {"explain", "--in", "lan0", "--hex", "00", "tcp"},
                                             {"explain", "--in", "lan0", "--pcap", "/nowhere"},
                                             {"trace", "tcp", "prot", "80"},
                                             {"trace", "--limit", "0"},
                                             {"--bad"}}) {
    const Outcome outcome = Run(bad);
    EXPECT_EQ(outcome.code, 2) << ::testing::PrintToString(bad);
    EXPECT_NE(outcome.err, "") << ::testing::PrintToString(bad);
    EXPECT_EQ(outcome.out, "");
  }
  EXPECT_FALSE(run_.has_value());
}

TEST_F(CliTest, RunGetsItsOptions) {
  EXPECT_EQ(Run({"run", "--config", "f.yaml"}).code, 42);
  EXPECT_EQ(run_->config_path, "f.yaml");
  EXPECT_EQ(run_->control_path, "/run/sluice/sluice.sock");
  EXPECT_EQ(run_->log_level, LogLevel::kInfo);
  EXPECT_EQ(Run({"run", "--config", "f.yaml", "--control", "/s", "--log-level", "debug"}).code, 42);
  EXPECT_EQ(run_->control_path, "/s");
  EXPECT_EQ(run_->log_level, LogLevel::kDebug);
  EXPECT_EQ(Run({"--control", "/t", "run", "--config=g.yaml"}).code, 42);
  EXPECT_EQ(run_->control_path, "/t");
  EXPECT_EQ(run_->config_path, "g.yaml");
}

TEST_F(CliTest, Check) {
  const std::string good = directory_ / "good.yaml", bad = directory_ / "bad.yaml";
  std::ofstream(good) << "interfaces:\n  - name: lan0\n";
  std::ofstream(bad) << "interfaces:\n  - name: lan0\n    color: red\n  - {}\n";
  const Outcome fine = Run({"check", "--config", good});
  EXPECT_EQ(fine.code, 0);
  EXPECT_EQ(fine.out, good + ": the configuration is valid\n");
  EXPECT_EQ(fine.err, "");
  const Outcome wrong = Run({"check", "--config", bad});
  EXPECT_EQ(wrong.code, 2);
  EXPECT_EQ(wrong.err, bad + ":3:5: unknown key \"color\" in \"interfaces\"\n" + bad +
                           ":4:5: an interface needs a \"name\"\n");
  const std::string rules = directory_ / "rules.yaml";
  std::ofstream(rules) << "interfaces: [{name: lan0}]\nlinux: {nftables: rules.nft}\n";
  const Outcome no_file = Run({"check", "--config", rules});
  EXPECT_EQ(no_file.code, 2);
  EXPECT_THAT(no_file.err, HasSubstr("cannot read " + std::string(directory_ / "rules.nft")));
  std::ofstream(directory_ / "rules.nft") << "table ip t {\n  chain c { nonsense; }\n}\n";
  const Outcome refused = Run({"check", "--config", rules});
  EXPECT_EQ(refused.code, 2);
  EXPECT_THAT(refused.err, HasSubstr("rules.nft:2:"));
  const Outcome missing = Run({"check", "--config", directory_ / "none.yaml"});
  EXPECT_EQ(missing.code, 2);
  EXPECT_THAT(missing.err, StartsWith("sluice: cannot read configuration file "));
}

// The rules are compiled where nothing depends on them.
TEST_F(CliTest, CheckNamesTheRulesThatSluiceCannotCarryOut) {
  const test::NetworkNamespace network;
  test::NetworkNamespace::Ip("link add lan0 type veth peer name far0\n");
  const std::string rules = directory_ / "rules.nft";
  const auto check = [&](const std::string& unsupported, const std::string& text) {
    std::ofstream(rules) << text;
    std::ofstream(directory_ / "c.yaml") << "interfaces: [{name: lan0}]\n"
                                         << "linux: {nftables: rules.nft}\n"
                                         << "unsupported: " << unsupported << "\n";
    return Run({"check", "--config", directory_ / "c.yaml"});
  };
  const std::string head = "table inet t {\nchain f {\ntype filter hook forward priority 0;\n";
  const std::string odd =
      head + "iif lan0 accept\nmeta iifgroup 7 counter packets 3 bytes 9 drop\n}\n}\n";
  const std::string named =
      "nft table inet t, chain f, rule 3 (meta iifgroup): iifgroup 7 counter drop\n";

  const Outcome refused = check("refuse", odd);
  EXPECT_EQ(refused.code, 2);
  EXPECT_EQ(refused.out, "");
  EXPECT_EQ(refused.err, "sluice: the ruleset is not taken (unsupported: refuse): " + named);
  const Outcome left = check("kernel", odd);
  EXPECT_EQ(left.code, 0);
  EXPECT_THAT(left.out, HasSubstr("the configuration is valid\n"));
  EXPECT_EQ(left.err,
            "sluice: warning: connections that meet this rule are left to the kernel: " + named);

  const Outcome fine = check("refuse", head + "iif lan0 accept\n}\n}\n"
                             "table netdev n {\nchain i {\ntype filter hook ingress device lan0 "
                             "priority 0;\nudp dport 9 drop\n}\n}\n");
  EXPECT_EQ(fine.code, 0) << fine.err;
  EXPECT_EQ(fine.err + fine.out, directory_ / "c.yaml" + ": the configuration is valid\n");
  EXPECT_TRUE(test::NetworkNamespace::TryNft("create table inet t")) << "nothing was loaded";
  // What builds on rules that are there cannot be tried without them.
  const Outcome more = check("refuse", "add chain inet t more\n");
  EXPECT_EQ(more.code, 0) << more.err;
  EXPECT_THAT(more.out, HasSubstr("the configuration is valid\n" + rules + ": which of its rules"));
}

TEST_F(CliTest, NotRunningIsThree) {
  const Outcome show = Ask({"show", "status"});
  EXPECT_EQ(show.code, 3);
  EXPECT_THAT(show.err, StartsWith("sluice: sluice is not running"));
  EXPECT_EQ(Ask({"wait-ready", "--timeout", "0"}).code, 3);
}

TEST_F(CliTest, ShowPrintsTablesAndJson) {
  StartServer();
  const Outcome status = Ask({"show", "status"});
  EXPECT_EQ(status.code, 0) << status.err;
  EXPECT_THAT(status.out, StartsWith("sluice          1.2.3"));
  const Outcome json = Ask({"show", "status", "--json"});
  EXPECT_EQ(json.code, 0);
  EXPECT_THAT(json.out, HasSubstr("\"version\": \"1.2.3\""));
  for (const char* what : {"interfaces", "routes", "neighbors", "workers", "drops", "rules",
                           "flows", "nat"}) {
    EXPECT_EQ(Ask({"show", what}).code, 0) << what;
    EXPECT_EQ(Ask({"show", what, "--json"}).code, 0) << what;
  }
  EXPECT_EQ(Run({"--control", path_, "show", "status"}).code, 0);
}

TEST_F(CliTest, ShowHidesDropsThatNeverHappened) {
  StartServer();
  EXPECT_THAT(Ask({"show", "drops"}).out, Not(HasSubstr("checksum")));
  EXPECT_THAT(Ask({"show", "drops", "--all"}).out, HasSubstr("checksum"));
}

TEST_F(CliTest, ShowRoutesPassesTheFilterOn) {
  StartServer();
  EXPECT_EQ(Ask({"show", "routes", "--destination", "10.1.2.3", "--limit", "7"}).code, 0);
  EXPECT_EQ(views_.last_filter.destination, IpAddress(Ipv4(10, 1, 2, 3)));
  EXPECT_EQ(views_.last_filter.limit, 7u);
  EXPECT_EQ(Ask({"show", "routes", "--limit", "0"}).code, 2);
}

TEST_F(CliTest, ShowSockets) {
  StartServer();
  const Outcome sockets = Ask({"show", "sockets", "--limit", "7"});
  EXPECT_EQ(sockets.code, 0) << sockets.err;
  EXPECT_EQ(views_.last_socket_limit, 7u);
  EXPECT_THAT(sockets.out, HasSubstr("10.0.0.2:40000"));
  EXPECT_EQ(Ask({"show", "sockets"}).code, 0);
  EXPECT_EQ(views_.last_socket_limit, 1000u);
  EXPECT_EQ(Ask({"show", "sockets", "--limit", "0"}).code, 2);
  EXPECT_THAT(Ask({"show", "sockets", "--json"}).out, HasSubstr("\"state\": \"ESTABLISHED\""));
}

TEST_F(CliTest, ShowServices) {
  StartServer();
  const Outcome services = Ask({"show", "services"});
  EXPECT_EQ(services.code, 0) << services.err;
  EXPECT_THAT(services.out, HasSubstr("10.1.0.2:8080"));
  const Outcome misplaced = Ask({"show", "services", "--limit", "7"});
  EXPECT_EQ(misplaced.code, 2);
  EXPECT_THAT(misplaced.err, HasSubstr("--limit belongs to: show routes, flows, nat, sockets"));
}

TEST_F(CliTest, WaitReady) {
  StartServer();
  views_.ready_after = 2;
  EXPECT_EQ(Ask({"wait-ready"}).code, 0);
  views_.ready = false;
  const Outcome outcome = Ask({"wait-ready", "--timeout", "0.1"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_EQ(outcome.err, "sluice: not ready: no interface is up\n");
}

}  // namespace
}  // namespace sluice::app
