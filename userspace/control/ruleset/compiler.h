// From the kernel's nftables ruleset (control/nft/model.h) to what workers run
// (tables/ruleset/ruleset.h).
//
// Compile takes a whole ruleset; sets that have the version they had before are not built again,
// and rules that are unchanged (family, table, chain, handle and expressions) keep their state.
// A table that was deleted and made again is another one, whatever its name and its rules' handles.
// ApplyElements and ApplyEvents change elements only, at the cost of the change.
//
// A ruleset always compiles: what Sluice cannot evaluate becomes an operation that hands the packet
// to the kernel, and is listed by name in Ruleset::unsupported().
//
// Memory: the index of a chain takes at most index_bytes; beyond that it covers fewer dimensions.
// Thread: control. Rulesets may outlive the compiler: they share what they need.
#ifndef SLUICE_CONTROL_RULESET_COMPILER_H_
#define SLUICE_CONTROL_RULESET_COMPILER_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "base/time.h"
#include "control/nft/model.h"
#include "tables/ruleset/ruleset.h"

namespace sluice::control {

// benchmarks/micro/filter_bench: asking an index costs as much as trying four to six rules.
struct CompilerOptions {
  uint32_t workers = 1;
  uint64_t seed = 0;                         // of hashes whose keys senders choose
  uint32_t index_threshold = 8;              // chains with more rules get an index
  size_t index_bytes = size_t{32} << 20;     // per chain
  uint32_t max_dynamic_elements = 1u << 20;  // per set and worker, if the set's size allows more
};

class RulesetCompiler {
 public:
  explicit RulesetCompiler(const CompilerOptions& options);
  ~RulesetCompiler();

  std::shared_ptr<const tables::Ruleset> Compile(const nft::Ruleset& model, Nanos now);
  // When only elements have changed since the model that was given before (RulesetChange says so).
  // Null when one of the sets is not known: then Compile is needed.
  std::shared_ptr<const tables::Ruleset> ApplyElements(const nft::Ruleset& model,
                                                       std::span<const nft::SetDelta> changes,
                                                       Nanos now);
  // What workers have added to dynamic sets (Filter::DrainSetEvents), so that the others see it.
  // Elements with statements are left out: without them they would mean something else.
  // Null when nothing has changed. The model does not know of it: after the set's next change by the
  // kernel only each worker's own elements remain.
  std::shared_ptr<const tables::Ruleset> ApplyEvents(std::span<const tables::SetEvent> events,
                                                     Nanos now);
  // Whose elements an event is about; null: of a set that has gone.
  struct SetName {
    uint8_t family = 0;  // NFPROTO_*
    std::string table;
    std::string set;
  };
  std::optional<SetName> NameOf(const tables::SetEvent& event) const;

 private:
  friend class RulesetBuild;

  using TableKey = std::pair<uint8_t, std::string>;                // family, table
  using SetKey = std::tuple<uint8_t, std::string, std::string>;    // family, table, set
  using ChainKey = std::tuple<uint8_t, std::string, std::string>;  // family, table, chain
  using ObjectKey = std::tuple<uint8_t, std::string, uint32_t, std::string>;

  // What must be found again when a rule is compiled once more.
  struct RuleMemory {
    std::vector<nft::Expr> exprs;
    std::vector<tables::StateHandle> states;
    uint64_t owner = 0;
  };
  struct ObjectMemory {
    uint64_t handle = 0;
    nft::Expr value;
    std::shared_ptr<const tables::ElementState> state;
  };
  struct SetMemory {
    uint64_t version = 0;
    std::shared_ptr<const tables::ElementSet> elements;
    std::shared_ptr<tables::DynamicSet> dynamic;
    uint64_t handle = 0;
    uint32_t index = 0;  // in the last Ruleset
    bool verdicts = false;
    bool objects = false;
    uint32_t object_type = 0;
  };
  using RulesOfChain = absl::flat_hash_map<uint64_t, RuleMemory>;

  // What is remembered of tables that are not there any more, or are others of the same name.
  void ForgetTables(const nft::Ruleset& model);
  // One element as ElementSet takes it; for intervals `end` is the element that ends it, or null.
  tables::Element Convert(const SetKey& key, const SetMemory& memory,
                          const nft::SetElement& element, const nft::SetElement* end, Nanos now);
  std::vector<tables::Element> ConvertAll(const SetKey& key, const SetMemory& memory,
                                          const nft::Set& set, Nanos now);
  void ApplyDelta(const SetKey& key, SetMemory& memory, const nft::Set& set,
                  const nft::SetDelta& delta, Nanos now);
  std::shared_ptr<const tables::ElementState> MakeState(std::span<const nft::Expr> exprs,
                                                        Nanos now);
  std::shared_ptr<const tables::Ruleset> WithSets(
      const std::vector<std::pair<uint32_t, std::shared_ptr<const tables::ElementSet>>>& sets,
      uint64_t generation);

  const CompilerOptions options_;
  std::shared_ptr<tables::StatePool> pool_;
  std::map<TableKey, uint64_t> tables_;  // and their handles
  std::map<ChainKey, RulesOfChain> rules_;
  std::map<ObjectKey, ObjectMemory> objects_;
  std::map<SetKey, SetMemory> sets_;
  std::map<ChainKey, uint32_t> chain_ids_;
  uint64_t next_owner_ = 1;
  uint64_t next_set_id_ = 1;
  std::shared_ptr<const tables::Ruleset> last_;
};

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_RULESET_COMPILER_H_
