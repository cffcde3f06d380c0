// The flow tier's maps: what is in them after which changes.
#include "io/af_xdp/offload_maps.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "base/rng.h"

namespace sluice::io::af_xdp {
namespace {

using tables::OffloadChange;

OffloadChange Change(OffloadChange::Kind kind, uint32_t key, uint32_t id, bool v4 = true) {
  OffloadChange c;
  c.kind = kind;
  c.family = v4 ? Family::kIpv4 : Family::kIpv6;
  if (v4) {
    c.key4 = {};
    c.key4.destination = key;
  } else {
    c.key6 = {};
    c.entry6 = {};
    c.key6.destination[3] = key;
  }
  c.action().id = id;
  return c;
}
OffloadChange Add(uint32_t key, uint32_t id, bool v4 = true) {
  return Change(OffloadChange::Kind::kAdd, key, id, v4);
}
OffloadChange Remove(uint32_t key, uint32_t id, bool v4 = true) {
  return Change(OffloadChange::Kind::kRemove, key, id, v4);
}

class OffloadMapsTest : public ::testing::Test {
 protected:
  void Make(uint32_t ids) {
    auto maps = OffloadMaps::Create(ids);
    ASSERT_TRUE(maps.ok()) << maps.status();
    maps_ = *std::move(maps);
  }
  void Apply(const std::vector<OffloadChange>& changes) {
    const absl::Status status = maps_->Apply(changes);
    ASSERT_TRUE(status.ok()) << status;
  }
  // The id that the kernel has for the key.
  std::optional<uint32_t> Id(uint32_t key, bool v4 = true) const {
    const OffloadChange c = Add(key, 0, v4);
    sluice_offload_entry4 entry4;
    sluice_offload_entry6 entry6;
    if (v4 && bpf_map_lookup_elem(maps_->fds().flows4, &c.key4, &entry4) == 0) {
      return entry4.action.id;
    }
    if (!v4 && bpf_map_lookup_elem(maps_->fds().flows6, &c.key6, &entry6) == 0) {
      return entry6.action.id;
    }
    return {};
  }

  std::unique_ptr<OffloadMaps> maps_;
};

TEST_F(OffloadMapsTest, MemoryIsShared) {
  Make(100);
  const tables::OffloadMemory memory = maps_->memory();
  ASSERT_TRUE(memory.valid());
  EXPECT_EQ(memory.ids, 100u);
  EXPECT_EQ(memory.cpus, static_cast<uint32_t>(libbpf_num_possible_cpus()));
  EXPECT_EQ(memory.state->world, 1u);
  EXPECT_EQ(memory.state->ids, 100u);
  memory.state->routes[SLUICE_OFFLOAD_BUCKETS - 1] = 77;
  const uint32_t zero = 0;
  auto state = std::make_unique<sluice_offload_state>();
  ASSERT_EQ(bpf_map_lookup_elem(maps_->fds().state, &zero, state.get()), 0);
  EXPECT_EQ(state->routes[SLUICE_OFFLOAD_BUCKETS - 1], 77u);
  memory.cell(memory.cpus - 1, 99).epoch = 5;
  const uint32_t last = memory.cpus * 100 - 1;
  sluice_offload_cell cell;
  ASSERT_EQ(bpf_map_lookup_elem(maps_->fds().cells, &last, &cell), 0);
  EXPECT_EQ(cell.epoch, 5u);
  memory.splices[99].tsecr = 7;
  const uint32_t id = 99;
  sluice_splice splice;
  ASSERT_EQ(bpf_map_lookup_elem(maps_->fds().splices, &id, &splice), 0);
  EXPECT_EQ(splice.tsecr, 7u);
  EXPECT_EQ(splice.seq, 0u);
}

TEST_F(OffloadMapsTest, LimitsOfIds) {
  EXPECT_EQ(OffloadMaps::Create(0).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(OffloadMaps::Create(1u << 30).status().code(), absl::StatusCode::kInvalidArgument);
  Make(1);
}

TEST_F(OffloadMapsTest, OrderWithinABatchCounts) {
  Make(100);
  for (const bool v4 : {true, false}) {
    Apply({Add(1, 10, v4), Add(2, 20, v4), Add(3, 30, v4)});
    EXPECT_EQ(Id(1, v4), 10u);
    // One after the other.
    Apply({Remove(1, 10, v4), Add(1, 11, v4),                     // replaced
           Add(2, 21, v4), Remove(2, 21, v4),                     // gone, the former one too
           Remove(3, 30, v4), Add(3, 31, v4), Remove(3, 30, v4),  // too late
           Add(4, 40, v4), Remove(4, 40, v4),                     // never there
           Add(5, 50, v4), Add(5, 51, v4), Remove(5, 50, v4)});   // taken over
    EXPECT_EQ(Id(1, v4), 11u);
    EXPECT_EQ(Id(2, v4), std::nullopt);
    EXPECT_EQ(Id(3, v4), 31u);
    EXPECT_EQ(Id(4, v4), std::nullopt);
    EXPECT_EQ(Id(5, v4), 51u);
    // A removal of another id, or of nothing.
    Apply({Remove(1, 10, v4), Remove(2, 20, v4), Remove(9, 1, v4)});
    EXPECT_EQ(Id(1, v4), 11u);
    Apply({Remove(1, 11, v4)});
    EXPECT_EQ(Id(1, v4), std::nullopt);
  }
  EXPECT_EQ(maps_->counts().entries4, 2u);
  EXPECT_EQ(maps_->counts().entries6, 2u);
  EXPECT_EQ(maps_->counts().full, 0u);
}

TEST_F(OffloadMapsTest, EntryIsTheOneGiven) {
  Make(100);
  OffloadChange c = Add(1, 10);
  c.entry4.source = 0x01020304;
  c.entry4.action.mtu = 1400;
  c.entry4.action.epoch = 9;
  Apply({c});
  sluice_offload_entry4 entry;
  ASSERT_EQ(bpf_map_lookup_elem(maps_->fds().flows4, &c.key4, &entry), 0);
  EXPECT_NE(entry.action.tag, 0u);
  entry.action.tag = 0;
  EXPECT_EQ(std::memcmp(&entry, &c.entry4, sizeof entry), 0);
}

TEST_F(OffloadMapsTest, FullIsCountedAndNoError) {
  Make(100);
  std::vector<OffloadChange> changes;
  for (uint32_t i = 0; i < 1000; ++i) changes.push_back(Add(i, i));
  Apply(changes);
  const OffloadMaps::Counts counts = maps_->counts();
  EXPECT_GE(counts.entries4, 100u);
  EXPECT_LT(counts.entries4, 200u);
  EXPECT_EQ(counts.full, 1000 - counts.entries4);
  // The other family has room, and what is there can be replaced and removed.
  Apply({Add(1, 1, false)});
  EXPECT_EQ(Id(1, false), 1u);
  changes.clear();
  uint32_t there = 0;
  for (uint32_t i = 0; i < 1000; ++i) {
    if (!Id(i)) continue;
    there = i;
    changes.push_back(Remove(i, i));
    changes.push_back(Add(i, i + 5000));
  }
  Apply(changes);
  EXPECT_EQ(maps_->counts().full, counts.full);
  EXPECT_EQ(Id(there), there + 5000);
  // Room that is made counts in the same call.
  Apply({Add(7777, 1), Remove(there, there + 5000)});
  EXPECT_EQ(Id(7777), 1u);
  EXPECT_EQ(maps_->counts().full, counts.full);
}

// Against a model that takes one change at a time.
TEST_F(OffloadMapsTest, RandomChanges) {
  Make(3000);
  Rng rng(5);
  std::vector<std::optional<uint32_t>> model[2] = {std::vector<std::optional<uint32_t>>(2000),
                                                   std::vector<std::optional<uint32_t>>(2000)};
  for (int round = 0; round < 40; ++round) {
    std::vector<OffloadChange> changes;
    const uint64_t keys = rng.Chance(1, 2) ? 30 : 2000;
    for (uint64_t n = rng.Below(6000); n > 0; --n) {
      const auto key = static_cast<uint32_t>(rng.Below(keys));
      const auto id = static_cast<uint32_t>(rng.Below(3));
      const bool v4 = rng.Chance(1, 2);
      std::optional<uint32_t>& expected = model[v4][key];
      if (rng.Chance(1, 2)) {
        changes.push_back(Add(key, id, v4));
        expected = id;
      } else {
        changes.push_back(Remove(key, id, v4));
        if (expected == id) expected.reset();
      }
    }
    Apply(changes);
    size_t present[2] = {};
    for (uint32_t key = 0; key < 2000; ++key) {
      for (const bool v4 : {true, false}) {
        ASSERT_EQ(Id(key, v4), model[v4][key]) << round;
        present[v4] += model[v4][key].has_value();
      }
    }
    ASSERT_EQ(maps_->counts().entries4, present[1]);
    ASSERT_EQ(maps_->counts().entries6, present[0]);
  }
}

}  // namespace
}  // namespace sluice::io::af_xdp
