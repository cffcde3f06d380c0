// What a `log` statement of a rule prints: a line in the form that the kernel's own has (the fields
// and their order are those of net/netfilter/nf_log_syslog.c), so that whatever reads firewall logs
// reads Sluice's.
//
//   drop: IN=lan0 OUT=wan0 SRC=10.0.0.5 DST=1.1.1.1 LEN=60 TOS=0x00 PREC=0x00 TTL=63 ID=1 DF
//   PROTO=TCP SPT=40000 DPT=443 WINDOW=64240 RES=0x00 SYN URGP=0 MARK=0x1
//
// Left out: MAC= (a rule's record begins at the IP header), TCP sequence numbers, options and the
// user's id (which nft asks for by `log flags`).
//
// Thread: any; no state.
#ifndef SLUICE_APP_PACKET_LOG_H_
#define SLUICE_APP_PACKET_LOG_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "app/log.h"
#include "stages/filter/filter.h"

namespace sluice::app {

struct PacketLogEntry {
  std::string_view prefix;
  std::string_view in;   // names; empty: none
  std::string_view out;
  std::span<const uint8_t> l3;  // from the IP header on, as much as was kept
  uint32_t l3_length = 0;       // of the whole packet
  uint32_t mark = 0;
};

// One line, without its end; control characters of the prefix are replaced.
std::string FormatLogLine(const PacketLogEntry& entry);

// Of a record that a rule has made; `in` and `out` are names, empty where there is none.
inline std::string FormatLoggedPacket(const stages::LogRecord& record, std::string_view prefix,
                                      std::string_view in, std::string_view out) {
  return FormatLogLine({.prefix = prefix,
                        .in = in,
                        .out = out,
                        .l3 = std::span(record.l3).first(record.captured),
                        .l3_length = record.l3_length,
                        .mark = record.mark});
}

// Of the syslog level that the statement gives (0 emerg to 7 debug; nft's default is 4, warn).
LogLevel LogLevelOf(uint32_t syslog_level);

}  // namespace sluice::app

#endif  // SLUICE_APP_PACKET_LOG_H_
