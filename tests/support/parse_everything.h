// Calls every parser of userspace/wire on some bytes, and every accessor of each view that it
// yields, as a frame would be walked and also directly. For truncation tests and fuzzing under a
// sanitizer: whatever the bytes, nothing outside of them may be read.
#ifndef SLUICE_TESTS_SUPPORT_PARSE_EVERYTHING_H_
#define SLUICE_TESTS_SUPPORT_PARSE_EVERYTHING_H_

#include <cstdint>
#include <span>

namespace sluice::test {

// Returns a digest of all that was read, so that no call can be optimised away and two runs
// compare.
uint64_t ParseEverything(std::span<const uint8_t> bytes);

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_PARSE_EVERYTHING_H_
