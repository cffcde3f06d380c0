// Small numbers that must not be mixed up, each with a type of its own.
#ifndef SLUICE_BASE_IDS_H_
#define SLUICE_BASE_IDS_H_

#include <compare>
#include <cstddef>
#include <cstdint>

namespace sluice {

// The kernel's interface index, valid in one network namespace. 0 is none.
struct IfIndex {
  uint32_t value = 0;
  constexpr auto operator<=>(const IfIndex&) const = default;
};

// The place of a served interface in Sluice's own tables, from 0 to kMaxInterfaces - 1. A slot
// stays with a name from configuration to configuration, also while the interface is away.
struct IfaceSlot {
  static constexpr uint8_t kNoneValue = 0xff;
  uint8_t value = kNoneValue;
  static constexpr IfaceSlot None() { return IfaceSlot{}; }
  constexpr bool valid() const { return value != kNoneValue; }
  constexpr auto operator<=>(const IfaceSlot&) const = default;
};
inline constexpr size_t kMaxInterfaces = 64;

// Some of the served interfaces.
struct IfaceSet {
  uint64_t bits = 0;  // by slot
  static constexpr IfaceSet All() { return {~uint64_t{0}}; }
  constexpr void Add(IfaceSlot slot) { bits |= uint64_t{1} << slot.value; }
  constexpr bool Has(IfaceSlot slot) const {
    return slot.valid() && (bits >> slot.value & 1) != 0;
  }
  constexpr bool operator==(const IfaceSet&) const = default;
};
static_assert(kMaxInterfaces <= 64, "an IfaceSet has a bit for each");

// A receive queue of a NIC; AF_XDP binds one socket to each.
struct QueueId {
  uint16_t value = 0;
  constexpr auto operator<=>(const QueueId&) const = default;
};

struct WorkerId {
  uint8_t value = 0;
  constexpr auto operator<=>(const WorkerId&) const = default;
};
inline constexpr size_t kMaxWorkers = 32;

}  // namespace sluice

#endif  // SLUICE_BASE_IDS_H_
