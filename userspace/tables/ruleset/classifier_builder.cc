// Builds a Classifier: one sweep over each dimension's boundaries.
#include <algorithm>
#include <optional>

#include "absl/container/flat_hash_map.h"
#include "tables/ruleset/classifier.h"
#include "tables/ruleset/key_hash.h"

namespace sluice::tables {
namespace {

constexpr uint32_t kMaxBucketBits = 14;

LoadValue MaxValue(uint8_t length) {
  if (length >= 16) return {~uint64_t{0}, ~uint64_t{0}};
  if (length > 8) return {(uint64_t{1} << (8 * (length - 8))) - 1, ~uint64_t{0}};
  if (length == 8) return {0, ~uint64_t{0}};
  return {0, (uint64_t{1} << (8 * length)) - 1};
}

// Where the value after `v` begins; nothing after the largest.
std::optional<LoadValue> After(const LoadValue& v, const LoadValue& max) {
  if (v >= max) return {};
  LoadValue next = v;
  if (++next.lo == 0) ++next.hi;
  return next;
}

}  // namespace

class ClassifierBuilder {
 public:
  ClassifierBuilder(uint32_t rules, size_t max_bytes) : max_bytes_(max_bytes) {
    classifier_ = std::make_shared<Classifier>();
    classifier_->rules_ = rules;
    classifier_->words_ = (rules + 63) / 64;
    classifier_->blocks_ = (classifier_->words_ + 63) / 64;
    classifier_->none_.resize(2 * size_t{classifier_->blocks_});
    FillAll();
  }

  void Add(const Classifier::DimensionInput& input) {
    Classifier::Dimension dimension;
    dimension.load = input.load;
    dimension.narrow = input.load.length <= 4;
    FillAny(input, dimension);
    if (Sweep(input, dimension)) classifier_->dimensions_.push_back(std::move(dimension));
  }

  std::shared_ptr<const Classifier> Finish() {
    auto& all = classifier_->dimensions_;
    // Over the limit, or more than a Cursor has room for: the largest go.
    while (!all.empty() && (all.size() > Classifier::kMaxDimensions ||
                            classifier_->memory_bytes() > max_bytes_)) {
      all.erase(std::max_element(all.begin(), all.end(), [](const auto& a, const auto& b) {
        return a.vectors.size() < b.vectors.size();
      }));
    }
    if (all.empty()) return nullptr;
    return classifier_;
  }

 private:
  struct Event {
    LoadValue at;
    uint32_t rule;
    bool begins;
  };

  void FillAll() {
    const uint32_t words = classifier_->words_;
    for (uint32_t b = 0; b < classifier_->blocks_; ++b) {
      const uint32_t here = std::min(words - b * 64, 64u);
      classifier_->all_.push_back(~uint64_t{0} >> (64 - here));
    }
    for (uint32_t b = 0; b < classifier_->blocks_; ++b) classifier_->all_.push_back(b * 64);
    classifier_->all_.insert(classifier_->all_.end(), words, ~uint64_t{0});
    if (classifier_->rules_ % 64 != 0) {
      classifier_->all_.back() = (uint64_t{1} << (classifier_->rules_ % 64)) - 1;
    }
  }

  void FillAny(const Classifier::DimensionInput& input, Classifier::Dimension& dimension) const {
    dimension.any.assign(classifier_->words_, ~uint64_t{0});
    if (classifier_->rules_ % 64 != 0) {
      dimension.any.back() = (uint64_t{1} << (classifier_->rules_ % 64)) - 1;
    }
    for (const Classifier::Condition& c : input.conditions) {
      dimension.any[c.rule / 64] &= ~(uint64_t{1} << (c.rule % 64));
    }
    dimension.any_summary.assign(classifier_->blocks_, 0);
    for (size_t w = 0; w < dimension.any.size(); ++w) {
      if (dimension.any[w] != 0) dimension.any_summary[w / 64] |= uint64_t{1} << (w % 64);
    }
  }

  // False when it would take too much memory.
  bool Sweep(const Classifier::DimensionInput& input, Classifier::Dimension& dimension) {
    const LoadValue max = MaxValue(input.load.length);
    std::vector<Event> events;
    for (const Classifier::Condition& c : input.conditions) {
      for (const ValueInterval& i : c.intervals) {
        events.push_back({i.first, c.rule, true});
        if (const auto after = After(i.last, max)) events.push_back({*after, c.rule, false});
      }
    }
    std::sort(events.begin(), events.end(), [](const Event& a, const Event& b) {
      return a.at < b.at;
    });
    present_.assign(classifier_->words_, 0);
    summary_.assign(classifier_->blocks_, 0);
    open_.clear();
    known_.clear();
    LoadValue start;
    for (size_t i = 0;;) {
      // A rule whose intervals touch ends and begins at the same place: ends first would lose it,
      // hence the count of open intervals.
      for (; i < events.size() && events[i].at == start; ++i) Apply(events[i]);
      if (dimension.vectors.size() * 8 > max_bytes_) return false;
      AddInterval(start, dimension);
      if (i == events.size()) break;
      start = events[i].at;
    }
    if (dimension.narrow) FillBuckets(input.load.length, dimension);
    return true;
  }

  void Apply(const Event& event) {
    int32_t& count = open_[event.rule];
    count += event.begins ? 1 : -1;
    const uint32_t word = event.rule / 64;
    const uint64_t bit = uint64_t{1} << (event.rule % 64);
    if (count > 0) {
      present_[word] |= bit;
    } else {
      present_[word] &= ~bit;
    }
    const uint64_t word_bit = uint64_t{1} << (word % 64);
    if (present_[word] != 0) {
      summary_[word / 64] |= word_bit;
    } else {
      summary_[word / 64] &= ~word_bit;
    }
  }

  void AddInterval(const LoadValue& start, Classifier::Dimension& dimension) {
    const uint32_t vector = Intern(dimension);
    if (!dimension.classes.empty() && dimension.classes.back() == vector) return;
    dimension.classes.push_back(vector);
    if (dimension.narrow) {
      dimension.starts32.push_back(static_cast<uint32_t>(start.lo));
    } else {
      dimension.starts.push_back(start);
    }
  }

  uint32_t Intern(Classifier::Dimension& dimension) {
    scratch_.assign(summary_.begin(), summary_.end());
    uint64_t before = 0;
    for (const uint64_t s : summary_) {
      scratch_.push_back(before);
      before += static_cast<uint64_t>(std::popcount(s));
    }
    for (size_t b = 0; b < summary_.size(); ++b) {
      for (uint64_t s = summary_[b]; s != 0; s &= s - 1) {
        scratch_.push_back(present_[b * 64 + static_cast<size_t>(std::countr_zero(s))]);
      }
    }
    const uint64_t hash =
        KeyHash(reinterpret_cast<const uint8_t*>(scratch_.data()), scratch_.size() * 8);
    const auto [at, fresh] = known_.try_emplace(hash, dimension.vectors.size());
    if (!fresh) {
      const auto same = dimension.vectors.begin() + static_cast<ptrdiff_t>(at->second);
      if (dimension.vectors.size() - at->second >= scratch_.size() &&
          std::equal(scratch_.begin(), scratch_.end(), same)) {
        return static_cast<uint32_t>(at->second);
      }
      at->second = dimension.vectors.size();  // the hashes collide: the later one is remembered
    }
    const auto offset = static_cast<uint32_t>(dimension.vectors.size());
    dimension.vectors.insert(dimension.vectors.end(), scratch_.begin(), scratch_.end());
    return offset;
  }

  static void FillBuckets(uint8_t length, Classifier::Dimension& dimension) {
    const uint32_t bits = 8u * length;
    uint32_t bucket_bits = 0;
    while (bucket_bits < std::min(bits, kMaxBucketBits) &&
           (size_t{1} << bucket_bits) < dimension.starts32.size()) {
      ++bucket_bits;
    }
    // A shift of 32 is not defined; values are 32 bits at most, so bucket 0 takes them all.
    dimension.shift = bucket_bits == 0 ? 31 : bits - bucket_bits;
    const size_t count = bucket_bits == 0 ? (bits == 32 ? 2 : 1) : size_t{1} << bucket_bits;
    dimension.buckets.resize(count + 1);
    for (size_t b = 0; b <= count; ++b) {
      const uint64_t first = static_cast<uint64_t>(b) << dimension.shift;
      dimension.buckets[b] = static_cast<uint32_t>(
          std::upper_bound(dimension.starts32.begin(), dimension.starts32.end(), first,
                           [](uint64_t v, uint32_t s) { return v < s; }) -
          dimension.starts32.begin());
    }
    dimension.buckets[count] = static_cast<uint32_t>(dimension.starts32.size());
  }

  const size_t max_bytes_;
  std::shared_ptr<Classifier> classifier_;
  std::vector<uint64_t> present_;
  std::vector<uint64_t> summary_;
  std::vector<uint64_t> scratch_;
  absl::flat_hash_map<uint32_t, int32_t> open_;
  absl::flat_hash_map<uint64_t, size_t> known_;
};

std::shared_ptr<const Classifier> Classifier::Build(uint32_t rules,
                                                    std::span<const DimensionInput> dimensions,
                                                    size_t max_bytes) {
  ClassifierBuilder builder(rules, max_bytes);
  for (const DimensionInput& d : dimensions) builder.Add(d);
  return builder.Finish();
}

}  // namespace sluice::tables
