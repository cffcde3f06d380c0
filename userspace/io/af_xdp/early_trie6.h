// The early filter's table of IPv6 addresses: which sets hold an address, as prefixes with classes
// for a longest-prefix trie of the kernel's (BPF_MAP_TYPE_LPM_TRIE).
//
// Each range of a set is cut into prefixes; each prefix in any set gets the class of the sets that
// hold it wholly. An address then has the class of its longest prefix, as more specific parts of
// other sets are prefixes of their own. A change of sets is the difference of two such lists, in an
// order in which a reader sees each address in or out of the changed set, and nothing else.
//
// Thread: control. Cost: n log n in ranges.
#ifndef SLUICE_IO_AF_XDP_EARLY_TRIE6_H_
#define SLUICE_IO_AF_XDP_EARLY_TRIE6_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/address.h"
#include "io/af_xdp/early_table4.h"
#include "tables/early_program.h"

namespace sluice::io::af_xdp {

// Appends the prefixes that together are the range, ascending.
void CutIntoPrefixes(const tables::EarlyRange<Ipv6>& range, std::vector<Ipv6Prefix>& out);

class EarlyTrie6 {
 public:
  struct Entry {
    Ipv6Prefix prefix;
    uint8_t number = 0;  // of the class
  };
  using Put = std::function<absl::Status(const Ipv6Prefix&, uint8_t number)>;
  using Remove = std::function<absl::Status(const Ipv6Prefix&)>;

  // Brings the trie from the last call's sets (none at first) to these.
  absl::Status Change(const std::vector<tables::EarlySet6>& sets, const Put& put,
                      const Remove& remove);

  EarlyClasses& classes() { return classes_; }

 private:
  absl::StatusOr<std::vector<Entry>> Entries(const std::vector<tables::EarlySet6>& sets);

  EarlyClasses classes_;
  std::vector<Entry> entries_;  // ascending
};

}  // namespace sluice::io::af_xdp

#endif  // SLUICE_IO_AF_XDP_EARLY_TRIE6_H_
