// What systemd is told (sd_notify). All of it does nothing when systemd did not start the process.
//
// Thread: the control thread.
#ifndef SLUICE_APP_NOTIFY_H_
#define SLUICE_APP_NOTIFY_H_

#include <string_view>

namespace sluice::app {

void NotifyReady();
void NotifyReloading();  // followed by NotifyReady when the reload is over, also when it failed
void NotifyStopping();
void NotifyWatchdog();  // every second; a unit's WatchdogSec= is what it may take at the most
void NotifyStatus(std::string_view text);  // one line, shown by `systemctl status`

}  // namespace sluice::app

#endif  // SLUICE_APP_NOTIFY_H_
