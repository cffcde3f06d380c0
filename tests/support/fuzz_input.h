// What the fuzz targets share: the input read from its front to its end, and what must hold.
#ifndef SLUICE_TESTS_SUPPORT_FUZZ_INPUT_H_
#define SLUICE_TESTS_SUPPORT_FUZZ_INPUT_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <vector>

namespace sluice::test {

// The fuzzer takes the end of the program for a finding.
inline void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "broken: %s\n", what);
  std::abort();
}

// Reads the fuzzer's bytes, which it does not own. After the last one there are zeros.
class FuzzInput {
 public:
  explicit FuzzInput(std::span<const uint8_t> bytes) : rest_(bytes) {}

  bool empty() const { return rest_.empty(); }
  uint8_t Byte() {
    if (empty()) return 0;
    const uint8_t byte = rest_.front();
    rest_ = rest_.subspan(1);
    return byte;
  }
  // Up to `n` bytes: as many as there are.
  std::vector<uint8_t> Take(size_t n) {
    const auto taken = rest_.first(std::min(n, rest_.size()));
    rest_ = rest_.subspan(taken.size());
    return {taken.begin(), taken.end()};
  }

 private:
  std::span<const uint8_t> rest_;
};

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_FUZZ_INPUT_H_
