// `sluice explain`: what would happen to a packet, asked of the running sluice.
//
// Thread: main.
#ifndef SLUICE_APP_EXPLAIN_H_
#define SLUICE_APP_EXPLAIN_H_

#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>

namespace sluice::app {

struct ExplainOptions {
  std::string control_path;
  std::string interface;
  std::string words;  // the description (control/packet_text/packet_text.h)
  std::optional<std::string> hex;
  std::optional<std::string> pcap;
  uint64_t packet = 1;  // of the file
  bool json = false;
};

// An exit code (run.h).
int Explain(const ExplainOptions& options, std::ostream& out, std::ostream& err);

}  // namespace sluice::app

#endif  // SLUICE_APP_EXPLAIN_H_
