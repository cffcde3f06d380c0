// Rulesets as people write them, loaded into the kernel by nft, read back and compiled. Needs root.
#include <gtest/gtest.h>

#include "control/nft/ruleset_reader.h"
#include "control/ruleset/compiler.h"
#include "support/filter_world.h"
#include "support/network_namespace.h"

namespace sluice::test {
namespace {

class RealRulesetsTest : public ::testing::Test {
 protected:
  void Load(const std::string& text) {
    NetworkNamespace::Nft(text);
    auto reader = nft::RulesetReader::Open();
    ASSERT_TRUE(reader.ok()) << reader.status();
    auto ruleset = reader->Read(w_.now);
    ASSERT_TRUE(ruleset.ok()) << ruleset.status();
    model_ = *std::move(ruleset);
    w_.Use(model_);
    for (const auto& u : w_.ruleset->unsupported()) {
      ADD_FAILURE() << "rule " << u.rule << ": " << u.name;
    }
  }
  void State(tables::CtState state) { w_.p.ct_state = static_cast<uint8_t>(state); }
  Kind Judge(const Bytes& frame, tables::CtState state,
             HookPoint hook = HookPoint::kForward) {
    w_.Load(frame);
    State(state);
    return w_.Run(hook).kind;
  }
  void FromWan(bool wan) {
    if ((w_.snapshot.interfaces[0].name == "wan0") != wan) {
      std::swap(w_.snapshot.interfaces[0].name, w_.snapshot.interfaces[1].name);
    }
  }

  NetworkNamespace namespace_;
  FilterWorld w_;
  nft::Ruleset model_;
};

using tables::CtState;

TEST_F(RealRulesetsTest, HomeRouter) {  // nftables wiki, "Simple ruleset for a home router"
  Load(R"(
define DEV_PRIVATE = lan0
define DEV_WORLD = wan0
define NET_PRIVATE = 192.168.0.0/16
table ip global {
  chain inbound_world {
    icmp type echo-request limit rate 5/second accept
    ip saddr { 81.209.165.42, 1.2.3.4 } tcp dport { ssh } accept
  }
  chain inbound_private {
    icmp type echo-request limit rate 5/second accept
    ip protocol . th dport vmap { tcp . 22 : accept, udp . 53 : accept, tcp . 53 : accept, udp . 67 : accept }
  }
  chain inbound {
    type filter hook input priority 0; policy drop;
    ct state vmap { established : accept, related : accept, invalid : drop }
    iifname vmap { lo : accept, $DEV_WORLD : jump inbound_world, $DEV_PRIVATE : jump inbound_private }
  }
  chain forward {
    type filter hook forward priority 0; policy drop;
    ct state vmap { established : accept, related : accept, invalid : drop }
    iifname $DEV_PRIVATE accept
  }
  chain postrouting {
    type nat hook postrouting priority 100; policy accept;
    ip saddr $NET_PRIVATE oifname $DEV_WORLD masquerade
  }
}
)");
  const Bytes out = FilterWorld::Tcp4("192.168.1.2", "8.8.8.8", 1000, 443);
  EXPECT_EQ(Judge(out, CtState::kNew), Kind::kAccept);
  EXPECT_EQ(Judge(out, CtState::kInvalid), Kind::kDrop);
  w_.Load(out);
  const FilterVerdict nat = w_.Run(HookPoint::kPostroutingNat);
  EXPECT_EQ(nat.kind, Kind::kNat);
  EXPECT_EQ(nat.nat.kind, tables::NatKind::kMasquerade);
  EXPECT_EQ(Judge(FilterWorld::Udp4("192.168.1.2", "192.168.1.1", 5, 53), CtState::kNew,
                  HookPoint::kInput),
            Kind::kAccept);
  EXPECT_EQ(Judge(FilterWorld::Udp4("192.168.1.2", "192.168.1.1", 5, 54), CtState::kNew,
                  HookPoint::kInput),
            Kind::kDrop);
  FromWan(true);
  const Bytes in = FilterWorld::Tcp4("8.8.8.8", "192.168.1.2", 443, 1000);
  EXPECT_EQ(Judge(in, CtState::kNew), Kind::kDrop);
  EXPECT_EQ(Judge(in, CtState::kEstablished), Kind::kAccept);
  EXPECT_EQ(Judge(FilterWorld::Tcp4("1.2.3.4", "192.0.2.1", 5, 22), CtState::kNew, HookPoint::kInput),
            Kind::kAccept);
  EXPECT_EQ(Judge(FilterWorld::Tcp4("1.2.3.5", "192.0.2.1", 5, 22), CtState::kNew, HookPoint::kInput),
            Kind::kDrop);
  const Bytes ping = FilterWorld::Ethernet().Ipv4("8.8.8.8", "192.0.2.1").IcmpEcho(1, 1).Build();
  int accepted = 0;
  for (int i = 0; i < 10; ++i) {
    if (Judge(ping, CtState::kNew, HookPoint::kInput) == Kind::kAccept) ++accepted;
  }
  EXPECT_EQ(accepted, 5);
  EXPECT_TRUE(w_.ruleset->needs_conntrack(Family::kIpv4));
  EXPECT_FALSE(w_.ruleset->needs_conntrack(Family::kIpv6));
}

TEST_F(RealRulesetsTest, ServerWithSetsAndFloodMeter) {
  Load(R"(
table inet filter {
  set blocked4 { type ipv4_addr; flags interval; elements = { 203.0.113.0/24, 198.51.100.7 }; }
  set blocked6 { type ipv6_addr; flags interval; elements = { 2001:db8:bad::/48 }; }
  set services { type inet_proto . inet_service; flags interval; elements = { tcp . 80, tcp . 8000-8100, udp . 53 }; }
  set flood { type ipv4_addr; size 65535; flags dynamic,timeout; timeout 1m; }
  map marks { type ipv4_addr : mark; flags interval; elements = { 10.0.0.0/24 : 0x11, 10.0.1.0/24 : 0x22 }; }
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    ct state invalid counter drop
    ip saddr @blocked4 counter drop
    ip6 saddr @blocked6 counter drop
    meta mark set ip saddr map @marks
    tcp flags syn tcp dport 80 add @flood { ip saddr limit rate over 10/second burst 3 packets } drop
    meta l4proto . th dport @services accept
    icmpv6 type { echo-request, packet-too-big, time-exceeded } accept
    ip protocol icmp icmp type != echo-request accept
    reject with icmpx type admin-prohibited
  }
}
)");
  const auto tcp = [](const char* from, uint16_t port, uint8_t flags = 0x10) {
    return FilterWorld::Tcp4(from, "192.0.2.1", 1000, port, flags);
  };
  EXPECT_EQ(Judge(tcp("203.0.113.255", 80), CtState::kNew), Kind::kDrop);
  EXPECT_EQ(Judge(tcp("203.0.114.0", 80), CtState::kNew), Kind::kAccept);
  EXPECT_EQ(Judge(tcp("198.51.100.7", 80), CtState::kNew), Kind::kDrop);
  EXPECT_EQ(Judge(tcp("203.0.113.255", 80), CtState::kEstablished), Kind::kAccept);
  EXPECT_EQ(Judge(tcp("10.0.0.5", 8100), CtState::kNew), Kind::kAccept);
  EXPECT_EQ(w_.p.mark, 0x11u);
  EXPECT_EQ(Judge(tcp("10.0.1.5", 8101), CtState::kNew), Kind::kReject);
  EXPECT_EQ(w_.p.mark, 0x22u);
  EXPECT_EQ(Judge(FilterWorld::Udp4("10.0.2.5", "192.0.2.1", 1, 53), CtState::kNew), Kind::kAccept);
  EXPECT_EQ(w_.p.mark, 0u);
  std::string syns;
  for (int i = 0; i < 5; ++i) {
    syns += Judge(tcp("10.0.0.5", 80, 2), CtState::kNew) == Kind::kDrop ? 'd' : 'a';
  }
  EXPECT_EQ(syns, "aaadd");
  EXPECT_EQ(Judge(FilterWorld::Tcp6("2001:db8:bad::1", "2001:db8::1", 1, 80), CtState::kNew),
            Kind::kDrop);
  EXPECT_EQ(Judge(FilterWorld::Tcp6("2001:db8:bae::1", "2001:db8::1", 1, 80), CtState::kNew),
            Kind::kAccept);
  EXPECT_EQ(Judge(FilterWorld::Ethernet().Ipv6("fd00::1", "fd00::2").Icmpv6Echo(1, 1).Build(),
                  CtState::kNew),
            Kind::kAccept);
  w_.Load(FilterWorld::Tcp6("fd00::1", "2001:db8::1", 1, 81));
  State(CtState::kNew);
  const FilterVerdict v = w_.Run();
  EXPECT_EQ(v.kind, Kind::kReject);
  EXPECT_EQ(v.reject, stages::RejectKind::kIcmpv6);
  EXPECT_EQ(v.reject_code, 1);
}

TEST_F(RealRulesetsTest, TheShapeThatDockerAndFirewalldMake) {
  Load(R"(
table ip nat {
  chain DOCKER { iifname "docker0" counter return
    iifname != "docker0" tcp dport 8080 counter dnat to 172.17.0.2:80
  }
  chain PREROUTING { type nat hook prerouting priority dstnat; policy accept; fib daddr type local counter jump DOCKER; }
  chain POSTROUTING { type nat hook postrouting priority srcnat; policy accept;
    oifname != "docker0" ip saddr 172.17.0.0/16 counter masquerade
    ip saddr 172.17.0.2 ip daddr 172.17.0.2 tcp dport 80 counter masquerade
  }
}
table inet firewalld {
  ct helper helper-ftp-tcp { type "ftp" protocol tcp; }
  chain mangle_PREROUTING { type filter hook prerouting priority mangle + 10; policy accept; jump mangle_PREROUTING_ZONES; }
  chain mangle_PREROUTING_ZONES { iifname "lan0" goto zone_internal
    goto zone_public
  }
  chain zone_internal { return; }
  chain zone_public { meta mark set 0x9; }
  chain filter_PREROUTING { type filter hook prerouting priority filter + 10; policy accept;
    icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept
    meta nfproto ipv6 fib saddr . mark . iif oif missing drop
  }
  chain filter_FORWARD { type filter hook forward priority filter + 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    ip6 daddr { ::/96, ::ffff:0.0.0.0/96, 2002::/24 } reject with icmpv6 type addr-unreachable
    ct state { invalid } drop
    reject with icmpx type admin-prohibited
  }
}
)");
  EXPECT_EQ(Judge(FilterWorld::Tcp4("10.0.0.1", "8.8.8.8", 1, 80), CtState::kNew), Kind::kReject);
  tables::Flow flow{};
  flow.status = tables::kFlowDestinationNat;
  w_.flow = &flow;
  EXPECT_EQ(Judge(FilterWorld::Tcp4("10.0.0.1", "8.8.8.8", 1, 80), CtState::kNew), Kind::kAccept);
  w_.flow = nullptr;
  EXPECT_EQ(Judge(FilterWorld::Tcp6("fd00::1", "2002::1", 1, 80), CtState::kNew), Kind::kReject);
  EXPECT_EQ(w_.Run().reject_code, 3);
  // No route to fd00::1, so not by this interface either.
  EXPECT_EQ(Judge(FilterWorld::Tcp6("fd00::1", "2001:db8::1", 1, 80), CtState::kNew,
                  HookPoint::kPreroutingLate),
            Kind::kDrop);
  tables::Route local;
  local.type = tables::RouteType::kLocal;
  ASSERT_TRUE(w_.fib4.Insert(*ParseIpv4Prefix("192.0.2.1/32"), *w_.routes.Intern(local)).ok());
  w_.Load(FilterWorld::Tcp4("10.0.0.1", "192.0.2.1", 1, 8080));
  const FilterVerdict nat = w_.Run(HookPoint::kPreroutingNat);
  ASSERT_EQ(nat.kind, Kind::kNat);
  EXPECT_EQ(nat.nat.min_address, IpAddress(*ParseIpv4("172.17.0.2")));
  EXPECT_EQ(nat.nat.min_port, 80);
}

// Every statement that Sluice says it knows, once; what the kernel's code becomes for it is known.
TEST_F(RealRulesetsTest, AllThatIsSupportedIsSupported) {
  Load(R"(
table netdev n {
  chain ingress { type filter hook ingress device lo priority -500;
    ether saddr 02:00:00:00:00:01 drop
    ip saddr 10.0.0.0/8 counter drop
    arp operation request limit rate 10/second accept
  }
}
table inet t {
  counter hits { }
  quota volume { over 10 mbytes }
  limit slow { rate 10/second }
  set seen { type ipv4_addr . inet_service; flags dynamic,timeout; timeout 10s; }
  map ports { type inet_service : ipv4_addr . inet_service; elements = { 80 : 10.0.0.1 . 8080 }; }
  chain raw { type filter hook prerouting priority raw;
    udp dport 53 notrack
    fib saddr . iif oif missing drop
    tcp option maxseg size 1-500 drop
    exthdr frag exists drop
    rt type 0 drop
    ip option rr exists drop
  }
  chain forward { type filter hook forward priority filter;
    meta length > 1000 meta priority set 1:2
    meta pkttype multicast counter name hits
    meta mark and 0xff == 0x10 ct mark set meta mark
    ct mark set ct mark or 0x100
    meta iif != 1 meta oif != 1 meta iiftype ether
    ct direction original ct status assured,snat accept
    ct original ip saddr 10.0.0.0/8 ct l3proto ipv4 ct protocol tcp accept
    ct expiration < 10s ct bytes > 1000 ct original packets 1-5 ct avgpkt > 100 accept
    ct count over 100 reject with tcp reset
    tcp flags & (fin|syn|rst|ack) == syn tcp option maxseg size set rt mtu
    ip dscp set cs1
    ip6 dscp set af11
    ip ttl set 64
    ip6 hoplimit set 64
    ip ecn ce counter
    tcp sport >= 1024 tcp flags syn,ack / syn,ack counter
    udp length 20-40 udp checksum 0 counter
    sctp dport 5000 sctp chunk data exists counter
    icmp type echo-request icmp id 5 counter
    icmpv6 type nd-neighbor-solicit icmpv6 code 0 counter
    ip saddr . tcp dport vmap { 10.0.0.1 . 80 : accept, 10.0.0.2 . 81 : drop }
    ip daddr 10.0.0.1-10.0.0.9 ip saddr != { 10.1.0.0/16, 10.3.0.0/24 } counter
    limit rate over 1 mbytes/second burst 10 kbytes drop
    limit name "slow" quota name "volume" counter name hits
    quota until 100 mbytes counter
    add @seen { ip saddr . tcp dport }
    update @seen { ip saddr . tcp dport timeout 5s }
    delete @seen { ip saddr . tcp dport }
    counter name tcp dport map { 80 : "hits" }
    log prefix "seen: " level warn
    log group 1
    meta skuid 0 drop
    meta cpu 0 meta random < 5 counter
    meta hour "09:00"-"17:00" meta day "Monday" counter
    numgen inc mod 2 == 0 counter
    jhash ip saddr . ip daddr mod 4 seed 0xabc == 1 counter
    symhash mod 3 == 0 counter
    meta nftrace set 1
    tcp dport 1 reject with icmp type port-unreachable
    reject with icmpv6 type no-route
  }
  chain pre { type nat hook prerouting priority dstnat;
    tcp dport 2222 redirect to :22
    dnat ip to tcp dport map @ports
    tcp dport 81 dnat ip6 to [fd00::1]:80
  }
  chain post { type nat hook postrouting priority srcnat;
    meta l4proto tcp snat ip to 192.0.2.1-192.0.2.9:1000-2000 persistent,random
    snat ip prefix to ip saddr map { 10.1.0.0/16 : 192.168.0.0/16 }
    meta l4proto udp masquerade to :1024-65535 fully-random
  }
}
)");
  EXPECT_GT(w_.ruleset->rule_count(), 50u);
  EXPECT_TRUE(w_.ruleset->Has(HookPoint::kIngress, Family::kIpv6));
  EXPECT_TRUE(w_.ruleset->HasIngressOther());
  // And none of it stumbles over ordinary packets.
  w_.wall_offset = Seconds(1'700'000'000);
  for (const Bytes& frame :
       {FilterWorld::Tcp4("10.0.0.1", "10.0.0.2", 1, 80, 2), FilterWorld::Udp4("1.1.1.1", "2.2.2.2", 5, 53),
        FilterWorld::Tcp6("fd00::1", "fd00::2", 1, 80),
        FilterWorld::Ethernet().Ipv4("1.1.1.1", "2.2.2.2").IcmpEcho(5, 1).Build()}) {
    for (size_t h = 0; h < tables::kHookPointCount; ++h) {
      EXPECT_NE(w_.Run(frame, static_cast<HookPoint>(h)).kind, Kind::kKernel) << h;
    }
  }
}

TEST_F(RealRulesetsTest, WhatIsNotSupportedIsNamed) {
  NetworkNamespace::Nft(R"(
table inet t {
  chain forward { type filter hook forward priority filter;
    tcp dport 1 meta iifgroup 1 drop
    tcp dport 3 ct label 5 drop
    tcp dport 4 osf name "Linux" drop
    tcp dport 5 meta sdif 1 drop
    tcp dport 6 accept
  }
}
)");
  auto reader = nft::RulesetReader::Open();
  ASSERT_TRUE(reader.ok());
  auto ruleset = reader->Read(w_.now);
  ASSERT_TRUE(ruleset.ok()) << ruleset.status();
  w_.Use(*ruleset);
  std::vector<std::string> names;
  for (const auto& u : w_.ruleset->unsupported()) names.push_back(u.name);
  EXPECT_EQ(names, (std::vector<std::string>{"meta iifgroup", "ct label", "osf",
                                             "meta sdif"}));
  for (const uint16_t port : {1, 3, 4, 5}) {
    EXPECT_EQ(w_.Judge(FilterWorld::Tcp4("10.0.0.1", "10.0.0.2", 1, port)), Kind::kKernel) << port;
  }
  EXPECT_EQ(w_.Judge(FilterWorld::Tcp4("10.0.0.1", "10.0.0.2", 1, 6)), Kind::kAccept);
}

}  // namespace
}  // namespace sluice::test
