#include "tables/ruleset/classifier.h"

#include <algorithm>

namespace sluice::tables {

const uint64_t* Classifier::Find(const Dimension& dimension, const LoadValue& value) const {
  size_t interval;
  if (dimension.narrow) {
    const auto wanted = static_cast<uint32_t>(value.lo);
    const uint32_t bucket = wanted >> dimension.shift;
    // Starts before buckets[bucket] are at or below the bucket's first value.
    const uint32_t* low = dimension.starts32.data() + dimension.buckets[bucket];
    size_t n = dimension.buckets[bucket + 1] - dimension.buckets[bucket];
    while (n > 0) {
      const size_t half = n / 2;
      const bool below = low[half] <= wanted;
      low += below ? half + 1 : 0;
      n = below ? n - half - 1 : half;
    }
    interval = static_cast<size_t>(low - dimension.starts32.data()) - 1;
  } else {
    const auto after =
        std::upper_bound(dimension.starts.begin(), dimension.starts.end(), value);
    interval = static_cast<size_t>(after - dimension.starts.begin()) - 1;
  }
  return dimension.vectors.data() + dimension.classes[interval];
}

void Classifier::Cursor::Set(size_t dimension, const LoadValue& value) {
  at_[dimension] = classifier_->Find(classifier_->dimensions_[dimension], value);
}

uint64_t Classifier::Cursor::Word(uint32_t word) const {
  uint64_t bits = ~uint64_t{0};
  const uint32_t block = word / 64;
  const uint64_t bit = uint64_t{1} << (word % 64);
  for (size_t d = 0; d < classifier_->dimensions_.size(); ++d) {
    const uint64_t* vector = at_[d];
    uint64_t own = classifier_->dimensions_[d].any[word];
    if ((vector[block] & bit) != 0) {
      // The words of earlier blocks come first; their number stands behind the summaries.
      const uint64_t* words = vector + 2 * size_t{classifier_->blocks_};
      own |= words[vector[classifier_->blocks_ + block] +
                   static_cast<uint64_t>(std::popcount(vector[block] & (bit - 1)))];
    }
    bits &= own;
  }
  return bits;
}

uint32_t Classifier::Cursor::Next(uint32_t from) {
  if (from >= classifier_->rules_) return classifier_->rules_;
  uint32_t word = from / 64;
  if (word != word_) {
    if (word / 64 != block_) {
      block_ = word / 64;
      summary_ = Summary(block_);
    }
    // What lies before `from` in this block is done.
    summary_ &= ~uint64_t{0} << (word % 64);
    if ((summary_ >> (word % 64) & 1) != 0) {
      summary_ &= summary_ - 1;
      word_ = word;
      bits_ = Word(word);
    } else {
      bits_ = 0;
    }
  }
  bits_ &= ~uint64_t{0} << (from % 64);
  while (bits_ == 0) {
    while (summary_ == 0) {
      if (++block_ >= classifier_->blocks_) {
        word_ = kNowhere;
        block_ = kNowhere;
        return classifier_->rules_;
      }
      summary_ = Summary(block_);
    }
    word = block_ * 64 + static_cast<uint32_t>(std::countr_zero(summary_));
    summary_ &= summary_ - 1;
    word_ = word;
    bits_ = Word(word);
  }
  return word_ * 64 + static_cast<uint32_t>(std::countr_zero(bits_));
}

uint64_t Classifier::Cursor::Summary(uint32_t block) const {
  uint64_t bits = ~uint64_t{0};
  for (size_t d = 0; d < classifier_->dimensions_.size(); ++d) {
    bits &= at_[d][block] | classifier_->dimensions_[d].any_summary[block];
  }
  return bits;
}

size_t Classifier::memory_bytes() const {
  size_t bytes = sizeof *this + (none_.size() + all_.size()) * 8;
  for (const Dimension& d : dimensions_) {
    bytes += sizeof d + 4 * (d.starts32.size() + d.buckets.size() + d.classes.size()) +
             16 * d.starts.size() + 8 * (d.vectors.size() + d.any.size() + d.any_summary.size());
  }
  return bytes;
}

}  // namespace sluice::tables
