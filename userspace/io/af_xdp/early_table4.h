// The early filter's table of IPv4 addresses: which of up to 64 sets hold an address, in the lines
// that bpf/include/early_abi.h describes.
//
// Built once for given sets, then changed in place, one /16 at a time, while the XDP program reads:
// what a word leads to is filled before the word is written, and what a reader may still see is
// never given another meaning. So changes use up room; when there is none (or there are more than
// 256 classes) a change fails with kResourceExhausted, and the caller builds a new table aside.
// Memory is lent by the caller, page by page: 1 MiB for the root, 16 to 32 bytes per /24 that sets
// divide or that differs from most of its /16, 64 bytes per /16 with more than 16 of those.
//
// Cost: a build looks at each /16 and each range once; a change at what lies in the /16s that it
// touches. Up to a million /24s in the hash.
//
// Thread: one writer (control); readers are BPF programs.
#ifndef SLUICE_IO_AF_XDP_EARLY_TABLE4_H_
#define SLUICE_IO_AF_XDP_EARLY_TABLE4_H_

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bpf/include/early_abi.h"
#include "tables/early_program.h"

namespace sluice::io::af_xdp {

// Numbers for combinations of sets. Number 0 is "in none".
class EarlyClasses {
 public:
  // Told of a new class before the table uses it.
  using OnNew = std::function<void(uint8_t number, uint64_t sets)>;
  explicit EarlyClasses(OnNew on_new = {}) : on_new_(std::move(on_new)) { (void)Get(0); }

  absl::StatusOr<uint8_t> Get(uint64_t sets);
  const std::vector<uint64_t>& masks() const { return masks_; }
  void set_on_new(OnNew on_new) { on_new_ = std::move(on_new); }

 private:
  OnNew on_new_;
  std::map<uint64_t, uint8_t> numbers_;
  std::vector<uint64_t> masks_;  // by number
};

class EarlyTable4 {
 public:
  // Pages that a table may ask for, counted from its first.
  static constexpr uint32_t kLinePages = 4;
  static constexpr uint32_t kDetailPages = 8;  // bits and bytes of single addresses
  static constexpr uint32_t kHashPages = 16;
  static constexpr uint32_t kPages = 1 + kLinePages + kDetailPages + kHashPages;

  // Page `number` (from `first_page`), zeroed; called once for each. The first page is asked for by
  // Build, the others when they are needed.
  using Pages = std::function<absl::StatusOr<sluice_early_line*>(uint32_t number)>;
  EarlyTable4(uint32_t first_page, Pages pages);

  // Bit i of a class stands for sets[i]; null pointers are sets that are not asked for.
  absl::Status Build(const std::vector<tables::EarlySet4>& sets);
  // To be called when the sets differ from those of the last call within `changed`.
  absl::Status Change(const std::vector<tables::EarlySet4>& sets,
                      const tables::EarlyRanges<Ipv4>& changed);

  EarlyClasses& classes() { return classes_; }
  const sluice_early_table4& description() const { return description_; }

 private:
  using Sets = std::vector<tables::EarlySet4>;
  // What a /16 looks like: the sets of each /24, and which of them need a closer look.
  struct Block {
    std::array<uint64_t, 256> sets{};
    std::array<bool, 256> divided{};
  };

  using Classes = std::array<uint8_t, 256>;

  absl::Status WriteBlock(const Sets& sets, uint32_t block_number);
  bool DescribeBlock(const Sets& sets, uint32_t block_number, Block& block);
  absl::Status WriteLine(const Sets& sets, uint32_t block_number, const Block& block,
                         const Classes& classes, uint32_t& word);
  absl::Status WriteHost(const Sets& sets, uint32_t key24, const Block& block);
  absl::StatusOr<uint64_t> SimpleEntry(const Sets& sets, uint32_t key24, const Block& block);
  absl::StatusOr<uint64_t> MakeEntry(uint32_t key24, const Classes& classes);
  absl::Status PutEntry(uint32_t key24, uint64_t entry);
  absl::Status SizeHash(size_t hosts);
  absl::StatusOr<uint32_t> NewDetail(uint32_t lines);
  absl::StatusOr<uint16_t> NewLine();
  absl::StatusOr<sluice_early_line*> Line(uint32_t relative);

  const uint32_t first_page_;
  Pages ask_for_page_;
  std::array<sluice_early_line*, kPages> pages_{};
  sluice_early_table4 description_{};
  EarlyClasses classes_;
  std::vector<size_t> cursors_;  // per set: the first range that may reach the current /16
  bool building_ = false;
  std::vector<uint32_t> waiting_;  // while building: /24s for the hash
  uint32_t lines_used_ = 0;
  uint32_t details_used_ = 0;
  absl::flat_hash_set<uint32_t> in_hash_;  // /24s
};

}  // namespace sluice::io::af_xdp

#endif  // SLUICE_IO_AF_XDP_EARLY_TABLE4_H_
