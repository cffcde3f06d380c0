// What systemd is told (sd_notify). All of it does nothing when systemd did not start the process.
//
// Thread: the control thread.
#ifndef SLUICE_APP_NOTIFY_H_
#define SLUICE_APP_NOTIFY_H_

#include <optional>
#include <string_view>

#include "base/time.h"

namespace sluice::app {

void NotifyReady();
void NotifyReloading();  // followed by NotifyReady when the reload is over, also when it failed
void NotifyStopping();
void NotifyWatchdog();
void NotifyStatus(std::string_view text);  // one line, shown by `systemctl status`

// How often NotifyWatchdog must be called (half of what systemd waits); none: never.
std::optional<Nanos> WatchdogInterval();

}  // namespace sluice::app

#endif  // SLUICE_APP_NOTIFY_H_
