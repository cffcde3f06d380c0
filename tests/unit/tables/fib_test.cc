#include "tables/fib.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "unit/tables/fib_testing.h"

namespace sluice::tables {
namespace {

template <class F>
class FibTest : public testing::Test {
 protected:
  using Prefix = typename F::Prefix;
  using Table = typename F::Table;

  // Every address against the model, singly and in one batch.
  void Check(const std::vector<Bits>& addresses) {
    std::vector<typename F::Address> batch;
    for (const Bits b : addresses) batch.push_back(F::FromBits(b));
    std::vector<RouteId> found(batch.size());
    fib_.LookupBatch(batch.data(), found.data(), batch.size());
    for (size_t i = 0; i < batch.size(); ++i) {
      const RouteId expected = model_.Lookup(addresses[i]);
      ASSERT_EQ(fib_.Lookup(batch[i]).value, expected.value) << ToString(batch[i]);
      ASSERT_EQ(found[i].value, expected.value) << "in a batch: " << ToString(batch[i]);
    }
  }
  void Insert(const Prefix& p, uint32_t route) {
    ASSERT_TRUE(fib_.Insert(p, RouteId{route}).ok()) << ToString(p);
    model_.Insert(p, RouteId{route});
  }
  // By value: `p` may be the key of the entry that the model erases.
  void Erase(Prefix p) { ASSERT_EQ(fib_.Erase(p), model_.Erase(p)) << ToString(p); }
  void CheckContents() {
    std::map<Prefix, RouteId> listed;
    fib_.ForEach([&](const Prefix& p, RouteId r) {
      EXPECT_TRUE(listed.emplace(p, r).second) << "twice: " << ToString(p);
    });
    EXPECT_EQ(listed, model_.routes());
    EXPECT_EQ(fib_.size(), model_.routes().size());
  }

  EpochDomain domain_;
  Table fib_{domain_};
  NaiveFib<F> model_;
};

using Families = testing::Types<V4, V6>;
TYPED_TEST_SUITE(FibTest, Families);

TYPED_TEST(FibTest, IsEmptyAtFirst) {
  this->Check({0, 1, LastOffset<TypeParam>(0)});
  EXPECT_EQ(this->fib_.size(), 0u);
}

TYPED_TEST(FibTest, EveryLengthAloneAndNested) {
  Rng rng(1);
  ClusteredPrefixes<TypeParam> random(rng);
  const Bits address = random.RandomBits();
  for (int length = 0; length <= TypeParam::kBits; ++length) {  // alone
    this->Insert(MakePrefix<TypeParam>(address, length), 1000 + length);
    this->Check(this->model_.Boundaries());
    this->Erase(MakePrefix<TypeParam>(address, length));
    this->Check({address});
  }
  for (int length = TypeParam::kBits; length >= 0; --length) {  // the shorter under the longer
    this->Insert(MakePrefix<TypeParam>(address, length), 1 + length);
  }
  this->Check(this->model_.Boundaries());
  this->CheckContents();
  for (int length = 0; length <= TypeParam::kBits; length += 2) {
    this->Erase(MakePrefix<TypeParam>(address, length));
    this->Check(this->model_.Boundaries());
  }
  for (int length = TypeParam::kBits; length >= 0; --length) {
    this->Erase(MakePrefix<TypeParam>(address, length));
    this->Check({address, address ^ 1});
  }
  this->CheckContents();
}

TYPED_TEST(FibTest, RandomChangesAgreeWithTheModel) {
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Rng rng(seed);
    ClusteredPrefixes<TypeParam> random(rng);
    std::vector<typename TypeParam::Prefix> known;
    for (int step = 0; step < 3000; ++step) {
      const bool old = !known.empty() && rng.Chance(1, 2);
      const auto prefix = old ? known[rng.Below(known.size())] : random.Next();
      // Few routes, so that neighbouring runs often join.
      if (rng.Chance(3, 5)) {
        this->Insert(prefix, 1 + static_cast<uint32_t>(rng.Below(5)));
        known.push_back(prefix);
      } else {
        this->Erase(prefix);
      }
      if (this->HasFatalFailure()) return;
      const Bits first = TypeParam::ToBits(prefix.address);
      this->Check({first, first + LastOffset<TypeParam>(prefix.length), random.NearCenter()});
      if (step % 500 == 499) this->Check(this->model_.Boundaries());
      if (this->HasFatalFailure()) return;
    }
    this->CheckContents();
    while (!this->model_.routes().empty()) {
      this->Erase(this->model_.routes().begin()->first);
      if (this->HasFatalFailure()) return;
    }
    EXPECT_EQ(this->fib_.stats().nodes, 0u);
  }
}

TYPED_TEST(FibTest, FindSeesExactPrefixesOnly) {
  const auto p24 = MakePrefix<TypeParam>(Bits{0x0a010200} << (TypeParam::kBits - 32), 24);
  this->Insert(p24, 7);
  EXPECT_EQ(this->fib_.Find(p24), RouteId{7});
  for (const int length : {0, 1, 16, 17, 23, 25, 32}) {
    EXPECT_EQ(this->fib_.Find(MakePrefix<TypeParam>(TypeParam::ToBits(p24.address), length)),
              RouteId::None())
        << length;
  }
  this->Insert(p24, 8);
  EXPECT_EQ(this->fib_.Find(p24), RouteId{8});
  EXPECT_EQ(this->fib_.size(), 1u);
  EXPECT_FALSE(this->fib_.Erase(MakePrefix<TypeParam>(0, 24)));
}

TYPED_TEST(FibTest, RefusesWhatItCannotHold) {
  auto loose = MakePrefix<TypeParam>(0, 24);
  loose.address = TypeParam::FromBits(1);
  EXPECT_EQ(this->fib_.Insert(loose, RouteId{1}).code(), absl::StatusCode::kInvalidArgument);
  const auto good = MakePrefix<TypeParam>(0, 24);
  for (const RouteId bad : {RouteId::None(), RouteId{0x8000'0000}, RouteId{0xffff'ffff}}) {
    EXPECT_EQ(this->fib_.Insert(good, bad).code(), absl::StatusCode::kInvalidArgument);
  }
  this->CheckContents();
}

TYPED_TEST(FibTest, TheRouteLimitChangesNothing) {
  typename TypeParam::Table fib(this->domain_, {.routes = 2, .bytes = 1 << 21});
  const auto a = MakePrefix<TypeParam>(Bits{0x0a} << (TypeParam::kBits - 8), 20);
  const auto b = MakePrefix<TypeParam>(0, 0);
  const auto c = MakePrefix<TypeParam>(Bits{0x0b} << (TypeParam::kBits - 8), 24);
  ASSERT_TRUE(fib.Insert(a, RouteId{1}).ok());
  ASSERT_TRUE(fib.Insert(b, RouteId{2}).ok());
  EXPECT_EQ(fib.Insert(c, RouteId{3}).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(fib.Lookup(c.address), RouteId{2});
  EXPECT_EQ(fib.size(), 2u);
  EXPECT_TRUE(fib.Insert(a, RouteId{4}).ok()) << "a replacement needs no room";
  EXPECT_TRUE(fib.Erase(b));
  EXPECT_TRUE(fib.Insert(c, RouteId{3}).ok());
}

TYPED_TEST(FibTest, TheMemoryLimitChangesNothingAndEraseStillWorks) {
  typename TypeParam::Table fib(this->domain_, {.routes = 1'000'000, .bytes = 1 << 20});
  Rng rng(3);
  ClusteredPrefixes<TypeParam> random(rng);
  NaiveFib<TypeParam> model;
  absl::Status status;
  typename TypeParam::Prefix refused;
  for (int i = 0; i < 100'000; ++i) {
    refused = MakePrefix<TypeParam>(random.RandomBits(), 24 + static_cast<int>(rng.Below(9)));
    status = fib.Insert(refused, RouteId{1 + static_cast<uint32_t>(i)});
    if (!status.ok()) break;
    model.Insert(refused, RouteId{1 + static_cast<uint32_t>(i)});
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(fib.Find(refused), RouteId::None());
  EXPECT_EQ(fib.size(), model.routes().size());
  EXPECT_GT(fib.size(), 500u);
  EXPECT_LE(fib.stats().extent_bytes, size_t{1} << 20);
  for (const Bits b : model.Boundaries()) {
    ASSERT_EQ(fib.Lookup(TypeParam::FromBits(b)), model.Lookup(b));
  }
  for (const auto& [prefix, route] : model.routes()) ASSERT_TRUE(fib.Erase(prefix));
  EXPECT_EQ(fib.stats().nodes, 0u);
}

TYPED_TEST(FibTest, MemoryComesBack) {
  Rng rng(4);
  ClusteredPrefixes<TypeParam> random(rng);
  const FibStats before = this->fib_.stats();
  size_t extent = 0;
  for (int round = 0; round < 4; ++round) {
    while (this->fib_.size() < 20'000) {
      const int length = TypeParam::kBits == 32 ? 16 + static_cast<int>(rng.Below(17))
                                                : 28 + static_cast<int>(rng.Below(37));
      this->Insert(MakePrefix<TypeParam>(random.RandomBits(), length), 1 + rng.Below(100));
    }
    this->domain_.Reclaim();
    const FibStats full = this->fib_.stats();
    EXPECT_GT(full.lookup_bytes, before.lookup_bytes);
    EXPECT_GE(full.extent_bytes + full.control_bytes, full.lookup_bytes);
    if (round == 0) extent = full.extent_bytes;
    EXPECT_LT(full.extent_bytes, extent * 11 / 10) << "the arena strews its memory";
    while (!this->model_.routes().empty()) this->Erase(this->model_.routes().begin()->first);
    this->domain_.Reclaim();
    const FibStats after = this->fib_.stats();
    EXPECT_EQ(after.lookup_bytes, before.lookup_bytes);
    EXPECT_EQ(after.control_bytes, before.control_bytes);
    EXPECT_EQ(after.extent_bytes, before.extent_bytes);
    EXPECT_EQ(after.nodes, 0u);
  }
}

TEST(Fib4Batch, AnyCountWorks) {
  EpochDomain domain;
  Fib4 fib(domain);
  ASSERT_TRUE(fib.Insert({Ipv4(10, 0, 0, 0), 8}, RouteId{1}).ok());
  ASSERT_TRUE(fib.Insert({Ipv4(10, 1, 2, 0), 24}, RouteId{2}).ok());
  ASSERT_TRUE(fib.Insert({Ipv4(10, 1, 2, 3), 32}, RouteId{3}).ok());
  const Ipv4 cycle[] = {Ipv4(10, 1, 2, 3), Ipv4(10, 1, 2, 4), Ipv4(10, 9, 9, 9), Ipv4(11, 0, 0, 0)};
  for (size_t n = 0; n <= 100; ++n) {
    std::vector<Ipv4> in;
    for (size_t i = 0; i < n; ++i) in.push_back(cycle[i % 4]);
    std::vector<RouteId> out(n + 1, RouteId{99});
    fib.LookupBatch(in.data(), out.data(), n);
    for (size_t i = 0; i < n; ++i) {
      EXPECT_EQ(out[i].value, (std::vector<uint32_t>{3, 2, 1, 0})[i % 4]);
    }
    EXPECT_EQ(out[n].value, 99u) << "wrote beyond " << n;
  }
}

}  // namespace
}  // namespace sluice::tables
