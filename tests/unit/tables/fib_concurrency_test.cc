// Workers look up while the control thread changes routes. Run under ThreadSanitizer too.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "tables/fib.h"
#include "tables/route_table.h"
#include "unit/tables/fib_testing.h"

namespace sluice::tables {
namespace {

constexpr int kReaders = 2;

template <class F>
class FibConcurrencyTest : public testing::Test {};
using Families = testing::Types<V4, V6>;
TYPED_TEST_SUITE(FibConcurrencyTest, Families);

// One prefix of each length over one address flaps between two routes, in turn; a reader must see
// at each address one of the routes that the prefixes over it may have, at the right nesting.
TYPED_TEST(FibConcurrencyTest, ReadersSeeOldOrNew) {
  using F = TypeParam;
  EpochDomain domain;
  typename F::Table fib(domain);
  const Bits target = Bits{0x0a0b0c0d} << (F::kBits - 32);
  // Fixed: a route for every length. Flapping: what lies beside it in the same nodes.
  std::vector<typename F::Address> addresses;
  for (int length = 1; length <= F::kBits; ++length) {
    ASSERT_TRUE(fib.Insert(MakePrefix<F>(target, length), RouteId{uint32_t(length)}).ok());
    // Leaves the target's path at bit `length`: only prefixes shorter than `length` cover it.
    addresses.push_back(F::FromBits(target ^ (Bits{1} << (F::kBits - length))));
  }
  std::atomic<bool> stop{false};
  std::atomic<int> running{0};
  std::atomic<uint64_t> wrong{0};
  std::vector<std::thread> readers;
  for (uint8_t id = 0; id < kReaders; ++id) {
    readers.emplace_back([&, id] {
      std::vector<RouteId> out(addresses.size());
      domain.Online(WorkerId{id});
      running.fetch_add(1);
      for (uint64_t round = 0; !stop.load(std::memory_order_relaxed); ++round) {
        if (id == 0) {
          fib.LookupBatch(addresses.data(), out.data(), addresses.size());
        } else {
          for (size_t i = 0; i < addresses.size(); ++i) out[i] = fib.Lookup(addresses[i]);
        }
        for (uint32_t i = 0; i < out.size(); ++i) {
          // Address i leaves at bit i + 1: length i covers it, or its own prefix (1000 + i).
          if (out[i].value != i && out[i].value != 1000 + i) wrong.fetch_add(1);
        }
        if (round % 64 == 63) {
          domain.Offline(WorkerId{id});
          domain.Online(WorkerId{id});
        } else {
          domain.Quiescent(WorkerId{id});
        }
      }
      domain.Offline(WorkerId{id});
    });
  }
  while (running.load() < kReaders) std::this_thread::yield();
  Rng rng(11);
  for (int step = 0; step < 3'000; ++step) {
    const uint32_t i = static_cast<uint32_t>(rng.Below(addresses.size()));
    const auto own = MakePrefix<F>(F::ToBits(addresses[i]), static_cast<int>(i) + 1);
    if (fib.Find(own).valid()) {
      EXPECT_TRUE(fib.Erase(own));
    } else {
      EXPECT_TRUE(fib.Insert(own, RouteId{1000 + i}).ok());
    }
    domain.Reclaim();
  }
  stop = true;
  for (std::thread& t : readers) t.join();
  EXPECT_EQ(wrong.load(), 0u);
  domain.Reclaim();
  EXPECT_EQ(domain.pending(), 0u);
}

// The whole way of a packet: FIB to route content. A released route must stay readable for a
// worker that found its id, and an id must never show another route's content to it.
TEST(FibAndRoutes, ReleasedRoutesStayUntilWorkersPass) {
  EpochDomain domain;
  Fib4 fib(domain);
  RouteTable routes(domain, 64);
  const Ipv4Prefix prefix{Ipv4(10, 1, 2, 0), 24};
  const auto make = [](uint32_t n) {
    Route route;
    route.mtu = n;
    route.paths.push_back({.oif = {n}, .slot = {}, .gateway = Ipv4(n)});
    return route;
  };
  std::atomic<bool> stop{false};
  std::atomic<int> running{0};
  std::atomic<uint64_t> wrong{0};
  std::vector<std::thread> readers;
  for (uint8_t id = 0; id < kReaders; ++id) {
    readers.emplace_back([&, id] {
      domain.Online(WorkerId{id});
      running.fetch_add(1);
      while (!stop.load(std::memory_order_relaxed)) {
        for (int i = 0; i < 16; ++i) {
          const RouteId found = fib.Lookup(Ipv4(10, 1, 2, 3));
          if (!found.valid()) continue;
          const Route& route = routes.Get(found);
          const Path& path = SelectPath(route, 0);
          if (path.oif.value != route.mtu || path.gateway.v4().value != route.mtu) {
            wrong.fetch_add(1);
          }
        }
        domain.Quiescent(WorkerId{id});
      }
      domain.Offline(WorkerId{id});
    });
  }
  while (running.load() < kReaders) std::this_thread::yield();
  RouteId current;
  uint32_t n = 0;
  while (n < 2'000) {
    const auto next = routes.Intern(make(++n));
    if (!next.ok()) {  // all ids wait for the readers
      EXPECT_EQ(next.status().code(), absl::StatusCode::kResourceExhausted);
      std::this_thread::yield();
      continue;
    }
    EXPECT_TRUE(fib.Insert(prefix, *next).ok());
    if (current.valid()) routes.Release(current);
    current = *next;
    if (n % 3 == 0) {
      EXPECT_TRUE(routes.Replace(current, make(n + 1'000'000)).ok());
    }
    domain.Reclaim();
  }
  stop = true;
  for (std::thread& t : readers) t.join();
  EXPECT_EQ(wrong.load(), 0u);
  EXPECT_EQ(routes.used(), 1u);
}

}  // namespace
}  // namespace sluice::tables
