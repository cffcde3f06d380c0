#include "control/early/early_compiler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/netfilter/nf_tables.h>

#include <memory>
#include <string>
#include <vector>

namespace sluice::control {
namespace {

using nft::Bytes;
using nft::Expr;
using nft::TableFamily;
using tables::EarlyProgram;
using tables::EarlyVerdict;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

// Byte code as nft writes it; all values in register 0.
nft::CmpExpr Equal(Bytes data) { return {0, NFT_CMP_EQ, std::move(data)}; }
Expr Payload(uint32_t base, uint32_t offset, uint32_t length) {
  nft::PayloadExpr e;
  e.dreg = 0;
  e.base = base;
  e.offset = offset;
  e.length = length;
  return e;
}
Expr Meta(uint32_t key) { return nft::MetaExpr{0, nft::kNoRegister, key}; }
Expr Verdict(int32_t code) { return nft::ImmediateExpr{nft::kVerdictRegister, {}, {code, ""}}; }
using Exprs = std::vector<Expr>;
Exprs operator+(Exprs a, const Exprs& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}
const Exprs kDrop = {Verdict(0)};
const Exprs kAccept = {Verdict(1)};
const Exprs kCounter = {nft::CounterExpr{}};
const Exprs kUdp53 = {Meta(NFT_META_L4PROTO), Equal({17}),
                      Payload(NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2), Equal({0, 53})};
const Exprs kConntrack = {nft::CtExpr{0, nft::kNoRegister, 0, {}}};
Exprs From(const std::string& set) {
  return {Payload(NFT_PAYLOAD_NETWORK_HEADER, 12, 4), nft::LookupExpr{set, 0}};
}
Exprs OnlyOn(const std::string& interface) {
  Bytes name(interface.begin(), interface.end());
  name.resize(16);
  return {Meta(NFT_META_IIFNAME), Equal(name)};
}

nft::Chain MakeChain(const std::string& name, uint32_t hook, int32_t priority,
                     std::vector<Exprs> rules) {
  nft::Chain chain;
  chain.name = name;
  chain.base = nft::BaseChain{"filter", hook, priority, 1, {}};
  uint64_t handle = 1;
  for (Exprs& exprs : rules) chain.rules.push_back({handle++, std::move(exprs), ""});
  return chain;
}
nft::Table MakeTable(TableFamily family, std::vector<nft::Chain> chains) {
  nft::Table table;
  table.family = family;
  table.name = "t";
  table.chains = std::move(chains);
  return table;
}
nft::SetElement Key(Ipv4 address, bool end = false) {
  nft::SetElement element;
  element.key.resize(4);
  address.ToWire(element.key.data());
  element.interval_end = end;
  return element;
}
nft::Set Addresses(const std::string& name, std::vector<nft::SetElement> elements,
                   uint32_t flags = 0) {
  nft::Set set;
  set.name = name;
  set.flags = flags;
  set.key_length = 4;
  set.elements.insert(elements.begin(), elements.end());
  set.version = 1;
  return set;
}

std::vector<uint64_t> Handles(const EarlyProgram& program) {
  std::vector<uint64_t> handles;
  for (const auto& rule : program.rules) handles.push_back(rule.key.handle);
  return handles;
}

class EarlyCompilerTest : public testing::Test {
 protected:
  std::shared_ptr<const EarlyProgram> Compile(const nft::RulesetChange* change = nullptr) {
    const EarlyPrograms compiled = compiler_.Compile(ruleset_, change, interfaces_, now_);
    valid_until_ = compiled.valid_until;
    programs_ = compiled.programs;
    return programs_[0];
  }

  nft::Ruleset ruleset_;
  EarlyCompiler compiler_;
  std::vector<EarlyInterface> interfaces_ = {{"wan0", 2}};
  std::vector<std::shared_ptr<const EarlyProgram>> programs_;
  Nanos now_ = Seconds(100);
  Nanos valid_until_;
};

TEST_F(EarlyCompilerTest, TakesTheHeadOfTheRawChainOnly) {
  ruleset_.tables = {
      MakeTable(TableFamily::kIp,
                {MakeChain("raw", 0, -300, {kUdp53 + kDrop, kConntrack + kDrop, kUdp53 + kDrop}),
                 MakeChain("mangle", 0, -250, {kUdp53 + kDrop}), MakeChain("nat", 0, -100, {kDrop}),
                 MakeChain("forward", 2, -300, {kDrop})})};
  const auto program = Compile();
  EXPECT_THAT(Handles(*program), ElementsAre(1));
  EXPECT_EQ(program->rules[0].key.chain, "raw");
  EXPECT_FALSE(program->rules[0].ingress);
  EXPECT_TRUE(program->rules[0].whole_packets);
  EXPECT_FALSE(program->martians) << "the rest wants to see them";
  EXPECT_THAT(program->remarks, SizeIs(1));
}

TEST_F(EarlyCompilerTest, WithoutRulesBeforeRoutingMartiansGoEarly) {
  ruleset_.tables = {MakeTable(TableFamily::kInet, {MakeChain("forward", 2, 0, {kUdp53 + kDrop}),
                                                    MakeChain("prerouting", 0, -100, {})})};
  EXPECT_TRUE(Compile()->martians);
  EXPECT_THAT(Compile()->rules, IsEmpty());
}

TEST_F(EarlyCompilerTest, AcceptsOnlyWhenTheWholeChainIsThere) {
  const std::vector<Exprs> whole = {kUdp53 + kDrop, kUdp53 + kAccept, kDrop};
  ruleset_.tables = {MakeTable(TableFamily::kIp, {MakeChain("raw", 0, -300, whole)})};
  EXPECT_THAT(Handles(*Compile()), ElementsAre(1, 2, 3));
  EXPECT_EQ(Compile()->rules[1].verdict, EarlyVerdict::kEndOfChain);
  std::vector<Exprs> more = whole;
  more.push_back(kConntrack + kDrop);
  ruleset_.tables = {MakeTable(
      TableFamily::kIp, {MakeChain("raw", 0, -300, more), MakeChain("other", 0, -299, {kDrop})})};
  EXPECT_THAT(Handles(*Compile()), ElementsAre(1));
}

TEST_F(EarlyCompilerTest, APolicyOnlyWhenTheWholeChainIsThere) {
  nft::Chain chain = MakeChain("raw", 0, -300, {kUdp53 + kAccept});
  chain.base->policy = 0;
  ruleset_.tables = {MakeTable(TableFamily::kIp, {chain})};
  EXPECT_THAT(Handles(*Compile()), ElementsAre(1, 0));
  chain.rules.push_back({2, kConntrack + kDrop, ""});
  ruleset_.tables = {MakeTable(TableFamily::kIp, {chain})};
  EXPECT_THAT(Handles(*Compile()), IsEmpty());
}

TEST_F(EarlyCompilerTest, FamiliesAreIndependent) {
  ruleset_.tables = {
      MakeTable(TableFamily::kIp6, {MakeChain("six", 0, -301, {kConntrack + kDrop})}),
      MakeTable(TableFamily::kInet, {MakeChain("both", 0, -300, {kUdp53 + kDrop})})};
  const auto program = Compile();
  ASSERT_THAT(program->rules, SizeIs(1));
  EXPECT_EQ(program->rules[0].families, tables::kEarlyIpv4);
}

TEST_F(EarlyCompilerTest, RulesOfOtherInterfacesDoNotStopIt) {
  ruleset_.tables = {MakeTable(
      TableFamily::kIp,
      {MakeChain("raw", 0, -300, {OnlyOn("lan0") + kConntrack + kDrop, kUdp53 + kDrop})})};
  EXPECT_THAT(Handles(*Compile()), ElementsAre(2));
  // But what must stay in user space on one interface stays there on all.
  interfaces_.push_back({"lan0", 3});
  EXPECT_THAT(Handles(*Compile()), IsEmpty());
}

TEST_F(EarlyCompilerTest, IngressBeforePreroutingOnItsDevices) {
  nft::Chain ingress = MakeChain("in", 0, 5, {kUdp53 + kDrop});
  ingress.base->devices = {"wan0"};
  ruleset_.tables = {MakeTable(TableFamily::kIp, {MakeChain("raw", 0, -300, {kUdp53 + kDrop})}),
                     MakeTable(TableFamily::kNetdev, {ingress})};
  const auto program = Compile();
  ASSERT_THAT(program->rules, SizeIs(2));
  EXPECT_TRUE(program->rules[0].ingress);
  EXPECT_FALSE(program->rules[0].whole_packets);
  EXPECT_NE(program->rules[0].chain, program->rules[1].chain);
  ruleset_.tables[1].chains[0].base->devices = {"lan0"};
  EXPECT_THAT(Compile()->rules, SizeIs(1));
  ruleset_.tables[1].dormant = true;
  ruleset_.tables[0].dormant = true;
  EXPECT_THAT(Compile()->rules, IsEmpty());
}

TEST_F(EarlyCompilerTest, ALimitAndWhereTheCounterStands) {
  const nft::LimitExpr limit{10, 1, 20, false, true};
  ruleset_.tables = {MakeTable(TableFamily::kIp, {MakeChain("raw", 0, -300,
                                                            {kCounter + Exprs{limit} + kDrop,
                                                             Exprs{limit} + kCounter + kDrop,
                                                             Exprs{limit} + kUdp53 + kDrop})})};
  const auto program = Compile();
  ASSERT_THAT(program->rules, SizeIs(2)) << "a condition behind a limit is for user space";
  EXPECT_EQ(program->rules[0].counter, tables::EarlyCounter::kBeforeLimit);
  EXPECT_EQ(program->rules[1].counter, tables::EarlyCounter::kLast);
  EXPECT_EQ(program->rules[0].limit->cost_ns, 100'000'000u);
  EXPECT_EQ(program->rules[0].limit->depth_ns, 2'000'000'000u);
  EXPECT_TRUE(program->rules[0].limit->over);
}

TEST_F(EarlyCompilerTest, MetersOfTheirOwn) {
  auto dynset = std::make_shared<nft::DynsetExpr>();
  dynset->set = "flood";
  dynset->op = NFT_DYNSET_OP_UPDATE;
  dynset->exprs = {nft::LimitExpr{100, 1, 5, false, true}};
  const Exprs meter = {Payload(NFT_PAYLOAD_NETWORK_HEADER, 12, 4),
                       std::shared_ptr<const nft::DynsetExpr>(dynset)};
  nft::Table table = MakeTable(TableFamily::kIp, {MakeChain("raw", 0, -300, {meter + kDrop})});
  table.sets["flood"] = Addresses("flood", {}, NFT_SET_EVAL | NFT_SET_TIMEOUT);
  table.sets["flood"].timeout_ms = 60'000;
  ruleset_.tables = {table};
  ASSERT_THAT(Compile()->rules, SizeIs(1));
  EXPECT_TRUE(Compile()->rules[0].limit->per_source);
  // Elements that end before their bucket is full again would start afresh.
  ruleset_.tables[0].sets["flood"].timeout_ms = 1;
  EXPECT_THAT(Compile()->rules, IsEmpty());
  ruleset_.tables[0].sets["flood"].timeout_ms = 60'000;
  // Somebody else looks at what it collects.
  ruleset_.tables[0].chains.push_back(MakeChain("input", 1, 0, {From("flood") + kDrop}));
  EXPECT_THAT(Compile()->rules, IsEmpty());
}

TEST_F(EarlyCompilerTest, SetsThatPacketsChangeStayBehind) {
  auto dynset = std::make_shared<nft::DynsetExpr>();
  dynset->set = "bad";
  nft::Table table = MakeTable(
      TableFamily::kIp,
      {MakeChain("raw", 0, -300, {From("bad") + kDrop}),
       MakeChain("input", 1, 0, {Exprs{std::shared_ptr<const nft::DynsetExpr>(dynset)}})});
  table.sets["bad"] = Addresses("bad", {Key(Ipv4(10, 0, 0, 1))}, NFT_SET_EVAL);
  ruleset_.tables = {table};
  EXPECT_THAT(Compile()->rules, IsEmpty());
}

TEST_F(EarlyCompilerTest, ElementsComeAndGoByDeltas) {
  nft::Table table =
      MakeTable(TableFamily::kIp, {MakeChain("raw", 0, -300, {From("bad") + kDrop})});
  // 10.0.0.0-10.0.0.9 and from 250.0.0.0 on.
  table.sets["bad"] = Addresses(
      "bad", {Key(Ipv4(10, 0, 0, 0)), Key(Ipv4(10, 0, 0, 10), true), Key(Ipv4(250, 0, 0, 0))},
      NFT_SET_INTERVAL);
  ruleset_.tables = {table};
  const auto first = Compile();
  EXPECT_THAT(*first->sets4[0],
              ElementsAre(tables::EarlyRange<Ipv4>{Ipv4(10, 0, 0, 0), Ipv4(10, 0, 0, 9)},
                          tables::EarlyRange<Ipv4>{Ipv4(250, 0, 0, 0), Ipv4(UINT32_MAX)}));
  nft::RulesetChange change;
  EXPECT_EQ(Compile(&change)->sets4[0], first->sets4[0]) << "the very same, when nothing changed";

  nft::Set& set = ruleset_.tables[0].sets["bad"];
  const auto last = set.elements.find(Key(Ipv4(250, 0, 0, 0)));
  change.sets.push_back({TableFamily::kIp, "t", "bad", {*last}, {}});
  set.elements.erase(last);
  for (const auto& element : {Key(Ipv4(10, 0, 0, 10)), Key(Ipv4(10, 0, 0, 12), true)}) {
    set.elements.insert(element);
    change.sets[0].added.push_back(element);
  }
  set.version = 2;
  const auto by_delta = Compile(&change);
  EXPECT_THAT(*by_delta->sets4[0],
              ElementsAre(tables::EarlyRange<Ipv4>{Ipv4(10, 0, 0, 0), Ipv4(10, 0, 0, 11)}));
  EXPECT_EQ(by_delta->rules, first->rules);
  EarlyCompiler other;
  EXPECT_EQ(*other.Compile(ruleset_, nullptr, interfaces_, now_).programs[0]->sets4[0],
            *by_delta->sets4[0]);
}

TEST_F(EarlyCompilerTest, ElementsEnd) {
  nft::Table table =
      MakeTable(TableFamily::kIp, {MakeChain("raw", 0, -300, {From("bad") + kDrop})});
  nft::SetElement brief = Key(Ipv4(10, 0, 0, 1));
  brief.expires_at = now_ + Seconds(5);
  table.sets["bad"] = Addresses("bad", {brief, Key(Ipv4(10, 0, 0, 3))}, NFT_SET_TIMEOUT);
  ruleset_.tables = {table};
  EXPECT_THAT(*Compile()->sets4[0], SizeIs(2));
  EXPECT_EQ(valid_until_, now_ + Seconds(5));
  now_ = valid_until_;
  const nft::RulesetChange nothing;
  EXPECT_THAT(*Compile(&nothing)->sets4[0], SizeIs(1));
  EXPECT_EQ(valid_until_, Nanos::Max());
}

TEST_F(EarlyCompilerTest, NoMoreRulesThanFit) {
  std::vector<Exprs> rules(70, kUdp53 + kDrop);
  ruleset_.tables = {MakeTable(TableFamily::kIp, {MakeChain("raw", 0, -300, rules)})};
  EXPECT_THAT(Compile()->rules, SizeIs(EarlyProgram::kMaxRules));
  EXPECT_THAT(Compile()->remarks, SizeIs(testing::Ge(1u)));
}

}  // namespace
}  // namespace sluice::control
