#include "app/notify.h"

#include <systemd/sd-daemon.h>
#include <time.h>

#include <algorithm>
#include <cstdint>
#include <string>

namespace sluice::app {
namespace {

// Returns 0 when there is nobody to tell. A manager that cannot be reached is not our failure: it
// will notice by its own time-outs.
void Notify(const std::string& state) { static_cast<void>(sd_notify(0, state.c_str())); }

}  // namespace

void NotifyReady() { Notify("READY=1"); }

void NotifyReloading() {
  // MONOTONIC_USEC is what Type=notify-reload wants (systemd 253 and later).
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  const int64_t usec = int64_t{now.tv_sec} * 1'000'000 + now.tv_nsec / 1'000;
  Notify("RELOADING=1\nMONOTONIC_USEC=" + std::to_string(usec));
}

void NotifyStopping() { Notify("STOPPING=1"); }
void NotifyWatchdog() { Notify("WATCHDOG=1"); }

void NotifyStatus(std::string_view text) {
  std::string line(text);
  std::replace(line.begin(), line.end(), '\n', ' ');
  Notify("STATUS=" + line);
}

}  // namespace sluice::app
