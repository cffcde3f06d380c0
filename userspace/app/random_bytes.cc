#include "app/random_bytes.h"

#include <sys/random.h>

#include <cerrno>
#include <system_error>

namespace sluice::app {

void FillRandom(std::span<uint8_t> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = getrandom(bytes.data(), bytes.size(), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw std::system_error(errno, std::generic_category(), "getrandom");
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
}

}  // namespace sluice::app
