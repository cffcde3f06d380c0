// A flow's packets as XDP would carry them out (stages/filter/flow_path.h): what makes the flow is
// the same in all of them, the rest is random. And random rules that ask for the rest.
#ifndef SLUICE_TESTS_SUPPORT_RANDOM_FLOW_H_
#define SLUICE_TESTS_SUPPORT_RANDOM_FLOW_H_

#include <memory>
#include <string>

#include "support/random_rules.h"

namespace sluice::test {

struct RandomFlow {
  bool v6 = false;
  bool tcp = true;
  const char* source = nullptr;
  const char* destination = nullptr;
  uint16_t source_port = 0;
  uint16_t destination_port = 0;

  // Checksums are as random as the rest.
  Bytes Packet(Rng& rng) const {
    const auto random = [&](uint8_t* to, size_t count) {
      for (size_t i = 0; i < count; ++i) to[i] = static_cast<uint8_t>(rng.Next());
    };
    const size_t header = v6 ? 40 : 20;
    const size_t options = tcp ? 4 * rng.Below(11) : 0;
    const size_t l4 = (tcp ? 20 : 8) + options + (rng.Chance(1, 3) ? 0 : rng.Below(200));
    Bytes frame(14 + header + l4);
    uint8_t* const ip = frame.data() + 14;
    const nft::Bytes from = Addr(source);
    const nft::Bytes to = Addr(destination);
    std::copy_n(FilterWorld::Ethernet().Ipv4("1.1.1.1", "2.2.2.2").Udp(1, 2).Build().begin(), 14,
                frame.begin());
    random(&frame[6], 6);
    frame[6] &= 0xfe;
    StoreBe16(&frame[12], v6 ? 0x86dd : 0x0800);
    random(ip, 12);
    if (v6) {
      ip[0] = static_cast<uint8_t>(0x60 | (ip[0] & 0x0f));
      StoreBe16(ip + 4, static_cast<uint16_t>(l4));
      ip[6] = tcp ? 6 : 17;
      ip[7] = static_cast<uint8_t>(rng.Chance(1, 2) ? 2 + rng.Below(8) : 2 + rng.Below(254));
      std::copy(from.begin(), from.end(), ip + 8);
      std::copy(to.begin(), to.end(), ip + 24);
    } else {
      ip[0] = 0x45;
      StoreBe16(ip + 2, static_cast<uint16_t>(header + l4));
      StoreBe16(ip + 6, rng.Chance(1, 2) ? 0x4000 : 0);
      ip[8] = static_cast<uint8_t>(rng.Chance(1, 2) ? 2 + rng.Below(8) : 2 + rng.Below(254));
      ip[9] = tcp ? 6 : 17;
      std::copy(from.begin(), from.end(), ip + 12);
      std::copy(to.begin(), to.end(), ip + 16);
    }
    uint8_t* const th = ip + header;
    random(th, l4);
    StoreBe16(th, source_port);
    StoreBe16(th + 2, destination_port);
    if (tcp) {
      th[12] = static_cast<uint8_t>((5 + options / 4) << 4 | (th[12] & 0xf));
      th[13] = rng.Chance(1, 2) ? 0x10 : 0x18;
      // Options that there are: MSS, or something else.
      for (size_t i = 20; i + 4 <= 20 + options; i += 4) {
        th[i] = rng.Chance(1, 4) ? 2 : 30;
        th[i + 1] = 4;
      }
    } else {
      StoreBe16(th + 4, static_cast<uint16_t>(l4));
    }
    return frame;
  }
};

// The rules of RandomRules, and one in `strangeness` or so that may tell a flow's packets apart.
class FlowRules : public RandomRules {
 public:
  FlowRules(uint64_t seed, uint64_t rarity, uint64_t strangeness)
      : RandomRules(seed, rarity), strangeness_(strangeness) {}

  RandomFlow Flow() {
    RandomFlow f;
    f.v6 = rng_.Chance(1, 4);
    f.tcp = rng_.Chance(2, 3);
    f.source = f.v6 ? Pick(kAddresses6) : Pick(kAddresses);
    f.destination = f.v6 ? Pick(kAddresses6) : Pick(kAddresses);
    f.source_port = Port();
    f.destination_port = Port();
    return f;
  }

  // Chains before and behind the one of RandomRules.
  RulesetModel WithOtherHooks(size_t rules) {
    RulesetModel m = Ruleset(rules);
    m.Base("raw", 0, -300);
    for (int i = 0; i < 4; ++i) m.Rule(Rule(3));
    m.Rule(L4Proto(17) + AddressMatch(12) + Exprs{nft::NotrackExpr{}});
    m.Base("srcnat", 4, 100, 1, "nat");
    for (int i = 0; i < 3; ++i) {
      nft::NatExpr nat;
      nat.family = 2;
      nat.addr_min = 1;
      nat.proto_min = 2;
      const bool constant = rng_.Chance(3, 4);
      m.Rule(AddressMatch(12) +
             Exprs{Set(Addr("192.0.2.1"), 1),
                   constant ? Set(Net16(Port()), 2) : Payload(kNetwork, 2, 2, 2), nat});
    }
    return m;
  }

 protected:
  void AddSets(RulesetModel& m) override;
  Exprs OtherMatch() override {
    return rng_.Chance(2, strangeness_) ? StrangeMatch() : RandomRules::OtherMatch();
  }
  Exprs Statements() override {
    return rng_.Chance(1, strangeness_) ? StrangeStatement() : Exprs{};
  }

 private:
  uint8_t Byte() { return static_cast<uint8_t>(rng_.Below(256)); }
  uint8_t AnyCmp() { return static_cast<uint8_t>(rng_.Below(6)); }
  // Flags as they are, and others.
  uint8_t Flags() {
    constexpr uint8_t kFlags[] = {0, 2, 0x08, 0x10, 0x18, 0x12, 0x3f};
    return kFlags[rng_.Below(std::size(kFlags))];
  }
  Exprs FlagsMatch();
  Exprs FieldMatch();
  Exprs StrangeMatch();
  Exprs StrangeStatement();

  const uint64_t strangeness_;
};

inline void FlowRules::AddSets(RulesetModel& m) {
  RandomRules::AddSets(m);
  for (int i = 0; i < 3; ++i) {
    nft::Set& flags = m.AddSet("flags" + std::to_string(i), 3, 1);
    for (int k = 0; k < 2; ++k) flags.elements.insert(Key({Flags()}));
    if (i == 2) flags.elements.insert({Key({0x10}), Key({0x18})});
  }
  nft::Set& verdicts = m.AddSet("flagmap", 0xb, 1);
  verdicts.data_type = 0xffffff00;
  for (const uint8_t flags : {0x02, 0x10, 0x18}) {
    nft::SetElement e = Key({flags});
    e.verdict = {flags == 2 ? 0 : rng_.Chance(2, 3) ? -1 : 1, ""};
    verdicts.elements.insert(e);
  }
  nft::Set& both = m.AddSet("flagport", 3, 8);
  both.field_lengths = {1, 2};
  for (int k = 0; k < 8; ++k) both.elements.insert(Key(Join({{Flags()}, Net16(Port())})));
  nft::Set& bytes = m.AddSet("bytes", 3, 1);
  for (int k = 0; k < 32; ++k) {
    bytes.elements.insert(Key({static_cast<uint8_t>(k < 4 ? 2 + k : Byte())}));
  }
  nft::Set& timed = m.AddSet("timed", 0x10, 4);
  nft::Set& counted = m.AddSet("counted", 0x100, 4);
  counted.exprs = {nft::CounterExpr{}};
  for (const char* address : kAddresses) {
    if (rng_.Chance(1, 2)) continue;
    nft::SetElement e = Key(Addr(address));
    if (rng_.Chance(1, 2)) e.expires_at = Seconds(1000 + static_cast<int64_t>(rng_.Below(200'000)));
    if (e.expires_at != Nanos::Max()) e.timeout_ms = 1'000'000;
    timed.elements.insert(e);
    nft::SetElement c = Key(Addr(address));
    c.exprs = {nft::CounterExpr{}};
    counted.elements.insert(c);
  }
  m.AddSet("dynamic", 0x20, 4).size = 100;
  nft::Set& marks = m.AddSet("marks", 8, 1);
  marks.data_length = 4;
  for (const uint8_t flags : {0x10, 0x18}) {
    nft::SetElement e = Key({flags});
    e.data = Host32(rng_.Chance(1, 2) ? 1 : 2);
    marks.elements.insert(e);
  }
  nft::Object hits;
  hits.type = 1;
  hits.name = "hits";
  hits.handle = 900;
  hits.value = nft::CounterExpr{};
  m.table().objects.push_back(hits);
}

inline Exprs FlowRules::FlagsMatch() {
  const nft::Expr flags = Payload(kTransport, 13, 1);
  switch (rng_.Below(7)) {
    case 0:
      return {flags, Lookup("flags" + std::to_string(rng_.Below(3)), 0, rng_.Chance(1, 2))};
    case 1:
      return {flags, VerdictMap("flagmap")};
    case 2: {
      const uint8_t low = Flags();
      return {flags, Range(rng_.Chance(1, 2) ? 1 : 0, {low}, {std::max(low, Flags())})};
    }
    case 3:
      return {flags, And({Flags()}), Cmp(AnyCmp(), {Flags()})};
    case 4:
      return {Payload(kTransport, 12, 4), And({0, Flags(), 0, 0}),
              Cmp(rng_.Chance(1, 2) ? kEq : kNeq, {0, Flags(), 0, 0})};
    case 5:
      return {flags, Payload(kTransport, 2, 2, 1), Lookup("flagport", 0, rng_.Chance(1, 2))};
    default: {
      nft::BitwiseExpr flip;
      flip.length = 1;
      flip.sreg = 0;
      flip.dreg = 1;
      flip.mask = {Flags()};
      flip.xor_value = {Flags()};
      return {flags, flip, Cmp(AnyCmp(), {Flags()}, 1)};
    }
  }
}

inline Exprs FlowRules::FieldMatch() {
  switch (rng_.Below(12)) {
    case 10:
      return {Payload(kNetwork, rng_.Chance(1, 2) ? 8 : 1, 1), Lookup("bytes", 0, rng_.Chance(1, 2))};
    case 11:
    case 0:
      return {Payload(kNetwork, 8, 1), Cmp(AnyCmp(), {static_cast<uint8_t>(rng_.Below(9))})};
    case 1:
      return {Payload(kNetwork, 1, 1), And({0xfc}), Cmp(kEq, {static_cast<uint8_t>(Byte() & 0xfc)})};
    case 2: {
      constexpr uint8_t kMasks[][2] = {{0x1f, 0xff}, {0x20, 0}, {0x40, 0}, {0x3f, 0xff}};
      const auto& mask = kMasks[rng_.Below(4)];
      return {Payload(kNetwork, 6, 2), And({mask[0], mask[1]}), Cmp(kNeq, {0, 0})};
    }
    case 3:
      return {Payload(kNetwork, 2, 2), Range(0, Net16(40), Net16(100))};
    case 4:
      return {Payload(kTransport, 4, 2), Cmp(AnyCmp(), Net16(80))};
    case 5:
      return {Payload(kTransport, static_cast<uint32_t>(8 + 4 * rng_.Below(8)), 4),
              And(Host32(0xff)), Cmp(kLt, Host32(0x80))};
    case 6:
      return {Payload(kLink, rng_.Chance(1, 4) ? 0 : 7, 5), Cmp(AnyCmp(), {0x80, 0, 0, 0, 0})};
    case 7:
      return {Payload(kNetwork, 0, 1), And({0xf0}), Cmp(kEq, {0x40})};
    case 8:
      return {Payload(kNetwork, 4, 8), Cmp(rng_.Chance(1, 2) ? kLt : kGte, {0x80})};
    default:
      return {Payload(kNetwork, 0, 4), Cmp(AnyCmp(), {0x45})};
  }
}

inline Exprs FlowRules::StrangeMatch() {
  switch (rng_.Below(24)) {
    case 0:
      return {Meta(tables::kMetaPriority), Cmp(AnyCmp(), Host32(static_cast<uint32_t>(rng_.Below(8))))};
    case 1:
      return {Meta(tables::kMetaRandom), Cmp(AnyCmp(), Host32(0x80))};
    case 2:
      return {Ct(tables::kCtPackets, 0, 0), Cmp(AnyCmp(), {50, 0, 0, 0, 0, 0, 0, 0})};
    case 3:
      return {Ct(tables::kCtStatus), And(Host32(rng_.Chance(1, 2) ? 4 : static_cast<uint32_t>(rng_.Below(64)))),
              Cmp(rng_.Chance(1, 2) ? kEq : kNeq, Host32(0))};
    case 4:
      return {Ct(tables::kCtExpiration), Cmp(AnyCmp(), Host32(1000))};
    case 5:
      return {Meta(tables::kMetaHour), Cmp(AnyCmp(), Host32(0x8000))};
    case 6: {
      nft::ExthdrExpr e;
      e.op = static_cast<uint8_t>(rng_.Below(3));
      e.type = e.op == 1 ? 2 : 7;
      e.length = e.op == 1 ? 2 : 1;
      e.flags = rng_.Chance(1, 2) ? 1 : 0;
      if (e.flags != 0) e.length = 1;
      e.dreg = 0;
      return {e, Cmp(rng_.Chance(1, 2) ? kEq : kNeq, {0})};
    }
    case 7:
    case 8:
      return {Payload(kNetwork, 12, 4), Lookup("timed", 0, rng_.Chance(1, 2))};
    case 9:
      return {Payload(kNetwork, 12, 4), Lookup("counted", 0, rng_.Chance(1, 3))};
    case 10:
      return {nft::FibExpr{0, 1, rng_.Chance(1, 2) ? 9u : 2u}, Cmp(rng_.Chance(1, 2) ? kEq : kNeq, Host32(0))};
    case 11: {
      nft::HashExpr hash;
      hash.sreg = 0;
      hash.dreg = 1;
      hash.length = 4;
      hash.modulus = 2;
      return {Payload(kNetwork, rng_.Chance(1, 2) ? 12 : 0, 4), hash, Cmp(kEq, Host32(0), 1)};
    }
    case 12:
      return {nft::NumgenExpr{0, 2, static_cast<uint32_t>(rng_.Below(2)), 0}, Cmp(kEq, Host32(0))};
    case 13: {
      nft::BitwiseExpr shift;
      shift.length = 4;
      shift.op = rng_.Chance(1, 2) ? 1 : 2;
      shift.shift = static_cast<uint32_t>(1 + rng_.Below(5));
      return {Meta(tables::kMetaLength), shift, Cmp(AnyCmp(), Host32(40))};
    }
    case 14:
      return {Meta(tables::kMetaLength), nft::ByteorderExpr{0, 0, 1, 4, 4}, Cmp(AnyCmp(), {0, 0, 0, 90})};
    case 15:
    case 16:
    case 17:
    case 18:
    case 19:
      return FieldMatch();
    default:
      return L4Proto(6) + FlagsMatch();
  }
}

inline Exprs FlowRules::StrangeStatement() {
  nft::CtExpr ct_mark;
  ct_mark.key = tables::kCtMark;
  ct_mark.sreg = 0;
  switch (rng_.Below(14)) {
    case 0:
      return {nft::LimitExpr{.rate = 2, .burst = 3}};
    case 1:
      return {nft::QuotaExpr{2000, 0, rng_.Chance(1, 2)}};
    case 2:
      return {nft::LastExpr{}};
    case 3:
      return {nft::LogExpr{}};
    case 4:
      return {nft::ConnlimitExpr{1, rng_.Chance(1, 2)}};
    case 5:
    case 6:
      return {nft::ObjrefExpr{.type = 1, .name = "hits"}};
    case 7: {
      auto add = std::make_shared<nft::DynsetExpr>();
      add->set = "dynamic";
      return {Payload(kNetwork, 12, 4), std::shared_ptr<const nft::DynsetExpr>(add)};
    }
    case 8:
      return {Payload(kTransport, 13, 1), Map("marks", 0), MetaSet(tables::kMetaMark)};
    case 9:
      return {Payload(kNetwork, 2, 2), MetaSet(tables::kMetaMark)};
    case 10:
      return {Set(Host32(static_cast<uint32_t>(rng_.Below(3)))), ct_mark};
    case 11: {
      nft::BitwiseExpr flip;
      flip.length = 4;
      flip.mask = Host32(0xffffffff);
      flip.xor_value = Host32(rng_.Chance(1, 2) ? 1 : 0);
      return {Ct(tables::kCtMark), flip, ct_mark};
    }
    case 12:
      return {rng_.Chance(1, 2) ? Set(Host32(3)) : Payload(kNetwork, 1, 1), MetaSet(tables::kMetaPriority),
              Meta(tables::kMetaPriority), Cmp(kLt, Host32(100))};
    default: {
      nft::ExthdrExpr mss;
      mss.op = 1;
      mss.type = 2;
      mss.offset = 2;
      mss.length = 2;
      mss.sreg = 0;
      return {Set(Net16(1)), mss};
    }
  }
}

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_RANDOM_FLOW_H_
