// A filter stage with everything around it: rules given as the kernel's expressions, packets as
// bytes, two interfaces (lan0, wan0) and routing tables.
#ifndef SLUICE_TESTS_SUPPORT_FILTER_WORLD_H_
#define SLUICE_TESTS_SUPPORT_FILTER_WORLD_H_

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "control/nft/model.h"
#include "control/ruleset/compiler.h"
#include "packet/frame_arena.h"
#include "packet/packet.h"
#include "stages/filter/filter.h"
#include "support/packet_builder.h"
#include "tables/epoch.h"
#include "wire/ipv4.h"
#include "wire/ipv6_extensions.h"

namespace sluice::test {

namespace nft = control::nft;
using stages::FilterVerdict;
using tables::HookPoint;
using Kind = FilterVerdict::Kind;

// --- Expressions, as nft sends them ---

inline constexpr uint8_t kLink = 0, kNetwork = 1, kTransport = 2;
inline constexpr uint8_t kEq = 0, kNeq = 1, kLt = 2, kLte = 3, kGt = 4, kGte = 5;

inline nft::Bytes Host32(uint32_t v) {
  nft::Bytes b(4);
  std::memcpy(b.data(), &v, 4);
  return b;
}
inline nft::Bytes Net16(uint16_t v) { return {static_cast<uint8_t>(v >> 8), static_cast<uint8_t>(v)}; }
inline nft::Bytes Addr(const char* text) {
  nft::Bytes b;
  if (const auto v4 = ParseIpv4(text)) {
    b.resize(4);
    v4->ToWire(b.data());
  } else {
    b.resize(16);
    ParseIpv6(text)->ToWire(b.data());
  }
  return b;
}
inline nft::Bytes Name(const std::string& name) {
  nft::Bytes b(16);
  std::memcpy(b.data(), name.data(), name.size());
  return b;
}
inline nft::Bytes Join(std::initializer_list<nft::Bytes> parts) {
  nft::Bytes b;
  for (const nft::Bytes& part : parts) {
    b.insert(b.end(), part.begin(), part.end());
    b.resize((b.size() + 3) / 4 * 4);
  }
  return b;
}

inline nft::Expr Payload(uint8_t base, uint32_t offset, uint32_t length, uint8_t dreg = 0) {
  nft::PayloadExpr e;
  e.base = base;
  e.offset = offset;
  e.length = length;
  e.dreg = dreg;
  return e;
}
inline nft::Expr Meta(uint32_t key, uint8_t dreg = 0) {
  nft::MetaExpr e;
  e.key = key;
  e.dreg = dreg;
  return e;
}
inline nft::Expr MetaSet(uint32_t key, uint8_t sreg = 0) {
  nft::MetaExpr e;
  e.key = key;
  e.sreg = sreg;
  return e;
}
inline nft::Expr Ct(uint32_t key, uint8_t dreg = 0, std::optional<uint8_t> direction = {}) {
  nft::CtExpr e;
  e.key = key;
  e.dreg = dreg;
  e.direction = direction;
  return e;
}
inline nft::Expr Cmp(uint8_t op, nft::Bytes data, uint8_t sreg = 0) {
  return nft::CmpExpr{sreg, op, std::move(data)};
}
inline nft::Expr Range(uint8_t op, nft::Bytes from, nft::Bytes to, uint8_t sreg = 0) {
  return nft::RangeExpr{sreg, op, std::move(from), std::move(to)};
}
inline nft::Expr And(nft::Bytes mask, uint8_t reg = 0) {
  nft::BitwiseExpr e;
  e.sreg = reg;
  e.dreg = reg;
  e.length = static_cast<uint32_t>(mask.size());
  e.xor_value.assign(mask.size(), 0);
  e.mask = std::move(mask);
  return e;
}
inline nft::Expr Set(nft::Bytes data, uint8_t dreg = 0) {
  nft::ImmediateExpr e;
  e.dreg = dreg;
  e.data = std::move(data);
  return e;
}
inline nft::Expr Verdict(int32_t code, std::string chain = "") {
  nft::ImmediateExpr e;
  e.dreg = nft::kVerdictRegister;
  e.verdict = {code, std::move(chain)};
  return e;
}
inline nft::Expr Drop() { return Verdict(0); }
inline nft::Expr Accept() { return Verdict(1); }
inline nft::Expr Jump(std::string chain) { return Verdict(-3, std::move(chain)); }
inline nft::Expr Goto(std::string chain) { return Verdict(-4, std::move(chain)); }
inline nft::Expr Return() { return Verdict(-5); }
inline nft::Expr Lookup(std::string set, uint8_t sreg = 0, bool inverted = false) {
  nft::LookupExpr e;
  e.set = std::move(set);
  e.sreg = sreg;
  e.inverted = inverted;
  return e;
}
inline nft::Expr Map(std::string set, uint8_t dreg, uint8_t sreg = 0) {
  nft::LookupExpr e;
  e.set = std::move(set);
  e.sreg = sreg;
  e.dreg = dreg;
  return e;
}
inline nft::Expr VerdictMap(std::string set, uint8_t sreg = 0) {
  return Map(std::move(set), nft::kVerdictRegister, sreg);
}

using Exprs = std::vector<nft::Expr>;
inline Exprs operator+(Exprs a, const Exprs& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}
inline Exprs L4Proto(uint8_t protocol) { return {Meta(tables::kMetaL4Proto), Cmp(kEq, {protocol})}; }
inline Exprs TcpDport(uint16_t port) {
  return L4Proto(6) + Exprs{Payload(kTransport, 2, 2), Cmp(kEq, Net16(port))};
}
inline Exprs Saddr(const char* a) { return {Payload(kNetwork, 12, 4), Cmp(kEq, Addr(a))}; }
inline Exprs Daddr(const char* a) { return {Payload(kNetwork, 16, 4), Cmp(kEq, Addr(a))}; }

inline nft::SetElement Key(nft::Bytes key) {
  nft::SetElement e;
  e.key = std::move(key);
  return e;
}
inline nft::SetElement End(nft::Bytes key) {
  nft::SetElement e = Key(std::move(key));
  e.interval_end = true;
  return e;
}

// --- A ruleset under construction ---

class RulesetModel {
 public:
  explicit RulesetModel(nft::TableFamily family = nft::TableFamily::kIp) {
    model.generation = 1;
    AddTable(family, "t");
  }
  nft::Table& AddTable(nft::TableFamily family, const std::string& name) {
    model.tables.push_back({});
    model.tables.back().family = family;
    model.tables.back().name = name;
    return model.tables.back();
  }
  nft::Table& table() { return model.tables.back(); }
  // The last chain's next rule.
  RulesetModel& Chain(const std::string& name) {
    table().chains.push_back({});
    table().chains.back().name = name;
    table().chains.back().handle = ++handle_;
    return *this;
  }
  RulesetModel& Base(const std::string& name, uint32_t hook, int32_t priority = 0,
                     uint32_t policy = 1, const std::string& type = "filter") {
    Chain(name);
    table().chains.back().base = nft::BaseChain{type, hook, priority, policy, {}};
    return *this;
  }
  RulesetModel& Rule(Exprs exprs) {
    table().chains.back().rules.push_back({++handle_, std::move(exprs), ""});
    return *this;
  }
  nft::Set& AddSet(const std::string& name, uint32_t flags, uint32_t key_length) {
    nft::Set& set = table().sets[name];
    set.name = name;
    set.handle = ++handle_;
    set.flags = flags;
    set.key_length = key_length;
    set.version = ++version_;
    return set;
  }
  void AddCounter(const std::string& name) {
    nft::Object counter;
    counter.type = 1;  // NFT_OBJECT_COUNTER
    counter.name = name;
    counter.handle = ++handle_;
    counter.value = nft::CounterExpr{};
    table().objects.push_back(counter);
  }
  uint64_t NextVersion() { return ++version_; }

  nft::Ruleset model;

 private:
  uint64_t handle_ = 0;
  uint64_t version_ = 0;
};

// --- The world ---

class FilterWorld {
 public:
  FilterWorld() : arena_(packet::FrameArena::Create(16, 4096)) {
    AddInterface(0, "lan0", 3, 1500);
    AddInterface(1, "wan0", 4, 1400);
  }

  void AddInterface(uint8_t slot, const std::string& name, uint32_t ifindex, uint32_t mtu) {
    tables::Interface& i = snapshot.interfaces[slot];
    i.slot = IfaceSlot{slot};
    i.name = name;
    i.ifindex = IfIndex{ifindex};
    i.mac = Mac{{2, 0, 0, 0, 0, static_cast<uint8_t>(slot + 1)}};
    i.mtu = mtu;
    i.mtu6 = mtu;
  }
  const tables::Interface& lan() const { return snapshot.interfaces[0]; }
  const tables::Interface& wan() const { return snapshot.interfaces[1]; }

  // Makes the compiler anew, with these options.
  void Restart(const control::CompilerOptions& options) {
    filter.UseRuleset(nullptr, now);
    ruleset = nullptr;
    compiler = std::make_unique<control::RulesetCompiler>(options);
  }
  void Use(const nft::Ruleset& model) { Adopt(compiler->Compile(model, now)); }
  void Use(const RulesetModel& model) { Use(model.model); }
  void Adopt(std::shared_ptr<const tables::Ruleset> next) {
    ruleset = std::move(next);
    filter.UseRuleset(ruleset.get(), now);
  }

  // Lays the frame into the arena and parses it as stages/parse does; frames begin with Ethernet.
  packet::Packet& Load(const Bytes& frame) {
    p = {};
    p.data = arena_->Chunk(0) + packet::kHeadroom;
    p.frame = 0;
    p.length = static_cast<uint32_t>(frame.size());
    p.segment_length = static_cast<uint16_t>(frame.size());
    p.in = IfaceSlot{0};
    p.l3_offset = 14;
    std::memcpy(p.data, frame.data(), frame.size());
    if ((p.data[0] & 1) != 0) p.flags |= packet::kFlagLinkMulticast;
    const uint16_t type = LoadBe16(p.data + 12);
    family = type == 0x86dd ? Family::kIpv6 : Family::kIpv4;
    if (type == 0x0800) {
      const wire::Ipv4View ip(p.l3());
      p.l4_protocol = ip.protocol();
      p.l4_offset = static_cast<uint16_t>(14 + ip.header_length());
      if (ip.IsFragment()) p.flags |= packet::kFlagFragment;
      if (ip.IsLaterFragment()) p.flags |= packet::kFlagLaterFragment;
    } else if (type == 0x86dd) {
      const auto chain = wire::WalkIpv6Chain({p.l3(), frame.size() - 14});
      p.l4_protocol = chain.protocol;
      if (chain.HasL4()) p.l4_offset = static_cast<uint16_t>(14 + chain.l4_offset);
      if (chain.is_fragment) p.flags |= packet::kFlagFragment;
      if (chain.status == wire::ChainStatus::kFragment) p.flags |= packet::kFlagLaterFragment;
    }
    return p;
  }
  Bytes Frame() const { return Bytes(p.data, p.data + p.length); }

  FilterVerdict Run(HookPoint hook = HookPoint::kForward) {
    stages::FilterContext context = Context();
    return filter.Run(hook, family, context);
  }
  FilterVerdict RunOther() {
    stages::FilterContext context = Context();
    return filter.RunIngressOther(context);
  }
  stages::FilterContext Context() {
    return {.p = p,
            .arena = *arena_,
            .snapshot = snapshot,
            .in = in_known ? &lan() : nullptr,
            .out = out_known ? &wan() : nullptr,
            .flow = flow,
            .tables = tables,
            .now = now,
            .dry_run = dry_run,
            .trace = trace,
            .connections = connections,
            .wall_offset = wall_offset};
  }
  FilterVerdict Run(const Bytes& frame, HookPoint hook = HookPoint::kForward) {
    Load(frame);
    return Run(hook);
  }
  Kind Judge(const Bytes& frame, HookPoint hook = HookPoint::kForward) {
    return Run(frame, hook).kind;
  }

  static PacketBuilder Ethernet() {
    PacketBuilder b;
    b.Ethernet("02:00:00:00:00:99", "02:00:00:00:00:01");
    return b;
  }
  static Bytes Tcp4(const char* from, const char* to, uint16_t sport, uint16_t dport,
                    uint8_t flags = 0x10) {
    return Ethernet().Ipv4(from, to).Tcp(sport, dport, flags).Payload(20).Build();
  }
  static Bytes Udp4(const char* from, const char* to, uint16_t sport, uint16_t dport) {
    return Ethernet().Ipv4(from, to).Udp(sport, dport).Payload(20).Build();
  }
  static Bytes Tcp6(const char* from, const char* to, uint16_t sport, uint16_t dport) {
    return Ethernet().Ipv6(from, to).Tcp(sport, dport).Payload(20).Build();
  }

  Nanos now = Seconds(1000);
  tables::Snapshot snapshot;
  tables::EpochDomain domain;
  tables::Fib4 fib4{domain, {10'000, size_t{32} << 20, false}};
  tables::Fib6 fib6{domain, {10'000, size_t{32} << 20, false}};
  tables::RouteTable routes{domain, 1024};
  stages::FilterTables tables{fib4, fib6, routes};
  std::shared_ptr<const tables::Ruleset> ruleset;
  std::unique_ptr<control::RulesetCompiler> compiler =
      std::make_unique<control::RulesetCompiler>(control::CompilerOptions{});
  stages::Filter filter{stages::Filter::Options{}};
  packet::Packet p;
  Family family = Family::kIpv4;
  tables::Flow* flow = nullptr;
  bool in_known = true;
  bool out_known = true;
  bool dry_run = false;
  stages::TraceSink* trace = nullptr;
  const stages::ConnectionView* connections = nullptr;
  Nanos wall_offset;

 private:
  std::unique_ptr<packet::FrameArena> arena_;
};

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_FILTER_WORLD_H_
