// One rule's expressions as Ops, one Op for each, before any are fused.
#ifndef SLUICE_CONTROL_RULESET_LOWERING_H_
#define SLUICE_CONTROL_RULESET_LOWERING_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "control/nft/model.h"
#include "tables/ruleset/dynamic_set.h"
#include "tables/ruleset/program.h"

namespace sluice::control {

// What a rule's names mean, and where its state comes from.
class RuleScope {
 public:
  virtual ~RuleScope() = default;
  // kNoChain when there is none of that name.
  virtual uint32_t ChainId(const std::string& name) const = 0;
  struct SetInfo {
    uint32_t index = 0;
    const nft::Set* model = nullptr;
  };
  virtual const SetInfo* FindSet(const std::string& name) const = 0;
  // The set's elements that packets add; made when there are none. Null: not possible.
  virtual tables::DynamicSet* Dynamic(const std::string& name) = 0;
  virtual std::shared_ptr<const tables::ElementState> Object(uint32_t type,
                                                             const std::string& name) = 0;
  // The cells of the rule's next stateful expression.
  virtual tables::StateCell* NextState(const nft::Expr& expr,
                                       const tables::StatefulExpr* stateful) = 0;
  virtual uint64_t owner() const = 0;
};

class Lowering {
 public:
  Lowering(tables::Program& program, nft::TableFamily family, RuleScope& scope)
      : program_(program), family_(family), scope_(scope) {}

  // The rule's Ops, without the kEnd. An expression that cannot be evaluated ends it, as
  // kUnsupported, and `unsupported` is its name.
  std::vector<tables::Op> Rule(const nft::Rule& rule);
  const std::string& unsupported() const { return unsupported_; }
  tables::StateCell* first_counter() const { return first_counter_; }

 private:
  void Lower(const nft::ImmediateExpr& e);
  void Lower(const nft::CmpExpr& e);
  void Lower(const nft::RangeExpr& e);
  void Lower(const nft::BitwiseExpr& e);
  void Lower(const nft::ByteorderExpr& e);
  void Lower(const nft::PayloadExpr& e);
  void Lower(const nft::ExthdrExpr& e);
  void Lower(const nft::MetaExpr& e);
  void Lower(const nft::CtExpr& e);
  void Lower(const nft::RtExpr& e);
  void Lower(const nft::FibExpr& e);
  void Lower(const nft::LookupExpr& e);
  void Lower(const nft::LogExpr& e);
  void Lower(const nft::RejectExpr& e);
  void Lower(const nft::NatExpr& e);
  void Lower(const nft::MasqExpr& e);
  void Lower(const nft::RedirExpr& e);
  void Lower(const nft::NumgenExpr& e);
  void Lower(const nft::HashExpr& e);
  void Lower(const nft::NotrackExpr& e);
  void Lower(const nft::ObjrefExpr& e);
  void Lower(const nft::UnsupportedExpr& e);
  void Lower(const std::shared_ptr<const nft::DynsetExpr>& e);
  template <class T>
  void Lower(const T& e) {  // stateful ones
    LowerStateful(nft::Expr(e));
  }
  void LowerStateful(const nft::Expr& expr);
  void AddNat(tables::NatOp nat);
  void Verdict(const nft::VerdictData& verdict);

  void Unsupported(std::string name);
  tables::Op& Add(tables::OpCode code);
  // Whether `length` bytes at a register are registers; else the rule is unsupported.
  bool Fits(uint8_t unit, size_t length);
  uint32_t Constant(const nft::Bytes& bytes);

  tables::Program& program_;
  const nft::TableFamily family_;
  RuleScope& scope_;
  std::vector<tables::Op> ops_;
  std::string unsupported_;
  bool failed_ = false;
  tables::StateCell* first_counter_ = nullptr;
};

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_RULESET_LOWERING_H_
