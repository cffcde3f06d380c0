// The routes of one address family as the kernel holds them, and its decision for every prefix.
//
// What is merged, while only the default rules exist:
//  - IPv4: tables local and main form one trie (fib_trie_unmerge undoes that only when the first
//    rule is added), so the longest prefix of both wins and local goes first at equal length. The
//    table default is asked only when that search finds nothing or a throw route.
//  - IPv6: the table local is searched on its own first, then main. A short local prefix (AnyIP)
//    hides longer ones of main.
// Both are "a first layer, then a second". In the one FIB that comes of it, a prefix of the second
// layer is left out where a live prefix of the first covers it.
//
// Within a prefix: the order of fib_find_alias in net/ipv4/fib_trie.c (TOS descending, metric
// ascending, then place in the list), and of fib6_add_rt2node in net/ipv6/ip6_fib.c (metric, then
// router preference as rt6_score_route has it, then place). Routes without a usable path are passed
// over, at last in favour of a shorter prefix, as fib_table_lookup and fib6_table_lookup do.
// Notifications are applied as the kernel made its own change: NLM_F_REPLACE replaces the first of
// equal table, TOS and metric; NLM_F_APPEND goes behind them, neither goes before them (IPv4).
//
// IPv6 siblings that differ in their MTU count with that of the first.
//
// Left to the kernel (a punt route): prefixes with a route for some TOS only; several default
// routes of one metric in IPv4 (it watches their gateways, fib_select_default); a throw route that
// no later table answers.
//
// Dumps reconcile: BeginDump(table), DumpRoute for each route of it in the kernel's order, EndDump.
// A prefix that an event touched meanwhile keeps what the event said; where the dump disagrees it
// counts as uncertain, and the caller dumps again.
//
// Threads: the control thread only. Memory: 16 bytes per IPv4 prefix and 32 per IPv6 prefix in a
// flat hash table (so 18 to 40 and 34 to 80 with its free room), more only for prefixes with
// several routes. Cost: one prefix per change, except for the rescan after a change of links.
#ifndef SLUICE_CONTROL_RIB_RIB_H_
#define SLUICE_CONTROL_RIB_RIB_H_

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/container/inlined_vector.h"
#include "base/address.h"
#include "control/rib/attribute_store.h"
#include "control/rib/route_sink.h"
#include "control/rib/route_update.h"

namespace sluice::control {

struct Ipv4RibTraits {
  using Address = Ipv4;
  using Prefix = Ipv4Prefix;
  static constexpr Family kFamily = Family::kIpv4;
  static constexpr uint8_t kBits = 32;
  static Prefix PrefixOf(const RouteUpdate& u) {
    return Prefix{Ipv4(static_cast<uint32_t>(u.destination.lo)), u.length}.Canonical();
  }
  static bool InFirstLayer(RouteTableId t) { return t != RouteTableId::kDefault; }
  static size_t Hash(const Prefix& p) {
    return (uint64_t{p.address.value} << 8 | p.length) * 0x9e3779b97f4a7c15ull;
  }
};

struct Ipv6RibTraits {
  using Address = Ipv6;
  using Prefix = Ipv6Prefix;
  static constexpr Family kFamily = Family::kIpv6;
  static constexpr uint8_t kBits = 128;
  static Prefix PrefixOf(const RouteUpdate& u) {
    return Prefix{u.destination, u.length}.Canonical();
  }
  static bool InFirstLayer(RouteTableId t) { return t == RouteTableId::kLocal; }
  static size_t Hash(const Prefix& p) {
    return ((p.address.hi * 0x9e3779b97f4a7c15ull) ^ p.address.lo ^ p.length) *
           0xd6e8feb86659fd93ull;
  }
};

struct RibStats {
  size_t prefixes = 0;   // known
  size_t installed = 0;  // in the FIB
  size_t refused = 0;    // should be in the FIB, which had no room
  size_t bytes = 0;      // of this RIB, without the attribute store
};

struct DumpOutcome {
  size_t routes = 0;       // seen
  size_t corrections = 0;  // prefixes found wrong, now right
  size_t uncertain = 0;    // prefixes that changed meanwhile and disagree with the dump
};

template <class Traits>
class Rib {
 public:
  using Address = typename Traits::Address;
  using Prefix = typename Traits::Prefix;

  Rib(AttributeStore& attributes, RouteSink& sink) : attributes_(attributes), sink_(sink) {}
  Rib(const Rib&) = delete;
  Rib& operator=(const Rib&) = delete;

  // RTM_NEWROUTE and RTM_DELROUTE. False when the event tells nothing new (the route is there, or
  // is not there): a dump was ahead of it, or something is amiss; the caller dumps again.
  bool Add(const RouteUpdate& update);
  bool Remove(const RouteUpdate& update);

  // With `exact`, corrections leaves out prefixes that turn out to have changed meanwhile.
  void BeginDump(RouteTableId table, bool exact = false);
  void DumpRoute(const RouteUpdate& update);
  DumpOutcome EndDump();
  void AbortDump();

  // After AttributeStore::Refresh said so.
  void Rescan();

  // The decision for an address, found without the FIB: for tests and `explain`. The spec is
  // kNoSpec when there is no route.
  SpecId Lookup(const Address& address) const;

  RibStats stats() const;
  size_t refused() const { return refused_.size(); }

 private:
  using Aliases = absl::InlinedVector<AttributeId, 6>;
  // `entry` is an AttributeId, or an index into multi_ with kMulti; with a bit per table that
  // tells which dumps have met this prefix.
  struct Node {
    uint32_t entry = 0;
    SpecId installed = kNoSpec;
  };
  struct Hash {
    size_t operator()(const Prefix& p) const {
      const size_t h = Traits::Hash(p);
      return h ^ h >> 32;
    }
  };
  static constexpr uint32_t kMulti = 1u << 31;
  static constexpr uint32_t kSeenShift = 28;
  static constexpr uint32_t kIndexMask = (1u << kSeenShift) - 1;
  enum class Layer : uint8_t { kNone, kLive, kThrow };
  struct Choice {
    Layer layer = Layer::kNone;
    SpecId spec = kNoSpec;
  };

  Aliases AliasesOf(const Node& node) const;
  void Store(Node& node, const Aliases& aliases);
  // The aliases of equal table, TOS and metric, as indexes [first, last).
  std::pair<size_t, size_t> EqualRange(const Aliases& aliases, const Attribute& a) const;
  const Attribute& at(AttributeId id) const { return attributes_.at(id); }

  Choice Choose(const Prefix& prefix, const Aliases& aliases, bool first_layer) const;
  SpecId Decide(const Prefix& prefix, const Aliases& aliases) const;
  SpecId SearchSecond(const Prefix& prefix) const;  // this prefix or a shorter one
  Choice CoveredByFirst(const Prefix& prefix) const;

  void InsertIpv4(Aliases& aliases, AttributeId id, const RouteUpdate& update);
  void InsertIpv6(Aliases& aliases, AttributeId id, const RouteUpdate& update);
  AttributeId JoinSiblings(AttributeId group, AttributeId id, const RoutePaths& all);
  bool RemoveSimilar(Aliases& aliases, const RouteUpdate& update);
  void SetTable(Aliases& aliases, RouteTableId table, const Aliases& wanted);

  // Runs edit(aliases) on a prefix's list and carries the consequences to the sink.
  template <class Edit>
  void Mutate(const Prefix& prefix, const Edit& edit);
  void Install(const Prefix& prefix, Node& node, SpecId wanted);
  void CountLayers(const Prefix& prefix, const Aliases& aliases, int change);
  bool HasLayer(const Aliases& aliases, bool first_layer) const;
  void RedecideSecondLayer(const Prefix& under);
  void RedecideThrows();
  void FlushDumped();
  void MarkSeen(Node& node) { node.entry = (node.entry & ~SeenBit()) | (seen_ & SeenBit()); }
  uint32_t SeenBit() const { return 1u << (kSeenShift + static_cast<uint32_t>(dump_table_)); }

  AttributeStore& attributes_;
  RouteSink& sink_;
  absl::flat_hash_map<Prefix, Node, Hash> nodes_;
  std::vector<Aliases> multi_;
  std::vector<uint32_t> free_multi_;
  // Prefixes per length that have routes of each layer: which ancestors are worth a look.
  std::array<uint32_t, Traits::kBits + 1> first_layer_{};
  std::array<uint32_t, Traits::kBits + 1> second_layer_{};
  size_t second_total_ = 0;
  absl::flat_hash_set<Prefix, Hash> throws_;  // with a throw route of the first layer
  size_t installed_ = 0;
  absl::flat_hash_set<Prefix, Hash> refused_;

  bool dumping_ = false;
  RouteTableId dump_table_ = RouteTableId::kMain;
  uint32_t seen_ = 0;  // what the bits of nodes met by the last dump of each table look like
  absl::flat_hash_set<Prefix, Hash> touched_;
  bool exact_ = false;
  std::vector<Prefix> corrected_;  // when exact_
  Prefix dumped_prefix_;
  Aliases dumped_;
  DumpOutcome outcome_;
};

using Rib4 = Rib<Ipv4RibTraits>;
using Rib6 = Rib<Ipv6RibTraits>;

extern template class Rib<Ipv4RibTraits>;
extern template class Rib<Ipv6RibTraits>;

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_RIB_RIB_H_
