#include "io/af_xdp/early_table4.h"

#include <algorithm>
#include <bit>
#include <tuple>
#include <utility>

namespace sluice::io::af_xdp {

using tables::EarlyRange;
using tables::EarlyRanges;
using tables::EarlySet4;

namespace {

constexpr uint32_t kPageLines = SLUICE_EARLY_PAGE_LINES;
constexpr uint32_t kHashPage = 1 + EarlyTable4::kLinePages;
constexpr uint32_t kSmallestHash = 1024;

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
  if (lines_used_ == SLUICE_EARLY_NO_LINE) return absl::ResourceExhaustedError("no line is left");
  return static_cast<uint16_t>(lines_used_++);
}

absl::StatusOr<uint32_t> EarlyTable4::NewBlock4() {
  if (spare_used_ + 4 > kPageLines) return absl::ResourceExhaustedError("no block is left");
  spare_used_ += 4;
  return spare_used_ - 4;
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
  std::array<uint8_t, 256> classes{};
  for (size_t i = 0; i < (uneven ? 256u : 1u); ++i) {
    if (block.divided[i]) continue;
    absl::StatusOr<uint8_t> number = classes_.Get(block.sets[i]);
    if (!number.ok()) return number.status();
    classes[i] = *number;
  }
  if (!uneven) {
    Publish(word, SLUICE_EARLY_ROOT_WORD(SLUICE_EARLY_NO_LINE, classes[0], classes[0]));
    return absl::OkStatus();
  }
  // A line that is in use keeps its two classes, so that its codes can change one by one.
  bool fresh = building_ || (word & 0xffff) == SLUICE_EARLY_NO_LINE;
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
  uint16_t number = static_cast<uint16_t>(word & 0xffff);
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

absl::Status EarlyTable4::SizeHash(size_t hosts) {
  const size_t lines = std::max<size_t>(kSmallestHash, std::bit_ceil(hosts * 5 / 2));
  if (lines > size_t{kHashPages} * kPageLines) {
    return absl::ResourceExhaustedError("too many /24 networks are divided");
  }
  description_.hash_mask = static_cast<uint32_t>(lines - 1);
  return absl::OkStatus();
}

// The line of this /24, or a free one for it (key 0).
absl::StatusOr<sluice_early_host_line*> EarlyTable4::FindHost(uint32_t key24) {
  const uint32_t key = key24 + 1;
  for (uint32_t i = 0; i < SLUICE_EARLY_PROBES; ++i) {
    absl::StatusOr<sluice_early_line*> line =
        Line(kHashPage * kPageLines + (SLUICE_EARLY_PLACE(key, i) & description_.hash_mask));
    if (!line.ok()) return line.status();
    auto* host = reinterpret_cast<sluice_early_host_line*>(*line);
    if (host->key == key || host->key == 0) return host;
  }
  return absl::ResourceExhaustedError("the hash of divided /24 networks is full");
}

absl::Status EarlyTable4::WriteHost(const Sets& sets, uint32_t key24, const Block& block) {
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
  std::array<uint8_t, 256> classes;
  for (size_t i = 0; i < 256; ++i) {
    absl::StatusOr<uint8_t> number = classes_.Get(masks[i]);
    if (!number.ok()) return number.status();
    classes[i] = *number;
  }
  absl::StatusOr<sluice_early_host_line*> host = FindHost(key24);
  if (!host.ok()) return host.status();
  if ((*host)->key != 0) return ChangeHost(**host, classes);
  return FillHost(**host, key24, classes);
}

absl::Status EarlyTable4::FillHost(sluice_early_host_line& host, uint32_t key24,
                                   const std::array<uint8_t, 256>& classes) {
  ++hosts_used_;
  if (!building_ && hosts_used_ > (description_.hash_mask + 1) / 2) {
    return absl::ResourceExhaustedError("the hash of divided /24 networks is full");
  }
  std::tie(host.a, host.b) = CommonestTwo(classes, nullptr);
  const auto is_a_or_b = [&](uint8_t c) { return c == host.a || c == host.b; };
  if (std::all_of(classes.begin(), classes.end(), is_a_or_b)) {
    for (size_t i = 0; i < 256; ++i) {
      if (classes[i] != host.a) host.bits[i / 64] |= __u64{1} << (i % 64);
    }
  } else if (absl::Status s = ChangeHost(host, classes); !s.ok()) {
    return s;
  }
  Publish(host.key, key24 + 1);
  return absl::OkStatus();
}

// Of a line that is in use: its two classes are kept, or bytes take over.
absl::Status EarlyTable4::ChangeHost(sluice_early_host_line& host,
                                     const std::array<uint8_t, 256>& classes) {
  const auto is_a_or_b = [&](uint8_t c) { return c == host.a || c == host.b; };
  if (host.many == 0 && std::all_of(classes.begin(), classes.end(), is_a_or_b)) {
    std::array<__u64, 4> bits{};
    for (size_t i = 0; i < 256; ++i) {
      if (classes[i] != host.a) bits[i / 64] |= __u64{1} << (i % 64);
    }
    for (size_t i = 0; i < 4; ++i) Publish(host.bits[i], bits[i]);
    return absl::OkStatus();
  }
  uint32_t relative = host.block - description_.root;
  if (host.many == 0) {
    absl::StatusOr<uint32_t> block = NewBlock4();
    if (!block.ok()) return block.status();
    relative = *block;
  }
  for (uint32_t i = 0; i < 256; ++i) {
    absl::StatusOr<sluice_early_line*> line = Line(relative + i / 64);
    if (!line.ok()) return line.status();
    Publish<__u8>((*line)->bytes[i % 64], classes[i]);
  }
  if (host.many == 0) {
    Publish(host.block, description_.root + relative);
    Publish<__u8>(host.many, 1);
  }
  return absl::OkStatus();
}

}  // namespace sluice::io::af_xdp
