// The RIB against a naive model of the kernel: random events, some of them lost and made good by a
// dump, links that go down, nexthop objects that change.
#include "control/rib/rib.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <vector>

#include "base/rng.h"
#include "control/rib/fib_sink.h"
#include "support/map_sink.h"

namespace sluice::control {
namespace {

using test::MapSink;

RouteUpdate Route4(const char* prefix, uint32_t oif, const char* gateway = nullptr) {
  const Ipv4Prefix p = *ParseIpv4Prefix(prefix);
  RouteUpdate u;
  u.destination = IpAddress(p.address).bits;
  u.length = p.length;
  RoutePath& path = u.spec.paths.emplace_back();
  path.oif = IfIndex{oif};
  path.has_gateway = gateway != nullptr;
  if (gateway != nullptr) path.gateway = *ParseIpAddress(gateway);
  return u;
}

RouteUpdate Route6(const char* prefix, uint32_t oif, const char* gateway = nullptr) {
  const Ipv6Prefix p = *ParseIpv6Prefix(prefix);
  RouteUpdate u = Route4("0.0.0.0/0", oif, gateway);
  u.family = Family::kIpv6;
  u.destination = p.address;
  u.length = p.length;
  return u;
}

RouteUpdate OfType(RouteUpdate u, RouteType type) {
  u.spec.type = type;
  return u;
}

// A RIB of each family with links 1 to 4, of which some may be down.
struct Bed {
  LinkStatus Status(IfIndex i) const {
    LinkStatus s;
    s.up = !down[i.value % down.size()];
    s.carrier = s.up && !no_carrier[i.value % down.size()];
    s.ignore_linkdown4 = s.ignore_linkdown6 = ignore_linkdown;
    s.slot = i.value == served ? IfaceSlot{1} : IfaceSlot::None();
    return s;
  }
  void Refresh() {
    if (!attributes.Refresh()) return;
    rib4.Rescan();
    rib6.Rescan();
    attributes.ClearMarks();
  }

  std::array<bool, 8> down{};
  std::array<bool, 8> no_carrier{};
  bool ignore_linkdown = false;
  uint32_t served = 0;
  MapSink sink;
  AttributeStore attributes{sink, [this](IfIndex i) { return Status(i); }};
  Rib4 rib4{attributes, sink};
  Rib6 rib6{attributes, sink};
};

uint32_t OifOf(const tables::Route* route) {
  return route == nullptr || route->paths.empty() ? 0 : route->paths[0].oif.value;
}

TEST(Rib, OneChangeTouchesOnePrefix) {
  Bed bed;
  for (uint32_t i = 0; i < 1000; ++i) {
    RouteUpdate u = Route4("0.0.0.0/24", 1);
    u.destination.lo = 0x0b000000 + (i << 8);
    bed.rib4.Add(u);
  }
  const uint64_t sets = bed.sink.sets();
  RouteUpdate u = Route4("11.0.7.0/24", 2);
  u.replace = true;
  bed.rib4.Add(u);
  EXPECT_EQ(bed.sink.sets(), sets + 1);
  EXPECT_EQ(bed.sink.clears(), 0u);
  EXPECT_TRUE(bed.rib4.Remove(u));
  EXPECT_EQ(bed.sink.clears(), 1u);
  EXPECT_EQ(bed.sink.Find(Ipv4(11, 0, 7, 1)), nullptr);
  EXPECT_EQ(bed.sink.routes(), 1u) << "the route through 2 has no user left";
}

TEST(Rib, PrependAppendReplaceOfEqualMetric) {
  Bed bed;
  const Ipv4 host(10, 0, 0, 1);
  bed.rib4.Add(Route4("10.0.0.0/8", 1));
  bed.rib4.Add(Route4("10.0.0.0/8", 2));  // neither flag: before the others
  EXPECT_EQ(OifOf(bed.sink.Find(host)), 2u);
  RouteUpdate third = Route4("10.0.0.0/8", 3);
  third.append = true;
  bed.rib4.Add(third);
  EXPECT_EQ(OifOf(bed.sink.Find(host)), 2u);
  RouteUpdate fourth = Route4("10.0.0.0/8", 4);
  fourth.replace = true;  // the first
  bed.rib4.Add(fourth);
  EXPECT_EQ(OifOf(bed.sink.Find(host)), 4u);
  EXPECT_TRUE(bed.rib4.Remove(Route4("10.0.0.0/8", 4)));
  EXPECT_EQ(OifOf(bed.sink.Find(host)), 1u);
  EXPECT_FALSE(bed.rib4.Remove(Route4("10.0.0.0/8", 2)));
}

TEST(Rib, DeadRoutesAreSteppedOver) {
  Bed bed;
  bed.rib4.Add(Route4("10.0.0.0/8", 1));
  bed.rib4.Add(Route4("10.1.0.0/16", 2));
  RouteUpdate reserve = Route4("10.1.0.0/16", 3);
  reserve.metric = 50;
  bed.rib4.Add(reserve);
  const Ipv4 host(10, 1, 0, 1);
  bed.down[2] = true;
  bed.Refresh();
  EXPECT_EQ(OifOf(bed.sink.Find(host)), 3u);
  bed.down[3] = true;
  bed.Refresh();
  EXPECT_EQ(OifOf(bed.sink.Find(host)), 1u);
  bed.down[1] = true;
  bed.Refresh();
  EXPECT_EQ(bed.sink.Find(host), nullptr);
  bed.down[2] = false;
  bed.Refresh();
  EXPECT_EQ(OifOf(bed.sink.Find(host)), 2u);
  // Without carrier it depends on the sysctl.
  bed.no_carrier[2] = true;
  bed.Refresh();
  EXPECT_EQ(OifOf(bed.sink.Find(host)), 2u);
  bed.ignore_linkdown = true;
  bed.Refresh();
  EXPECT_EQ(bed.sink.Find(host), nullptr);
}

TEST(Rib, ThrowAndTheDefaultTable) {
  Bed bed;
  bed.rib4.Add(Route4("0.0.0.0/0", 1, "192.0.2.1"));
  bed.rib4.Add(OfType(Route4("172.16.0.0/16", 0), RouteType::kThrow));
  RouteUpdate in_default = Route4("172.16.1.0/24", 2);
  in_default.table = RouteTableId::kDefault;
  bed.rib4.Add(in_default);
  RouteUpdate hidden = Route4("172.17.0.0/16", 2);
  hidden.table = RouteTableId::kDefault;
  bed.rib4.Add(hidden);
  EXPECT_EQ(OifOf(bed.sink.Find(Ipv4(172, 16, 1, 1))), 2u);
  EXPECT_EQ(OifOf(bed.sink.Find(Ipv4(172, 17, 0, 1))), 1u) << "main's default route hides it";
  const tables::Route* none = bed.sink.Find(Ipv4(172, 16, 2, 1));
  ASSERT_NE(none, nullptr) << "a throw route must not fall back to main's shorter ones";
  EXPECT_EQ(none->type, tables::RouteType::kPunt);
  RouteUpdate wide = Route4("172.0.0.0/8", 3);
  wide.table = RouteTableId::kDefault;
  bed.rib4.Add(wide);
  EXPECT_EQ(OifOf(bed.sink.Find(Ipv4(172, 16, 2, 1))), 3u);
  EXPECT_TRUE(bed.rib4.Remove(Route4("0.0.0.0/0", 1, "192.0.2.1")));
  EXPECT_EQ(OifOf(bed.sink.Find(Ipv4(172, 17, 0, 1))), 2u);
}

TEST(Rib, Ipv6LocalTableGoesFirst) {
  Bed bed;
  bed.rib6.Add(Route6("2001:db8:1::/48", 1));
  RouteUpdate any_ip = OfType(Route6("2001:db8::/32", 2), RouteType::kLocal);
  any_ip.table = RouteTableId::kLocal;
  bed.rib6.Add(any_ip);
  const Ipv6 host = *ParseIpv6("2001:db8:1::1");
  ASSERT_NE(bed.sink.Find(host), nullptr);
  EXPECT_EQ(bed.sink.Find(host)->type, tables::RouteType::kLocal);
  EXPECT_TRUE(bed.rib6.Remove(any_ip));
  EXPECT_EQ(OifOf(bed.sink.Find(host)), 1u);
}

TEST(Rib, Ipv6SiblingsKeepTheKernelsOrder) {
  Bed bed;
  bed.rib6.Add(Route6("2001:db8::/32", 1, "fd00::1"));
  // What the kernel tells of an appended sibling: itself, then the others.
  RouteUpdate both = Route6("2001:db8::/32", 2, "fd00::2");
  both.spec.paths.push_back(Route6("::/0", 1, "fd00::1").spec.paths[0]);
  both.append = true;
  bed.rib6.Add(both);
  const tables::Route* route = bed.sink.Find(*ParseIpv6("2001:db8::1"));
  ASSERT_NE(route, nullptr);
  ASSERT_EQ(route->paths.size(), 2u);
  EXPECT_EQ(route->paths[0].oif.value, 1u);
  EXPECT_EQ(route->paths[1].oif.value, 2u);
  // And of one that is deleted: that one alone.
  EXPECT_TRUE(bed.rib6.Remove(Route6("2001:db8::/32", 1, "fd00::1")));
  route = bed.sink.Find(*ParseIpv6("2001:db8::1"));
  ASSERT_NE(route, nullptr);
  ASSERT_EQ(route->paths.size(), 1u);
  EXPECT_EQ(route->paths[0].oif.value, 2u);
}

TEST(Rib, WhatDependsOnMoreThanTheDestinationIsTheKernels) {
  Bed bed;
  RouteUpdate tos = Route4("10.0.0.0/8", 1);
  tos.tos = 0x10;
  bed.rib4.Add(Route4("10.0.0.0/8", 2));
  bed.rib4.Add(tos);
  EXPECT_EQ(bed.sink.Find(Ipv4(10, 0, 0, 1))->type, tables::RouteType::kPunt);
  EXPECT_TRUE(bed.rib4.Remove(tos));
  EXPECT_EQ(OifOf(bed.sink.Find(Ipv4(10, 0, 0, 1))), 2u);

  RouteUpdate tunnel = Route4("20.0.0.0/8", 1);
  tunnel.spec.encapsulated = true;
  bed.rib4.Add(tunnel);
  EXPECT_EQ(bed.sink.Find(Ipv4(20, 0, 0, 1))->type, tables::RouteType::kPunt);

  bed.rib4.Add(Route4("0.0.0.0/0", 1, "192.0.2.1"));
  EXPECT_EQ(OifOf(bed.sink.Find(Ipv4(9, 9, 9, 9))), 1u);
  bed.rib4.Add(Route4("0.0.0.0/0", 1, "192.0.2.2"));  // gateways that the kernel watches
  EXPECT_EQ(bed.sink.Find(Ipv4(9, 9, 9, 9))->type, tables::RouteType::kPunt);
}

TEST(Rib, NexthopObjectsChangeEveryUserAtOnce) {
  for (const bool move_ids : {false, true}) {
    Bed bed;
    bed.sink.set_move_ids(move_ids);
    NexthopUpdate one{.id = 1};
    one.path = Route4("0.0.0.0/0", 1, "192.0.2.1").spec.paths[0];
    NexthopUpdate two{.id = 2};
    two.path = Route4("0.0.0.0/0", 2, "192.0.2.2").spec.paths[0];
    NexthopUpdate group{.id = 3};
    group.group = {{1, 1}, {2, 3}};
    for (const NexthopUpdate& n : {one, two, group}) bed.attributes.SetNexthop(n);
    for (uint32_t i = 0; i < 100; ++i) {
      RouteUpdate u = Route4("0.0.0.0/24", 0);
      u.destination.lo = 0x0b000000 + (i << 8);
      u.spec.paths.clear();
      u.spec.nexthop_id = 3;
      bed.rib4.Add(u);
    }
    const Ipv4 host(11, 0, 5, 1);
    ASSERT_NE(bed.sink.Find(host), nullptr);
    ASSERT_EQ(bed.sink.Find(host)->paths.size(), 2u);
    EXPECT_EQ(bed.sink.Find(host)->paths[1].weight, 3u);

    const uint64_t sets = bed.sink.sets();
    two.path.oif = IfIndex{4};
    bed.attributes.SetNexthop(two);
    bed.Refresh();
    EXPECT_EQ(bed.sink.Find(host)->paths[1].oif.value, 4u);
    EXPECT_EQ(bed.sink.changes(), 1u);
    EXPECT_EQ(bed.sink.sets(), sets + (move_ids ? 100 : 0));

    one.blackhole = true;
    one.path = {};
    bed.attributes.SetNexthop(one);
    group.group = {{1, 1}};
    bed.attributes.SetNexthop(group);
    bed.Refresh();
    EXPECT_EQ(bed.sink.Find(host)->type, tables::RouteType::kBlackhole);
    bed.attributes.RemoveNexthop(3);
    bed.Refresh();
    EXPECT_EQ(bed.sink.Find(host), nullptr);
  }
}

TEST(Rib, SlotsFollowTheInterfacesServed) {
  Bed bed;
  bed.rib4.Add(Route4("10.0.0.0/8", 1));
  EXPECT_FALSE(bed.sink.Find(Ipv4(10, 0, 0, 1))->paths[0].slot.valid());
  bed.served = 1;
  bed.Refresh();
  EXPECT_EQ(bed.sink.Find(Ipv4(10, 0, 0, 1))->paths[0].slot, IfaceSlot{1});
}

TEST(Rib, AFullFibIsCountedAndFilledLater) {
  Bed bed;
  bed.sink.set_capacity(1);
  bed.rib4.Add(Route4("10.0.0.0/8", 1));
  bed.rib4.Add(Route4("11.0.0.0/8", 1));
  EXPECT_EQ(bed.rib4.stats().refused, 1u);
  EXPECT_EQ(bed.rib4.stats().installed, 1u);
  EXPECT_TRUE(bed.rib4.Remove(Route4("11.0.0.0/8", 1)));
  EXPECT_EQ(bed.rib4.stats().refused, 0u);
}

// --- Against a model ---

// What the kernel would hold and find, without any cleverness.
template <class Traits>
class Model {
 public:
  using Prefix = typename Traits::Prefix;
  using Address = typename Traits::Address;

  static auto Rank(const RouteUpdate& u) { return std::tuple(u.table, -int{u.tos}, u.metric); }

  void Add(const RouteUpdate& u) {
    auto& list = routes_[Traits::PrefixOf(u)];
    const auto first = std::find_if(list.begin(), list.end(),
                                    [&](const RouteUpdate& o) { return !(Rank(o) < Rank(u)); });
    const auto last =
        std::find_if(first, list.end(), [&](const RouteUpdate& o) { return Rank(u) < Rank(o); });
    if (u.replace && first != last) {
      *first = u;
    } else {
      list.insert(u.append ? last : first, u);
    }
  }
  bool Has(const RouteUpdate& u) const {
    const auto found = routes_.find(Traits::PrefixOf(u));
    return found != routes_.end() &&
           std::any_of(found->second.begin(), found->second.end(), [&](const RouteUpdate& o) {
             return Rank(o) == Rank(u) && o.spec.type == u.spec.type &&
                    o.spec.paths == u.spec.paths;
           });
  }
  // Removes one at random and tells which.
  std::optional<RouteUpdate> RemoveAny(Rng& rng) {
    if (routes_.empty()) return std::nullopt;
    auto it = std::next(routes_.begin(), static_cast<ptrdiff_t>(rng.Below(routes_.size())));
    const auto at = it->second.begin() + static_cast<ptrdiff_t>(rng.Below(it->second.size()));
    const RouteUpdate gone = *at;
    it->second.erase(at);
    if (it->second.empty()) routes_.erase(it);
    return gone;
  }

  // "throw" and "none" as no route at all; the answer is the oif, or 1000 + type.
  uint32_t Find(Address a, const Bed& bed) const {
    for (const bool first_layer : {true, false}) {
      const std::optional<RouteUpdate> hit = Search(a, bed, first_layer);
      if (!hit || hit->spec.type == RouteType::kThrow) continue;
      if (hit->tos != 0) return kPunt;
      return hit->spec.type == RouteType::kUnicast ? hit->spec.paths[0].oif.value
                                                   : 1000 + static_cast<uint32_t>(hit->spec.type);
    }
    return 0;
  }

  template <class Rib>
  DumpOutcome DumpInto(Rib& rib, RouteTableId table) const {
    rib.BeginDump(table);
    for (const auto& [prefix, list] : routes_) {
      for (const RouteUpdate& u : list) {
        if (u.table == table) rib.DumpRoute(u);
      }
    }
    return rib.EndDump();
  }

  static constexpr uint32_t kPunt = 999;

 private:
  std::optional<RouteUpdate> Search(Address a, const Bed& bed, bool first_layer) const {
    for (int length = Traits::kBits; length >= 0; --length) {
      const auto found = routes_.find(Prefix{a, static_cast<uint8_t>(length)}.Canonical());
      if (found == routes_.end()) continue;
      for (const RouteUpdate& u : found->second) {
        if (Traits::InFirstLayer(u.table) != first_layer) continue;
        if (u.spec.type != RouteType::kUnicast || bed.Status(u.spec.paths[0].oif).up) return u;
      }
    }
    return std::nullopt;
  }

  std::map<Prefix, std::vector<RouteUpdate>> routes_;
};

uint32_t AnswerOf(const tables::Route* route) {
  if (route == nullptr) return 0;
  switch (route->type) {
    case tables::RouteType::kUnicast:
      return route->paths[0].oif.value;
    case tables::RouteType::kBlackhole:
      return 1000 + static_cast<uint32_t>(RouteType::kBlackhole);
    case tables::RouteType::kProhibit:
      return 1000 + static_cast<uint32_t>(RouteType::kProhibit);
    case tables::RouteType::kPunt:
      return Model<Ipv4RibTraits>::kPunt;
    default:
      return 2000;
  }
}

template <class Traits>
struct Random;

template <>
struct Random<Ipv4RibTraits> {
  static Ipv4 Address(Rng& rng) {
    return Ipv4(
        static_cast<uint32_t>(0x0a000000 | rng.Below(3) << 16 | rng.Below(3) << 8 | rng.Below(4)));
  }
  static constexpr uint8_t kLengths[] = {0, 8, 14, 16, 24, 30, 32};
  static constexpr RouteTableId kTables[] = {RouteTableId::kMain, RouteTableId::kMain,
                                             RouteTableId::kLocal, RouteTableId::kDefault};
};

template <>
struct Random<Ipv6RibTraits> {
  static Ipv6 Address(Rng& rng) {
    return Ipv6(0x2001'0db8'0000'0000 | rng.Below(3) << 16 | rng.Below(3), rng.Below(4));
  }
  static constexpr uint8_t kLengths[] = {0, 32, 46, 48, 64, 126, 128};
  static constexpr RouteTableId kTables[] = {RouteTableId::kMain, RouteTableId::kMain,
                                             RouteTableId::kLocal, RouteTableId::kMain};
};

template <class Traits>
RouteUpdate RandomRoute(Rng& rng) {
  RouteUpdate u;
  u.family = Traits::kFamily;
  u.destination = IpAddress(Random<Traits>::Address(rng)).bits;
  u.length = Random<Traits>::kLengths[rng.Below(7)];
  u.table = Random<Traits>::kTables[rng.Below(4)];
  u.metric = static_cast<uint32_t>(rng.Below(3));
  if (Traits::kFamily == Family::kIpv4 && rng.Chance(1, 30)) u.tos = 0x08;
  const uint64_t kind = rng.Below(12);
  u.spec.type = kind == 0   ? RouteType::kBlackhole
                : kind == 1 ? RouteType::kProhibit
                : kind == 2 ? RouteType::kThrow
                            : RouteType::kUnicast;
  u.spec.paths.emplace_back().oif = IfIndex{static_cast<uint32_t>(1 + rng.Below(4))};
  // IPv6 adds at the end of its metric.
  u.append = Traits::kFamily == Family::kIpv6 || rng.Chance(1, 3);
  u.replace = !u.append && rng.Chance(1, 3);
  return u;
}

template <class Traits, class Rib>
void RunAgainstModel(uint64_t seed, Bed& bed, Rib& rib) {
  Rng rng(seed);
  Model<Traits> model;
  for (int step = 0; step < 400; ++step) {
    bool lost = rng.Chance(1, 10);
    for (uint64_t n = rng.Below(6); n > 0; --n) {
      if (rng.Chance(3, 5)) {
        const RouteUpdate u = RandomRoute<Traits>(rng);
        if (model.Has(u)) continue;  // EEXIST
        model.Add(u);
        if (!lost) rib.Add(u);
      } else if (const auto gone = model.RemoveAny(rng)) {
        if (!lost) {
          ASSERT_TRUE(rib.Remove(*gone));
        }
      }
    }
    if (rng.Chance(1, 8)) {
      bool& down = bed.down[1 + rng.Below(4)];
      down = !down;
      bed.Refresh();
    }
    if (lost || rng.Chance(1, 50)) {
      for (size_t table = 0; table < kRouteTableCount; ++table) {
        const DumpOutcome outcome = model.DumpInto(rib, static_cast<RouteTableId>(table));
        EXPECT_EQ(outcome.uncertain, 0u);
        if (!lost) {
          EXPECT_EQ(outcome.corrections, 0u) << "seed " << seed << " step " << step;
        }
      }
    }
    for (int i = 0; i < 40; ++i) {
      const auto address = Random<Traits>::Address(rng);
      uint32_t answer = AnswerOf(bed.sink.FindAny(IpAddress(address)));
      const uint32_t expected = model.Find(address, bed);
      // "No route" behind a throw route is left to the kernel to say.
      if (answer == Model<Traits>::kPunt && expected == 0) answer = 0;
      // So is all that a TOS has a say in.
      if (answer == Model<Traits>::kPunt && Traits::kFamily == Family::kIpv4) continue;
      ASSERT_EQ(answer, expected) << ToString(address) << " seed " << seed << " step " << step;
    }
  }
}

class RibModel : public testing::TestWithParam<uint64_t> {};

TEST_P(RibModel, Ipv4) {
  Bed bed;
  RunAgainstModel<Ipv4RibTraits>(GetParam(), bed, bed.rib4);
}

TEST_P(RibModel, Ipv6) {
  Bed bed;
  RunAgainstModel<Ipv6RibTraits>(GetParam(), bed, bed.rib6);
}

INSTANTIATE_TEST_SUITE_P(Seeds, RibModel, testing::Range<uint64_t>(1, 21));

TEST(RibDump, AnEventDuringADumpWins) {
  Bed bed;
  bed.rib4.Add(Route4("10.0.0.0/8", 1));
  bed.rib4.BeginDump(RouteTableId::kMain);
  bed.rib4.DumpRoute(Route4("10.0.0.0/8", 1));
  bed.rib4.DumpRoute(Route4("11.0.0.0/8", 1));
  EXPECT_TRUE(bed.rib4.Remove(Route4("10.0.0.0/8", 1)));
  bed.rib4.Add(Route4("12.0.0.0/8", 2));  // not in the dump: it came too late
  bed.rib4.Remove(Route4("13.0.0.0/8", 2));
  bed.rib4.DumpRoute(Route4("13.0.0.0/8", 2));  // in the dump, but gone meanwhile
  const DumpOutcome outcome = bed.rib4.EndDump();
  EXPECT_EQ(bed.sink.Find(Ipv4(10, 0, 0, 1)), nullptr);
  EXPECT_EQ(OifOf(bed.sink.Find(Ipv4(11, 0, 0, 1))), 1u);
  EXPECT_EQ(OifOf(bed.sink.Find(Ipv4(12, 0, 0, 1))), 2u);
  EXPECT_EQ(bed.sink.Find(Ipv4(13, 0, 0, 1)), nullptr);
  EXPECT_EQ(outcome.uncertain, 1u) << "13/8 needs another look";
}

TEST(RibDump, AnAbandonedDumpRemovesNothing) {
  Bed bed;
  bed.rib4.Add(Route4("10.0.0.0/8", 1));
  bed.rib4.Add(Route4("11.0.0.0/8", 1));
  bed.rib4.BeginDump(RouteTableId::kMain);
  bed.rib4.DumpRoute(Route4("10.0.0.0/8", 1));
  bed.rib4.AbortDump();
  EXPECT_EQ(bed.sink.fib4().size(), 2u);
  bed.rib4.BeginDump(RouteTableId::kMain);
  bed.rib4.DumpRoute(Route4("10.0.0.0/8", 1));
  EXPECT_EQ(bed.rib4.EndDump().corrections, 1u);
  EXPECT_EQ(bed.sink.fib4().size(), 1u);
}

TEST(FibSinkTest, SharedContentsAreChangedForOneUserOnly) {
  tables::EpochDomain domain;
  tables::RouteTable routes(domain, 100);
  tables::Fib4 fib4(domain);
  tables::Fib6 fib6(domain);
  FibSink sink(routes, fib4, fib6);
  tables::Route route;
  route.paths.emplace_back().oif = IfIndex{1};
  const tables::RouteId a = *sink.Add(route);
  const tables::RouteId b = *sink.Add(route);
  ASSERT_EQ(a, b);
  route.paths[0].oif = IfIndex{2};
  const tables::RouteId changed = *sink.Change(a, route);
  EXPECT_NE(changed, b);
  EXPECT_EQ(routes.Get(b).paths[0].oif.value, 1u);
  EXPECT_EQ(routes.Get(changed).paths[0].oif.value, 2u);
  route.paths[0].oif = IfIndex{3};
  EXPECT_EQ(*sink.Change(changed, route), changed) << "a sole user keeps its id";
  ASSERT_TRUE(sink.Set(*ParseIpv4Prefix("10.0.0.0/8"), changed).ok());
  EXPECT_EQ(fib4.Lookup(Ipv4(10, 1, 1, 1)), changed);
  sink.Clear(*ParseIpv4Prefix("10.0.0.0/8"));
  EXPECT_EQ(fib4.Lookup(Ipv4(10, 1, 1, 1)), tables::RouteId::None());
}

}  // namespace
}  // namespace sluice::control
