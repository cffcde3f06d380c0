#include "io/af_xdp/early_table4.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace sluice::io::af_xdp {

using tables::EarlyRange;
using tables::EarlyRanges;
using tables::EarlySet4;

namespace {

constexpr uint32_t kPageLines = SLUICE_EARLY_PAGE_LINES;
constexpr uint32_t kDetailPage = 1 + EarlyTable4::kLinePages;
constexpr uint32_t kHashPage = kDetailPage + EarlyTable4::kDetailPages;
constexpr uint32_t kSmallestHash = 256;  // lines of eight entries
constexpr int kSparse = 16;              // a /16 with more exceptions than that gets a line

template <typename T>
void Publish(T& word, T value) {
  __atomic_store_n(&word, value, __ATOMIC_RELEASE);
}

// The first range that ends at or behind `address`.
size_t FirstReaching(const EarlyRanges<Ipv4>& ranges, uint32_t address) {
  const auto at =
      std::partition_point(ranges.begin(), ranges.end(),
                           [&](const EarlyRange<Ipv4>& r) { return r.last.value < address; });
  return static_cast<size_t>(at - ranges.begin());
}

// The two commonest of 256 classes; the same one twice when there is only one.
std::pair<uint8_t, uint8_t> CommonestTwo(const std::array<uint8_t, 256>& classes,
                                         const std::array<bool, 256>* without) {
  std::array<int, 256> count{};
  for (size_t i = 0; i < 256; ++i) {
    if (without == nullptr || !(*without)[i]) ++count[classes[i]];
  }
  const auto a = std::max_element(count.begin(), count.end());
  const auto first = static_cast<uint8_t>(a - count.begin());
  *a = -1;
  const auto b = std::max_element(count.begin(), count.end());
  return {first, *b > 0 ? static_cast<uint8_t>(b - count.begin()) : first};
}

}  // namespace

absl::StatusOr<uint8_t> EarlyClasses::Get(uint64_t sets) {
  const auto found = numbers_.find(sets);
  if (found != numbers_.end()) return found->second;
  if (masks_.size() == SLUICE_EARLY_CLASSES) {
    return absl::ResourceExhaustedError("more than 256 combinations of sets");
  }
  const auto number = static_cast<uint8_t>(masks_.size());
  numbers_.emplace(sets, number);
  masks_.push_back(sets);
  if (on_new_) on_new_(number, sets);
  return number;
}

EarlyTable4::EarlyTable4(uint32_t first_page, Pages pages)
    : first_page_(first_page), ask_for_page_(std::move(pages)) {
  description_.root = first_page * kPageLines;
  description_.lines = (first_page + 1) * kPageLines;
  description_.hash = (first_page + kHashPage) * kPageLines;
}

absl::StatusOr<sluice_early_line*> EarlyTable4::Line(uint32_t relative) {
  sluice_early_line*& page = pages_[relative / kPageLines];
  if (page == nullptr) {
    absl::StatusOr<sluice_early_line*> added = ask_for_page_(relative / kPageLines);
    if (!added.ok()) return added.status();
    page = *added;
  }
  return page + relative % kPageLines;
}

absl::StatusOr<uint16_t> EarlyTable4::NewLine() {
  if (lines_used_ == SLUICE_EARLY_IN_HASH) return absl::ResourceExhaustedError("no line is left");
  return static_cast<uint16_t>(lines_used_++);
}

// Lines that follow each other: what is left of the first page, then pages of their own.
absl::StatusOr<uint32_t> EarlyTable4::NewDetail(uint32_t lines) {
  constexpr uint32_t kFirst = kPageLines - SLUICE_EARLY_ROOT_LINES;
  if (details_used_ < kFirst && details_used_ + lines > kFirst) details_used_ = kFirst;
  if (details_used_ + lines > kFirst + kDetailPages * kPageLines) {
    return absl::ResourceExhaustedError("too many /24 networks are divided");
  }
  const uint32_t at = details_used_;
  details_used_ += lines;
  return at < kFirst ? SLUICE_EARLY_ROOT_LINES + at : kDetailPage * kPageLines + at - kFirst;
}

absl::Status EarlyTable4::Build(const Sets& sets) {
  building_ = true;
  description_.hash_mask = 0;
  cursors_.assign(sets.size(), 0);
  for (uint32_t block = 0; block < 65536; ++block) {
    if (absl::Status s = WriteBlock(sets, block); !s.ok()) return s;
  }
  if (absl::Status s = SizeHash(waiting_.size()); !s.ok()) return s;
  Block block;
  uint32_t described = UINT32_MAX;
  cursors_.assign(sets.size(), 0);
  for (const uint32_t key24 : waiting_) {
    if (described != key24 >> 8) {
      described = key24 >> 8;
      DescribeBlock(sets, described, block);
    }
    if (absl::Status s = WriteHost(sets, key24, block); !s.ok()) return s;
  }
  waiting_ = {};
  building_ = false;
  return absl::OkStatus();
}

absl::Status EarlyTable4::Change(const Sets& sets, const EarlyRanges<Ipv4>& changed) {
  uint32_t next = 0;  // a /16 need not be written twice
  for (const EarlyRange<Ipv4>& range : changed) {
    for (uint32_t b = std::max(next, range.first.value >> 16); b <= range.last.value >> 16; ++b) {
      cursors_.clear();
      for (const EarlySet4& set : sets) {
        cursors_.push_back(set == nullptr ? 0 : FirstReaching(*set, b << 16));
      }
      if (absl::Status s = WriteBlock(sets, b); !s.ok()) return s;
      next = b + 1;
    }
  }
  return absl::OkStatus();
}

// Moves the cursors on. False when one value holds for the whole block, in block.sets[0].
bool EarlyTable4::DescribeBlock(const Sets& sets, uint32_t block_number, Block& block) {
  const uint32_t from = block_number << 16;
  const uint32_t to = from | 0xffff;
  uint64_t whole = 0;
  bool even = true;
  for (size_t i = 0; i < sets.size(); ++i) {
    if (sets[i] == nullptr) continue;
    const EarlyRanges<Ipv4>& ranges = *sets[i];
    size_t& at = cursors_[i];
    while (at < ranges.size() && ranges[at].last.value < from) ++at;
    if (at == ranges.size() || ranges[at].first.value > to) continue;
    if (ranges[at].first.value <= from && ranges[at].last.value >= to) {
      whole |= uint64_t{1} << i;
      continue;
    }
    if (even) {
      even = false;
      block = Block{};
    }
    for (size_t r = at; r < ranges.size() && ranges[r].first.value <= to; ++r) {
      const uint32_t first = std::max(ranges[r].first.value, from) & 0xffff;
      const uint32_t last = std::min(ranges[r].last.value, to) & 0xffff;
      for (uint32_t b = first >> 8; b <= last >> 8; ++b) {
        if (first <= b << 8 && last >= (b << 8 | 255)) {
          block.sets[b] |= uint64_t{1} << i;
        } else {
          block.divided[b] = true;
        }
      }
    }
  }
  if (even) {
    block.sets[0] = whole;
    return false;
  }
  for (uint64_t& s : block.sets) s |= whole;
  return true;
}

absl::Status EarlyTable4::WriteBlock(const Sets& sets, uint32_t block_number) {
  Block block;
  const bool uneven = DescribeBlock(sets, block_number, block);
  absl::StatusOr<sluice_early_line*> root = Line(block_number / 16);
  if (!root.ok()) return root.status();
  uint32_t& word = (*root)->words[block_number % 16];
  Classes classes{};
  for (size_t i = 0; i < (uneven ? 256u : 1u); ++i) {
    if (block.divided[i]) continue;
    absl::StatusOr<uint8_t> number = classes_.Get(block.sets[i]);
    if (!number.ok()) return number.status();
    classes[i] = *number;
  }
  if (!uneven) {
    Publish(word, SLUICE_EARLY_ROOT_WORD(SLUICE_EARLY_ALL_A, classes[0], classes[0]));
    return absl::OkStatus();
  }
  const uint32_t place = building_ ? SLUICE_EARLY_ALL_A : word & 0xffff;
  if (place != SLUICE_EARLY_ALL_A && place != SLUICE_EARLY_IN_HASH) {
    return WriteLine(sets, block_number, block, classes, word);
  }
  // A block that is in the hash stays there, and keeps its class.
  const uint8_t a = place == SLUICE_EARLY_IN_HASH ? static_cast<uint8_t>(word >> 16)
                                                  : CommonestTwo(classes, &block.divided).first;
  int exceptions = 0;
  for (size_t i = 0; i < 256; ++i) exceptions += block.divided[i] || classes[i] != a;
  if (place == SLUICE_EARLY_ALL_A && exceptions > kSparse) {
    return WriteLine(sets, block_number, block, classes, word);
  }
  for (uint32_t i = 0; i < 256; ++i) {
    const uint32_t key24 = block_number << 8 | i;
    const bool exception = block.divided[i] || classes[i] != a;
    if (building_ && exception) waiting_.push_back(key24);
    if (building_) continue;
    // What is no exception any more is still in the hash.
    if (!exception && !in_hash_.contains(key24)) continue;
    if (absl::Status s = WriteHost(sets, key24, block); !s.ok()) return s;
  }
  Publish(word, SLUICE_EARLY_ROOT_WORD(SLUICE_EARLY_IN_HASH, a, a));
  return absl::OkStatus();
}

// A line that is in use keeps its two classes, so that its codes can change one by one.
absl::Status EarlyTable4::WriteLine(const Sets& sets, uint32_t block_number, const Block& block,
                                    const Classes& classes, uint32_t& word) {
  const bool fresh = building_ || (word & 0xffff) == SLUICE_EARLY_ALL_A;
  auto [a, b] = CommonestTwo(classes, &block.divided);
  if (!fresh) {
    a = static_cast<uint8_t>(word >> 16);
    b = static_cast<uint8_t>(word >> 24);
  }
  std::array<uint64_t, 8> codes{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint64_t code = SLUICE_EARLY_CODE_A;
    if (block.divided[i] || (classes[i] != a && classes[i] != b)) {
      code = SLUICE_EARLY_CODE_HASH;
      const uint32_t key24 = block_number << 8 | i;
      if (building_) {
        waiting_.push_back(key24);
      } else if (absl::Status s = WriteHost(sets, key24, block); !s.ok()) {
        return s;
      }
    } else if (classes[i] != a) {
      code = SLUICE_EARLY_CODE_B;
    }
    codes[i / 32] |= code << (i % 32 * 2);
  }
  auto number = static_cast<uint16_t>(word & 0xffff);
  if (fresh) {
    absl::StatusOr<uint16_t> added = NewLine();
    if (!added.ok()) return added.status();
    number = *added;
  }
  absl::StatusOr<sluice_early_line*> line = Line(kPageLines + number);
  if (!line.ok()) return line.status();
  for (size_t i = 0; i < codes.size(); ++i) Publish<__u64>((*line)->longs[i], codes[i]);
  if (fresh) Publish(word, SLUICE_EARLY_ROOT_WORD(number, a, b));
  return absl::OkStatus();
}

// Three to six entries in a line of eight.
absl::Status EarlyTable4::SizeHash(size_t hosts) {
  const size_t lines = std::max<size_t>(kSmallestHash, std::bit_ceil(hosts / 6 + 1));
  if (lines > size_t{kHashPages} * kPageLines) {
    return absl::ResourceExhaustedError("too many /24 networks differ from their neighbours");
  }
  description_.hash_mask = static_cast<uint32_t>(lines - 1);
  return absl::OkStatus();
}

// The usual cases: no set divides the /24, or one does with one range.
absl::StatusOr<uint64_t> EarlyTable4::SimpleEntry(const Sets& sets, uint32_t key24,
                                                  const Block& block) {
  const uint64_t base = block.sets[key24 & 255];
  const absl::StatusOr<uint8_t> a = classes_.Get(base);
  if (!a.ok()) return a.status();
  if (!block.divided[key24 & 255]) {
    return SLUICE_EARLY_ENTRY(key24, SLUICE_EARLY_RANGE, SLUICE_EARLY_RANGE_VALUE(0, 255, *a, *a));
  }
  const uint32_t from = key24 << 8;
  const EarlyRange<Ipv4>* only = nullptr;
  uint64_t with = base;
  for (size_t i = 0; i < sets.size(); ++i) {
    if (sets[i] == nullptr || (base >> i & 1) != 0) continue;
    const EarlyRanges<Ipv4>& ranges = *sets[i];
    size_t at = FirstReaching(ranges, from);
    for (; at < ranges.size() && ranges[at].first.value <= (from | 255); ++at) {
      if (only != nullptr) return 0;
      only = &ranges[at];
      with = base | uint64_t{1} << i;
    }
  }
  const absl::StatusOr<uint8_t> b = classes_.Get(with);
  if (!b.ok()) return b.status();
  if (only == nullptr) return 0;
  return SLUICE_EARLY_ENTRY(
      key24, SLUICE_EARLY_RANGE,
      SLUICE_EARLY_RANGE_VALUE(std::max(only->first.value, from) & 255,
                               std::min(only->last.value, from | 255) & 255, *a, *b));
}

absl::Status EarlyTable4::WriteHost(const Sets& sets, uint32_t key24, const Block& block) {
  const absl::StatusOr<uint64_t> simple = SimpleEntry(sets, key24, block);
  if (!simple.ok()) return simple.status();
  if (*simple != 0) return PutEntry(key24, *simple);
  std::array<uint64_t, 256> masks;
  masks.fill(block.sets[key24 & 255]);
  const uint32_t from = key24 << 8;
  for (size_t i = 0; i < sets.size(); ++i) {
    if (sets[i] == nullptr || !block.divided[key24 & 255]) continue;
    const EarlyRanges<Ipv4>& ranges = *sets[i];
    for (size_t r = FirstReaching(ranges, from);
         r < ranges.size() && ranges[r].first.value <= (from | 255); ++r) {
      const uint32_t first = std::max(ranges[r].first.value, from) & 255;
      const uint32_t last = std::min(ranges[r].last.value, from | 255) & 255;
      for (uint32_t a = first; a <= last; ++a) masks[a] |= uint64_t{1} << i;
    }
  }
  Classes classes;
  for (size_t i = 0; i < 256; ++i) {
    if (i > 0 && masks[i] == masks[i - 1]) {
      classes[i] = classes[i - 1];
      continue;
    }
    absl::StatusOr<uint8_t> number = classes_.Get(masks[i]);
    if (!number.ok()) return number.status();
    classes[i] = *number;
  }
  absl::StatusOr<uint64_t> entry = MakeEntry(key24, classes);
  if (!entry.ok()) return entry.status();
  return PutEntry(key24, *entry);
}

// The simplest form that says it. Details are new lines each time: readers may be in the old ones.
absl::StatusOr<uint64_t> EarlyTable4::MakeEntry(uint32_t key24, const Classes& classes) {
  const uint8_t a = classes[0] == classes[255] ? classes[0] : CommonestTwo(classes, nullptr).first;
  const auto is_a = [a](uint8_t c) { return c == a; };
  const auto first = std::find_if_not(classes.begin(), classes.end(), is_a);
  if (first == classes.end()) {
    return SLUICE_EARLY_ENTRY(key24, SLUICE_EARLY_RANGE, SLUICE_EARLY_RANGE_VALUE(0, 255, a, a));
  }
  const uint8_t b = *first;
  const auto behind = std::find_if(first, classes.end(), [b](uint8_t c) { return c != b; });
  if (std::all_of(behind, classes.end(), is_a)) {
    return SLUICE_EARLY_ENTRY(
        key24, SLUICE_EARLY_RANGE,
        SLUICE_EARLY_RANGE_VALUE(first - classes.begin(), behind - classes.begin() - 1, a, b));
  }
  const bool two =
      std::all_of(classes.begin(), classes.end(), [a, b](uint8_t c) { return c == a || c == b; });
  absl::StatusOr<uint32_t> detail = NewDetail(two ? 1 : 4);
  if (!detail.ok()) return detail.status();
  for (uint32_t i = 0; i < 256; ++i) {
    absl::StatusOr<sluice_early_line*> line = Line(*detail + (two ? 0 : i / 64));
    if (!line.ok()) return line.status();
    if (two) {
      auto* bits = reinterpret_cast<sluice_early_bits*>(*line);
      bits->a = a;
      bits->b = b;
      if (classes[i] == b) bits->bits[i / 64] |= __u64{1} << (i % 64);
    } else {
      (*line)->bytes[i % 64] = classes[i];
    }
  }
  return SLUICE_EARLY_ENTRY(key24, two ? SLUICE_EARLY_BITS : SLUICE_EARLY_BYTES,
                            description_.root + *detail);
}

absl::Status EarlyTable4::PutEntry(uint32_t key24, uint64_t entry) {
  for (uint32_t i = 0; i < SLUICE_EARLY_PROBES; ++i) {
    absl::StatusOr<sluice_early_line*> line =
        Line(kHashPage * kPageLines + (SLUICE_EARLY_PLACE(key24, i) & description_.hash_mask));
    if (!line.ok()) return line.status();
    for (__u64& place : (*line)->longs) {
      if (place != 0 && place >> 40 != key24) continue;
      if (place == 0) in_hash_.insert(key24);
      Publish<__u64>(place, entry);
      return absl::OkStatus();
    }
  }
  return absl::ResourceExhaustedError("the hash of /24 networks is full");
}

}  // namespace sluice::io::af_xdp
