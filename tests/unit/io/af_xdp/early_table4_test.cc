// The table of IPv4 addresses, read by bpf/include/early_filter.h compiled natively.
#include "io/af_xdp/early_table4.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <vector>

#include "base/rng.h"
#include "support/early_random.h"

namespace {

using Page = std::vector<sluice_early_line>;
std::map<uint32_t, std::unique_ptr<Page>> pages;

const sluice_early_line* sluice_early_get_line(uint32_t number) {
  const auto found = pages.find(number / SLUICE_EARLY_PAGE_LINES);
  return found == pages.end() ? nullptr : &(*found->second)[number % SLUICE_EARLY_PAGE_LINES];
}
// The rest of what the header wants; nothing here calls them.
[[maybe_unused]] uint32_t sluice_early_class6(uint32_t, const uint8_t*) { return 0; }
[[maybe_unused]] sluice_early_bucket* sluice_early_rule_bucket(uint32_t) { return nullptr; }
[[maybe_unused]] sluice_early_bucket* sluice_early_source_bucket(const sluice_early_source*) {
  return nullptr;
}
[[maybe_unused]] uint64_t sluice_early_now() { return 0; }
[[maybe_unused]] uint32_t sluice_early_decide_rest(sluice_early_packet*) { return 0; }

}  // namespace

#pragma GCC diagnostic ignored "-Wunused-function"
#include "bpf/include/early_filter.h"

namespace sluice::io::af_xdp {
namespace {

using tables::EarlyRanges;
using tables::EarlySet4;

uint64_t SetsWith(const std::vector<EarlySet4>& sets, Ipv4 address) {
  uint64_t mask = 0;
  for (size_t i = 0; i < sets.size(); ++i) {
    if (sets[i] == nullptr) continue;
    const auto at = std::partition_point(sets[i]->begin(), sets[i]->end(),
                                         [&](const auto& r) { return r.last < address; });
    if (at != sets[i]->end() && at->first <= address) mask |= uint64_t{1} << i;
  }
  return mask;
}

class EarlyTable4Test : public ::testing::Test {
 protected:
  void SetUp() override {
    pages.clear();
    table_ = std::make_unique<EarlyTable4>(
        kFirstPage, [](uint32_t number) -> absl::StatusOr<struct ::sluice_early_line*> {
          auto& page = pages[kFirstPage + number];
          EXPECT_EQ(page, nullptr) << "a page is asked for once";
          page = std::make_unique<Page>(SLUICE_EARLY_PAGE_LINES);
          return page->data();
        });
  }
  void TearDown() override { pages.clear(); }

  uint64_t Lookup(Ipv4 address) {
    return table_->classes().masks()[sluice_early_class4(&table_->description(), address.value)];
  }
  // At the borders of all ranges, and some addresses anywhere.
  void ExpectRight(const std::vector<EarlySet4>& sets, Rng& rng) {
    for (const EarlySet4& set : sets) {
      if (set == nullptr) continue;
      for (const auto& range : *set) {
        for (const uint32_t a : {range.first.value, range.last.value, range.first.value - 1,
                                 range.last.value + 1, range.first.value ^ 1}) {
          ASSERT_EQ(Lookup(Ipv4(a)), SetsWith(sets, Ipv4(a))) << ToString(Ipv4(a));
        }
      }
    }
    for (int i = 0; i < 2000; ++i) {
      const Ipv4 a(static_cast<uint32_t>(rng.Next()));
      ASSERT_EQ(Lookup(a), SetsWith(sets, a)) << ToString(a);
    }
  }

  static constexpr uint32_t kFirstPage = 40;
  std::unique_ptr<EarlyTable4> table_;
};

// Prefixes of 8 to 32 bits, many of them: the root, lines, the hash and its details.
EarlySet4 ManyPrefixes(Rng& rng, size_t count, uint32_t spread) {
  EarlyRanges<Ipv4> ranges;
  for (size_t i = 0; i < count; ++i) {
    const auto address = static_cast<uint32_t>(rng.Below(spread) << 8 | rng.Below(256));
    const uint64_t length = rng.Chance(1, 2) ? 24 : rng.Chance(1, 2) ? 32 : 18 + rng.Below(15);
    const uint32_t mask = ~uint32_t{0} << (32 - length);
    ranges.push_back({Ipv4(address & mask), Ipv4(address | ~mask)});
  }
  std::sort(ranges.begin(), ranges.end());
  EarlyRanges<Ipv4> joined;
  for (const auto& range : ranges) {
    if (!joined.empty() && uint64_t{range.first.value} <= uint64_t{joined.back().last.value} + 1) {
      joined.back().last = std::max(joined.back().last, range.last);
    } else {
      joined.push_back(range);
    }
  }
  return std::make_shared<const EarlyRanges<Ipv4>>(joined);
}

TEST_F(EarlyTable4Test, NothingAndEverything) {
  Rng rng(1);
  const std::vector<EarlySet4> sets = {
      std::make_shared<const EarlyRanges<Ipv4>>(),
      std::make_shared<const EarlyRanges<Ipv4>>(EarlyRanges<Ipv4>{{Ipv4(0), Ipv4(UINT32_MAX)}}),
      nullptr};
  ASSERT_TRUE(table_->Build(sets).ok());
  ExpectRight(sets, rng);
}

TEST_F(EarlyTable4Test, SparsePrefixes) {
  Rng rng(2);
  const std::vector<EarlySet4> sets = {ManyPrefixes(rng, 100'000, 1 << 24)};
  ASSERT_TRUE(table_->Build(sets).ok());
  ExpectRight(sets, rng);
}

TEST_F(EarlyTable4Test, DensePrefixesOfSeveralSets) {
  Rng rng(3);
  const std::vector<EarlySet4> sets = {ManyPrefixes(rng, 20'000, 1 << 14),
                                       ManyPrefixes(rng, 5'000, 1 << 14),
                                       ManyPrefixes(rng, 50, 1 << 14)};
  ASSERT_TRUE(table_->Build(sets).ok());
  ExpectRight(sets, rng);
}

TEST_F(EarlyTable4Test, ChangesInPlace) {
  Rng rng(4);
  std::vector<EarlySet4> sets = {ManyPrefixes(rng, 3000, 1 << 12), ManyPrefixes(rng, 300, 1 << 12)};
  ASSERT_TRUE(table_->Build(sets).ok());
  for (int round = 0; round < 300; ++round) {
    SCOPED_TRACE(round);
    const size_t which = rng.Below(2);
    EarlyRanges<Ipv4> now = *sets[which];
    EarlyRanges<Ipv4> changed;
    const size_t at = rng.Below(now.size());
    changed.push_back(now[at]);
    if (rng.Chance(1, 2) && now[at].first < now[at].last) {
      now[at].last = Ipv4(now[at].last.value - 1);
    } else {
      now.erase(now.begin() + static_cast<long>(at));
    }
    sets[which] = std::make_shared<const EarlyRanges<Ipv4>>(now);
    const absl::Status done = table_->Change(sets, changed);
    ASSERT_TRUE(done.ok()) << done;
    for (uint32_t a = changed[0].first.value - 2; a <= changed[0].last.value + 2; ++a) {
      ASSERT_EQ(Lookup(Ipv4(a)), SetsWith(sets, Ipv4(a))) << ToString(Ipv4(a));
    }
  }
  ExpectRight(sets, rng);
}

TEST_F(EarlyTable4Test, MoreClassesThanAByteIsAnError) {
  std::vector<EarlySet4> sets;
  for (uint32_t bit = 0; bit < 9; ++bit) {
    EarlyRanges<Ipv4> ranges;
    for (uint32_t n = 0; n < 512; ++n) {
      if ((n >> bit & 1) != 0) ranges.push_back({Ipv4(n << 16), Ipv4(n << 16 | 0xfffe)});
    }
    sets.push_back(std::make_shared<const EarlyRanges<Ipv4>>(ranges));
  }
  EXPECT_EQ(table_->Build(sets).code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace sluice::io::af_xdp
