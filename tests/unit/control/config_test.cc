#include "control/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace sluice::control {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr char kMinimal[] = "interfaces:\n  - name: lan0\n";

std::vector<std::string> Errors(const std::string& text) {
  std::vector<std::string> out;
  const ConfigResult result = ParseConfig(text, "f");
  EXPECT_EQ(result.config.has_value(), result.errors.empty());
  for (const ConfigError& e : result.errors) out.push_back(ToString(e));
  return out;
}

Config Parsed(const std::string& text) {
  const ConfigResult result = ParseConfig(text, "f");
  for (const ConfigError& e : result.errors) ADD_FAILURE() << ToString(e);
  return result.config.value_or(Config{});
}

TEST(ConfigTest, TheShortestConfigurationHasTheDocumentedDefaults) {
  const Config config = Parsed("interfaces:\n  - name: lan0\n  - name: wan0\n");
  ASSERT_THAT(config.interfaces, SizeIs(2));
  EXPECT_EQ(config.interfaces[0].name, "lan0");
  EXPECT_EQ(config.interfaces[1].name, "wan0");
  EXPECT_EQ(config.interfaces[0], (InterfaceConfig{"lan0", XdpMode::kAuto, Choice::kAuto,
                                                   std::nullopt, Choice::kAuto, Choice::kAuto}));
  EXPECT_EQ(config.workers, WorkersConfig{});
  EXPECT_EQ(ToString(*config.metrics.listen), "127.0.0.1:9470");
  EXPECT_EQ(config.limits.routes4, 2'000'000u);
  EXPECT_EQ(config.limits.routes6, 500'000u);
  EXPECT_EQ(config.limits.route_results, 65'536u);
  EXPECT_EQ(config.limits.neighbors, 16'384u);
  EXPECT_EQ(config.limits.neighbor_queue, std::nullopt);
  EXPECT_EQ(config.limits.frames, std::nullopt);
  EXPECT_EQ(config.limits.frame_size, std::nullopt);
  EXPECT_EQ(config.limits.offloads, 65'536u);
  EXPECT_EQ(config.flow_offload, Choice::kAuto);
  EXPECT_THAT(config.linux_setup.addresses, IsEmpty());
  EXPECT_THAT(config.linux_setup.routes, IsEmpty());
}

TEST(ConfigTest, ReadsEveryKey) {
  const Config config = Parsed(R"(
interfaces:
  - {name: lan0, mode: native, zero_copy: on, queues: 4, checksum: off, busy_poll: auto}
  - {name: wan0, mode: generic, zero_copy: off, queues: all, checksum: on, busy_poll: on}
  - {name: opt0, mode: auto, zero_copy: true, checksum: no, busy_poll: false}
workers: {count: 2, cpus: [1, 3]}
metrics: {listen: "[2001:db8::1]:9000"}
limits:
  routes4: 1000
  routes6: 2000
  route_results: 3000
  neighbors: 4000
  neighbor_queue: 50
  frames: 6000
  frame_size: 4096
linux:
  addresses:
    - {interface: lan0, address: 10.0.0.1/24}
    - {interface: lo, address: "2001:db8::5/64"}
  routes:
    - {destination: default, via: 10.0.0.254}
    - {destination: default, via: "fe80::1", dev: wan0}
    - {destination: 192.0.2.0/24, via: 10.0.0.9, dev: lan0}
    - {destination: "2001:db8:1::/48", dev: wan0}
  nftables: /etc/nftables.conf
)");
  EXPECT_EQ(config.linux_setup.nftables, "/etc/nftables.conf");
  EXPECT_THAT(config.interfaces,
              ElementsAre(InterfaceConfig{"lan0", XdpMode::kNative, Choice::kOn, 4, Choice::kOff,
                                          Choice::kAuto},
                          InterfaceConfig{"wan0", XdpMode::kGeneric, Choice::kOff, std::nullopt,
                                          Choice::kOn, Choice::kOn},
                          InterfaceConfig{"opt0", XdpMode::kAuto, Choice::kOn, std::nullopt,
                                          Choice::kOff, Choice::kOff}));
  EXPECT_EQ(config.workers, (WorkersConfig{2, {1, 3}}));
  EXPECT_EQ(ToString(*config.metrics.listen), "[2001:db8::1]:9000");
  EXPECT_EQ(config.limits, (LimitsConfig{1000, 2000, 3000, 4000, 50, 6000, 4096}));
  EXPECT_THAT(config.linux_setup.addresses,
              ElementsAre(LinuxAddress{"lan0", Ipv4(10, 0, 0, 1), 24},
                          LinuxAddress{"lo", *ParseIpv6("2001:db8::5"), 64}));
  EXPECT_THAT(config.linux_setup.routes,
              ElementsAre(LinuxRoute{Ipv4(), 0, Ipv4(10, 0, 0, 254), ""},
                          LinuxRoute{Ipv6(), 0, *ParseIpv6("fe80::1"), "wan0"},
                          LinuxRoute{Ipv4(192, 0, 2, 0), 24, Ipv4(10, 0, 0, 9), "lan0"},
                          LinuxRoute{*ParseIpv6("2001:db8:1::"), 48, std::nullopt, "wan0"}));
}

TEST(ConfigTest, AutoAndOffAreValuesToo) {
  const Config config = Parsed(std::string(kMinimal) +
                               "workers: {count: auto}\n"
                               "metrics: {listen: off}\n"
                               "limits: {neighbor_queue: auto, frames: auto, frame_size: auto}\n");
  EXPECT_EQ(config.workers.count, std::nullopt);
  EXPECT_EQ(config.metrics.listen, std::nullopt);
  EXPECT_EQ(config.limits, LimitsConfig{});
}

TEST(ConfigTest, ASectionWithAllItsLinesCommentedOutIsEmpty) {
  EXPECT_EQ(Parsed(std::string(kMinimal) + "workers:\nlimits:\n  # frames: 5\nlinux:\n  routes:\n"),
            Parsed(kMinimal));
}

TEST(ConfigTest, NeedsInterfaces) {
  for (const char* text : {"", "# nothing\n", "---\n", "{}", "workers: {count: 1}\n"}) {
    EXPECT_THAT(Errors(text), ElementsAre("f:1:1: no \"interfaces\": name at least one, such as "
                                          "interfaces: [{name: eth0}]"))
        << text;
  }
  EXPECT_THAT(Errors("interfaces: []\n"), ElementsAre("f:1:13: \"interfaces\" must not be empty"));
  EXPECT_THAT(Errors("interfaces:\n"),
              ElementsAre("f:1:1: \"interfaces\" must be a list, not nothing"));
  EXPECT_THAT(Errors("interfaces:\n  - mode: auto\n"),
              ElementsAre("f:2:5: an interface needs a \"name\""));
  EXPECT_THAT(Errors("interfaces:\n  - lan0\n"),
              ElementsAre("f:2:5: \"interfaces\" must be a map of keys and values, not \"lan0\""));
  EXPECT_THAT(Errors("- lan0\n"),
              ElementsAre("f:1:1: the configuration must be a map of keys and values, not a list"));
}

TEST(ConfigTest, ReportsEveryErrorInTheOrderOfTheFile) {
  EXPECT_THAT(Errors("interface:\n"
                     "  - name: x\n"
                     "interfaces:\n"
                     "  - name: lan0\n"
                     "    zerocopy: on\n"
                     "    mode: fast\n"
                     "    queues: 0\n"
                     "  - name: lan0\n"
                     "workers:\n"
                     "  count: many\n"
                     "  cpus: 3\n"
                     "early_filter: {}\n"
                     "flow_offload: {}\n"),
              ElementsAre("f:1:1: unknown key \"interface\"; did you mean \"interfaces\"?",
                          "f:5:5: unknown key \"zerocopy\" in \"interfaces\"; did you mean "
                          "\"zero_copy\"?",
                          "f:6:11: \"mode\" must be one of auto, native, generic, not \"fast\"",
                          "f:7:13: \"queues\" must be all or a whole number from 1 to 1024, not "
                          "\"0\"",
                          "f:8:11: interface \"lan0\" is listed twice, first on line 4",
                          "f:10:10: \"count\" must be auto or a whole number from 1 to 32, not "
                          "\"many\"",
                          "f:11:9: \"cpus\" must be a list, not \"3\"",
                          "f:12:15: \"early_filter\" must be one of auto, on, off, not a map",
                          "f:13:15: \"flow_offload\" must be one of auto, on, off, not a map"));
}

TEST(ConfigTest, KeysOfLaterVersionsAreUnknown) {
  EXPECT_THAT(Errors(std::string(kMinimal) + "shaping: x\n"),
              ElementsAre(HasSubstr("f:3:1: unknown key \"shaping\"")));
}

TEST(ConfigTest, ReadsTheFlowTier) {
  const auto with = [](const std::string& text) { return std::string(kMinimal) + text; };
  EXPECT_EQ(Parsed(with("flow_offload: auto\n")).flow_offload, Choice::kAuto);
  EXPECT_EQ(Parsed(with("flow_offload: on\n")).flow_offload, Choice::kOn);
  EXPECT_EQ(Parsed(with("flow_offload: off\n")).flow_offload, Choice::kOff);
  EXPECT_EQ(Parsed(with("flow_offload: no\nlimits: {offloads: 1000}\n")).limits.offloads, 1000u);
  EXPECT_THAT(Errors(with("flow_offload: fast\n")),
              ElementsAre("f:3:15: \"flow_offload\" must be one of auto, on, off, not \"fast\""));
  EXPECT_THAT(Errors(with("limits: {offloads: 255}\n")),
              ElementsAre("f:3:20: \"offloads\" must be a whole number from 256 to 4194304, not "
                          "\"255\""));
  EXPECT_THAT(Errors(with("limits: {offload: 300}\n")),
              ElementsAre(HasSubstr("did you mean \"offloads\"?")));
}

TEST(ConfigTest, RepeatedKeysAreErrors) {
  EXPECT_THAT(Errors("interfaces:\n  - name: a\n    name: b\ninterfaces: []\n"),
              ElementsAre("f:3:5: key \"name\" is given twice, first on line 2",
                          "f:4:1: key \"interfaces\" is given twice, first on line 1"));
  EXPECT_THAT(Errors(std::string(kMinimal) + "? [a, b]\n: c\n"),
              ElementsAre("f:3:3: a key must be a word, not a list"));
}

TEST(ConfigTest, RefusesNamesThatTheKernelWouldRefuse) {
  const auto error = [](const std::string& name) {
    const auto errors = Errors("interfaces:\n  - name: " + name + "\n");
    return errors.empty() ? std::string() : errors.at(0);
  };
  EXPECT_THAT(error("abcdefghijklmno"), IsEmpty());  // 15
  EXPECT_THAT(error("eth0.100"), IsEmpty());
  EXPECT_THAT(error("abcdefghijklmnop"), HasSubstr("f:2:11: \"abcdefghijklmnop\" cannot be an "
                                                   "interface's name: it has more than 15"));
  EXPECT_THAT(error("a/b"), HasSubstr("holds a space"));
  EXPECT_THAT(error("a:b"), HasSubstr("holds a space"));
  EXPECT_THAT(error("'a b'"), HasSubstr("holds a space"));
  EXPECT_THAT(error("\"a\\0b\""), HasSubstr("control character"));
  EXPECT_THAT(error("all"), HasSubstr("reserves"));
  EXPECT_THAT(error("default"), HasSubstr("reserves"));
  EXPECT_THAT(error(".."), HasSubstr("reserves"));
  EXPECT_THAT(error("lo"), HasSubstr("loopback"));
  EXPECT_THAT(error("[a]"), HasSubstr("\"name\" must be an interface's name, not a list"));
  EXPECT_THAT(error("''"), HasSubstr("\"name\" must be an interface's name, not \"\""));
  EXPECT_THAT(error(""), HasSubstr("f:2:5: \"name\" must be an interface's name, not nothing"));
}

TEST(ConfigTest, TakesAsManyInterfacesAsThereAreSlots) {
  std::string text = "interfaces:\n";
  for (int i = 0; i < 64; ++i) text += "  - name: e" + std::to_string(i) + "\n";
  EXPECT_THAT(Parsed(text).interfaces, SizeIs(64));
  text += "  - name: e64\n  - name: e65\n";
  EXPECT_THAT(Errors(text), ElementsAre("f:66:5: more than 64 interfaces"));
}

TEST(ConfigTest, ChecksWorkers) {
  const auto with = [](const std::string& text) { return std::string(kMinimal) + text; };
  EXPECT_THAT(Errors(with("workers: {count: 33}\n")),
              ElementsAre("f:3:18: \"count\" must be auto or a whole number from 1 to 32, not "
                          "\"33\""));
  EXPECT_THAT(Errors(with("workers: {cpus: [0, 0]}\n")),
              ElementsAre("f:3:21: CPU 0 is listed twice"));
  EXPECT_THAT(Errors(with("workers: {cpus: [-1, 1x, 9000]}\n")),
              ElementsAre("f:3:18: \"cpus\" must be a whole number from 0 to 8191, not \"-1\"",
                          "f:3:22: \"cpus\" must be a whole number from 0 to 8191, not \"1x\"",
                          "f:3:26: \"cpus\" must be a whole number from 0 to 8191, not \"9000\""));
  EXPECT_THAT(Errors(with("workers: {count: 3, cpus: [0, 1]}\n")),
              ElementsAre("f:3:27: \"count\" is 3 but \"cpus\" names 2"));
  std::string many = "workers:\n  cpus: [0";
  for (int i = 1; i < 33; ++i) many += ", " + std::to_string(i);
  EXPECT_THAT(Errors(with(many + "]\n")), ElementsAre("f:4:9: more than 32 CPUs"));
  EXPECT_THAT(Errors(with("workers: 3\n")),
              ElementsAre("f:3:10: \"workers\" must be a map of keys and values, not \"3\""));
}

TEST(ConfigTest, ChecksTheListenAddress) {
  for (const char* good : {"127.0.0.1:9470", "0.0.0.0:1", "\"[::1]:65535\"", "\"[::]:9470\""}) {
    EXPECT_THAT(Errors(std::string(kMinimal) + "metrics:\n  listen: " + good + "\n"), IsEmpty());
  }
  for (const char* bad :
       {"9470", "127.0.0.1", "'127.0.0.1:'", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:94x",
        "localhost:9470", "\"::1:9470\"", "\"[127.0.0.1]:1\"", "\":9470\"", "on", "127.0.0.1:-1"}) {
    EXPECT_THAT(Errors(std::string(kMinimal) + "metrics:\n  listen: " + bad + "\n"),
                ElementsAre(HasSubstr("f:4:11: \"listen\" must be ADDRESS:PORT")))
        << bad;
  }
}

// Ports of sockets must not be NAT's, where there are sockets.
TEST(ConfigTest, PortsOfSocketsAreNotThoseOfNat) {
  const std::string overlap = std::string(kMinimal) + "limits: {nat_ports: 20000-29999}\n";
  EXPECT_THAT(Errors(overlap), IsEmpty());
  const std::string services = "services: [{echo: e, listen: \"10.0.0.1:7\"}]\n";
  EXPECT_THAT(Errors(std::string(kMinimal) + services), IsEmpty());
  EXPECT_THAT(Errors(overlap + services), Contains(HasSubstr("limits.socket_ports")));
  // A reload asks again, with the limits that hold.
  Config config = *ParseConfig(std::string(kMinimal) + services, "f").config;
  EXPECT_EQ(ServiceLimitsProblem(config), "");
  config.limits = ParseConfig(overlap, "f").config->limits;
  EXPECT_THAT(ServiceLimitsProblem(config), HasSubstr("limits.socket_ports"));
  config.services.services.clear();
  EXPECT_EQ(ServiceLimitsProblem(config), "");
}

TEST(ConfigTest, ChecksLimits) {
  const auto error = [](const std::string& limit) {
    const auto errors = Errors(std::string(kMinimal) + "limits:\n  " + limit + "\n");
    return errors.empty() ? std::string() : errors.at(0);
  };
  for (const char* good :
       {"routes4: 1", "routes4: 10000000", "routes6: 1", "routes6: 10000000", "route_results: 16",
        "route_results: 1048576", "neighbors: 16", "neighbors: 1048576", "neighbor_queue: 1",
        "neighbor_queue: 4096", "frames: 256", "frames: 16777216", "frame_size: 2048",
        "flows: auto", "flows: 1024", "flows: 67108864", "flows_per_source: 0", "fragments: 16",
        "nat_ports: 1024-2047", "nat_ports: 1-65535", "offloads: 256", "offloads: 4194304",
        "connections: 64", "connections: 1048576", "udp_sessions: 16",
        "socket_ports: 1024-2047"}) {
    EXPECT_THAT(error(good), IsEmpty()) << good;
  }
  for (const char* bad :
       {"routes4: 0", "routes4: 10000001", "routes6: 0", "routes6: 10000001", "route_results: 15",
        "route_results: 1048577", "neighbors: 15", "neighbors: 1048577", "neighbor_queue: 0",
        "neighbor_queue: 4097", "frames: 255", "frames: 16777217", "frame_size: 1024",
        "routes4: 99999999999999999999", "routes4: 1e6", "routes4: 0x10", "routes4: 1 000",
        "routes4: [1]", "routes4: auto", "flows: 1023", "flows: 67108865", "flows: 0",
        "flows_per_source: -1", "fragments: 15", "nat_ports: 1024-2046", "nat_ports: 65535-1024",
        "nat_ports: 0-65535", "nat_ports: 1-65536", "nat_ports: 5000", "nat_ports: 1-",
        "nat_ports: [1, 2]", "nat_ports: 49152 - 65535", "offloads: 255", "offloads: 4194305",
        "offloads: auto", "connections: 63", "connections: 1048577", "udp_sessions: 15",
        "socket_ports: 1024-2046"}) {
    EXPECT_THAT(error(bad), HasSubstr(" must be ")) << bad;
    EXPECT_THAT(error(bad), HasSubstr("f:4:")) << bad;
  }
  EXPECT_THAT(error("route4: 5"), HasSubstr("did you mean \"routes4\"?"));
}

TEST(ConfigTest, ChecksWhatGoesIntoLinux) {
  const auto errors = [](const std::string& text) {
    return Errors(std::string(kMinimal) + "linux:\n  " + text + "\n");
  };
  EXPECT_THAT(errors("addresses: [{interface: a, address: 10.0.0.1}]"),
              ElementsAre("f:4:39: \"10.0.0.1\" is not an address with its prefix length, such as "
                          "192.0.2.1/24 or 2001:db8::1/64"));
  EXPECT_THAT(errors("addresses: [{interface: a, address: 224.0.0.1/24}]"),
              ElementsAre("f:4:39: \"224.0.0.1/24\" cannot be the address of an interface"));
  EXPECT_THAT(errors("addresses: [{}]"), ElementsAre("f:4:15: an address needs an \"interface\"",
                                                     "f:4:15: an address needs an \"address\""));
  EXPECT_THAT(errors("routes: [{destination: 10.0.0.0/8}]"),
              ElementsAre("f:4:12: a route needs \"via\" or \"dev\""));
  EXPECT_THAT(errors("routes: [{dev: a}]"), ElementsAre("f:4:12: a route needs a \"destination\""));
  EXPECT_THAT(errors("routes: [{destination: 10.0.0.1/8, dev: a}]"),
              ElementsAre("f:4:26: \"10.0.0.1/8\" has bits set after its prefix length; did you "
                          "mean \"10.0.0.0/8\"?"));
  EXPECT_THAT(errors("routes: [{destination: 10.0.0.0/33, dev: a}]"),
              ElementsAre(HasSubstr("\"10.0.0.0/33\" is not a prefix")));
  EXPECT_THAT(errors("routes: [{destination: 10.0.0.0/8, via: nowhere}]"),
              ElementsAre("f:4:43: \"nowhere\" is not an address"));
  EXPECT_THAT(errors("routes: [{destination: 10.0.0.0/8, via: '::1'}]"),
              ElementsAre("f:4:43: \"via\" and \"destination\" are of different families"));
  EXPECT_THAT(errors("routes: [{destination: default, dev: a}]"),
              ElementsAre(HasSubstr("f:4:26: \"default\" without \"via\" could be either family")));
  EXPECT_THAT(errors("nft: x"), ElementsAre("f:4:3: unknown key \"nft\" in \"linux\""));
  EXPECT_THAT(errors("nftables: [x]"), ElementsAre(HasSubstr("f:4:13: \"nftables\" must be")));
  EXPECT_THAT(errors("nftables: ''"),
              ElementsAre("f:4:13: \"nftables\" must be a file's name, not \"\""));
  EXPECT_THAT(errors("routes: {}"), ElementsAre("f:4:11: \"routes\" must be a list, not a map"));
}

TEST(ConfigTest, AFileIsRelativeToTheConfiguration) {
  const auto file = [](const std::string& name, const std::string& config) {
    const ConfigResult result =
        ParseConfig(std::string(kMinimal) + "linux: {nftables: " + name + "}\n", config);
    return result.config ? result.config->linux_setup.nftables : "error";
  };
  EXPECT_EQ(file("rules.nft", "/etc/sluice/sluice.yaml"), "/etc/sluice/rules.nft");
  EXPECT_EQ(file("/x/rules.nft", "/etc/sluice/sluice.yaml"), "/x/rules.nft");
  EXPECT_EQ(file("a/rules.nft", "etc/sluice.yaml"), "etc/a/rules.nft");
  EXPECT_EQ(file("rules.nft", "sluice.yaml"), "rules.nft");
  EXPECT_EQ(file("", "/etc/sluice/sluice.yaml"), "");  // null: none
}

TEST(ConfigTest, SyntaxErrorsHaveAPosition) {
  EXPECT_THAT(Errors("interfaces:\n  - name: [lan0\n"),
              ElementsAre(HasSubstr("f:3:1: YAML syntax: ")));
  EXPECT_THAT(Errors("interfaces:\n\t- name: lan0\n"), ElementsAre(HasSubstr("f:2:")));
  EXPECT_THAT(Errors("a: *nowhere\n"), ElementsAre(HasSubstr("f:1:4: YAML syntax: ")));
  EXPECT_THAT(Errors(std::string(kMinimal) + "---\nworkers: {}\n"),
              ElementsAre("f:4:1: a second YAML document; there must be one"));
}

TEST(ConfigTest, SurvivesHostileText) {
  EXPECT_THAT(Errors(std::string(100'000, '[')), SizeIs(1));
  EXPECT_THAT(Errors(std::string(100'000, '{')), SizeIs(1));
  std::string deep;
  for (int i = 0; i < 2000; ++i) deep += std::string(static_cast<size_t>(i), ' ') + "a:\n";
  EXPECT_THAT(Errors(deep), SizeIs(::testing::Ge(1u)));
  std::string bomb = "a: &a [x, x]\n";
  for (char c = 'b'; c < 'z'; ++c) {
    bomb += std::string(1, c) + ": &" + c + " [*" + static_cast<char>(c - 1) + ", *" +
            static_cast<char>(c - 1) + "]\n";
  }
  EXPECT_THAT(Errors(bomb), SizeIs(::testing::Ge(25u)));
  EXPECT_THAT(Errors(std::string("\0\xff\xfe\x01", 4)), SizeIs(::testing::Ge(1u)));
}

TEST(ConfigFileTest, SaysInOneLineWhyAFileCannotBeRead) {
  EXPECT_EQ(LoadConfig("/nonexistent/x.yaml").unreadable,
            "cannot read configuration file /nonexistent/x.yaml: No such file or directory");
  EXPECT_EQ(LoadConfig("/").unreadable, "cannot read configuration file /: Is a directory");
  EXPECT_EQ(LoadConfig("/dev/zero").unreadable,
            "cannot read configuration file /dev/zero: larger than 16 MiB");
}

TEST(ConfigFileTest, EveryExampleIsValid) {
  const std::filesystem::path directory =
      std::filesystem::path(SLUICE_SOURCE_DIR) / "config";
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    if (entry.path().extension() != ".yaml") continue;
    const ConfigFileResult loaded = LoadConfig(entry.path().string());
    EXPECT_EQ(loaded.unreadable, "");
    for (const ConfigError& e : loaded.result.errors) ADD_FAILURE() << ToString(e);
  }
}

TEST(ConfigFileTest, TheFullExampleShowsTheDefaults) {
  const std::string path =
      (std::filesystem::path(SLUICE_SOURCE_DIR) / "config/full.yaml").string();
  const ConfigFileResult loaded = LoadConfig(path);
  ASSERT_TRUE(loaded.result.config.has_value());
  Config expected;
  expected.interfaces = {{.name = "lan0"}, {.name = "wan0"}};
  EXPECT_EQ(*loaded.result.config, expected);
  std::ifstream file(path);
  const std::string text(std::istreambuf_iterator<char>(file), {});
  for (const TimeoutName& timeout : kTimeouts) {
    EXPECT_THAT(text, HasSubstr("\n  " + std::string(timeout.key) + ": kernel"));
  }
}

}  // namespace
}  // namespace sluice::control
