// Applies nf_tables' notifications to a Ruleset, one transaction at a time.
//
// What the kernel says, and when (net/netfilter/nf_tables_api.c, nf_tables_commit): one message per
// change in the order of the transaction, then NFT_MSG_NEWGEN. Where a new rule stands is told by
// the handle of the rule before it, unless it is the first or the last of its chain; NLM_F_APPEND
// says "added or replaced" rather than "inserted". That is exact but for these cases, in which the
// structure counts as stale and must be read again:
//   - a rule whose predecessor comes later in the same transaction;
//   - a rule that took the place of its chain's first one, which looks like an appended one, or of
//     its last one, which may look like an inserted one;
//   - devices of a chain that change (the message names only those that are new or gone);
//   - a deleted rule that jumped to a chain of its own, which goes without a word;
//   - very many changes at once, which are cheaper to read;
//   - anything about a table, chain or set that is not there.
// While the structure is stale, elements of sets that are there are still followed exactly.
//
// Cost: an element's change is one search in the set. Thread: control.
#ifndef SLUICE_CONTROL_NFT_RULESET_EDITOR_H_
#define SLUICE_CONTROL_NFT_RULESET_EDITOR_H_

#include <linux/netlink.h>

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <utility>

#include "base/time.h"
#include "control/nft/messages.h"
#include "control/nft/model.h"

namespace sluice::control::nft {

class RulesetEditor {
 public:
  void Apply(Ruleset& ruleset, const nlmsghdr& message, Nanos now);
  void EndTransaction();

  // Something could not be applied: everything but the elements of sets must be read again.
  bool stale() const { return stale_; }
  // It was; or the whole ruleset is another one.
  void OnRead();

  bool changed() const { return structure_ || !touched_.empty(); }
  // What has changed since the last call.
  RulesetChange TakeChange(const Ruleset& ruleset);

  uint64_t NextVersion() { return ++version_; }

 private:
  using SetId = std::tuple<TableFamily, std::string, std::string>;
  // Elements as they were before; false: not there, only the key counts.
  using Touched = std::map<SetElement, bool, ElementLess>;

  void ApplyTable(Ruleset& ruleset, const nlmsghdr& message, bool added);
  void ApplyChain(Ruleset& ruleset, const nlmsghdr& message, bool added);
  void ApplyRule(Ruleset& ruleset, const nlmsghdr& message, bool added);
  void ApplySet(Ruleset& ruleset, const nlmsghdr& message, bool added);
  void ApplyElements(Ruleset& ruleset, const nlmsghdr& message, bool added, Nanos now);
  void ApplyObject(Ruleset& ruleset, const nlmsghdr& message, bool added);
  void InsertRule(const Table& table, Chain& chain, RuleMessage&& message);
  void MakeStale();

  bool structure_ = false;
  bool stale_ = false;
  std::map<SetId, Touched> touched_;
  // Chains (by the handles of table and chain) whose first or last rule this transaction deleted.
  std::set<std::pair<uint64_t, uint64_t>> first_deleted_;
  std::set<std::pair<uint64_t, uint64_t>> last_deleted_;
  size_t rule_changes_ = 0;  // of this transaction
  uint64_t order_ = kFirstOrder;
  uint64_t version_ = 0;

  // Elements that a dump gave have smaller ones.
  static constexpr uint64_t kFirstOrder = uint64_t{1} << 32;
};

}  // namespace sluice::control::nft

#endif  // SLUICE_CONTROL_NFT_RULESET_EDITOR_H_
