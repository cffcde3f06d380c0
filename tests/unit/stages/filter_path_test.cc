// What rules that everybody has mean for the flow tier: which flows they leave to it, and why not.
#include <gtest/gtest.h>

#include <memory>

#include "support/filter_world.h"
#include "tables/flow.h"

namespace sluice::test {
namespace {

using stages::FlowPath;
using stages::Variance;
using tables::CtState;

constexpr uint8_t kFin = 1, kSyn = 2, kRst = 4, kPsh = 8, kAck = 0x10, kUrg = 0x20;
const Bytes kTcp = FilterWorld::Tcp4("10.0.0.1", "10.0.0.2", 1000, 443);
const Bytes kUdp = FilterWorld::Udp4("10.0.0.1", "10.0.0.2", 1000, 443);
const nft::Expr kFlags = Payload(kTransport, 13, 1);

class FilterPathTest : public testing::Test {
 protected:
  FilterPathTest() { m_.Base("forward", 2, 0); }

  void Add(Exprs exprs) { m_.Rule(std::move(exprs)); }
  // The path of an established flow's packet through the rules so far.
  FlowPath PathOf(const Bytes& frame, HookPoint hook = HookPoint::kForward) {
    w_.Use(m_);
    return Again(frame, hook);
  }
  FlowPath Again(const Bytes& frame, HookPoint hook = HookPoint::kForward) {
    FlowPath path;
    path.Begin(w_.Load(frame));
    w_.p.ct_state = static_cast<uint8_t>(state_);
    w_.flow = &flow_;
    stages::FilterContext context = w_.Context();
    context.path = &path;
    verdict_ = w_.filter.Run(hook, w_.family, context);
    return path;
  }
  Variance Alone(Exprs exprs, const Bytes& frame = kTcp) {
    m_ = RulesetModel(nft::TableFamily::kInet);
    m_.Base("forward", 2, 0).Rule(std::move(exprs));
    return PathOf(frame).variance;
  }

  FilterWorld w_;
  RulesetModel m_{nft::TableFamily::kInet};
  tables::Flow flow_{};
  CtState state_ = CtState::kEstablished;
  FilterVerdict verdict_;
};

Exprs FlagsAre(uint8_t mask, uint8_t wanted) {
  return L4Proto(6) + Exprs{kFlags, And({mask}), Cmp(kEq, {wanted})};
}

TEST_F(FilterPathTest, PacketsThatXdpCarriesOut) {
  EXPECT_TRUE(stages::HasOffloadForm(w_.Load(kTcp)));
  EXPECT_TRUE(stages::HasOffloadForm(w_.Load(kUdp)));
  EXPECT_TRUE(stages::HasOffloadForm(w_.Load(FilterWorld::Tcp6("fd00::1", "fd00::2", 1, 2))));
  for (const uint8_t flags : {kSyn, uint8_t{kSyn | kAck}, uint8_t{kFin | kAck}, kRst, kPsh,
                              uint8_t{kAck | kUrg}, uint8_t{kAck | 0x40}}) {
    EXPECT_FALSE(stages::HasOffloadForm(
        w_.Load(FilterWorld::Tcp4("10.0.0.1", "10.0.0.2", 1, 2, flags))));
  }
  EXPECT_TRUE(stages::HasOffloadForm(
      w_.Load(FilterWorld::Tcp4("10.0.0.1", "10.0.0.2", 1, 2, kAck | kPsh))));
  const auto ip = [] { return FilterWorld::Ethernet().Ipv4("10.0.0.1", "10.0.0.2"); };
  EXPECT_FALSE(stages::HasOffloadForm(w_.Load(ip().Ttl(1).Udp(1, 2).Build())));
  EXPECT_FALSE(stages::HasOffloadForm(w_.Load(ip().FragmentOffset(8).Udp(1, 2).Build())));
  EXPECT_FALSE(stages::HasOffloadForm(w_.Load(ip().MoreFragments().Udp(1, 2).Build())));
  EXPECT_FALSE(stages::HasOffloadForm(w_.Load(ip().Icmp(8, 0).Build())));
  EXPECT_FALSE(stages::HasOffloadForm(w_.Load(
      FilterWorld::Ethernet().Ipv6("fd00::1", "fd00::2").HopByHop().Udp(1, 2).Build())));
  w_.Load(kUdp).fragment_size = 1000;
  EXPECT_FALSE(stages::HasOffloadForm(w_.p));
  w_.Load(kUdp);
  EXPECT_EQ(Alone({Accept()}, FilterWorld::Tcp4("10.0.0.1", "10.0.0.2", 1, 2, kSyn)),
            Variance::kForm);
}

TEST_F(FilterPathTest, FlagsThatPshDoesNotDecide) {
  constexpr uint8_t kSix = kFin | kSyn | kRst | kPsh | kAck | kUrg;
  EXPECT_EQ(Alone(FlagsAre(kSix, 0) + Exprs{Drop()}), Variance::kNone);
  EXPECT_EQ(Alone(FlagsAre(kFin | kSyn, kFin | kSyn) + Exprs{Drop()}), Variance::kNone);
  EXPECT_EQ(Alone(FlagsAre(kSix, kFin | kPsh | kUrg) + Exprs{Drop()}), Variance::kNone);
  EXPECT_EQ(Alone(FlagsAre(kSix, kAck) + Exprs{Accept()}), Variance::kTcpFlags);
  EXPECT_EQ(Alone(FlagsAre(kPsh, kPsh) + Exprs{Accept()}), Variance::kTcpFlags);
  EXPECT_EQ(Alone(FlagsAre(kPsh, kPsh) + Exprs{Accept()}, kUdp), Variance::kNone);
  // `tcp flags syn tcp option maxseg size set rt mtu`
  nft::ExthdrExpr mss;
  mss.op = 1;
  mss.type = 2;
  mss.offset = 2;
  mss.length = 2;
  mss.sreg = 0;
  const Exprs clamp = {nft::RtExpr{0, 3}, nft::ByteorderExpr{0, 0, 1, 2, 2}, mss};
  EXPECT_EQ(Alone(L4Proto(6) + Exprs{kFlags, And({kSyn}), Cmp(kNeq, {0})} + clamp),
            Variance::kNone);
  EXPECT_EQ(Alone(Exprs{mss}), Variance::kWrite);
  EXPECT_EQ(Alone(Exprs{mss}, kUdp), Variance::kNone);
}

TEST_F(FilterPathTest, FlagsInSets) {
  nft::Set& odd = m_.AddSet("odd", 3, 1);
  for (const uint8_t flags : {uint8_t{0}, kSyn, uint8_t{kFin | kPsh | kUrg}}) {
    odd.elements.insert(Key({flags}));
  }
  nft::Set& usual = m_.AddSet("usual", 3, 1);
  for (const uint8_t flags : {kAck, uint8_t{kAck | kPsh}}) usual.elements.insert(Key({flags}));
  nft::Set& plain = m_.AddSet("plain", 3, 1);
  plain.elements.insert(Key({kAck}));
  const auto with = [&](const char* set, bool inverted) {
    m_.table().chains[0].rules.clear();
    Add(L4Proto(6) + Exprs{kFlags, Lookup(set, 0, inverted), Drop()});
    return PathOf(kTcp).variance;
  };
  EXPECT_EQ(with("odd", false), Variance::kNone);
  EXPECT_EQ(with("usual", true), Variance::kNone);
  EXPECT_EQ(with("plain", false), Variance::kTcpFlags);
}

TEST_F(FilterPathTest, CountersAreNotedOnceForEachStatement) {
  nft::Object hits;
  hits.type = 1;
  hits.name = "hits";
  hits.handle = 100;
  hits.value = nft::CounterExpr{};
  m_.table().objects.push_back(hits);
  Add({nft::ObjrefExpr{.type = 1, .name = "hits"}});
  Add(TcpDport(80) + Exprs{nft::CounterExpr{}});
  Add({Ct(tables::kCtState), And(Host32(6)), Cmp(kNeq, Host32(0)), nft::CounterExpr{}, Accept()});
  const FlowPath path = PathOf(kTcp);
  EXPECT_FALSE(path.varies());
  ASSERT_EQ(path.cell_count, 2);
  for (tables::StateCell* cell : path.counted()) EXPECT_EQ(cell->a.load(), 1u);
  EXPECT_EQ(path.cells[1], w_.ruleset->rule(2).counter);  // worker 0's own is the first
  // Two hooks, one path; and no more than there is room for.
  m_.table().chains.clear();
  m_.Base("forward", 2, 0);
  for (size_t i = 0; i < FlowPath::kCells; ++i) Add({nft::CounterExpr{}});
  EXPECT_EQ(PathOf(kTcp).cell_count, FlowPath::kCells);
  EXPECT_FALSE(PathOf(kTcp).varies());
  Add({nft::CounterExpr{}});
  const FlowPath full = PathOf(kTcp);
  EXPECT_EQ(full.variance, Variance::kManyCounters);
  EXPECT_EQ(full.rule, FlowPath::kCells);
}

TEST_F(FilterPathTest, OfElementsAndWhatEnds) {
  nft::Set& counted = m_.AddSet("counted", 0x100, 4);
  counted.exprs = {nft::CounterExpr{}};
  nft::SetElement element = Key(Addr("10.0.0.1"));
  element.exprs = {nft::CounterExpr{}};
  counted.elements.insert(element);
  nft::Set& timed = m_.AddSet("timed", 0x10, 4);
  element = Key(Addr("10.0.0.1"));
  element.expires_at = w_.now + Seconds(10);
  element.timeout_ms = 10'000;
  timed.elements.insert(element);
  timed.elements.insert(Key(Addr("10.0.0.9")));
  const nft::Expr source = Payload(kNetwork, 12, 4);
  const auto path = [&](const char* set, const char* from) {
    m_.table().chains[0].rules.clear();
    Add({source, Lookup(set), Accept()});
    return PathOf(FilterWorld::Udp4(from, "10.0.0.2", 1, 2));
  };
  EXPECT_EQ(path("counted", "10.0.0.1").cell_count, 1);
  EXPECT_EQ(path("counted", "10.0.0.3").cell_count, 0);
  EXPECT_EQ(path("timed", "10.0.0.1").variance, Variance::kTimedElement);
  EXPECT_EQ(path("timed", "10.0.0.3").variance, Variance::kNone);
  EXPECT_EQ(path("timed", "10.0.0.9").variance, Variance::kNone);  // stays for ever
  // A set that packets add to, as soon as any rule does.
  m_.AddSet("dynamic", 0x20, 4).size = 10;
  EXPECT_EQ(path("dynamic", "10.0.0.1").variance, Variance::kNone);
  auto add = std::make_shared<nft::DynsetExpr>();
  add->set = "dynamic";
  m_.Base("input", 1).Rule({source, std::shared_ptr<const nft::DynsetExpr>(add)});
  EXPECT_EQ(PathOf(kUdp).variance, Variance::kDynamicSet);
}

// A thousand rules behind an index: what decides is only what the packet reaches.
TEST_F(FilterPathTest, AnIndexedChain) {
  for (uint16_t i = 0; i < 1000; ++i) {
    const nft::Bytes a = {10, 1, static_cast<uint8_t>(i >> 8), static_cast<uint8_t>(i)};
    Exprs rule = {Payload(kNetwork, 12, 4), Cmp(kEq, a)};
    switch (i % 4) {
      case 0:
        rule = rule + Exprs{Payload(kNetwork, 8, 1), Cmp(kLt, {64})};  // TTL
        break;
      case 1:
        rule = rule + Exprs{Meta(tables::kMetaLength), Cmp(kEq, Host32(60))};
        break;
      case 2:
        rule = rule + FlagsAre(kPsh, kPsh);
        break;
      default:
        rule = rule + TcpDport(443);
    }
    Add(rule + Exprs{nft::CounterExpr{}, Drop()});
  }
  const auto from = [&](const char* source) {
    return Again(FilterWorld::Tcp4(source, "10.0.0.2", 1000, 443));
  };
  EXPECT_FALSE(PathOf(kTcp).varies());
  const tables::Classifier* index = w_.ruleset->program().chains[0].index.get();
  ASSERT_NE(index, nullptr);
  EXPECT_GE(index->dimension_count(), 4u);  // those that vary are among them
  EXPECT_EQ(from("10.1.0.100").variance, Variance::kHeaderField);
  EXPECT_EQ(from("10.1.0.101").variance, Variance::kPacketLength);
  EXPECT_EQ(from("10.1.0.102").variance, Variance::kTcpFlags);
  const FlowPath path = from("10.1.0.103");
  EXPECT_FALSE(path.varies());
  EXPECT_EQ(path.cell_count, 1);
  EXPECT_EQ(verdict_.kind, Kind::kDrop);
  EXPECT_EQ(verdict_.rule, 103u);
}

TEST_F(FilterPathTest, AVerdictMapOfInterfaceAddressAndPort) {
  nft::Set& map = m_.AddSet("m", 0xb, 24);
  map.data_type = 0xffffff00;
  map.field_lengths = {16, 4, 2};
  nft::SetElement e = Key(Join({Name("lan0"), Addr("10.0.0.2"), Net16(443)}));
  e.verdict = {1, ""};
  map.elements.insert(e);
  Add(L4Proto(6) + Exprs{Meta(tables::kMetaIifName), Payload(kNetwork, 16, 4, 4),
                         Payload(kTransport, 2, 2, 5), VerdictMap("m")});
  Add({Drop()});
  EXPECT_FALSE(PathOf(kTcp).varies());
  EXPECT_EQ(verdict_.kind, Kind::kAccept);
}

TEST_F(FilterPathTest, RoutesThatAreAskedFor) {
  // `fib saddr . iif oif missing drop`
  Add({nft::FibExpr{0, 1, 9}, Cmp(kEq, Host32(0)), Drop()});
  FlowPath path = PathOf(kTcp);
  EXPECT_FALSE(path.varies());
  ASSERT_EQ(path.route_count, 1);
  EXPECT_EQ(path.routes[0], IpAddress(Ipv4(10, 0, 0, 1)));
  Add({nft::FibExpr{0, 3, 2}, Cmp(kEq, Host32(2)), Drop()});
  m_.table().chains[0].rules.erase(m_.table().chains[0].rules.begin());
  path = PathOf(kTcp);
  ASSERT_EQ(path.route_count, 1);
  EXPECT_EQ(path.routes[0], IpAddress(Ipv4(10, 0, 0, 2)));
  // Of a translated flow there may be more than there is room for.
  FlowPath full;
  EXPECT_TRUE(full.AddRoute(Ipv4(10, 0, 0, 1)));
  EXPECT_TRUE(full.AddRoute(Ipv4(10, 0, 0, 2)));
  EXPECT_TRUE(full.AddRoute(Ipv4(10, 0, 0, 1)));
  EXPECT_FALSE(full.AddRoute(Ipv4(10, 0, 0, 3)));
}

TEST_F(FilterPathTest, StatesOfConnections) {
  const Exprs invalid = {Ct(tables::kCtState), And(Host32(1)), Cmp(kNeq, Host32(0)), Drop()};
  EXPECT_EQ(Alone(invalid), Variance::kNone);
  state_ = CtState::kNew;
  EXPECT_EQ(Alone(invalid), Variance::kConnectionState);
  state_ = CtState::kUntracked;
  EXPECT_EQ(Alone(invalid), Variance::kNone);
  state_ = CtState::kEstablished;
  const Exprs assured = {Ct(tables::kCtStatus), And(Host32(4)), Cmp(kNeq, Host32(0)), Accept()};
  flow_.status = tables::kFlowConfirmed | tables::kFlowSeenReply;
  EXPECT_EQ(Alone(assured), Variance::kConnectionState);
  flow_.status |= tables::kFlowAssured;
  EXPECT_EQ(Alone(assured), Variance::kNone);
}

TEST_F(FilterPathTest, MarksThatStay) {
  nft::CtExpr set;
  set.key = tables::kCtMark;
  set.sreg = 0;
  Add({Set(Host32(5)), MetaSet(tables::kMetaMark)});
  Add({Meta(tables::kMetaMark), set});
  EXPECT_EQ(PathOf(kTcp).variance, Variance::kConnectionMark);
  EXPECT_EQ(flow_.mark, 5u);
  EXPECT_EQ(Again(kTcp).variance, Variance::kNone);  // the next one finds it so
  EXPECT_EQ(Alone({Payload(kNetwork, 2, 2), MetaSet(tables::kMetaMark)}), Variance::kHeaderField);
}

TEST_F(FilterPathTest, NotWhatXdpHasApplied) {
  m_.Base("pre", 0, -300).Rule({nft::CounterExpr{}, nft::LimitExpr{.rate = 10}}).Rule({nft::CounterExpr{}});
  EXPECT_EQ(PathOf(kTcp, HookPoint::kPreroutingRaw).variance, Variance::kLimit);
  auto out = std::make_shared<tables::EarlyLeftOut>();
  out->rules = {tables::kEarlyIpv4, 0};
  out->policies.assign(w_.ruleset->chain_count(), 0);
  w_.snapshot.left_out = out;
  FlowPath path = Again(kTcp, HookPoint::kPreroutingRaw);
  EXPECT_FALSE(path.varies());
  ASSERT_EQ(path.cell_count, 1);
  EXPECT_EQ(path.cells[0], w_.ruleset->rule(1).counter);
  // Explain shows the rule, but it is not this tier's.
  class Silent : public stages::TraceSink {
    void EnterChain(uint32_t) override {}
    void LeaveChain(uint32_t) override {}
    void RuleMatched(uint32_t) override { ++matched; }
    void PolicyApplied(uint32_t, bool) override {}

   public:
    int matched = 0;
  } sink;
  w_.dry_run = true;
  w_.trace = &sink;
  path = Again(kTcp, HookPoint::kPreroutingRaw);
  EXPECT_FALSE(path.varies());
  EXPECT_EQ(path.cell_count, 1);
  EXPECT_EQ(sink.matched, 2);
  // XDP does not know such a family's rule.
  w_.dry_run = false;
  w_.trace = nullptr;
  EXPECT_EQ(Again(FilterWorld::Tcp6("fd00::1", "fd00::2", 1, 2), HookPoint::kPreroutingRaw).variance,
            Variance::kLimit);
}

TEST_F(FilterPathTest, TheKernelsAndTheFirstReason) {
  Add({nft::UnsupportedExpr{"osf"}});
  Add({nft::LogExpr{}});
  const FlowPath path = PathOf(kTcp);
  EXPECT_EQ(path.variance, Variance::kKernel);
  EXPECT_EQ(path.rule, 0u);
  EXPECT_EQ(VarianceLabel(path.variance), "kernel");
  for (size_t i = 1; i < stages::kVarianceCount; ++i) {
    EXPECT_FALSE(VarianceText(static_cast<Variance>(i)).empty());
  }
}

}  // namespace
}  // namespace sluice::test
