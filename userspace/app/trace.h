// `sluice trace`: live packets and what becomes of them, until interrupted.
//
// Thread: main.
#ifndef SLUICE_APP_TRACE_H_
#define SLUICE_APP_TRACE_H_

#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>

namespace sluice::app {

struct TraceOptions {
  std::string control_path;
  std::string filter;  // pcap's syntax; empty: every packet
  std::optional<uint64_t> limit;
  bool json = false;
};

// An exit code (run.h). Ends after `limit` packets, when the output cannot be written any more, or
// when sluice ends.
int Trace(const TraceOptions& options, std::ostream& out, std::ostream& err);

}  // namespace sluice::app

#endif  // SLUICE_APP_TRACE_H_
