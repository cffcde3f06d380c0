// The early filter of one loaded XDP program: writes an EarlyProgram into its maps, keeps it up to
// date, and reads its rules' counters.
//
// Install replaces the program as a whole: the new one is written aside, and one store of one word
// makes it the one in force, so that a packet sees the old or the new. When only elements of sets
// differ, they are changed in place instead: by one store for an address. (Several elements in one
// Install then come into force one after the other.)
//
// Cost: a new program some milliseconds, plus 10 to 50 for sets of 100,000 elements, plus waiting
// for programs that run (RCU) up to three times. A changed element: comparing the changed set with
// the one before, and what the element touches. Memory: 1 to 6 MiB for each direction of IPv4
// addresses that rules look at (more than that only when more than 6,500 /24s are divided), about
// 100 bytes per IPv6 prefix, and up to twice as much after sets were replaced.
//
// Thread: control.
#ifndef SLUICE_IO_AF_XDP_EARLY_FILTER_H_
#define SLUICE_IO_AF_XDP_EARLY_FILTER_H_

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bpf/include/early_abi.h"
#include "io/af_xdp/early_core.h"
#include "io/af_xdp/early_limits.h"
#include "io/af_xdp/early_pages.h"
#include "io/af_xdp/early_table4.h"
#include "io/af_xdp/early_trie6.h"
#include "tables/early_program.h"

namespace sluice::io::af_xdp {

// Packets that matched a rule (to where its `counter` stands, if it has one), and their bytes as
// the kernel's counter would have counted them.
struct EarlyRuleCount {
  tables::EarlyRuleKey key;
  uint64_t packets = 0;
  uint64_t bytes = 0;
};

// What else is dropped.
struct EarlyChecks {
  bool headers = false;   // malformed, as the kernel would
  bool martians = false;  // impossible addresses, when the program allows it
  bool loopback = false;  // those include 127/8: route_localnet is off on the interface
};

class EarlyFilter {
 public:
  // Of the loaded program; they must outlive this.
  struct Maps {
    int cores = -1;
    int pages = -1;
    int tries = -1;
    int stats = -1;
    volatile uint32_t* word = nullptr;  // sluice_xdp_config.early
  };
  // `limits` must outlive it.
  static absl::StatusOr<std::unique_ptr<EarlyFilter>> Create(const Maps& maps, EarlyLimits& limits);
  ~EarlyFilter();
  EarlyFilter(const EarlyFilter&) = delete;
  EarlyFilter& operator=(const EarlyFilter&) = delete;

  // Returns the last counts of rules that are no longer in the program. After an error the program
  // before is still in force (with some elements of sets changed, possibly).
  absl::StatusOr<std::vector<EarlyRuleCount>> Install(const tables::EarlyProgram& program);
  void SetChecks(const EarlyChecks& checks);
  // Waits until every program of this machine that may have seen what was before has ended, and
  // what it let through is in the rings.
  absl::Status Quiesce();

  // Of each rule of the program, in order.
  absl::StatusOr<std::vector<EarlyRuleCount>> ReadCounts() const;
  const tables::EarlyProgram& program() const { return program_; }
  size_t page_bytes() const { return pages_.bytes(); }

 private:
  // What one of two generations looks at.
  struct Tables {
    std::array<std::unique_ptr<EarlyTable4>, 2> table4;  // source, destination
    std::array<std::unique_ptr<EarlyTrie6>, 2> trie6;
    std::array<int, 2> trie_fds = {-1, -1};
    std::array<uint32_t, 2> trie_places{};
  };
  using Counts = std::array<sluice_early_count, SLUICE_EARLY_COUNTERS>;

  EarlyFilter(const Maps& maps, EarlyLimits& limits);
  bool OnlySetsDiffer(const tables::EarlyProgram& program) const;
  absl::Status ChangeSets(const tables::EarlyProgram& program);
  absl::Status Replace(const tables::EarlyProgram& program);
  absl::Status BuildTables(const tables::EarlyProgram& program, uint32_t index, Tables& tables);
  absl::Status BuildTrie(const tables::EarlyProgram& program, int which, uint32_t index,
                         Tables& tables);
  absl::Status ChangeTrie(EarlyTrie6& trie, int fd, const std::vector<tables::EarlySet6>& sets);
  absl::StatusOr<EarlySlots> AssignSlots(const tables::EarlyProgram& program);
  void ReleaseLimits(const tables::EarlyProgram& program);
  void TellNewClasses(Tables& tables, uint32_t index);
  absl::StatusOr<Counts> ReadSlots() const;
  void WriteWord();

  const Maps maps_;
  EarlyLimits& limits_;
  EarlyPages pages_;
  sluice_early_core* cores_ = nullptr;  // two, mapped
  int idle_trie_ = -1;                  // for Quiesce
  uint32_t active_ = 0;
  bool building_ = false;
  EarlyChecks checks_;
  tables::EarlyProgram program_;
  EarlySlots slots_;
  Tables tables_;
  Counts base_{};  // counts of a slot before its rule had it
};

}  // namespace sluice::io::af_xdp

#endif  // SLUICE_IO_AF_XDP_EARLY_FILTER_H_
