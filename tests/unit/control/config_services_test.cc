#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "control/config.h"

namespace sluice::control {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using tables::Balance;
using tables::HealthCheckConfig;
using tables::ServiceConfig;
using tables::ServiceKind;

ConfigResult Parse(const std::string& services) {
  return ParseConfig("interfaces: [{name: lan0}]\nservices:\n" + services, "f");
}
std::vector<ServiceConfig> Parsed(const std::string& services) {
  const ConfigResult result = Parse(services);
  for (const ConfigError& e : result.errors) ADD_FAILURE() << ToString(e);
  return result.config.value_or(Config{}).services.services;
}
std::vector<std::string> Errors(const std::string& services) {
  std::vector<std::string> out;
  for (const ConfigError& e : Parse(services).errors) out.push_back(ToString(e));
  return out;
}

TEST(ServicesConfigTest, NoneByDefault) {
  EXPECT_THAT(Parsed(""), IsEmpty());
  EXPECT_THAT(Parsed("  []"), IsEmpty());
}

TEST(ServicesConfigTest, DnsForwarderInThreeLines) {
  const auto services = Parsed(R"(
  - udp_proxy: dns
    listen: 192.0.2.1:53
    backends: [9.9.9.9:53, "[2620:fe::fe]:53"]
)");
  ASSERT_EQ(services.size(), 1u);
  const ServiceConfig& s = services[0];
  EXPECT_EQ(s.name, "dns");
  EXPECT_EQ(s.kind, ServiceKind::kUdpProxy);
  ASSERT_EQ(s.listen.size(), 1u);
  EXPECT_EQ(ToString(s.listen[0]), "192.0.2.1:53");
  ASSERT_EQ(s.backends.size(), 2u);
  EXPECT_EQ(ToString(s.backends[1].address), "[2620:fe::fe]:53");
  EXPECT_EQ(s.idle_timeout, Seconds(30));
  EXPECT_TRUE(s.uses_udp());
  EXPECT_FALSE(s.uses_tcp());
}

TEST(ServicesConfigTest, ReadsEveryKey) {
  const auto services = Parsed(R"(
  - tcp_proxy: web
    listen: [192.0.2.1:80, "[2001:db8::1]:80", "0.0.0.0:8080"]
    backends:
      - {address: 10.0.0.11:8080, weight: 3}
      - 10.0.0.12:8080
    balance: maglev
    health_check:
      http: /healthz
      expect: 200-399
      host: www.example.org
      port: 8081
      interval: 500ms
      timeout: 250ms
      rise: 1
      fall: 2
    connect_timeout: 700ms
    idle_timeout: 1h
    drain_timeout: 5m
    retries: 4
    max_connections: 1000
    proxy_protocol: v2
  - udp_proxy: syslog
    listen: 192.0.2.1:514
    backends: 10.0.0.13:514
    balance: least_connections
    health_check: tcp
    replies: 1
  - http: status
    listen: 192.0.2.1:9470
  - echo: e
    listen: 192.0.2.1:7
    protocol: udp
  - discard: d
    listen: 192.0.2.1:9
    protocol: tcp
  - chargen: c
    listen: 192.0.2.1:19
)");
  ASSERT_EQ(services.size(), 6u);
  const ServiceConfig& web = services[0];
  EXPECT_EQ(web.listen.size(), 3u);
  ASSERT_EQ(web.backends.size(), 2u);
  EXPECT_EQ(web.backends[0].weight, 3u);
  EXPECT_EQ(web.backends[1].weight, 1u);
  EXPECT_EQ(web.balance, Balance::kMaglev);
  EXPECT_EQ(web.maglev.size(), tables::kMaglevSize);
  EXPECT_EQ(web.health.kind, HealthCheckConfig::Kind::kHttp);
  EXPECT_EQ(web.health.path, "/healthz");
  EXPECT_EQ(web.health.host, "www.example.org");
  EXPECT_EQ(web.health.first_status, 200);
  EXPECT_EQ(web.health.last_status, 399);
  EXPECT_EQ(web.health.port, 8081);
  EXPECT_EQ(web.health.interval, Millis(500));
  EXPECT_EQ(web.health.timeout, Millis(250));
  EXPECT_EQ(web.health.rise, 1u);
  EXPECT_EQ(web.health.fall, 2u);
  EXPECT_EQ(web.connect_timeout, Millis(700));
  EXPECT_EQ(web.idle_timeout, Seconds(3600));
  EXPECT_EQ(web.drain_timeout, Seconds(300));
  EXPECT_EQ(web.retries, 4u);
  EXPECT_EQ(web.max_connections, 1000u);
  EXPECT_TRUE(web.proxy_protocol);
  EXPECT_EQ(services[1].balance, Balance::kLeastConnections);
  EXPECT_EQ(services[1].health.kind, HealthCheckConfig::Kind::kTcp);
  EXPECT_EQ(services[1].replies, 1u);
  EXPECT_EQ(services[2].kind, ServiceKind::kHttp);
  EXPECT_FALSE(services[2].uses_udp());
  EXPECT_FALSE(services[3].uses_tcp());
  EXPECT_TRUE(services[3].uses_udp());
  EXPECT_FALSE(services[4].uses_udp());
  EXPECT_TRUE(services[5].uses_tcp() && services[5].uses_udp());
}

TEST(ServicesConfigTest, EqualityIgnoresSlots) {
  const std::string text = "  - udp_proxy: a\n    listen: 1.1.1.1:1\n    backends: 2.2.2.2:2\n";
  auto a = Parsed(text), b = Parsed(text);
  EXPECT_EQ(a, b);
  b[0].slot = 5;
  b[0].backends[0].slot = 6;
  EXPECT_EQ(a, b);
  b[0].backends[0].weight = 2;
  EXPECT_NE(a, b);
}

// The table that the README shows: each kind knows the keys that it names, and no others.
TEST(ServicesConfigTest, KeysAreThoseOfTheTable) {
  struct Key {
    std::string key, kinds;
  };
  const Key keys[] = {
#define SLUICE_SERVICE_KEY(key, kinds, value, standard, text) {key, kinds},
#include "control/service_keys.inc"
#undef SLUICE_SERVICE_KEY
  };
  for (const std::string_view kind : tables::kServiceKindNames) {
    for (const Key& key : keys) {
      const size_t dot = key.key.find('.');
      const std::string entry = dot == std::string::npos
                                    ? key.key + ": {}"
                                    : key.key.substr(0, dot) + ": {" + key.key.substr(dot + 1) +
                                          ": }";
      const auto errors = Errors("  - {" + std::string(kind) + ": a, " + entry + "}\n");
      const bool unknown = std::any_of(errors.begin(), errors.end(), [](const std::string& e) {
        return e.find("unknown key") != std::string::npos;
      });
      const bool known = key.kinds == "all" || key.kinds.find(kind) != std::string::npos;
      EXPECT_EQ(unknown, !known) << kind << " " << entry;
    }
  }
}

// Each kind has its own keys.
TEST(ServicesConfigTest, UnknownKeys) {
  EXPECT_THAT(Errors("  - tcp_proxy: a\n    listen: 1.1.1.1:1\n    backend: 2.2.2.2:2\n"),
              ElementsAre(HasSubstr("needs \"backends\""),
                          "f:5:5: unknown key \"backend\" in \"tcp_proxy\"; did you mean "
                          "\"backends\"?"));
  EXPECT_THAT(Errors("  - http: a\n    listen: 1.1.1.1:1\n    backends: 2.2.2.2:2\n"),
              ElementsAre("f:5:5: unknown key \"backends\" in \"http\""));
  EXPECT_THAT(
      Errors("  - udp_proxy: a\n    listen: 1.1.1.1:1\n    backends: 2.2.2.2:2\n    retries: 1\n"),
      ElementsAre(HasSubstr("f:6:5: unknown key \"retries\" in \"udp_proxy\"")));
  EXPECT_THAT(Errors("  - tcp_prox: a\n"),
              ElementsAre(HasSubstr("did you mean \"tcp_proxy\"?"),
                          HasSubstr("a service needs its kind")));
  EXPECT_THAT(Errors("  - {tcp_proxy: a, listen: '1.1.1.1:1', backends: '2.2.2.2:2', "
                     "health_check: {htpp: /}}\n"),
              ElementsAre(HasSubstr("unknown key \"htpp\" in \"health_check\"; did you mean "
                                    "\"http\"?")));
  EXPECT_THAT(Errors("  - {tcp_proxy: a, listen: '1.1.1.1:1', backends: [{adress: '2.2.2.2:2'}]}\n"),
              ElementsAre(HasSubstr("a backend needs an \"address\""),
                          HasSubstr("did you mean \"address\"?")));
}

TEST(ServicesConfigTest, WhatMakesNoSense) {
  const auto service = [](const std::string& rest) {
    return "  - {tcp_proxy: a, listen: '1.1.1.1:80', backends: '2.2.2.2:2', " + rest + "}\n";
  };
  EXPECT_THAT(Errors("  5\n"), ElementsAre(HasSubstr("\"services\" must be a list")));
  EXPECT_THAT(Errors("  - 5\n"), ElementsAre(HasSubstr("must be a map")));
  EXPECT_THAT(Errors("  -\n"), ElementsAre(HasSubstr("a service needs its kind")));
  EXPECT_THAT(Errors("  - {http: a b, listen: '1.1.1.1:80'}\n"),
              ElementsAre(HasSubstr("cannot be a service's name")));
  EXPECT_THAT(Errors("  - {http: a, echo: b, listen: '1.1.1.1:80'}\n"),
              ElementsAre(HasSubstr("a service is of one kind; this one is \"http\" already")));
  EXPECT_THAT(Errors("  - {http: a}\n"), ElementsAre(HasSubstr("needs \"listen\"")));
  for (const char* bad : {"1.1.1.1", "1.1.1.1:0", "1.1.1.1:65536", "::1:80", "[1.1.1.1]:80", "x:80",
                          ":80", "1.1.1.1:80x"}) {
    EXPECT_THAT(Errors("  - {http: a, listen: '" + std::string(bad) + "'}\n"),
                ElementsAre(HasSubstr("must be ADDRESS:PORT")))
        << bad;
  }
  EXPECT_THAT(Errors("  - {http: a, listen: '224.0.0.1:80'}\n"),
              ElementsAre(HasSubstr("not one machine's address")));
  EXPECT_THAT(Errors("  - {tcp_proxy: a, listen: '1.1.1.1:80', backends: []}\n"),
              ElementsAre(HasSubstr("has no backends")));
  EXPECT_THAT(Errors("  - {tcp_proxy: a, listen: '1.1.1.1:80', backends: '0.0.0.0:80'}\n"),
              ElementsAre(HasSubstr("not one machine's address")));
  EXPECT_THAT(
      Errors("  - {tcp_proxy: a, listen: '1.1.1.1:80', backends: ['2.2.2.2:2', '2.2.2.2:2']}\n"),
      ElementsAre(HasSubstr("backend 2.2.2.2:2 is there twice")));
  EXPECT_THAT(Errors(service("balance: random")), ElementsAre(HasSubstr("\"balance\" must be one of "
                                                                        "round_robin")));
  EXPECT_THAT(Errors(service("connect_timeout: 5x")), ElementsAre(HasSubstr("a time such as 500ms")));
  EXPECT_THAT(Errors(service("health_check: {http: healthz}")), ElementsAre(HasSubstr("a path")));
  EXPECT_THAT(Errors(service("health_check: {expect: 200}")), ElementsAre(HasSubstr("\"http\"")));
  EXPECT_THAT(Errors(service("health_check: {http: /, expect: 300-200}")),
              ElementsAre(HasSubstr("an HTTP status or a range")));
  EXPECT_THAT(Errors(service("health_check: {http: /, expect: 20}")),
              ElementsAre(HasSubstr("an HTTP status or a range")));
  EXPECT_THAT(Errors(service("retries: -1")), ElementsAre(HasSubstr("from 0 to 64")));
  EXPECT_THAT(Errors(service("proxy_protocol: v1")), ElementsAre(HasSubstr("one of off, v2")));
}

TEST(ServicesConfigTest, AddressesAndNamesAreTakenOnce) {
  EXPECT_THAT(Errors("  - {http: a, listen: '1.1.1.1:80'}\n  - {echo: b, listen: '1.1.1.1:80'}\n"),
              ElementsAre("f:4:23: TCP 1.1.1.1:80 is listened on already, on line 3"));
  EXPECT_THAT(Errors("  - {http: a, listen: '1.1.1.1:80'}\n  - {http: a, listen: '1.1.1.1:81'}\n"),
              ElementsAre("f:4:12: service \"a\" is there twice, first on line 3"));
  // TCP and UDP do not clash.
  EXPECT_THAT(Errors("  - {http: a, listen: '1.1.1.1:80'}\n"
                     "  - {echo: b, listen: '1.1.1.1:80', protocol: udp}\n"),
              IsEmpty());
  // Answers must come from the address that was asked.
  EXPECT_THAT(Errors("  - {udp_proxy: a, listen: '0.0.0.0:53', backends: '2.2.2.2:53'}\n"),
              ElementsAre(HasSubstr("UDP needs one address")));
  EXPECT_THAT(Errors("  - {tcp_proxy: a, listen: '0.0.0.0:53', backends: '2.2.2.2:53'}\n"),
              IsEmpty());
}

TEST(ServicesConfigTest, GroupsAreListenedToByUdpAlone) {
  const auto services = Parsed(R"(
  - echo: e
    listen: [239.1.2.3:7, "[ff05::1:3]:7", 192.0.2.1:7]
    protocol: udp
    group_interfaces: lan0
  - discard: d
    listen: "[ff3e::8000:1]:9"
    protocol: udp
  - udp_proxy: news
    listen: 239.1.2.3:5000
    backends: 192.0.2.9:5000
    group_interfaces: [lan0]
)");
  ASSERT_EQ(services.size(), 3u);
  EXPECT_EQ(services[0].listen.size(), 3u);
  EXPECT_TRUE(IsGroup(services[0].listen[1]));
  EXPECT_FALSE(IsGroup(services[0].listen[2]));
  EXPECT_THAT(services[0].group_interfaces, ElementsAre("lan0"));
  EXPECT_THAT(services[1].group_interfaces, IsEmpty());
  EXPECT_EQ(services[1].group_slots, IfaceSet::All());
  EXPECT_THAT(services[2].group_interfaces, ElementsAre("lan0"));

  EXPECT_THAT(Errors("  - {echo: e, listen: '239.1.2.3:7'}\n"),
              ElementsAre(HasSubstr("f:3:23: \"239.1.2.3:7\" is a group, which only UDP can be sent "
                                    "to: say \"protocol: udp\"")));
  EXPECT_THAT(Errors("  - {chargen: c, listen: '239.1.2.3:19', protocol: udp}\n"),
              ElementsAre(HasSubstr("not one machine's address")));
  EXPECT_THAT(Errors("  - {udp_proxy: a, listen: '1.1.1.1:53', backends: '239.1.2.3:53'}\n"),
              ElementsAre(HasSubstr("not one machine's address")));
  EXPECT_THAT(Errors("  - {discard: a, listen: '239.1.2.3:9', protocol: udp}\n"
                     "  - {echo: b, listen: '239.1.2.3:9', protocol: udp}\n"),
              ElementsAre(HasSubstr("UDP 239.1.2.3:9 is listened on already, on line 3")));
}

// mDNS, OSPF, VRRP and the like are none of a service's business.
TEST(ServicesConfigTest, GroupsOfOneLinkAreTheKernels) {
  for (const char* own : {"224.0.0.1:7", "224.0.0.251:5353", "[ff01::1]:7", "[ff02::fb]:5353",
                          "[ff12::1]:7", "[ff00::1]:7"}) {
    EXPECT_THAT(Errors("  - {echo: e, listen: '" + std::string(own) + "', protocol: udp}\n"),
                ElementsAre(HasSubstr("is a group of one link's own")))
        << own;
  }
  EXPECT_THAT(Errors("  - {echo: e, listen: ['224.0.1.1:7', '[ff03::1]:7'], protocol: udp}\n"),
              IsEmpty());
}

TEST(ServicesConfigTest, GroupInterfacesAreServedOnes) {
  const auto with = [](const std::string& listen, const std::string& interfaces) {
    return "  - {echo: e, listen: '" + listen + "', protocol: udp, group_interfaces: " + interfaces +
           "}\n";
  };
  EXPECT_THAT(Errors(with("239.1.2.3:7", "[lan0, lan1]")),
              ElementsAre(HasSubstr("\"lan1\" is not one of \"interfaces\"; did you mean \"lan0\"?")));
  EXPECT_THAT(Errors(with("192.0.2.1:7", "lan0")),
              ElementsAre(HasSubstr("this is for groups: service \"e\" listens to none")));
  // In whatever order the sections are.
  EXPECT_TRUE(ParseConfig("services:\n" + with("239.1.2.3:7", "lan0") + "interfaces: [{name: lan0}]\n",
                          "f")
                  .config);
}

TEST(ServicesConfigTest, GroupsAreLimited) {
  const auto many = [](size_t count) {
    std::string text;
    for (size_t i = 0; i < count; ++i) {
      const std::string n = std::to_string(i);
      text += "  - {echo: e" + n + ", listen: ['239.0.0." + n + ":7', '239.0.1." + n +
              ":7'], protocol: udp}\n";
    }
    return text;
  };
  EXPECT_THAT(Errors(many(tables::kMaxGroupListens / 2)), IsEmpty());
  EXPECT_THAT(Errors(many(tables::kMaxGroupListens / 2 + 1)),
              ElementsAre(HasSubstr("more than 64 addresses of groups")));
}

}  // namespace
}  // namespace sluice::control
