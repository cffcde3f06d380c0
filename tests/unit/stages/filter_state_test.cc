// Statements with state, sets and dynamic sets, and that a dry run changes nothing.
#include <gtest/gtest.h>

#include <set>

#include "support/filter_world.h"

namespace sluice::test {
namespace {

const Bytes kPacket = FilterWorld::Udp4("10.0.0.1", "10.0.0.2", 1000, 80);  // 48 bytes of IP

Bytes From(const char* address) { return FilterWorld::Udp4(address, "10.0.0.2", 1000, 80); }

nft::Expr Limit(uint64_t rate, uint32_t burst, bool over = false, bool bytes = false) {
  nft::LimitExpr e;
  e.rate = rate;
  e.burst = burst;
  e.inverted = over;
  e.bytes = bytes;
  return e;
}
nft::Expr Quota(uint64_t bytes, bool over) {
  nft::QuotaExpr e;
  e.bytes = bytes;
  e.inverted = over;
  return e;
}
nft::Expr CountOver(uint32_t count) {
  nft::ConnlimitExpr e;
  e.count = count;
  e.inverted = true;
  return e;
}
nft::Expr Dynset(const std::string& set, uint32_t op, std::optional<uint64_t> timeout_ms,
                 std::vector<nft::Expr> exprs = {}, bool inverted = false) {
  auto e = std::make_shared<nft::DynsetExpr>();
  e->set = set;
  e->op = op;
  e->sreg_key = 0;
  e->timeout_ms = timeout_ms;
  e->exprs = std::move(exprs);
  e->inverted = inverted;
  return std::shared_ptr<const nft::DynsetExpr>(e);
}
const nft::Expr kSource = Payload(kNetwork, 12, 4);
constexpr uint32_t kAdd = 0, kUpdate = 1, kDelete = 2;
constexpr uint32_t kDynamic = 0x20, kTimeout = 0x10;

// 'd' for each packet that a rule dropped, '-' for others.
std::string Drops(FilterWorld& w, int count, const Bytes& packet = kPacket) {
  std::string out;
  for (int i = 0; i < count; ++i) out += w.Judge(packet) == Kind::kDrop ? 'd' : '-';
  return out;
}

TEST(FilterStateTest, CountersCountPacketsAndIpBytes) {
  FilterWorld w;
  RulesetModel m;
  m.Base("forward", 2).Rule({nft::CounterExpr{}});
  w.Use(m);
  for (int i = 0; i < 3; ++i) w.Run(kPacket);
  EXPECT_EQ(w.ruleset->RuleCount(0).packets, 3u);
  EXPECT_EQ(w.ruleset->RuleCount(0).bytes, 3u * 48);
}

TEST(FilterStateTest, LimitsOfPacketsAndBytes) {
  FilterWorld w;
  RulesetModel m;
  m.Base("forward", 2).Rule({Limit(10, 3), Drop()});
  w.Use(m);
  EXPECT_EQ(Drops(w, 5), "ddd--");
  w.now += Millis(100);
  EXPECT_EQ(Drops(w, 2), "d-");
  m = RulesetModel();
  m.Base("forward", 2).Rule({Limit(10, 3, true), Drop()});
  w.Use(m);
  EXPECT_EQ(Drops(w, 5), "---dd");
  // 480 bytes a second and a burst of 96: twelve packets at once.
  m = RulesetModel();
  m.Base("forward", 2).Rule({Limit(480, 96, false, true), Drop()});
  w.Use(m);
  EXPECT_EQ(Drops(w, 14), "dddddddddddd--");
  w.now += Millis(99);
  EXPECT_EQ(Drops(w, 1), "-");
  w.now += Millis(1);
  EXPECT_EQ(Drops(w, 1), "d");
}

TEST(FilterStateTest, ADefaultBurstIsFivePackets) {
  FilterWorld w;
  RulesetModel m;
  m.Base("forward", 2).Rule({Limit(1, 0), Drop()});
  w.Use(m);
  EXPECT_EQ(Drops(w, 7), "ddddd--");
}

TEST(FilterStateTest, Quotas) {
  FilterWorld w;
  RulesetModel m;
  m.Base("forward", 2).Rule({Quota(96, true), Drop()});
  w.Use(m);
  EXPECT_EQ(Drops(w, 4), "--dd");
  m = RulesetModel();
  m.Base("forward", 2).Rule({Quota(96, false), Drop()});
  w.Use(m);
  EXPECT_EQ(Drops(w, 4), "dd--");
  w.Restart({});  // or it would keep what was used
  m = RulesetModel();
  nft::QuotaExpr used;  // 48 bytes were used up when it was read
  used.bytes = 96;
  used.consumed = 48;
  m.Base("forward", 2).Rule({used, Drop()});
  w.Use(m);
  EXPECT_EQ(Drops(w, 3), "d--");
}

class Living : public stages::ConnectionView {
 public:
  bool IsAlive(tables::FlowIndex flow, uint64_t) const override { return dead.count(flow) == 0; }
  std::set<uint32_t> dead;
};

TEST(FilterStateTest, ConnectionsAreCountedWhileTheyLive) {
  FilterWorld w;
  Living living;
  w.connections = &living;
  RulesetModel m;
  m.Base("forward", 2).Rule({CountOver(2), Drop()});
  w.Use(m);
  const auto judge = [&](uint16_t port) {
    tables::Flow flow{};
    flow.tuple(tables::FlowDirection::kOriginal).source_port = port;
    w.Load(kPacket);
    w.p.flow = port;
    w.flow = &flow;
    const Kind kind = w.Run().kind;
    w.flow = nullptr;
    return kind == Kind::kDrop;
  };
  EXPECT_FALSE(judge(1));
  EXPECT_FALSE(judge(2));
  EXPECT_FALSE(judge(1));  // the same one again
  EXPECT_TRUE(judge(3));
  living.dead = {1};
  w.now += Millis(10);
  EXPECT_TRUE(judge(4));  // 2, 3 and 4: over, the third was counted too, as in the kernel
  living.dead = {1, 3};
  w.now += Millis(10);
  EXPECT_FALSE(judge(4));
}

TEST(FilterStateTest, NamedObjectsAreShared) {
  FilterWorld w;
  RulesetModel m;
  nft::Object counter;
  counter.type = 1;
  counter.name = "hits";
  counter.value = nft::CounterExpr{};
  nft::Object limit;
  limit.type = 4;
  limit.name = "slow";
  limit.value = Limit(1, 2);
  nft::Object helper;
  helper.type = 3;
  helper.name = "ftp";
  m.table().objects = {counter, limit, helper};
  nft::ObjrefExpr hits;
  hits.type = 1;
  hits.name = "hits";
  nft::ObjrefExpr slow;
  slow.type = 4;
  slow.name = "slow";
  m.Base("forward", 2).Rule({hits}).Rule({hits}).Rule({slow, Drop()}).Rule({slow, Drop()});
  w.Use(m);
  EXPECT_EQ(Drops(w, 3), "dd-");
  ASSERT_EQ(w.ruleset->objects().size(), 2u);
  EXPECT_EQ(w.ruleset->objects()[0].name, "hits");
  EXPECT_EQ(w.ruleset->ObjectCount(0, 0).packets, 6u);
  nft::ObjrefExpr ftp;
  ftp.type = 3;
  ftp.name = "ftp";
  m.Base("forward2", 2).Rule({ftp});
  w.Use(m);
  EXPECT_EQ(w.Judge(kPacket), Kind::kKernel);
  EXPECT_EQ(w.ruleset->unsupported()[0].name, "ct helper");
  EXPECT_TRUE(w.ruleset->needs_conntrack(Family::kIpv4));
}

TEST(FilterStateTest, ObjectMaps) {
  FilterWorld w;
  RulesetModel m;
  for (const char* name : {"a", "b"}) {
    nft::Object counter;
    counter.type = 1;
    counter.name = name;
    counter.value = nft::CounterExpr{};
    m.table().objects.push_back(counter);
  }
  nft::Set& map = m.AddSet("map", 0x40, 4);
  map.object_type = 1;
  for (const auto& [address, object] : {std::pair("10.0.0.1", "a"), std::pair("10.0.0.5", "b")}) {
    nft::SetElement e = Key(Addr(address));
    e.object = object;
    map.elements.insert(e);
  }
  nft::ObjrefExpr by_map;
  by_map.set = "map";
  by_map.sreg = 0;
  m.Base("forward", 2).Rule({kSource, by_map, Drop()});
  w.Use(m);
  EXPECT_EQ(w.Judge(From("10.0.0.1")), Kind::kDrop);
  EXPECT_EQ(w.Judge(From("10.0.0.5")), Kind::kDrop);
  EXPECT_EQ(w.Judge(From("10.0.0.5")), Kind::kDrop);
  EXPECT_EQ(w.Judge(From("10.0.0.9")), Kind::kAccept);
  EXPECT_EQ(w.ruleset->ObjectCount(0, 0).packets, 1u);
  EXPECT_EQ(w.ruleset->ObjectCount(1, 0).packets, 2u);
}

TEST(FilterStateTest, SetsOfEachKind) {
  FilterWorld w;
  RulesetModel m;
  m.AddSet("exact", 0, 4).elements = {Key(Addr("10.0.0.1"))};
  m.AddSet("nets", 4, 4).elements = {Key(Addr("10.0.1.0")), End(Addr("10.0.2.0")),
                                     Key(Addr("240.0.0.0"))};
  nft::Set& boxes = m.AddSet("boxes", 0x84, 8);
  boxes.field_lengths = {4, 2};
  nft::SetElement box = Key(Join({Addr("10.0.3.0"), Net16(80)}));
  box.key_end = Join({Addr("10.0.3.9"), Net16(90)});
  boxes.elements = {box};
  nft::Set& marks = m.AddSet("marks", 8, 4);
  marks.data_length = 4;
  nft::SetElement mark = Key(Addr("10.0.4.1"));
  mark.data = Host32(55);
  nft::SetElement all;
  all.catchall = true;
  all.data = Host32(66);
  marks.elements = {mark, all};
  m.Base("forward", 2)
      .Rule({kSource, Lookup("exact"), Drop()})
      .Rule({kSource, Lookup("nets"), Drop()})
      .Rule({kSource, Payload(kTransport, 2, 2, 1), Lookup("boxes"), Drop()})
      .Rule({kSource, Map("marks", 4), MetaSet(tables::kMetaMark, 4)});
  w.Use(m);
  EXPECT_TRUE(w.ruleset->unsupported().empty());
  EXPECT_EQ(w.Run(From("10.0.0.1")).rule, 0u);
  EXPECT_EQ(w.Judge(From("10.0.0.2")), Kind::kAccept);
  EXPECT_EQ(w.Run(From("10.0.1.0")).rule, 1u);
  EXPECT_EQ(w.Run(From("10.0.1.255")).rule, 1u);
  EXPECT_EQ(w.Run(From("255.255.255.254")).rule, 1u);  // no end: up to the last
  EXPECT_EQ(w.Judge(From("10.0.2.0")), Kind::kAccept);
  EXPECT_EQ(w.Run(From("10.0.3.9")).rule, 2u);
  EXPECT_EQ(w.Judge(From("10.0.3.10")), Kind::kAccept);
  EXPECT_EQ(w.p.mark, 66u);
  EXPECT_EQ(w.Judge(From("10.0.4.1")), Kind::kAccept);
  EXPECT_EQ(w.p.mark, 55u);
}

TEST(FilterStateTest, ElementsHaveCountersAndTimes) {
  FilterWorld w;
  RulesetModel m;
  nft::Set& set = m.AddSet("set", kTimeout | 0x100, 4);
  nft::SetElement e = Key(Addr("10.0.0.1"));
  e.exprs = {Limit(1, 2)};
  e.expires_at = w.now + Seconds(10);
  set.elements = {e};
  m.Base("forward", 2).Rule({kSource, Lookup("set"), Drop()});
  w.Use(m);
  EXPECT_EQ(Drops(w, 3), "dd-");
  w.now += Seconds(9);
  EXPECT_EQ(Drops(w, 1), "d");
  w.now += Seconds(1);
  EXPECT_EQ(Drops(w, 1), "-");
}

TEST(FilterStateTest, DynamicSetsTimeOut) {
  FilterWorld w;
  RulesetModel m;
  nft::Set& set = m.AddSet("seen", kDynamic | kTimeout, 4);
  set.size = 2;
  set.timeout_ms = 10'000;
  m.Base("forward", 2)
      .Rule({kSource, Lookup("seen"), Drop()})
      .Rule({kSource, Dynset("seen", kAdd, {}), nft::CounterExpr{}});
  w.Use(m);
  EXPECT_EQ(w.Judge(From("10.0.0.1")), Kind::kAccept);
  EXPECT_EQ(w.Judge(From("10.0.0.1")), Kind::kDrop);
  EXPECT_EQ(w.Judge(From("10.0.0.2")), Kind::kAccept);
  EXPECT_EQ(w.ruleset->RuleCount(1).packets, 2u);
  EXPECT_EQ(w.Judge(From("10.0.0.3")), Kind::kAccept);  // no room: the rule does not match
  EXPECT_EQ(w.Judge(From("10.0.0.3")), Kind::kAccept);
  EXPECT_EQ(w.ruleset->RuleCount(1).packets, 2u);
  w.now += Seconds(10);
  EXPECT_EQ(w.Judge(From("10.0.0.1")), Kind::kAccept);
  EXPECT_EQ(w.ruleset->RuleCount(1).packets, 3u);
  std::vector<tables::SetEvent> events;
  w.filter.DrainSetEvents([&](const tables::SetEvent& e) { events.push_back(e); });
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(nft::Bytes(events[1].key.begin(), events[1].key.begin() + 4), Addr("10.0.0.2"));
  EXPECT_EQ(events[1].timeout, Seconds(10));
}

TEST(FilterStateTest, UpdatesRefreshAndDeletesRemove) {
  FilterWorld w;
  RulesetModel m;
  m.AddSet("seen", kDynamic | kTimeout, 4).size = 100;
  m.Base("forward", 2)
      .Rule(Exprs{kSource, Lookup("seen"), nft::CounterExpr{}})
      .Rule(L4Proto(17) + Exprs{kSource, Dynset("seen", kUpdate, 1000)})
      .Rule(L4Proto(6) + Exprs{kSource, Dynset("seen", kDelete, {}), Accept()});
  w.Use(m);
  for (int i = 0; i < 5; ++i) {
    w.Run(kPacket);
    w.now += Millis(900);
  }
  EXPECT_EQ(w.ruleset->RuleCount(0).packets, 4u);
  w.now += Millis(200);
  w.Run(kPacket);
  EXPECT_EQ(w.ruleset->RuleCount(0).packets, 4u);
  w.Run(FilterWorld::Tcp4("10.0.0.1", "10.0.0.2", 1, 2));  // found once more, then deleted
  w.Run(kPacket);
  EXPECT_EQ(w.ruleset->RuleCount(0).packets, 5u);
}

TEST(FilterStateTest, FloodMeter) {  // meter flood { ip saddr limit rate over 10/second burst 2 }
  FilterWorld w;
  RulesetModel m;
  m.AddSet("flood", kDynamic, 4).size = 1000;
  m.Base("forward", 2).Rule({kSource, Dynset("flood", kAdd, {}, {Limit(10, 2, true)}), Drop()});
  w.Use(m);
  EXPECT_TRUE(w.ruleset->unsupported().empty());
  EXPECT_EQ(Drops(w, 4, From("10.0.0.1")), "--dd");
  EXPECT_EQ(Drops(w, 3, From("10.0.0.2")), "--d");
  w.now += Millis(100);
  EXPECT_EQ(Drops(w, 2, From("10.0.0.1")), "-d");
}

TEST(FilterStateTest, ElementsOfTheKernelCanBeHiddenAndRefreshed) {
  FilterWorld w;
  RulesetModel m;
  nft::Set& set = m.AddSet("seen", kDynamic | kTimeout, 4);
  set.size = 100;
  nft::SetElement e = Key(Addr("10.0.0.1"));
  e.expires_at = w.now + Seconds(5);
  set.elements = {e, Key(Addr("10.0.0.2"))};
  m.Base("forward", 2)
      .Rule(L4Proto(6) + Exprs{kSource, Dynset("seen", kDelete, {}), Accept()})
      .Rule({kSource, Lookup("seen"), Drop()})
      .Rule({kSource, Dynset("seen", kUpdate, 60'000)});
  w.Use(m);
  EXPECT_EQ(w.Judge(From("10.0.0.2")), Kind::kDrop);
  w.Run(FilterWorld::Tcp4("10.0.0.2", "10.0.0.3", 1, 2));
  EXPECT_EQ(w.Judge(From("10.0.0.2")), Kind::kAccept);  // and added again
  EXPECT_EQ(w.Judge(From("10.0.0.2")), Kind::kDrop);
  m.table().chains[0].rules[1].exprs = {kSource, Lookup("seen"), nft::CounterExpr{}};
  w.Use(m);
  w.Run(From("10.0.0.1"));  // refreshed for a minute
  w.now += Seconds(30);
  w.Run(From("10.0.0.1"));
  EXPECT_EQ(w.ruleset->RuleCount(1).packets, 2u);
}

TEST(FilterStateTest, ADryRunChangesNothing) {
  FilterWorld w;
  RulesetModel m;
  m.AddSet("flood", kDynamic | kTimeout, 4).size = 10;
  nft::PayloadExpr set;
  set.base = kNetwork;
  set.offset = 8;
  set.length = 1;
  set.sreg = 0;
  set.csum_type = 1;
  set.csum_offset = 10;
  nft::NumgenExpr numgen;
  numgen.modulus = 2;
  numgen.dreg = 4;
  m.Base("forward", 2)
      .Rule({nft::CounterExpr{}, Limit(1, 1), Quota(100, false), CountOver(0), nft::LogExpr{},
             nft::LastExpr{}, numgen, nft::NotrackExpr{}})
      .Rule({Set(Host32(9)), MetaSet(tables::kMetaMark)})
      .Rule({Set({1}), set})
      .Rule({kSource, Dynset("flood", kAdd, 1000, {Limit(10, 2, true)}), Drop()})
      .Rule({kSource, Dynset("flood", kUpdate, 1000)})
      .Rule({Meta(tables::kMetaMark), Cmp(kEq, Host32(9)), Drop()});
  w.Use(m);
  w.dry_run = true;
  for (int i = 0; i < 5; ++i) {
    w.Load(kPacket);
    const FilterVerdict v = w.Run();
    EXPECT_EQ(v.kind, Kind::kDrop);
    EXPECT_EQ(v.rule, 5u);
    EXPECT_EQ(w.Frame(), kPacket);
    EXPECT_EQ(w.p.mark, 9u);  // and so do later hooks
    EXPECT_EQ(w.p.ct_state, static_cast<uint8_t>(tables::CtState::kUntracked));
  }
  EXPECT_EQ(w.ruleset->RuleCount(0).packets, 0u);
  EXPECT_EQ(w.ruleset->dynamic(0)->worker(0).size(), 0u);
  EXPECT_EQ(w.filter.logged(), 0u);
  size_t events = w.filter.DrainSetEvents([](const tables::SetEvent&) {});
  EXPECT_EQ(events, 0u);
  w.dry_run = false;
  w.Run(kPacket);
  EXPECT_EQ(w.ruleset->RuleCount(0).packets, 1u);
  EXPECT_EQ(w.filter.logged(), 1u);  // the limit's token was still there
  EXPECT_EQ(w.p.mark, 9u);
  EXPECT_EQ(w.p.data[14 + 8], 1);
  EXPECT_EQ(w.ruleset->dynamic(0)->worker(0).size(), 1u);
}

}  // namespace
}  // namespace sluice::test
