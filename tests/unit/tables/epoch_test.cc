#include "tables/epoch.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

namespace sluice::tables {
namespace {

constexpr WorkerId kA{0};
constexpr WorkerId kB{5};

void Count(void* counter, uint64_t amount) { *static_cast<uint64_t*>(counter) += amount; }

TEST(EpochDomain, FreesAtOnceWithoutReaders) {
  EpochDomain domain;
  uint64_t freed = 0;
  domain.Retire(Count, &freed, 3);
  EXPECT_EQ(domain.pending(), 1u);
  EXPECT_EQ(domain.Reclaim(), 1u);
  EXPECT_EQ(freed, 3u);
  EXPECT_EQ(domain.pending(), 0u);
}

TEST(EpochDomain, WaitsForEachOnlineReader) {
  EpochDomain domain;
  uint64_t freed = 0;
  domain.Online(kA);
  domain.Online(kB);
  domain.Retire(Count, &freed, 1);
  EXPECT_EQ(domain.Reclaim(), 0u);
  domain.Quiescent(kA);
  EXPECT_EQ(domain.Reclaim(), 0u);
  EXPECT_GT(domain.lag(), 0u);
  domain.Quiescent(kB);
  EXPECT_EQ(domain.Reclaim(), 1u);
  EXPECT_EQ(freed, 1u);
  EXPECT_EQ(domain.lag(), 0u);
}

TEST(EpochDomain, AQuiescentPointBeforeReclaimSawTheRetirementDoesNotCount) {
  EpochDomain domain;
  uint64_t freed = 0;
  domain.Online(kA);
  domain.Retire(Count, &freed, 1);
  domain.Quiescent(kA);  // the epoch has not moved yet: proves nothing
  EXPECT_EQ(domain.Reclaim(), 0u);
  domain.Quiescent(kA);
  EXPECT_EQ(domain.Reclaim(), 1u);
}

TEST(EpochDomain, SleepersHoldNothingUp) {
  EpochDomain domain;
  uint64_t freed = 0;
  domain.Online(kA);
  domain.Retire(Count, &freed, 1);
  EXPECT_EQ(domain.Reclaim(), 0u);
  domain.Offline(kA);
  EXPECT_EQ(domain.Reclaim(), 1u);
}

TEST(EpochDomain, ALateReaderDoesNotHoldUpWhatItCannotHaveSeen) {
  EpochDomain domain;
  uint64_t freed = 0;
  domain.Online(kA);
  domain.Retire(Count, &freed, 1);
  EXPECT_EQ(domain.Reclaim(), 0u);
  domain.Online(kB);  // after the epoch moved
  domain.Quiescent(kA);
  EXPECT_EQ(domain.Reclaim(), 1u);
}

TEST(EpochDomain, RunsByItselfInABulkLoad) {
  EpochDomain domain;
  uint64_t freed = 0;
  for (int i = 0; i < 1000; ++i) domain.Retire(Count, &freed, 1);
  EXPECT_LT(domain.pending(), 200u);
  EXPECT_EQ(freed + domain.pending(), 1000u);
}

TEST(EpochDomain, CancelDropsOneOwnersOnly) {
  EpochDomain domain;
  uint64_t mine = 0;
  uint64_t other = 0;
  domain.Retire(Count, &mine, 1);
  domain.Retire(Count, &other, 1);
  domain.Cancel(&mine);
  domain.Reclaim();
  EXPECT_EQ(mine, 0u);
  EXPECT_EQ(other, 1u);
}

TEST(EpochDomain, DestructionFreesTheRest) {
  const auto alive = std::make_shared<int>(1);
  {
    EpochDomain domain;
    domain.Online(kA);
    domain.RetireObject(std::make_unique<std::shared_ptr<int>>(alive));
    domain.Reclaim();
    EXPECT_EQ(alive.use_count(), 2);
    domain.Offline(kA);
  }
  EXPECT_EQ(alive.use_count(), 1);
}

// Readers follow a pointer that the control thread keeps replacing; the object it pointed to is
// poisoned when freed. ThreadSanitizer and AddressSanitizer watch the same run.
TEST(EpochDomain, ReadersNeverSeeFreedMemory) {
  struct Object {
    uint64_t value = 42;
    ~Object() { value = 0; }
  };
  EpochDomain domain;
  std::atomic<Object*> shared{new Object};
  std::atomic<bool> stop{false};
  std::atomic<int> running{0};
  std::atomic<uint64_t> wrong{0};
  std::vector<std::thread> readers;
  for (uint8_t id = 0; id < 3; ++id) {
    readers.emplace_back([&, id] {
      const WorkerId self{id};
      running.fetch_add(1);
      while (!stop.load(std::memory_order_relaxed)) {
        domain.Online(self);
        for (int i = 0; i < 50; ++i) {
          const Object* object = shared.load(std::memory_order_acquire);
          for (int k = 0; k < 4; ++k) {
            if (object->value != 42) wrong.fetch_add(1);
          }
          domain.Quiescent(self);
        }
        domain.Offline(self);
      }
    });
  }
  while (running.load() < 3) std::this_thread::yield();
  for (int i = 0; i < 20'000; ++i) {
    Object* old = shared.exchange(new Object, std::memory_order_acq_rel);
    domain.RetireObject(std::unique_ptr<Object>(old));
    if (i % 7 == 0) domain.Reclaim();
  }
  stop = true;
  for (std::thread& t : readers) t.join();
  EXPECT_EQ(wrong.load(), 0u);
  domain.Reclaim();
  EXPECT_EQ(domain.pending(), 0u);
  delete shared.load();
}

}  // namespace
}  // namespace sluice::tables
