// The code of a compiled ruleset: operations, rules, chains, and where chains are hooked in.
//
// An Op is one nf_tables expression, or several that belong together (a load, a mask and a
// comparison). A rule is a run of Ops that ends with kEnd; an Op that does not match (NFT_BREAK)
// ends the rule. Registers are sixteen units of four bytes, as in control/nft/model.h; bytes in
// them are as in the kernel's.
//
// Built by control/ruleset, run by stages/filter; immutable.
#ifndef SLUICE_TABLES_RULESET_PROGRAM_H_
#define SLUICE_TABLES_RULESET_PROGRAM_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/address.h"
#include "tables/ruleset/classifier.h"
#include "tables/ruleset/element_set.h"
#include "tables/ruleset/hook_point.h"
#include "tables/ruleset/load.h"
#include "tables/ruleset/state_pool.h"
#include "tables/ruleset/stateful.h"

namespace sluice::tables {

inline constexpr uint32_t kNoRule = 0xffffffff;
inline constexpr uint32_t kNoChain = 0xffffffff;
inline constexpr uint8_t kNoUnit = 0xff;  // an operand that is not given
inline constexpr size_t kRegisterUnits = 16;
inline constexpr size_t kJumpDepth = 16;  // NFT_JUMP_STACK_SIZE

constexpr size_t FamilySlot(Family family) { return family == Family::kIpv4 ? 0 : 1; }

enum class OpCode : uint8_t {
  kEnd,
  // Fused matches: load of up to 4 bytes, then (value & a) compared with b.
  kTestEqual,
  kTestNotEqual,
  kTestRange,      // big-endian value in [a, b]
  kTestNotRange,
  kTestBytes,      // up to 16 bytes: masked by constants[a], equal to constants[b]
  kTestNotBytes,
  kTestProtocolEqual,  // `meta l4proto` is `kind2`, then as kTestEqual on the transport header
  // One expression each.
  kLoad,           // Load into dreg
  kImmediate,      // `length` bytes of constants[a] into dreg
  kVerdict,        // code a, chain b
  kCmp,            // sreg, kind: CmpOp, constants[a]
  kRange,          // sreg, kind: 0 inside, 1 outside; constants[a] to constants[b]
  kBitwise,        // dreg = (sreg & constants[a]) ^ constants[b]
  kShift,          // kind: 1 left, 2 right, by a
  kByteorder,      // size a
  kPayloadSet,     // Load says where; kind2 csum_type, a csum_offset, b csum_flags
  kExthdr,         // kind: ExthdrOp, kind2 header type, offset, length, flags: 1 presence
  kExthdrSet,
  kExthdrStrip,    // TCP options of type kind2 become no-operations
  kMetaSet,
  kCtSet,
  kRt,
  kFib,            // kind result, a flags
  kLookup,         // set; flags: 1 inverted; dreg: data; kNoUnit: membership
  kLookupVerdict,  // set; the element's verdict
  kDynset,         // set; dynset index a
  kLimit,          // state ops: StatefulExpr a
  kCounter,        // cell
  kStateful,       // StatefulExpr a: any kind (quota, ct count, last, named objects)
  kObjectMap,      // set of objects, by sreg
  kLog,            // a: log index
  kReject,         // a: NFT_REJECT_*, b: code
  kNat,            // a: nat index
  kNumgen,         // kind: 0 incremental, 1 random; a modulus, b offset; cell
  kHash,           // kind: 0 jhash, 1 symmetric; a modulus, b offset, offset: seed index
  kNotrack,
  kNothing,        // has no effect here (ct event mask, nftrace, flow offload)
  kUnsupported,    // a: index
};

enum class CmpOp : uint8_t { kEqual, kNotEqual, kLess, kLessOrEqual, kGreater, kGreaterOrEqual };

struct Op {
  OpCode code = OpCode::kEnd;
  uint8_t dreg = kNoUnit;
  uint8_t sreg = kNoUnit;
  uint8_t length = 0;
  Load load;  // of fused matches, kLoad and kPayloadSet
  uint8_t kind = 0;
  uint8_t kind2 = 0;
  uint8_t flags = 0;
  uint8_t reserved = 0;
  uint32_t a = 0;
  uint32_t b = 0;
  uint32_t set = 0;
  StateCell* cell = nullptr;
};
static_assert(sizeof(Op) == 40);

struct NatOp {
  uint8_t kind = 0;  // NatKind
  uint8_t family = 0;  // NFPROTO_* that it is for; 1 (inet): both
  uint8_t address_min = kNoUnit;
  uint8_t address_max = kNoUnit;
  uint8_t port_min = kNoUnit;
  uint8_t port_max = kNoUnit;
  uint32_t flags = 0;  // NatRange
};

struct LogOp {
  std::string prefix;
  uint32_t level = 4;
  uint16_t group = 0;
  bool to_group = false;
};

struct DynsetOp {
  enum class Kind : uint8_t { kAdd, kUpdate, kDelete };
  Kind kind = Kind::kAdd;
  bool inverted = false;
  uint8_t key = 0;
  uint8_t data = kNoUnit;
  uint64_t timeout_ms = 0;            // 0: the set's
  uint8_t exprs = 0;                  // DynamicSet's template of a new element's statements
};

struct RuleInfo {
  uint32_t chain = kNoChain;
  uint64_t handle = 0;
  uint64_t owner = 0;            // identity of its state; the same for an unchanged rule
  StateCell* counter = nullptr;  // of its first `counter` statement
  std::string comment;
};

struct ChainInfo {
  uint8_t table_family = 0;  // NFPROTO_*; 0: this index is not in use
  bool base = false;
  bool policy_drop = false;
  HookPoint hook = HookPoint::kForward;  // of a base chain (prerouting and the like: its part)
  int32_t priority = 0;
  uint32_t first_rule = 0;
  uint32_t rule_count = 0;
  std::string table;
  std::string name;
  std::string type;
  std::shared_ptr<const Classifier> index;  // null: walked rule by rule
};

struct UnsupportedExpression {
  uint32_t rule = kNoRule;
  std::string name;  // "meta skuid", "osf", ...
};

struct IngressDevice {
  std::string name;
  // Base chains for IPv4, IPv6 and other frames, in order.
  std::array<std::vector<uint32_t>, 3> chains;
};

// A named counter, quota, limit or ct count of a table.
struct NamedObject {
  uint8_t table_family = 0;  // NFPROTO_*
  uint32_t type = 0;         // NFT_OBJECT_*
  std::string table;
  std::string name;
  uint64_t handle = 0;
  std::shared_ptr<const ElementState> state;
};

struct Program {
  std::vector<Op> ops;
  std::vector<uint32_t> first_ops;  // by rule
  std::vector<RuleInfo> rules;      // in the order of chains
  std::vector<ChainInfo> chains;  // the compiler keeps a chain's index while the chain exists
  std::vector<std::array<uint8_t, 16>> constants;
  std::vector<StatefulExpr> stateful;
  std::vector<NatOp> nats;
  std::vector<LogOp> logs;
  std::vector<DynsetOp> dynsets;
  std::vector<uint32_t> seeds;
  std::vector<UnsupportedExpression> unsupported;
  std::vector<std::string> ignored_chains;
  std::vector<NamedObject> objects;
  std::vector<StateHandle> states;  // keeps the cells
  std::array<std::array<std::vector<uint32_t>, 2>, kHookPointCount> hooks;  // base chains, ordered
  std::vector<IngressDevice> ingress;
  bool ingress_other = false;
  std::array<std::array<bool, 2>, kHookPointCount> has{};
  std::array<bool, 2> conntrack{};
  bool notrack = false;
  std::array<bool, 2> nat{};
  uint32_t workers = 1;
  std::vector<uint32_t> rule_order;  // rules sorted by identity, for FindRule
};

}  // namespace sluice::tables

#endif  // SLUICE_TABLES_RULESET_PROGRAM_H_
