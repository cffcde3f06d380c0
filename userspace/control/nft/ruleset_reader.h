// Reads nf_tables' ruleset of a network namespace by dumps over nfnetlink.
//
// In steps, since a set may have very many elements: each Step takes at most a given number of
// datagrams (up to 32 KiB each; the kernel fills them while it is asked, nothing is waited for).
// The generation is asked for before and after; when it moved, or the kernel marked a dump as torn
// (NLM_F_DUMP_INTR), or something vanished while it was read, all is read again. Between, the reader
// waits for a transaction that is under way: the kernel raises the generation before it exchanges the
// rules, and dumps by position in lists from which it is still taking the old ones. Without that a
// ruleset may come without some of its rules, and nothing says so.
//
// A set's elements come by number as well: those of which one comes twice are read again, since others
// may be missing. (An element that the kernel removes between two parts, its time being over, can
// still hide another one; nothing tells.)
//
// A kernel without nf_tables has an empty ruleset of generation 0. Families, tables and chains come
// in the kernel's order. Counts in the expressions are those of the moment.
//
// Cost (6.18, one core): 2 to 3 us per element of a large set, half of it in the kernel, 5 us per
// rule. Threads: the control thread only, in the namespace of Open.
#ifndef SLUICE_CONTROL_NFT_RULESET_READER_H_
#define SLUICE_CONTROL_NFT_RULESET_READER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/time.h"
#include "control/netlink/netlink_socket.h"
#include "control/nft/model.h"

namespace sluice::control::nft {

class RulesetReader {
 public:
  // Which sets' elements are read; the others come out empty.
  using WantsElements = std::function<bool(const Table& table, const Set& set)>;

  // Unavailable when the kernel has no nfnetlink.
  static absl::StatusOr<RulesetReader> Open();

  // Begins anew, whatever was being read.
  void Start(WantsElements wants_elements = nullptr);  // null: of all sets
  // True when Take() has the ruleset. An error ends the reading.
  absl::StatusOr<bool> Step(size_t datagrams, Nanos now);
  Ruleset Take() { return std::move(ruleset_); }
  // How often this reading was begun: it starts again each time that the ruleset changes meanwhile.
  int attempts() const { return attempts_; }

  // All of it at once. Unavailable when it changes faster than it can be read.
  absl::StatusOr<Ruleset> Read(Nanos now);
  // The generation and the tables without their contents: a cheap look at whether something was
  // missed.
  absl::StatusOr<Ruleset> ReadTables(Nanos now);

 private:
  enum class Phase {
    kGenerationBefore,
    kTables,
    kChains,
    kRules,
    kSets,
    kObjects,
    kElements,
    kGenerationAfter,
    kDone,
  };
  struct SetName {
    TableFamily family;
    std::string table;
    std::string set;
  };

  explicit RulesetReader(NetlinkSocket socket) : socket_(std::move(socket)) {}
  absl::Status SendRequest();
  absl::Status WaitForTransaction();
  void Take(const nlmsghdr& message, Nanos now);  // one message of an answer
  void TakeContent(const nlmsghdr& message, Nanos now);
  absl::Status EndPhase();
  absl::StatusOr<Ruleset> Finish(Nanos now, int max_attempts);
  void Again();

  NetlinkSocket socket_;
  WantsElements wants_elements_;
  Ruleset ruleset_;
  std::vector<SetName> wanted_;  // sets whose elements are still to be read
  Phase phase_ = Phase::kDone;
  bool tables_only_ = false;
  bool asked_ = false;     // the request of this phase is sent
  bool answered_ = false;  // and its answer complete
  bool torn_ = false;
  bool repeated_ = false;  // an element has come twice
  int repeats_ = 0;        // readings that were begun anew for that
  uint32_t sequence_ = 0;
  uint32_t generation_ = 0;  // as the last GETGEN said
  int error_ = 0;            // errno of the answer
  int attempts_ = 0;
  uint64_t order_ = 0;      // of elements
  Set* set_ = nullptr;      // whose elements are coming
  Chain* chain_ = nullptr;  // whose rules are coming
  const Table* chain_table_ = nullptr;
};

}  // namespace sluice::control::nft

#endif  // SLUICE_CONTROL_NFT_RULESET_READER_H_
