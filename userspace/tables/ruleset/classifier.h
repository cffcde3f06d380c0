// Which rules of a long chain could match a packet: an Aggregated Bit Vector classifier (F. Baboescu
// and G. Varghese, "Scalable packet classification", SIGCOMM 2001).
//
// Each dimension is a Load that many rules begin with (an address, a port, an interface's name). Its
// value space is cut into the elementary intervals of all rules' conditions; each interval has the
// bit vector of the rules whose condition it meets. The vectors of the packet's intervals, one per
// dimension, are ANDed; summaries with a bit per word that is not zero say which words are worth
// looking at. Vectors are stored without their zero words, equal ones once, and without the rules
// that have no condition on the dimension, which are one vector per dimension.
//
// The answer is a superset in order: the caller executes each candidate rule. So conditions may be
// left out (too complicated, or memory), never invented.
//
// Memory: at most `max_bytes` per chain: dimensions are left out, the most expensive first. Lookup:
// a binary search per dimension and n / 4096 summary words. Immutable.
#ifndef SLUICE_TABLES_RULESET_CLASSIFIER_H_
#define SLUICE_TABLES_RULESET_CLASSIFIER_H_

#include <array>
#include <bit>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "tables/ruleset/load.h"

namespace sluice::tables {

// Up to sixteen loaded bytes as a big-endian number, so that it orders as memcmp does.
struct LoadValue {
  uint64_t hi = 0;
  uint64_t lo = 0;
  auto operator<=>(const LoadValue&) const = default;
};

struct ValueInterval {
  LoadValue first;
  LoadValue last;
};

class Classifier {
 public:
  static constexpr size_t kMaxDimensions = 10;

  // A rule's condition on one dimension: its value lies in one of these intervals.
  struct Condition {
    uint32_t rule = 0;  // place in the chain
    std::vector<ValueInterval> intervals;
  };
  struct DimensionInput {
    Load load;
    std::vector<Condition> conditions;  // at most one per rule
  };

  // Null when nothing is worth indexing.
  static std::shared_ptr<const Classifier> Build(uint32_t rules,
                                                 std::span<const DimensionInput> dimensions,
                                                 size_t max_bytes);

  size_t dimension_count() const { return dimensions_.size(); }
  const Load& load(size_t dimension) const { return dimensions_[dimension].load; }

  // One lookup. Give each dimension's value with Set (or SetFailed when it could not be loaded:
  // then rules with a condition on it do not match), then ask for candidates with Next.
  class Cursor {
   public:
    void Start(const Classifier& classifier) {
      classifier_ = &classifier;
      block_ = kNowhere;
      word_ = kNowhere;
    }
    void Set(size_t dimension, const LoadValue& value);
    void SetFailed(size_t dimension) { at_[dimension] = classifier_->none_.data(); }
    // The value is not to be asked: conditions on it leave all rules candidates.
    void SetUnknown(size_t dimension) { at_[dimension] = classifier_->all_.data(); }
    // The first candidate that is not before `from`; rule_count() when there is none. `from` must
    // not decrease.
    uint32_t Next(uint32_t from);

   private:
    uint64_t Word(uint32_t word) const;
    uint64_t Summary(uint32_t block) const;

    static constexpr uint32_t kNowhere = 0xffffffff;

    const Classifier* classifier_ = nullptr;
    std::array<const uint64_t*, kMaxDimensions> at_;  // each one's vector
    uint32_t block_ = kNowhere;  // of 64 words
    uint64_t summary_ = 0;         // of that block, what is not done
    uint32_t word_ = kNowhere;
    uint64_t bits_ = 0;
  };

  uint32_t rule_count() const { return rules_; }
  size_t memory_bytes() const;

 private:
  friend class ClassifierBuilder;

  struct Dimension {
    Load load;
    bool narrow = true;                // values fit 32 bits
    std::vector<uint32_t> starts32;    // of elementary intervals; the first is 0
    std::vector<LoadValue> starts;     // when not narrow
    uint32_t shift = 0;                // narrow: value >> shift indexes `buckets`
    std::vector<uint32_t> buckets;     // narrow: where to search
    std::vector<uint32_t> classes;     // by interval: offset into `vectors`
    // Each: a summary bit per word that is not zero, how many words come before each block of 64,
    // the words.
    std::vector<uint64_t> vectors;
    std::vector<uint64_t> any;         // rules without a condition: all words
    std::vector<uint64_t> any_summary;
  };

  const uint64_t* Find(const Dimension& dimension, const LoadValue& value) const;

  uint32_t rules_ = 0;
  uint32_t words_ = 0;
  uint32_t blocks_ = 0;
  std::vector<uint64_t> none_;  // a vector without rules
  std::vector<uint64_t> all_;   // and one with all of them
  std::vector<Dimension> dimensions_;
};

}  // namespace sluice::tables

#endif  // SLUICE_TABLES_RULESET_CLASSIFIER_H_
