// The mirror against the kernel itself, in a namespace of the test's own: random changes through
// ip(8), then both are asked for the same addresses.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/rng.h"
#include "unit/control/mirror/mirror_fixture.h"

namespace sluice::control {
namespace {

using test::NetworkNamespace;

// Random lines for ip -batch. Many fail, as the kernel sees fit.
class RandomChanges {
 public:
  // `via_inet6`: IPv4 routes by IPv6 gateways too. Not together with ignore_routes_with_linkdown:
  // the kernel forgets to mark such a route when it is added while there is no carrier.
  RandomChanges(uint64_t seed, int links, bool via_inet6)
      : rng_(seed), links_(links), via_inet6_(via_inet6) {}

  std::string Line() {
    const uint64_t kind = rng_.Below(100);
    if (kind < 72) return Route();
    if (kind < 84) return Nexthop();
    if (kind < 92) return Address();
    return LinkState();
  }

  IpAddress Destination(Family family) {
    if (family == Family::kIpv4) {
      const uint32_t base = rng_.Chance(1, 6) ? 0x0a000000 : 0x14000000 | Pick(3) << 24;
      return Ipv4(base | Pick(4) << 16 | Pick(4) << 8 | Pick(5));
    }
    const uint64_t hi = rng_.Chance(1, 6)
                            ? 0xfd00'0000'0000'0000 | uint64_t{Pick(4)} << 32
                            : 0x2001'0db8'0000'0000 | uint64_t{Pick(3)} << 16 | Pick(3);
    return Ipv6(hi, Pick(4));
  }

 private:
  uint32_t Pick(uint32_t bound) { return static_cast<uint32_t>(rng_.Below(bound)); }
  int Link() { return static_cast<int>(Pick(static_cast<uint32_t>(links_))); }

  std::string Prefix(bool v4) {
    static constexpr const char* kV4[] = {"0.0.0.0/0",   "20.0.0.0/8",  "20.1.0.0/16",
                                          "20.1.2.0/24", "20.1.2.3/32", "21.0.0.0/8",
                                          "21.0.0.0/15", "22.1.1.0/24", "10.0.1.128/25"};
    static constexpr const char* kV6[] = {"::/0",
                                          "2001:db8::/32",
                                          "2001:db8:0:1::/64",
                                          "2001:db8:0:1::2/128",
                                          "2001:db8:1::/48",
                                          "2001:db8:1::/64",
                                          "2001:db8:2::/47",
                                          "fd00:2::/64",
                                          "2001:db8:0:1::/60"};
    return v4 ? kV4[Pick(9)] : kV6[Pick(9)];
  }

  std::string Gateway(bool v4, int link) {
    return v4 ? absl::StrCat("10.0.", link, ".", 2 + Pick(3))
              : absl::StrCat("fd00:", link, "::", 2 + Pick(3));
  }

  std::string Hop(bool v4) {
    const int link = Link();
    switch (Pick(6)) {
      case 0:
        return absl::StrCat(" dev d", link);
      case 1:
        return absl::StrCat(" via ", Gateway(v4, link), " dev d", link, " onlink");
      case 2:
        if (v4 && via_inet6_) return absl::StrCat(" via inet6 fd00:", link, "::9 dev d", link);
        [[fallthrough]];
      default:
        return absl::StrCat(" via ", Gateway(v4, link), " dev d", link);
    }
  }

  std::string Route() {
    const bool v4 = rng_.Chance(1, 2);
    static constexpr const char* kVerbs[] = {"add",     "add",    "append", "prepend",
                                             "replace", "change", "del",    "del"};
    std::string verb = kVerbs[Pick(8)];
    std::string line;
    const uint32_t shape = Pick(20);
    static constexpr const char* kTypes[] = {"blackhole", "unreachable", "prohibit", "throw",
                                             "local"};
    std::string tail;
    if (shape < 3) {
      const uint32_t type = Pick(5);
      line = absl::StrCat(kTypes[type], " ");
      if (type == 4) tail = " dev lo";
    } else if (shape < 6) {
      tail = absl::StrCat(" nhid ", 1 + Pick(8));
    } else if (shape < 9) {
      for (uint32_t n = 2 + Pick(2); n > 0; --n) {
        absl::StrAppend(&tail, " nexthop", Hop(v4), " weight ", 1 + Pick(4));
      }
    } else if (shape < 11 && verb == "del") {
      tail = "";
    } else {
      tail = Hop(v4);
    }
    absl::StrAppend(&line, Prefix(v4));
    if (rng_.Chance(1, 3)) absl::StrAppend(&line, " metric ", 10 * Pick(4));
    if (rng_.Chance(1, 12)) absl::StrAppend(&line, v4 ? " table default" : " table local");
    if (rng_.Chance(1, 15)) absl::StrAppend(&line, " mtu ", 1300 + Pick(3));
    if (v4 && rng_.Chance(1, 15)) absl::StrAppend(&line, " src 10.0.", Link(), ".77");
    // An IPv6 dump passes over what stands between the siblings of a multipath route (it jumps to
    // the last one): routes of no gateway are not put among them.
    const bool sibling = absl::StrContains(tail, "via");
    if (!v4 && !sibling && (verb == "append" || verb == "prepend")) verb = "add";
    return absl::StrCat("route ", verb, " ", line, tail, "\n");
  }

  std::string Nexthop() {
    const bool v4 = rng_.Chance(1, 2);
    const uint32_t id = 1 + Pick(5) + (v4 ? 0 : 0);
    switch (Pick(6)) {
      case 0:
        return absl::StrCat("nexthop del id ", 1 + Pick(8), "\n");
      case 1:
        return absl::StrCat("nexthop replace id ", id, v4 ? " blackhole\n" : " blackhole\n");
      case 2:
        return absl::StrCat("nexthop replace id ", 6 + Pick(3), " group ", 1 + Pick(5), ",",
                            1 + Pick(5), "/", 1 + Pick(5), ",3\n");
      default: {
        const int link = Link();
        return absl::StrCat("nexthop replace id ", id, " via ", Gateway(v4, link), " dev d", link,
                            "\n");
      }
    }
  }

  std::string Address() {
    const int link = Link();
    const char* verb = rng_.Chance(1, 2) ? "add" : "del";
    switch (Pick(4)) {
      case 0:
        return absl::StrCat("addr ", verb, " 10.0.", link, ".77/24 dev d", link, "\n");
      case 1:
        return absl::StrCat("addr ", verb, " 20.1.2.", Pick(5), "/29 dev d", link, "\n");
      case 2:
        return absl::StrCat("addr ", verb, " fd00:", link, "::77/64 dev d", link, " nodad\n");
      default:
        return absl::StrCat("addr ", verb, " 2001:db8:0:1::", Pick(4), "/64 dev d", link,
                            " nodad\n");
    }
  }

  std::string LinkState() {
    const int link = Link();
    switch (Pick(8)) {
      case 0:
        return absl::StrCat("link set d", link, " down\n");
      case 1:
        return absl::StrCat("link set p", link, " down\n");
      case 2:
        return absl::StrCat("link set p", link, " up\n");
      case 3:
        return absl::StrCat("link del d", link, "\nlink add d", link, " type veth peer name p",
                            link, "\nlink set p", link, " up\n");
      default:
        // With carrier: which IPv6 siblings the kernel holds for dead in between is its secret.
        return absl::StrCat("link set p", link, " up\nlink set d", link, " up\naddr add 10.0.",
                            link, ".1/24 dev d", link, "\naddr add fd00:", link, "::1/64 dev d",
                            link, " nodad\n");
    }
  }

  Rng rng_;
  int links_;
  bool via_inet6_;
};

class RandomRoutes : public MirrorTest, public testing::WithParamInterface<uint64_t> {};

TEST_P(RandomRoutes, FollowTheKernel) {
  constexpr int kLinks = 4;
  NetworkNamespace::Ip(SetUpLinks(kLinks));
  const bool ignore_linkdown = GetParam() % 3 == 2;
  if (ignore_linkdown) {
    NetworkNamespace::Sysctl("net/ipv4/conf/all/ignore_routes_with_linkdown", "1");
    NetworkNamespace::Sysctl("net/ipv6/conf/all/ignore_routes_with_linkdown", "1");
  }
  Start();
  RandomChanges changes(GetParam(), kLinks, !ignore_linkdown);
  std::string done;
  for (int round = 0; round < 40; ++round) {
    std::string lines;
    for (int i = 0; i < 12; ++i) lines += changes.Line();
    NetworkNamespace::TryIp(lines);
    absl::StrAppend(&done, "# round ", round, "\n", lines);
    ASSERT_NO_FATAL_FAILURE(Settle());
    std::vector<IpAddress> addresses;
    for (int i = 0; i < 60; ++i) {
      addresses.push_back(changes.Destination(i % 2 == 0 ? Family::kIpv4 : Family::kIpv6));
    }
    ASSERT_NO_FATAL_FAILURE(Compare(addresses, done));
  }
  ExpectAuditFindsNothing(done);
  EXPECT_GT(sink_.sets(), 100u) << "hardly any of the lines was to the kernel's liking";
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomRoutes, testing::Range<uint64_t>(1, 13));

}  // namespace
}  // namespace sluice::control
