// Numbers that make a random test longer, or another one, by hand.
#ifndef SLUICE_TESTS_SUPPORT_ENVIRONMENT_H_
#define SLUICE_TESTS_SUPPORT_ENVIRONMENT_H_

#include <cstdint>
#include <cstdlib>

namespace sluice::test {

inline uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* const text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_ENVIRONMENT_H_
