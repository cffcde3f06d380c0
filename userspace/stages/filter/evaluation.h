// One evaluation: the registers, what is known about the packet, and the walk through chains.
// Internal to the stage; see filter.h.
#ifndef SLUICE_STAGES_FILTER_EVALUATION_H_
#define SLUICE_STAGES_FILTER_EVALUATION_H_

#include <array>
#include <cstdint>
#include <cstring>
#include <span>

#include "stages/filter/filter.h"

namespace sluice::stages {

// NFPROTO_*
inline constexpr uint8_t kProtoInet = 1;
inline constexpr uint8_t kProtoIpv4 = 2;
inline constexpr uint8_t kProtoNetdev = 5;
inline constexpr uint8_t kProtoIpv6 = 10;

// Where IPv4 packets in transit have the priority that their TOS gives.
constexpr bool AfterForwarding(tables::HookPoint hook) {
  return hook == tables::HookPoint::kForward || hook >= tables::HookPoint::kPostroutingEarly;
}

class Evaluation {
 public:
  // `family_slot`: 0 IPv4, 1 IPv6, 2 another protocol.
  Evaluation(Filter& filter, FilterContext& context, tables::HookPoint hook, uint32_t family_slot);

  FilterVerdict Run(std::span<const uint32_t> base_chains);

 private:
  enum class Step : uint8_t { kNext, kBreak, kVerdict };
  // What a verdict register holds (NF_*, NFT_*), and two of ours.
  enum Code : int32_t {
    kDrop = 0,
    kAccept = 1,
    kStolen = 2,
    kQueue = 3,
    kContinue = -1,
    kBreakCode = -2,
    kJump = -3,
    kGoto = -4,
    kReturn = -5,
    kToKernel = 100,
    kFinal = 101,  // result_ says
  };

  // --- filter.cc: chains ---
  // True when the packet's verdict is final.
  bool RunBaseChain(uint32_t chain);
  void FindLeftOut();
  // Whether XDP has applied what has these bits (of tables::EarlyLeftOut) to the packet.
  bool LeftOut(uint8_t bits) const { return (bits & left_out_mask_) == left_out_family_; }
  void LoadKeys(const tables::Classifier& index);
  bool Finish(FilterVerdict::Kind kind, uint32_t rule, uint32_t chain);
  bool FinishForKernel();

  // --- evaluation.cc: rules ---
  template <bool kObserved>
  Step ExecuteOps(uint32_t first_op);
  Step Execute(uint32_t first_op);
  Step ExecuteObserved(uint32_t first_op);
  Step ExecuteOne(const tables::Op& op);
  bool Test(const tables::Op& op);
  bool TestBytes(const tables::Op& op, bool equal);
  bool Compare(const tables::Op& op) const;
  bool InRange(const tables::Op& op) const;
  // Four more units than there are: a load of 16 bytes into the last ones cannot overrun.
  using Registers = std::array<uint32_t, tables::kRegisterUnits + 16>;
  void Bitwise(const tables::Op& op);
  static void Shift(const tables::Op& op, Registers& registers);
  static void Byteorder(const tables::Op& op, Registers& registers);
  Step Verdict(int32_t code, uint32_t chain = tables::kNoChain) {
    code_ = code;
    target_ = chain;
    return Step::kVerdict;
  }
  // A load was impossible: NFT_BREAK, or the kernel must do it.
  Step Fail() { return kernel_ ? Verdict(kToKernel) : Step::kBreak; }

  // --- load.cc ---
  // load.length bytes to `out`, and zeros up to a multiple of four. False: impossible.
  bool LoadTo(const tables::Load& load, uint8_t* out);
  bool Load32(const tables::Load& load, uint32_t& value);
  // Where `length` bytes at an offset of a header lie in the packet; false when not all there.
  bool Locate(tables::Source base, uint32_t offset, uint32_t length, uint32_t& at) const;
  bool FindInner(uint32_t& at) const;
  const uint8_t* Contiguous(uint32_t at, uint32_t length) const;  // null when over pieces
  void CopyOut(uint32_t at, uint8_t* out, uint32_t length) const;
  void CopyIn(uint32_t at, const uint8_t* bytes, uint32_t length);
  bool LoadMeta(const tables::Load& load, uint8_t* out);
  bool LoadMetaTime(const tables::Load& load, uint8_t* out);
  bool LoadCt(const tables::Load& load, uint8_t* out);
  bool LoadCtTuple(const tables::Load& load, uint8_t* out);
  uint32_t CtStateBits() const;

  // --- headers.cc ---
  Step Exthdr(const tables::Op& op);
  Step ExthdrSet(const tables::Op& op);
  Step ExthdrStrip(const tables::Op& op);
  bool FindIpv6Header(uint8_t type, uint32_t& at) const;
  bool FindIpv4Option(uint8_t type, uint32_t& at) const;
  bool FindSctpChunk(uint8_t type, uint32_t& at, uint32_t& length) const;
  // The TCP header, with options, in `buffer`; its length, 0 when there is none.
  uint32_t TcpHeader(std::array<uint8_t, 60>& buffer) const;
  Step PayloadSet(const tables::Op& op);
  void UpdateL4Checksum(uint32_t old_sum, uint32_t new_sum);
  void MetaSet(const tables::Op& op);
  void CtSet(const tables::Op& op);

  // --- routes.cc ---
  Step Fib(const tables::Op& op);
  Step FibRoute4(const tables::Op& op);
  Step FibRoute6(const tables::Op& op);
  uint32_t FibType4(const tables::Op& op) const;
  uint32_t FibType6(const tables::Op& op) const;
  Step FibStore(const tables::Op& op, const tables::Interface* device, IfIndex index);
  const tables::Interface* FibDevice(const tables::Op& op, bool oif_first) const;
  Step Rt(const tables::Op& op);
  bool RouteMtu(const tables::Route& route, uint32_t& mtu) const;

  // --- sets.cc ---
  Step Lookup(const tables::Op& op);
  Step Dynset(const tables::Op& op);
  Step ObjectMap(const tables::Op& op);
  // The element's value and statements; false when it is not there.
  struct Found {
    bool found = false;
    const uint8_t* data = nullptr;
    const tables::ElementState* state = nullptr;
    tables::Overlay::Node* node = nullptr;
  };
  Found FindElement(uint32_t set, const uint8_t* key);
  Step RunElement(uint32_t set, const Found& found);
  // False: NFT_BREAK. `cell` is worker 0's for a rule's or object's statement (`shared`), else the
  // only one.
  Step Stateful(const tables::StatefulExpr& expr, tables::StateCell* cell, bool shared,
                uint64_t owner);
  Step CountConnections(const tables::StatefulExpr& expr, tables::StateCell& own, uint64_t owner);
  void Report(tables::SetEvent::Kind kind, const tables::DynamicSet& set, const uint8_t* key,
              const uint8_t* data, Nanos timeout, bool has_statements);

  // --- observe.cc: whether another packet of the flow would fare alike (flow_path.h) ---
  // What of loaded bytes is the same in all of them.
  enum class Known : uint8_t { kAll, kSome, kPresenceVaries };
  // Whether the rule at hand is looked at: not one that XDP has applied.
  bool Observes() const {
    return path_ != nullptr &&
           (early_shown_ == nullptr || !LeftOut(early_shown_->rules[rule_]));
  }
  void BeginToObserve();
  void Observe(const tables::Op& op);  // before it is carried out
  void ObserveTest(const tables::Op& op);
  void ObserveLoad(const tables::Op& op);
  void ObserveBitwise(const tables::Op& op);
  void ObserveCmp(const tables::Op& op);
  void ObserveRange(const tables::Op& op);
  void ObserveLookup(const tables::Op& op);
  void ObserveSet(const tables::Op& op);
  void ObserveNat(const tables::Op& op);
  void ObserveStateful(const tables::StatefulExpr& expr);
  void ObserveExthdr(const tables::Op& op);  // headers.cc
  void ObserveRoutes(const tables::Op& op);  // routes.cc
  void ObserveRoute(const IpAddress& address);
  void ObserveCell(tables::StateCell* cell);
  bool ObserveInput(uint8_t unit, size_t bytes);  // false: it varies, which is noted
  // varying.cc: the bits of `load` that vary, as LoadTo lays them out.
  Known VaryingBits(const tables::Load& load, uint8_t* out) const;
  Known VaryingHeaderBits(const tables::Load& load, uint8_t* out) const;
  Variance ReasonOf(const tables::Load& load) const;
  void IgnoreVaryingKeys(const tables::Classifier& index);
  void Vary(Variance reason) {
    path_->Vary(reason, rule_);
    path_ = nullptr;  // nothing more to find out
  }
  uint8_t* VaryingBytes(uint8_t unit) { return reinterpret_cast<uint8_t*>(&varying_[unit]); }
  void SetFixed(uint8_t unit, size_t bytes) {
    std::memset(VaryingBytes(unit), 0, (bytes + 3) / 4 * 4);
  }

  // --- actions.cc ---
  Step Reject(const tables::Op& op);
  Step Nat(const tables::Op& op);
  void Netmap(tables::NatRequest& request) const;
  void Log(const tables::Op& op);
  void Numgen(const tables::Op& op);
  void Hash(const tables::Op& op);

  uint8_t* Reg(uint8_t unit) { return reinterpret_cast<uint8_t*>(&registers_[unit]); }
  const uint8_t* Reg(uint8_t unit) const {
    return reinterpret_cast<const uint8_t*>(&registers_[unit]);
  }
  const uint8_t* Constant(uint32_t index) const { return program_.constants[index].data(); }
  bool is_v4() const { return family_slot_ == 0; }
  bool is_v6() const { return family_slot_ == 1; }
  uint8_t* PacketBytes(uint32_t at) const { return context_.p.data + at; }

  Filter& filter_;
  FilterContext& context_;
  const tables::Ruleset& ruleset_;
  const tables::Program& program_;
  const tables::HookPoint hook_;
  const uint32_t family_slot_;
  const uint8_t protocol_family_;  // what `meta nfproto` says
  const bool has_l4_;              // NFT_PKTINFO_L4PROTO
  const bool later_fragment_;
  const tables::EarlyLeftOut* left_out_ = nullptr;  // what XDP has applied; null: nothing
  uint8_t left_out_mask_ = 0;
  uint8_t left_out_family_ = 0;
  bool kernel_ = false;  // a load that failed can be had from the kernel
  uint32_t worker_;

  // At hand, and as they will be after this rule.
  uint32_t mark_;
  uint32_t ct_mark_ = 0;
  uint32_t priority_ = 0;
  uint8_t ct_state_;

  uint32_t modifications_ = 0;  // of what an index may depend on
  uint32_t rule_ = tables::kNoRule;
  uint32_t chain_ = tables::kNoChain;
  int32_t code_ = 0;  // of the last verdict
  uint32_t target_ = tables::kNoChain;
  FilterVerdict result_;
  tables::Classifier::Cursor cursor_;
  alignas(16) Registers registers_{};

  FlowPath* path_ = nullptr;  // null: nobody asks, or it is known that it varies
  // The rest is there only while somebody asks.
  const tables::EarlyLeftOut* early_shown_;  // explain: executed here, but XDP's; null: none
  Variance varying_reason_;    // of the bits that were loaded last
  Variance priority_reason_;
  uint32_t priority_varying_;
  alignas(16) Registers varying_;  // bits of the registers that vary
};

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_FILTER_EVALUATION_H_
