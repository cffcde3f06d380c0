// The elements of nftables sets as ranges, decoded once and then kept up to date by the mirror's
// deltas, so that one more element in a set of 100,000 costs a copy of the ranges and no walk
// through the set.
//
// Elements that have a time to live count until then: whoever uses this decodes anew at the time
// that it says. Sets with catch-all elements, concatenations and values (maps) are not for it.
//
// Thread: control.
#ifndef SLUICE_CONTROL_EARLY_EARLY_SETS_H_
#define SLUICE_CONTROL_EARLY_EARLY_SETS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "base/address.h"
#include "base/time.h"
#include "control/nft/model.h"
#include "tables/early_program.h"

namespace sluice::control {

// By value of a key of one or two bytes.
using EarlySmallSet = std::vector<bool>;

class EarlySetCache {
 public:
  using Name = std::tuple<nft::TableFamily, std::string, std::string>;

  // Before the first Get after the mirror's ruleset has changed. Null: anything may have changed.
  void BeginUpdate(const nft::RulesetChange* change);
  // The ranges of this set, by reference to what was decoded before when it is still right.
  // Nothing when the set is none that can be decoded.
  tables::EarlySet4 Get4(const nft::Table& table, const nft::Set& set, Nanos now);
  tables::EarlySet6 Get6(const nft::Table& table, const nft::Set& set, Nanos now);
  // Of keys of one or two bytes; decoded each time.
  std::optional<EarlySmallSet> Small(const nft::Set& set, Nanos now);
  // Forgets the sets that were not asked for since BeginUpdate.
  void EndUpdate();
  // When the first element ends among the sets that were asked for.
  Nanos valid_until() const { return valid_until_; }

 private:
  struct Entry {
    uint64_t version = 0;
    bool used = false;
    Nanos valid_until = Nanos::Max();
    tables::EarlySet4 ranges4;
    tables::EarlySet6 ranges6;
  };

  template <typename T>
  std::shared_ptr<const tables::EarlyRanges<T>> Get(
      const nft::Table& table, const nft::Set& set, Nanos now,
      std::shared_ptr<const tables::EarlyRanges<T>> Entry::*member);

  std::map<Name, Entry> entries_;
  std::map<Name, const nft::SetDelta*> deltas_;
  Nanos valid_until_ = Nanos::Max();
};

// Elements of one key size as ranges; nothing when they cannot be that. `valid_until` is lowered.
template <typename T>
std::optional<tables::EarlyRanges<T>> DecodeElements(const nft::Set& set, Nanos now,
                                                     Nanos& valid_until);

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_EARLY_EARLY_SETS_H_
