// What `sluice show sockets` and `show services` tell. See views.h.
#ifndef SLUICE_TELEMETRY_SERVICE_VIEWS_H_
#define SLUICE_TELEMETRY_SERVICE_VIEWS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "base/counter.h"

namespace sluice::telemetry {

struct LabeledCount {
  std::string label;
  uint64_t count = 0;
};

// As `ss -tinp` has it. Of UDP and listeners only what they have.
struct SocketView {
  std::string protocol;  // tcp, udp
  std::string state;     // LISTEN, ESTABLISHED, ... (RFC 9293); udp: BOUND, CONNECTED
  // Bytes that nobody has read; a listener: connections to be accepted; udp: datagrams.
  uint64_t receive_queue = 0;
  uint64_t send_queue = 0;     // bytes that are not acknowledged; a listener: its backlog
  std::string local;
  std::string remote;
  uint32_t worker = 0;
  std::string service;  // that listens on, or owns, it; empty: not known
  uint32_t mss = 0;
  uint32_t path_mtu = 0;
  uint32_t congestion_window = 0;  // bytes
  uint32_t in_flight = 0;          // bytes
  uint32_t receive_window = 0;     // bytes, as offered
  double rtt_ms = 0;               // 0: no sample
  double rtt_variance_ms = 0;
  double rto_ms = 0;
  uint64_t retransmits = 0;        // segments
  // open, reduced, recovery, loss; spliced: passed on into another connection, whose peer has the rest
  std::string congestion_state;
  double last_data_ms = 0;         // since data came, or since it was established
  double busy_ms = 0;              // with data to send, or that is not acknowledged
  double window_limited_ms = 0;    // of that: the peer's window held it up
  double buffer_limited_ms = 0;    // of that: the program waited for room to write more
};

struct SocketsView {
  uint64_t total = 0;
  bool truncated = false;  // there are more than the limit let through
  std::vector<SocketView> sockets;
};
inline constexpr uint64_t kSocketLimit = 1000;  // what is shown when nobody says
inline constexpr uint64_t kMaxSocketLimit = 100'000;

struct BackendView {
  std::string address;
  uint32_t weight = 1;
  std::string health;        // up, down, mixed (differs by worker), unchecked
  bool removed = false;      // by a reload; its connections live on
  uint64_t connections = 0;  // now
  uint64_t total = 0;
  uint64_t failures = 0;
  uint64_t checks_passed = 0;
  uint64_t checks_failed = 0;
};

// A service's counts, over all workers, as both metrics and views have them.
struct ServiceCounts {
  std::string name;
  std::string kind;
  uint64_t active = 0;  // connections or sessions
  uint64_t accepted = 0;
  uint64_t retries = 0;
  uint64_t bytes_in = 0;
  uint64_t bytes_out = 0;
  uint64_t messages_in = 0;
  uint64_t messages_out = 0;
};

struct ServiceView : ServiceCounts {
  std::string state;  // listening, partly (an address could not be listened on), draining
  std::vector<std::string> listen;
  std::string balance;  // of proxies
  std::vector<LabeledCount> failures;  // those that are not 0
  std::vector<BackendView> backends;
};

}  // namespace sluice::telemetry

#endif  // SLUICE_TELEMETRY_SERVICE_VIEWS_H_
