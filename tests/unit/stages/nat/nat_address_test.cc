// Which address "masquerade" means, and when a masqueraded flow is over.
#include "stages/nat/nat_address.h"

#include <set>

#include "stages/nat/stale.h"
#include "unit/stages/nat/nat_fixture.h"

namespace sluice::stages {
namespace {

using tables::Flow;
using tables::FlowIndex;

class NatAddressTest : public NatFixture {
 protected:
  std::string For4(const std::string& next_hop, const std::string& to = "1.1.1.1") {
    const auto own = MasqueradeAddress(snapshot, kWan, A(next_hop), A(to));
    return own ? ToString(*own) : "none";
  }
  std::string For6(const std::string& to) { return For4("fe80::1", to); }
  std::vector<tables::Ipv4InterfaceAddress>& wan4() { return snapshot.interfaces[1].addresses4; }
  std::vector<tables::Ipv6InterfaceAddress>& wan6() { return snapshot.interfaces[1].addresses6; }
  static tables::Ipv4InterfaceAddress Own4(const char* a, uint8_t length) {
    return {.address = A(a).v4(), .prefix_length = length};
  }
  static tables::Ipv6InterfaceAddress Own6(const char* a) {
    return {.address = A(a).v6(), .prefix_length = 64};
  }
};

TEST_F(NatAddressTest, Ipv4FollowsTheNextHop) {
  wan4() = {Own4("192.0.2.1", 24), Own4("198.51.100.1", 24), Own4("203.0.113.1", 24)};
  EXPECT_EQ(For4("198.51.100.254"), "198.51.100.1");
  EXPECT_EQ(For4("203.0.113.254"), "203.0.113.1");
  EXPECT_EQ(For4("100.64.0.1"), "192.0.2.1") << "no subnet: the first";
  EXPECT_EQ(For4("fe80::1"), "192.0.2.1") << "RFC 5549 gateway";
  wan4()[1].secondary = true;
  EXPECT_EQ(For4("198.51.100.254"), "192.0.2.1");
  wan4()[0].scope = 253;  // link
  EXPECT_EQ(For4("192.0.2.254"), "203.0.113.1");
  wan4().clear();
  EXPECT_EQ(For4("192.0.2.254"), "10.0.0.1") << "borrowed from another interface";
}

TEST_F(NatAddressTest, Ipv6IsRfc6724) {
  wan6() = {Own6("fd00:1::1"), Own6("2001:db8:1::1"), Own6("fe80::2")};
  EXPECT_EQ(For6("2001:4860::8"), "2001:db8:1::1") << "label: no unique local address to the world";
  EXPECT_EQ(For6("fd00:2::8"), "fd00:1::1");
  EXPECT_EQ(For6("fe80::77"), "fe80::2");
  wan6()[1].deprecated = true;
  EXPECT_EQ(For6("2001:4860::8"), "fd00:1::1") << "the interface comes before the label";
  wan6()[0].deprecated = true;
  EXPECT_EQ(For6("2001:4860::8"), "2001:db8::1") << "deprecation comes before the interface";
  wan6()[0].deprecated = wan6()[1].deprecated = false;
  wan6()[1].tentative = true;
  EXPECT_EQ(For6("2001:4860::8"), "fd00:1::1");
  wan6() = {Own6("2001:db8:1::1"), Own6("2001:4860:7::1")};
  EXPECT_EQ(For6("2001:4860::8"), "2001:4860:7::1") << "the longer common prefix";
  wan6() = {Own6("fe80::2")};
  EXPECT_EQ(For6("2001:4860::8"), "2001:db8::1");
}

TEST_F(NatAddressTest, AnInterfaceThatIsAway) {
  snapshot.interfaces[1].slot = IfaceSlot::None();
  EXPECT_EQ(For4("192.0.2.254"), "none");
  EXPECT_FALSE(RedirectAddress(snapshot, kWan, A("1.1.1.1")));
  EXPECT_FALSE(MasqueradeAddress(snapshot, IfaceSlot::None(), A("1.1.1.1"), A("1.1.1.1")));
}

// What Linux 6.18 chose (`nft add rule ... snat to MIN-MAX`, UDP from port 4000 to 53; conntrack
// -L).
TEST_F(NatAddressTest, RangesAreHashedOverAsTheKernelDoes) {
  struct Case {
    const char* source;
    const char* destination;
    const char* snat;
    const char* persistent;
    const char* dnat;
  };
  constexpr Case kV4[] = {{"10.0.0.2", "1.1.1.1", "192.0.2.85", "192.0.2.99", "198.51.100.76"},
                          {"10.0.0.2", "203.0.113.77", nullptr, "192.0.2.99", "198.51.100.49"},
                          {"10.0.0.2", "8.8.4.4", nullptr, "192.0.2.99", "198.51.100.14"},
                          {"10.0.200.3", "1.1.1.1", "192.0.2.71", "192.0.2.93", "198.51.100.62"},
                          {"10.0.7.9", "1.1.1.1", "192.0.2.61", "192.0.2.35", "198.51.100.53"},
                          {"10.0.7.9", "8.8.4.4", nullptr, "192.0.2.35", "198.51.100.54"}};
  constexpr Case kV6[] = {{"fd00::2", "2001:4860::8", "2001:db8:1::6fec:6feb:5b0c",
                           "2001:db8:1::16ed:16ec:da2c", "2001:db8:1::b7b0:719:5a0c"},
                          {"fd00::77:3", "2001:4860::8", "2001:db8:1::f0c5:f0c2:91f4",
                           "2001:db8:1::10c3:10c3:67d7", "2001:db8:1::2888:a0af:90f4"},
                          {"fd00::aa:bb", "2606::1:2:3", nullptr, "2001:db8:1::c4f9:c4f7:4f49",
                           "2001:db8:1::f403:f7f5:1d7d"}};
  const auto check = [](const Case& c, const char* min, const char* max, const char* dnat_min,
                        const char* dnat_max) {
    const auto pick = [&](const char* low, const char* high, bool persistent, bool destination) {
      return ToString(
          PickFromRange(A(c.source), A(c.destination), A(low), A(high), persistent, destination));
    };
    if (c.snat != nullptr) {
      EXPECT_EQ(pick(min, max, false, false), c.snat);
    }
    EXPECT_EQ(pick(min, max, true, false), c.persistent);
    EXPECT_EQ(pick(dnat_min, dnat_max, false, true), c.dnat);
  };
  for (const Case& c : kV4) check(c, "192.0.2.16", "192.0.2.100", "198.51.100.10", "198.51.100.90");
  for (const Case& c : kV6) {
    check(c, "2001:db8:1::16", "2001:db8:1:0:1:2:3:4", "2001:db8:1::16", "2001:db8:1:0:1:2:3:4");
  }
}

// The kernel gives a source that is mapped already the same address for other destinations.
TEST_F(NatAddressTest, ASourceKeepsItsAddressOfARange) {
  for (const char* to : {"1.1.1.1", "203.0.113.77", "8.8.4.4"}) {
    EXPECT_EQ(ConnectTo(Tuple("10.0.0.2", 4000, to, 53), Snat("192.0.2.16", "192.0.2.100")),
              "192.0.2.85:4000>" + std::string(to) + ":53");
  }
}

TEST_F(NatAddressTest, StaleWhenTheAddressGoes) {
  const Flow v4 = Connect(Tuple("10.0.0.2", 4000, "1.1.1.1", 80), Masquerade());
  const Flow v6 = Connect(Tuple("2001:db8::2", 4000, "2001:4860::8", 80), Masquerade());
  const Flow fixed = Connect(Tuple("10.0.0.2", 4001, "1.1.1.1", 80), Snat("192.0.2.1"));
  for (const Flow* flow : {&v4, &v6, &fixed}) EXPECT_FALSE(IsStale(*flow, snapshot));
  wan4() = {Own4("192.0.2.77", 24)};
  EXPECT_TRUE(IsStale(v4, snapshot));
  EXPECT_FALSE(IsStale(v6, snapshot));
  EXPECT_FALSE(IsStale(fixed, snapshot)) << "a rule's fixed address is not the interface's";
  wan6().clear();
  EXPECT_TRUE(IsStale(v6, snapshot));
  wan4() = {Own4("192.0.2.77", 24), Own4("192.0.2.1", 24)};
  EXPECT_FALSE(IsStale(v4, snapshot));
  snapshot.interfaces[1].slot = IfaceSlot::None();
  EXPECT_TRUE(IsStale(v4, snapshot));
  EXPECT_FALSE(IsStale(fixed, snapshot));
}

TEST_F(NatAddressTest, ABorrowedAddressIsNotStale) {
  wan4().clear();
  const Flow flow = Connect(Tuple("10.0.0.2", 4000, "1.1.1.1", 80), Masquerade());
  EXPECT_EQ(Outside(flow).source, A("10.0.0.1").bits);
  EXPECT_FALSE(IsStale(flow, snapshot));
}

TEST_F(NatAddressTest, VisitsInPortions) {
  std::set<FlowIndex> masqueraded;
  for (uint16_t i = 0; i < 100; ++i) {
    const bool m = i % 3 == 0;
    const Flow& flow = Connect(Tuple("10.0.0.2", static_cast<uint16_t>(4000 + i), "1.1.1.1", 80),
                               m ? Masquerade() : Snat("192.0.2.1"));
    if (m) masqueraded.insert(table.Find(flow.tuples[0]).flow);
  }
  wan4() = {Own4("192.0.2.77", 24)};
  std::set<FlowIndex> seen;
  int portions = 0;
  for (FlowIndex at = 0; at != tables::kNoFlow; ++portions) {
    at = VisitStale(table, snapshot, at, 10, [&](FlowIndex index) {
      EXPECT_TRUE(seen.insert(index).second);
      table.Remove(index);
    });
  }
  EXPECT_EQ(seen, masqueraded);
  EXPECT_GE(portions, 10);
  EXPECT_EQ(table.size(), 100 - masqueraded.size());
}

}  // namespace
}  // namespace sluice::stages
