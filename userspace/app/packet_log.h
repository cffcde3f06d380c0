// A packet that an nft `log` statement named, as a line: its prefix, then the fields of the kernel's
// own log (net/netfilter/nf_log_syslog.c), so that what reads those reads these.
//
// Thread: any; no state.
#ifndef SLUICE_APP_PACKET_LOG_H_
#define SLUICE_APP_PACKET_LOG_H_

#include <string>
#include <string_view>

#include "stages/filter/filter.h"

namespace sluice::app {

// `in` and `out` are names of interfaces, empty where there is none.
std::string FormatLoggedPacket(const stages::LogRecord& record, std::string_view prefix,
                               std::string_view in, std::string_view out);

}  // namespace sluice::app

#endif  // SLUICE_APP_PACKET_LOG_H_
