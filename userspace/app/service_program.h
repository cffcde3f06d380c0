// What runs on one worker's sockets: its services, and the ring by which they ask for pages.
//
// Only for service_control.cc and service_views.cc. Thread: the worker's, but for `pages`, which the
// control thread empties, and `set.counters()`.
#ifndef SLUICE_APP_SERVICE_PROGRAM_H_
#define SLUICE_APP_SERVICE_PROGRAM_H_

#include <sys/eventfd.h>

#include <utility>

#include "app/clock.h"
#include "app/random_bytes.h"
#include "app/service_control.h"
#include "base/spsc_ring.h"
#include "dataplane/local_sockets.h"

namespace sluice::app {

class ServiceControl::Program final : public dataplane::SocketProgram,
                                      private services::PageSource {
 public:
  static constexpr size_t kPages = 256;  // that wait at a time; more clients are told to come again

  Program(transport::Transport& stack, const services::ServiceLimits& limits, int fd)
      : pages(kPages),
        fd_(fd),
        set(stack, limits, *this,
            {.seed = RandomValue<uint64_t>(), .key = RandomValue<transport::HashKey>()},
            MonotonicNow()) {}

  void OnTimer(Nanos now) override { set.OnTimer(now); }
  Nanos NextDeadline() const override { return set.NextDeadline(); }

  SpscRing<uint64_t> pages;

 private:
  bool Request(uint64_t token) override {
    if (!pages.TryPush(std::move(token))) return false;
    [[maybe_unused]] const int ignored = eventfd_write(fd_, 1);
    return true;
  }

  const int fd_;

 public:
  services::ServiceSet set;
};

}  // namespace sluice::app

#endif  // SLUICE_APP_SERVICE_PROGRAM_H_
