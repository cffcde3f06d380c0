// An indexed chain must judge exactly as the same chain walked rule by rule.
#include <gtest/gtest.h>

#include <string>

#include "support/filter_world.h"
#include "support/random_rules.h"

namespace sluice::test {
namespace {

void Check(uint64_t seed, size_t rules, size_t packets) {
  SCOPED_TRACE("seed " + std::to_string(seed));
  RandomRules generator(seed, rules < 100 ? 12 : rules / 2);
  const RulesetModel model = generator.Ruleset(rules);
  FilterWorld linear;
  FilterWorld indexed;
  linear.Restart({.index_threshold = 1'000'000});
  indexed.Restart({.index_threshold = 4});
  linear.Use(model);
  indexed.Use(model);
  size_t with_index = 0;
  for (uint32_t c = 0; c < indexed.ruleset->chain_count(); ++c) {
    ASSERT_EQ(linear.ruleset->chain(c).index, nullptr);
    if (indexed.ruleset->chain(c).index != nullptr) ++with_index;
  }
  ASSERT_GT(with_index, 0u);
  for (size_t i = 0; i < packets; ++i) {
    const Bytes frame = generator.Packet();
    const uint32_t mark = static_cast<uint32_t>(generator.rng().Below(4));
    const auto state = static_cast<uint8_t>(generator.rng().Below(6));
    for (FilterWorld* w : {&linear, &indexed}) {
      w->Load(frame);
      w->p.mark = mark;
      w->p.ct_state = state;
    }
    const FilterVerdict a = linear.Run();
    const FilterVerdict b = indexed.Run();
    ASSERT_EQ(a.kind, b.kind) << "packet " << i << ": " << ToHex(frame);
    ASSERT_EQ(a.rule, b.rule) << "packet " << i << ": " << ToHex(frame);
    ASSERT_EQ(linear.p.mark, indexed.p.mark);
    ASSERT_EQ(linear.Frame(), indexed.Frame());
  }
  // Every counter, also of rules that did not decide.
  for (uint32_t r = 0; r < linear.ruleset->rule_count(); ++r) {
    ASSERT_EQ(linear.ruleset->RuleCount(r).packets, indexed.ruleset->RuleCount(r).packets) << r;
    ASSERT_EQ(linear.ruleset->RuleCount(r).bytes, indexed.ruleset->RuleCount(r).bytes) << r;
  }
}

TEST(FilterIndexTest, SmallChainsJudgeAsWithoutIndex) {
  for (uint64_t seed = 1; seed <= 60; ++seed) Check(seed, 20, 200);
}

TEST(FilterIndexTest, LargeChainsJudgeAsWithoutIndex) {
  for (uint64_t seed = 100; seed < 104; ++seed) Check(seed, 2000, 1000);
}

TEST(FilterIndexTest, AHugeChainIsIndexedWithinItsMemory) {
  RulesetModel m;
  m.Base("forward", 2);
  for (uint32_t i = 0; i < 20000; ++i) {
    const nft::Bytes a = {10, static_cast<uint8_t>(i >> 16), static_cast<uint8_t>(i >> 8),
                          static_cast<uint8_t>(i)};
    m.Rule({Payload(kNetwork, 12, 4), Cmp(kEq, a), Drop()});
  }
  FilterWorld w;
  w.Restart({.index_bytes = size_t{8} << 20});
  w.Use(m);
  const auto& index = w.ruleset->chain(0).index;
  ASSERT_NE(index, nullptr);
  EXPECT_LE(index->memory_bytes(), size_t{8} << 20);
  EXPECT_EQ(w.Judge(FilterWorld::Udp4("10.0.78.31", "1.1.1.1", 1, 2)), Kind::kDrop);  // 19999
  EXPECT_EQ(w.Judge(FilterWorld::Udp4("10.0.78.32", "1.1.1.1", 1, 2)), Kind::kAccept);

  w.Restart({.index_bytes = 1000});  // too little: without an index, with the same meaning
  w.Use(m);
  EXPECT_EQ(w.ruleset->chain(0).index, nullptr);
  EXPECT_EQ(w.Judge(FilterWorld::Udp4("10.0.78.31", "1.1.1.1", 1, 2)), Kind::kDrop);
}

}  // namespace
}  // namespace sluice::test
