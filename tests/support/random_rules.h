// Random rulesets of what rules commonly match, and packets that meet them.
#ifndef SLUICE_TESTS_SUPPORT_RANDOM_RULES_H_
#define SLUICE_TESTS_SUPPORT_RANDOM_RULES_H_

#include <string>

#include "base/rng.h"
#include "support/filter_world.h"

namespace sluice::test {

// Few values, so that rules and packets meet.
inline const char* const kAddresses[] = {"10.0.0.1",    "10.0.0.2",  "10.0.1.1",    "10.0.1.200",
                                  "192.168.0.1", "8.8.8.8",   "255.255.0.1", "10.255.255.255"};
inline const char* const kAddresses6[] = {"2001:db8::1", "2001:db8::2", "2001:db8:1::1", "fd00::1"};

class RandomRules {
 public:
  // One rule in `rarity` or so has each kind of verdict.
  RandomRules(uint64_t seed, uint64_t rarity) : rng_(seed), rarity_(rarity) {}
  virtual ~RandomRules() = default;

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

 protected:
  template <size_t N>
  const char* Pick(const char* const (&from)[N]) {
    return from[rng_.Below(N)];
  }
  uint16_t Port() { return static_cast<uint16_t>(1 + rng_.Below(12)); }

  virtual void AddSets(RulesetModel& m) {
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

  virtual Exprs OtherMatch() {
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

  // Before the verdict.
  virtual Exprs Statements() { return {}; }

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
    out = out + Statements();
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

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_RANDOM_RULES_H_
