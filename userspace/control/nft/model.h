// The kernel's nftables ruleset as the kernel holds it: expressions on registers, not text.
//
// Rules are read as nf_tables' own byte code (NFT_MSG_GETRULE), since that is what the kernel
// executes: dependencies that nft leaves out when it prints are there, names and units are numbers,
// and one changed element or rule comes as one message. What an expression means is defined by
// net/netfilter/nft_*.c; names here are those of linux/netfilter/nf_tables.h.
//
// Shapes: registers are counted in units of four bytes, from 0 (NFT_REG32_00) to 15; the 16-byte
// registers NFT_REG_1..4 are normalised to units 0, 4, 8, 12. Data are bytes as they stand in
// registers: network order for what came from packets, host order for most meta and ct keys.
//
// Thread: control. A Ruleset is a value; the mirror owns one and changes it in place, the compiler
// reads it between two calls of the mirror and learns from RulesetChange what is new.
#ifndef SLUICE_CONTROL_NFT_MODEL_H_
#define SLUICE_CONTROL_NFT_MODEL_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "base/time.h"

namespace sluice::control::nft {

using Bytes = std::vector<uint8_t>;

inline constexpr uint8_t kVerdictRegister = 0xff;
inline constexpr uint8_t kNoRegister = 0xfe;

// NFPROTO_*: 1 inet, 2 ip, 3 arp, 5 netdev, 7 bridge, 10 ip6.
enum class TableFamily : uint8_t { kInet = 1, kIp = 2, kArp = 3, kNetdev = 5, kBridge = 7, kIp6 = 10 };

// A verdict as data: NF_DROP 0, NF_ACCEPT 1, NFT_CONTINUE -1, NFT_BREAK -2, NFT_JUMP -3,
// NFT_GOTO -4, NFT_RETURN -5, NF_QUEUE 3.
struct VerdictData {
  int32_t code = 0;
  std::string chain;  // of jump and goto
  bool operator==(const VerdictData&) const = default;
};

struct ImmediateExpr { uint8_t dreg = 0; Bytes data; VerdictData verdict; bool operator==(const ImmediateExpr&) const = default; };  // verdict when dreg is kVerdictRegister
struct CmpExpr { uint8_t sreg = 0; uint8_t op = 0; Bytes data; bool operator==(const CmpExpr&) const = default; };                  // NFT_CMP_*
struct RangeExpr { uint8_t sreg = 0; uint8_t op = 0; Bytes from; Bytes to; bool operator==(const RangeExpr&) const = default; };     // NFT_RANGE_*
struct BitwiseExpr { uint8_t sreg = 0; uint8_t dreg = 0; uint8_t op = 0; uint32_t length = 0; Bytes mask; Bytes xor_value; uint32_t shift = 0; bool operator==(const BitwiseExpr&) const = default; };  // NFT_BITWISE_*
struct ByteorderExpr { uint8_t sreg = 0; uint8_t dreg = 0; uint8_t op = 0; uint32_t length = 0; uint32_t size = 0; bool operator==(const ByteorderExpr&) const = default; };
struct PayloadExpr { uint8_t dreg = kNoRegister; uint8_t sreg = kNoRegister; uint8_t base = 0; uint32_t offset = 0; uint32_t length = 0; uint8_t csum_type = 0; uint32_t csum_offset = 0; uint32_t csum_flags = 0; bool operator==(const PayloadExpr&) const = default; };  // sets when sreg is given
struct ExthdrExpr { uint8_t dreg = kNoRegister; uint8_t sreg = kNoRegister; uint8_t type = 0; uint32_t offset = 0; uint32_t length = 0; uint8_t op = 0; uint32_t flags = 0; bool operator==(const ExthdrExpr&) const = default; };
struct MetaExpr { uint8_t dreg = kNoRegister; uint8_t sreg = kNoRegister; uint32_t key = 0; bool operator==(const MetaExpr&) const = default; };   // NFT_META_*
struct CtExpr { uint8_t dreg = kNoRegister; uint8_t sreg = kNoRegister; uint32_t key = 0; std::optional<uint8_t> direction; bool operator==(const CtExpr&) const = default; };  // NFT_CT_*
struct RtExpr { uint8_t dreg = 0; uint32_t key = 0; bool operator==(const RtExpr&) const = default; };
struct FibExpr { uint8_t dreg = 0; uint32_t result = 0; uint32_t flags = 0; bool operator==(const FibExpr&) const = default; };
struct LookupExpr { std::string set; uint8_t sreg = 0; uint8_t dreg = kNoRegister; bool inverted = false; bool operator==(const LookupExpr&) const = default; };  // dreg may be kVerdictRegister
struct LimitExpr { uint64_t rate = 0; uint64_t unit_seconds = 1; uint32_t burst = 0; bool bytes = false; bool inverted = false; bool operator==(const LimitExpr&) const = default; };
struct CounterExpr { uint64_t packets = 0; uint64_t bytes = 0; bool operator==(const CounterExpr&) const { return true; } };  // the counts are state, not the rule
struct QuotaExpr { uint64_t bytes = 0; uint64_t consumed = 0; bool inverted = false; bool operator==(const QuotaExpr& o) const { return bytes == o.bytes && inverted == o.inverted; } };
struct ConnlimitExpr { uint32_t count = 0; bool inverted = false; bool operator==(const ConnlimitExpr&) const = default; };
struct LastExpr { bool operator==(const LastExpr&) const = default; };
struct LogExpr { std::string prefix; uint32_t level = 4; std::optional<uint16_t> group; uint32_t snaplen = 0; uint32_t flags = 0; bool operator==(const LogExpr&) const = default; };
struct RejectExpr { uint32_t type = 0; uint8_t code = 0; bool operator==(const RejectExpr&) const = default; };  // NFT_REJECT_*
struct NatExpr { bool destination = false; uint8_t family = 0; uint8_t addr_min = kNoRegister; uint8_t addr_max = kNoRegister; uint8_t proto_min = kNoRegister; uint8_t proto_max = kNoRegister; uint32_t flags = 0; bool operator==(const NatExpr&) const = default; };  // flags: NF_NAT_RANGE_*
struct MasqExpr { uint8_t proto_min = kNoRegister; uint8_t proto_max = kNoRegister; uint32_t flags = 0; bool operator==(const MasqExpr&) const = default; };
struct RedirExpr { uint8_t proto_min = kNoRegister; uint8_t proto_max = kNoRegister; uint32_t flags = 0; bool operator==(const RedirExpr&) const = default; };
struct NumgenExpr { uint8_t dreg = 0; uint32_t modulus = 1; uint32_t type = 0; uint32_t offset = 0; bool operator==(const NumgenExpr&) const = default; };
struct HashExpr { uint8_t sreg = kNoRegister; uint8_t dreg = 0; uint32_t length = 0; uint32_t modulus = 1; uint32_t seed = 0; uint32_t offset = 0; uint32_t type = 0; bool operator==(const HashExpr&) const = default; };
struct NotrackExpr { bool operator==(const NotrackExpr&) const = default; };
struct ObjrefExpr { uint32_t type = 0; std::string name; uint8_t sreg = kNoRegister; std::string set; bool operator==(const ObjrefExpr&) const = default; };  // by name, or by a map's element
struct UnsupportedExpr { std::string name; bool operator==(const UnsupportedExpr&) const = default; };  // what is not listed here: named, and the kernel's
struct DynsetExpr;

using Expr = std::variant<ImmediateExpr, CmpExpr, RangeExpr, BitwiseExpr, ByteorderExpr, PayloadExpr,
                          ExthdrExpr, MetaExpr, CtExpr, RtExpr, FibExpr, LookupExpr, LimitExpr,
                          CounterExpr, QuotaExpr, ConnlimitExpr, LastExpr, LogExpr, RejectExpr,
                          NatExpr, MasqExpr, RedirExpr, NumgenExpr, HashExpr, NotrackExpr, ObjrefExpr,
                          UnsupportedExpr, std::shared_ptr<const DynsetExpr>>;

// The kernel takes timeouts of five centuries, of which the sum with a time is too much for Nanos: they
// are cut to one.
inline constexpr uint64_t kLongestTimeoutMs = uint64_t{36'525} * 86'400'000;

struct DynsetExpr {
  std::string set;
  uint32_t op = 0;  // NFT_DYNSET_OP_ADD, UPDATE, DELETE
  uint8_t sreg_key = 0;
  uint8_t sreg_data = kNoRegister;
  std::optional<uint64_t> timeout_ms;
  bool inverted = false;
  std::vector<Expr> exprs;  // of a new element: limit, counter, connlimit, quota
  bool operator==(const DynsetExpr&) const;
};

struct Rule {
  uint64_t handle = 0;
  std::vector<Expr> exprs;
  std::string comment;
};

struct BaseChain {
  std::string type;  // filter, nat, route
  uint32_t hook = 0;  // NF_INET_* (for netdev: NF_NETDEV_INGRESS 0, EGRESS 1)
  int32_t priority = 0;
  uint32_t policy = 1;  // NF_ACCEPT or NF_DROP
  std::vector<std::string> devices;  // netdev family, inet ingress
};

struct Chain {
  std::string name;
  uint64_t handle = 0;
  bool anonymous = false;   // of one rule: "jump { ... }"
  std::optional<BaseChain> base;
  std::vector<Rule> rules;  // in order
};

struct SetElement {
  Bytes key;
  std::optional<Bytes> key_end;  // of a concatenation with ranges (pipapo)
  bool interval_end = false;     // rbtree sets: this key is the first one after an interval
  bool catchall = false;
  Bytes data;
  VerdictData verdict;           // of verdict maps
  std::string object;            // of object maps
  uint64_t timeout_ms = 0;       // 0: the set's, or none
  // When it is over, by the clock that the reader was given; Max(): never. The kernel removes
  // elements without a word when their time has come, and so does who uses this model.
  Nanos expires_at = Nanos::Max();
  std::vector<Expr> exprs;       // counter, limit, ... of the element
  uint64_t order = 0;            // older elements have smaller ones; see SetElements
};

// What makes an element another one. Catch-all elements come last; an interval's end comes before
// the start of the interval that follows it directly.
struct ElementLess {
  bool operator()(const SetElement& a, const SetElement& b) const {
    if (a.catchall != b.catchall) return b.catchall;
    if (a.key != b.key) return a.key < b.key;
    if (a.interval_end != b.interval_end) return a.interval_end;
    return a.key_end < b.key_end;
  }
};
// By key, so that one element is found, added and removed at the cost of a tree's height, and so
// that intervals come in order. Where the ranges of a concatenation overlap, the kernel takes the
// one that was added first (net/netfilter/nft_set_pipapo.c): the smaller `order`.
using SetElements = std::set<SetElement, ElementLess>;

struct Set {
  std::string name;
  uint64_t handle = 0;
  uint32_t flags = 0;       // NFT_SET_*: 1 anonymous, 2 constant, 4 interval, 8 map, 0x10 timeout, 0x20 eval, 0x40 object, 0x80 concat, 0x100 expr
  uint32_t key_type = 0;
  uint32_t key_length = 0;  // bytes
  uint32_t data_type = 0;   // NFT_DATA_VERDICT 0xffffff00 for verdict maps
  uint32_t data_length = 0;
  uint32_t object_type = 0;
  uint32_t size = 0;        // 0: no limit
  uint64_t timeout_ms = 0;
  Bytes field_lengths;      // of a concatenation (NFTA_SET_DESC_CONCAT)
  std::vector<Expr> exprs;  // templates for new elements
  SetElements elements;
  // Changes with each change of the elements (their expiry is none) and is never used for other
  // contents again within one NftMirror: the same version means the same definition and elements,
  // also after the mirror read all anew.
  uint64_t version = 0;
};

struct Object {
  uint32_t type = 0;  // NFT_OBJECT_*: 1 counter, 2 quota, 3 ct helper, 4 limit, 5 connlimit, 7 ct timeout, 8 secmark, 9 ct expectation, 10 synproxy
  std::string name;
  uint64_t handle = 0;
  Expr value = UnsupportedExpr{};  // counter, quota, limit, connlimit; else UnsupportedExpr
};

struct Table {
  TableFamily family = TableFamily::kInet;
  std::string name;
  uint64_t handle = 0;
  bool dormant = false;
  std::vector<Chain> chains;  // in the order of the kernel's list
  std::map<std::string, Set> sets;
  std::vector<Object> objects;
};

struct Ruleset {
  uint32_t generation = 0;  // NFT_MSG_GETGEN
  std::vector<Table> tables;
};

// What a set gained and lost. A changed element (a new timeout or value) is in both.
struct SetDelta {
  TableFamily family = TableFamily::kInet;
  std::string table;
  std::string set;
  std::vector<SetElement> removed;  // to be taken out first
  std::vector<SetElement> added;
};

// From one ruleset that was given out to the next, which may be several generations later.
struct RulesetChange {
  // Something else than elements of sets that were there before: compile anew. Sets that kept their
  // version keep what was compiled for them.
  bool structure = false;
  std::vector<SetDelta> sets;  // complete when `structure` is false; empty when it is true
};

// Whether two expressions say the same: by value, dynsets too. State (counts) does not matter.
bool SameExpr(const Expr& a, const Expr& b);
bool SameExprs(const std::vector<Expr>& a, const std::vector<Expr>& b);
// All but `order` and the time left: expressions, data, timeouts.
bool SameElement(const SetElement& a, const SetElement& b);
bool SameElements(const Set& a, const Set& b);

const char* FamilyName(TableFamily family);  // as nft writes it: "inet", "ip", ...

// nullptr when there is none.
const Table* FindTable(const Ruleset& ruleset, TableFamily family, const std::string& name);
Table* FindTable(Ruleset& ruleset, TableFamily family, const std::string& name);
const Chain* FindChain(const Table& table, const std::string& name);
Chain* FindChain(Table& table, const std::string& name);

}  // namespace sluice::control::nft

#endif  // SLUICE_CONTROL_NFT_MODEL_H_
