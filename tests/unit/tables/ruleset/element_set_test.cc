#include "tables/ruleset/element_set.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <thread>

#include "base/byte_order.h"
#include "base/rng.h"

namespace sluice::tables {
namespace {

std::vector<uint8_t> Bytes(uint64_t value, size_t length) {
  std::vector<uint8_t> out(length);
  for (size_t i = length; i-- > 0; value >>= 8) out[i] = static_cast<uint8_t>(value);
  return out;
}

// What Find wants: padded.
std::vector<uint8_t> Padded(std::vector<uint8_t> key) {
  key.resize((key.size() + 3) / 4 * 4);
  return key;
}

Element Make(std::vector<uint8_t> key, std::vector<uint8_t> end = {}, uint32_t data = 0) {
  Element e;
  e.key = std::move(key);
  e.end = std::move(end);
  e.data = Bytes(data, 4);
  return e;
}

uint32_t DataOf(const ElementSet& set, const uint8_t* value) { return LoadBe32(set.Data(value)); }

class ExactSetTest : public ::testing::TestWithParam<size_t> {};

TEST_P(ExactSetTest, FindsWhatAMapFinds) {
  const size_t length = GetParam();
  Rng rng(length);
  const uint64_t values = length == 1 ? 256 : length == 2 ? 3000 : 8000;
  std::map<uint64_t, uint32_t> model;
  std::vector<Element> elements;
  for (uint32_t i = 0; i < 5000; ++i) {
    const uint64_t key = rng.Below(values);
    elements.push_back(Make(Bytes(key, length), {}, i));
    model[key] = i;
  }
  SetShape shape;
  shape.key_length = static_cast<uint8_t>(length);
  shape.data_length = 4;
  auto set = ElementSet::Build(shape, elements);
  std::vector<std::pair<std::shared_ptr<const ElementSet>, std::map<uint64_t, uint32_t>>> kept;
  for (int round = 0; round < 90; ++round) {
    if (round % 30 == 0) kept.emplace_back(set, model);
    std::vector<Element> added;
    std::vector<Element> removed;
    for (uint64_t n = rng.Below(20); n > 0; --n) {
      const uint64_t key = rng.Below(values);
      removed.push_back(Make(Bytes(key, length)));
      model.erase(key);
    }
    for (uint64_t n = rng.Below(20); n > 0; --n) {
      const uint64_t key = rng.Below(values);
      const auto data = static_cast<uint32_t>(rng.Next());
      added.push_back(Make(Bytes(key, length), {}, data));
      model[key] = data;
    }
    set = set->With(removed, added);
    ASSERT_EQ(set->size(), model.size());
  }
  kept.emplace_back(set, model);
  // Old versions have not changed.
  for (const auto& [version, expected] : kept) {
    size_t found = 0;
    for (uint64_t key = 0; key < values; ++key) {
      const uint8_t* value = version->Find(Padded(Bytes(key, length)).data(), Nanos());
      const auto at = expected.find(key);
      ASSERT_EQ(value != nullptr, at != expected.end()) << key;
      if (value == nullptr) continue;
      ++found;
      ASSERT_EQ(DataOf(*version, value), at->second) << key;
    }
    EXPECT_EQ(found, expected.size());
  }
}

INSTANTIATE_TEST_SUITE_P(Lengths, ExactSetTest, ::testing::Values(1, 2, 4, 6, 8, 16, 20, 64));

// An interval set against a plain list of intervals.
class IntervalSetTest : public ::testing::TestWithParam<size_t> {};

TEST_P(IntervalSetTest, FindsWhatAListFinds) {
  const size_t length = GetParam();
  Rng rng(7 + length);
  constexpr uint64_t kValues = 60000;
  std::map<uint64_t, std::pair<uint64_t, uint32_t>> model;  // first: last, data
  const auto is_free = [&](uint64_t first, uint64_t last) {
    const auto after = model.lower_bound(first);
    if (after != model.end() && after->first <= last) return false;
    return after == model.begin() || std::prev(after)->second.first < first;
  };
  SetShape shape;
  shape.kind = SetKind::kInterval;
  shape.key_length = static_cast<uint8_t>(length);
  shape.data_length = 4;
  auto set = ElementSet::Build(shape, {});
  for (int round = 0; round < 3000; ++round) {
    std::vector<Element> removed;
    std::vector<Element> added;
    if (rng.Chance(1, 3) && !model.empty()) {
      auto at = model.lower_bound(rng.Below(kValues));
      if (at == model.end()) at = model.begin();
      removed.push_back(Make(Bytes(at->first, length), Bytes(at->second.first, length)));
      model.erase(at);
    }
    const uint64_t first = rng.Below(kValues);
    const uint64_t last = first + rng.Below(20);
    if (is_free(first, last)) {
      const auto data = static_cast<uint32_t>(round);
      added.push_back(Make(Bytes(first, length), Bytes(last, length), data));
      model[first] = {last, data};
    }
    set = set->With(removed, added);
    ASSERT_EQ(set->size(), model.size());
  }
  std::vector<Element> all;
  for (const auto& [first, rest] : model) {
    all.push_back(Make(Bytes(first, length), Bytes(rest.first, length), rest.second));
  }
  const auto rebuilt = ElementSet::Build(shape, all);
  for (uint64_t key = 0; key < kValues + 30; ++key) {
    const auto at = model.upper_bound(key);
    const bool expected = at != model.begin() && std::prev(at)->second.first >= key;
    for (const auto* version : {set.get(), rebuilt.get()}) {
      const uint8_t* value = version->Find(Padded(Bytes(key, length)).data(), Nanos());
      ASSERT_EQ(value != nullptr, expected) << key;
      if (!expected) continue;
      ASSERT_EQ(DataOf(*version, value), std::prev(at)->second.second);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Lengths, IntervalSetTest, ::testing::Values(2, 4, 16));

TEST(BoxSetTest, FindsTheFirstOfTheBoxesAroundAKey) {
  struct Box {
    uint32_t low[2];
    uint32_t high[2];
    uint32_t data;
    uint64_t order;
  };
  Rng rng(3);
  SetShape shape;
  shape.kind = SetKind::kBoxes;
  shape.key_length = 8;
  shape.data_length = 4;
  shape.fields = {4, 2};
  const auto key = [](uint32_t a, uint32_t port) {
    std::vector<uint8_t> out = Bytes(a, 4);
    const auto second = Bytes(port, 2);
    out.insert(out.end(), second.begin(), second.end());
    out.resize(8);
    return out;
  };
  const auto element = [&](const Box& b) {
    Element e = Make(key(b.low[0], b.low[1]), key(b.high[0], b.high[1]), b.data);
    e.order = b.order;
    return e;
  };
  std::vector<Box> model;
  auto set = ElementSet::Build(shape, {});
  for (uint32_t round = 0; round < 1500; ++round) {
    std::vector<Element> removed;
    std::vector<Element> added;
    if (model.size() > 400 || (rng.Chance(1, 3) && !model.empty())) {
      const auto at = model.begin() + static_cast<ptrdiff_t>(rng.Below(model.size()));
      removed.push_back(element(*at));
      model.erase(at);
    }
    Box b{{static_cast<uint32_t>(rng.Below(300)), static_cast<uint32_t>(rng.Below(300))}, {}, round,
          round};
    b.high[0] = b.low[0] + static_cast<uint32_t>(rng.Below(20));
    b.high[1] = b.low[1] + static_cast<uint32_t>(rng.Below(20));
    const bool there = std::any_of(model.begin(), model.end(), [&](const Box& o) {
      return std::equal(o.low, o.low + 2, b.low) && std::equal(o.high, o.high + 2, b.high);
    });
    if (!there) {
      added.push_back(element(b));
      model.push_back(b);
    }
    set = set->With(removed, added);
    ASSERT_EQ(set->size(), model.size());
  }
  for (int i = 0; i < 20000; ++i) {
    const auto a = static_cast<uint32_t>(rng.Below(330));
    const auto port = static_cast<uint32_t>(rng.Below(330));
    const Box* expected = nullptr;
    for (const Box& b : model) {
      if (a < b.low[0] || a > b.high[0] || port < b.low[1] || port > b.high[1]) continue;
      if (expected == nullptr || b.order < expected->order) expected = &b;
    }
    const uint8_t* value = set->Find(key(a, port).data(), Nanos());
    ASSERT_EQ(value != nullptr, expected != nullptr);
    if (expected == nullptr) continue;
    ASSERT_EQ(DataOf(*set, value), expected->data);
  }
}

TEST(ElementSetTest, TheCatchAllElementStandsInForWhatIsNotFound) {
  SetShape shape;
  shape.key_length = 4;
  shape.data_length = 4;
  Element all = Make({}, {}, 9);
  all.catchall = true;
  const Element one = Make(Bytes(1, 4), {}, 1);
  auto set = ElementSet::Build(shape, std::vector{one, all});
  EXPECT_EQ(set->size(), 2u);
  EXPECT_EQ(DataOf(*set, set->Find(Bytes(1, 4).data(), Nanos())), 1u);
  EXPECT_EQ(DataOf(*set, set->Find(Bytes(2, 4).data(), Nanos())), 9u);
  set = set->With({&all, 1}, {});
  EXPECT_EQ(set->Find(Bytes(2, 4).data(), Nanos()), nullptr);
}

TEST(ElementSetTest, AnElementIsThereUntilItsTime) {
  SetShape shape;
  shape.key_length = 4;
  shape.timed = true;
  Element e = Make(Bytes(1, 4));
  e.expires = Seconds(10);
  const Element forever = Make(Bytes(2, 4));
  const auto set = ElementSet::Build(shape, std::vector{e, forever});
  EXPECT_NE(set->Find(Bytes(1, 4).data(), Seconds(9)), nullptr);
  EXPECT_EQ(set->Find(Bytes(1, 4).data(), Seconds(10)), nullptr);
  EXPECT_NE(set->Find(Bytes(2, 4).data(), Seconds(1'000'000)), nullptr);
}

// Readers follow the newest version while the control thread makes others.
TEST(ElementSetTest, ReadersSeeWholeVersions) {
  SetShape shape;
  shape.key_length = 4;
  shape.data_length = 4;
  // Version v holds the keys v to v + 999.
  constexpr uint32_t kKeys = 1000;
  constexpr uint32_t kVersions = 200;
  std::vector<Element> elements;
  for (uint32_t k = 0; k < kKeys; ++k) elements.push_back(Make(Bytes(k, 4)));
  std::vector<std::shared_ptr<const ElementSet>> versions{ElementSet::Build(shape, elements)};
  versions.reserve(kVersions);
  std::atomic<const ElementSet*> current{versions.back().get()};
  std::atomic<bool> done{false};
  std::atomic<uint32_t> wrong{0};
  std::thread reader([&] {
    Rng rng(1);
    while (!done.load()) {
      const ElementSet* set = current.load(std::memory_order_acquire);
      // Of two keys kKeys apart, each version has exactly one.
      const auto first = static_cast<uint32_t>(rng.Below(kVersions));
      const bool low = set->Find(Bytes(first, 4).data(), Nanos()) != nullptr;
      const bool high = set->Find(Bytes(first + kKeys, 4).data(), Nanos()) != nullptr;
      if (low == high) wrong.fetch_add(1);
    }
  });
  for (uint32_t v = 1; v < kVersions; ++v) {
    const Element old = Make(Bytes(v - 1, 4));
    const Element fresh = Make(Bytes(v - 1 + kKeys, 4));
    versions.push_back(versions.back()->With({&old, 1}, {&fresh, 1}));
    current.store(versions.back().get(), std::memory_order_release);
  }
  done = true;
  reader.join();
  EXPECT_EQ(wrong.load(), 0u);
}

}  // namespace
}  // namespace sluice::tables
