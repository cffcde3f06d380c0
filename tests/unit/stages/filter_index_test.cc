// An indexed chain must judge exactly as the same chain walked rule by rule.
#include <gtest/gtest.h>

#include <string>

#include "base/rng.h"
#include "support/filter_world.h"

namespace sluice::test {
namespace {

// Few values, so that rules and packets meet.
const char* const kAddresses[] = {"10.0.0.1",    "10.0.0.2",  "10.0.1.1",    "10.0.1.200",
                                  "192.168.0.1", "8.8.8.8",   "255.255.0.1", "10.255.255.255"};
const char* const kAddresses6[] = {"2001:db8::1", "2001:db8::2", "2001:db8:1::1", "fd00::1"};

class Generator {
 public:
  // One rule in `rarity` or so has each kind of verdict.
  Generator(uint64_t seed, uint64_t rarity) : rng_(seed), rarity_(rarity) {}

  RulesetModel Ruleset(size_t rules) {
    RulesetModel m(nft::TableFamily::kInet);
    AddSets(m);
    for (int chain = 0; chain < 3; ++chain) {
      m.Chain("c" + std::to_string(chain));
      for (size_t i = 0; i < 30; ++i) m.Rule(Rule(chain + 1));
    }
    m.Base("forward", 2, 0, rng_.Chance(1, 2) ? 1 : 0);
    for (size_t i = 0; i < rules; ++i) m.Rule(Rule(0));
    return m;
  }

  Bytes Packet() {
    PacketBuilder b = FilterWorld::Ethernet();
    if (rng_.Chance(3, 4)) {
      b.Ipv4(Pick(kAddresses), Pick(kAddresses));
      if (rng_.Chance(1, 8)) b.FragmentOffset(static_cast<uint16_t>(8 * rng_.Below(3)));
    } else {
      b.Ipv6(Pick(kAddresses6), Pick(kAddresses6));
      if (rng_.Chance(1, 4)) b.HopByHop();
    }
    switch (rng_.Below(4)) {
      case 0:
        b.Udp(Port(), Port());
        break;
      case 1:
        b.Icmp(static_cast<uint8_t>(rng_.Below(12)), 0);
        break;
      default:
        b.Tcp(Port(), Port(), static_cast<uint8_t>(rng_.Below(64)));
    }
    return b.Payload(rng_.Below(20)).Build();
  }

  Rng& rng() { return rng_; }

 private:
  template <size_t N>
  const char* Pick(const char* const (&from)[N]) {
    return from[rng_.Below(N)];
  }
  uint16_t Port() { return static_cast<uint16_t>(1 + rng_.Below(12)); }

  void AddSets(RulesetModel& m) {
    for (int i = 0; i < 3; ++i) {
      nft::Set& ports = m.AddSet("ports" + std::to_string(i), 3, 2);
      for (int k = 0; k < 4; ++k) ports.elements.insert(Key(Net16(Port())));
      nft::Set& ranges = m.AddSet("ranges" + std::to_string(i), 7, 4);
      ranges.elements.insert(Key(Addr("10.0.0.0")));
      ranges.elements.insert(End(Addr(i == 0 ? "10.0.0.2" : "10.0.1.0")));
      if (i == 2) ranges.elements.insert(Key(Addr("192.0.0.0")));
      nft::Set& both = m.AddSet("both" + std::to_string(i), 3, 8);
      both.field_lengths = {4, 2};
      for (int k = 0; k < 6; ++k) {
        both.elements.insert(Key(Join({Addr(Pick(kAddresses)), Net16(Port())})));
      }
      nft::Set& boxes = m.AddSet("boxes" + std::to_string(i), 0x87, 8);
      boxes.field_lengths = {4, 2};
      for (int k = 0; k < 3; ++k) {
        const auto low = static_cast<uint16_t>(1 + 4 * k);
        nft::SetElement e = Key(Join({Addr("10.0.0.0"), Net16(low)}));
        e.key_end = Join({Addr("10.0.1.1"), Net16(static_cast<uint16_t>(low + rng_.Below(4)))});
        e.order = static_cast<uint64_t>(k);
        boxes.elements.insert(e);
      }
      nft::Set& named = m.AddSet("named" + std::to_string(i), 0, 4);
      named.elements.insert(Key(Addr(Pick(kAddresses))));
    }
    for (const bool jumps : {false, true}) {
      nft::Set& verdicts = m.AddSet(jumps ? "jumps" : "verdicts", 0xb, 2);
      verdicts.data_type = 0xffffff00;
      for (uint16_t port = 1; port < 5; ++port) {
        nft::SetElement e = Key(Net16(port));
        e.verdict = {port == 1 ? 1 : port == 2 ? 0 : port == 3 ? -1 : -5, ""};
        if (jumps && port > 2) e.verdict = {-3, "c2"};
        verdicts.elements.insert(e);
      }
    }
  }

  Exprs AddressMatch(uint32_t offset) {
    const nft::Expr load = Payload(kNetwork, offset, 4);
    const nft::Bytes a = Addr(Pick(kAddresses));
    switch (rng_.Below(6)) {
      case 0:
        return {load, Cmp(kEq, a)};
      case 1:
        return {load, Cmp(kNeq, a)};
      case 2: {
        const nft::Bytes mask = {255, 255, static_cast<uint8_t>(rng_.Chance(1, 2) ? 255 : 240), 0};
        nft::Bytes masked = a;
        for (size_t i = 0; i < 4; ++i) masked[i] &= mask[i];
        return {load, And(mask), Cmp(rng_.Chance(1, 4) ? kNeq : kEq, masked)};
      }
      case 3:
        return {load, Lookup("ranges" + std::to_string(rng_.Below(3)), 0, rng_.Chance(1, 3))};
      case 4:
        return {load, Lookup("named" + std::to_string(rng_.Below(3)), 0, rng_.Chance(1, 3))};
      default:
        return {load, Range(rng_.Chance(1, 3) ? 1 : 0, Addr("10.0.0.0"), Addr("10.0.1.100"))};
    }
  }

  Exprs PortMatch() {
    const nft::Expr load = Payload(kTransport, rng_.Chance(1, 2) ? 0 : 2, 2);
    Exprs out;
    if (rng_.Chance(2, 3)) out = L4Proto(rng_.Chance(2, 3) ? 6 : 17);
    switch (rng_.Below(6)) {
      case 0:
        return out + Exprs{load, Cmp(kEq, Net16(Port()))};
      case 1:
        return out + Exprs{load, Cmp(kNeq, Net16(Port()))};
      case 2: {
        const uint16_t low = Port();
        return out + Exprs{load, Cmp(kGte, Net16(low)),
                           Cmp(kLte, Net16(static_cast<uint16_t>(low + rng_.Below(4))))};
      }
      case 3:
        return out + Exprs{load, Lookup("ports" + std::to_string(rng_.Below(3)), 0,
                                        rng_.Chance(1, 3))};
      case 4:
        return out + Exprs{load, Cmp(rng_.Chance(1, 2) ? kLt : kGt, Net16(Port()))};
      default:
        if (!rng_.Chance(6, rarity_)) return out;
        return out + Exprs{load, VerdictMap(level_ < 3 && rng_.Chance(1, 2) ? "jumps" : "verdicts")};
    }
  }

  Exprs OtherMatch() {
    switch (rng_.Below(9)) {
      case 0:
        return {Meta(tables::kMetaIifName), Cmp(rng_.Chance(1, 3) ? kNeq : kEq, Name("lan0"))};
      case 1:
        return {Meta(tables::kMetaOifName), Cmp(kEq, {'w', 'a'})};
      case 2:
        return {Ct(tables::kCtState), And(Host32(static_cast<uint32_t>(rng_.Below(16)))),
                Cmp(kNeq, Host32(0))};
      case 3:
        return {Meta(tables::kMetaMark), Cmp(kEq, Host32(static_cast<uint32_t>(rng_.Below(4))))};
      case 4:
        return {Meta(tables::kMetaNfProto), Cmp(kEq, {rng_.Chance(1, 2) ? uint8_t{2} : uint8_t{10}})};
      case 5:
        return {Payload(kNetwork, 12, 4), Payload(kTransport, 2, 2, 1),
                Lookup((rng_.Chance(1, 2) ? "both" : "boxes") + std::to_string(rng_.Below(3)), 0,
                       rng_.Chance(1, 4))};
      case 6:
        return {Payload(kNetwork, 8, 16), Cmp(kEq, Addr(Pick(kAddresses6)))};
      case 7:
        return L4Proto(6) + Exprs{Payload(kTransport, 13, 1),
                                  And({static_cast<uint8_t>(rng_.Below(64))}), Cmp(kNeq, {0})};
      default:
        return {Meta(tables::kMetaLength), Cmp(rng_.Chance(1, 2) ? kEq : kGt, Host32(60))};
    }
  }

  Exprs Match() {
    switch (rng_.Below(4)) {
      case 0:
        return AddressMatch(12);
      case 1:
        return AddressMatch(16);
      case 2:
        return PortMatch();
      default:
        return OtherMatch();
    }
  }

  // `level`: 0 the base chain, 1 to 3 chains that may only jump further down.
  Exprs Rule(int level) {
    level_ = level;
    Exprs out;
    const size_t matches = 1 + rng_.Below(3);
    if (rng_.Chance(1, 20)) out.push_back(nft::CounterExpr{});
    for (size_t i = 0; i < matches; ++i) out = out + Match();
    if (rng_.Chance(1, 2)) out.push_back(nft::CounterExpr{});
    switch (rng_.Below(rarity_)) {
      case 0:
        out.push_back(Drop());
        break;
      case 1:
        out.push_back(Accept());
        break;
      case 2:
      case 3:
        if (level < 3) {
          const std::string to = "c" + std::to_string(level + static_cast<int>(rng_.Below(
                                                                 static_cast<uint64_t>(3 - level))));
          out.push_back(rng_.Chance(1, 4) ? Goto(to) : Jump(to));
        }
        break;
      case 4:
        out.push_back(Return());
        break;
      case 5:
      case 6:
        out = out + Exprs{Set(Host32(static_cast<uint32_t>(rng_.Below(4)))),
                          MetaSet(tables::kMetaMark)};
        break;
      case 7: {
        nft::PayloadExpr set;  // `ip dscp set` writes the first two bytes
        set.base = kTransport;
        set.offset = 2;
        set.length = 2;
        set.sreg = 0;
        out = out + Exprs{Set(Net16(Port())), set};
        break;
      }
      default:
        break;
    }
    return out;
  }

  Rng rng_;
  const uint64_t rarity_;
  int level_ = 0;  // of the rule being made
};

void Check(uint64_t seed, size_t rules, size_t packets) {
  SCOPED_TRACE("seed " + std::to_string(seed));
  Generator generator(seed, rules < 100 ? 12 : rules / 2);
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
