// What can be set: for the stack of a worker (limits, timers), and per socket.
#ifndef SLUICE_TRANSPORT_TCP_CONFIG_H_
#define SLUICE_TRANSPORT_TCP_CONFIG_H_

#include <cstdint>
#include <optional>

#include "base/time.h"
#include "transport/congestion/congestion.h"

namespace sluice::transport {

// Passive: accept ECN when the peer asks for it (what Linux does); active: ask as well (RFC 3168).
enum class EcnMode : uint8_t { kOff, kPassive, kActive };

// Per worker. Everything is allocated for these numbers at the start; behind each stands what
// happens when it is reached. The counters of that are in counters.h.
struct TcpLimits {
  uint32_t connections = 4096;      // the oldest in TIME-WAIT goes. Without one a SYN gets a cookie, or
                                    // is dropped where there are none; for an ACK with a cookie and for
                                    // Connect the oldest half-open one goes; then the ACK is answered
                                    // by a reset, and Connect fails with kNoMemory
  uint32_t half_open = 1024;        // of all listeners together: SYNs get cookies, or are dropped
  uint32_t listeners = 64;          // Listen fails with kNoMemory
  uint32_t time_wait = 2048;        // the oldest in TIME-WAIT goes
  uint32_t orphans = 1024;          // Close of a connection that still has to deliver resets it; by
                                    // memory and time: TcpTimes::orphan
  uint32_t segments = 65536;        // in flight, of all connections: sending waits for ACKs
  uint32_t segments_per_connection = 8192;  // likewise; 16 while less than an eighth of all is left
  uint32_t send_buffers = 32768;    // pieces of data to be sent: Send takes less, or nothing
  uint32_t send_frames = 8192;      // frames among them: likewise
  uint32_t receive_frames = 8192;   // frames with data that nobody has read: segments out of order
                                    // are let go first, then new data is dropped
  uint32_t out_of_order_ranges = 8192;  // of all connections: the segment is dropped
  uint32_t ranges_per_connection = 256;  // likewise
  uint32_t challenge_acks_per_second = 1000;  // RFC 5961 section 7: no more of them
};

struct TcpTimes {
  Nanos initial_rto = Seconds(1);    // RFC 6298 section 2.1
  Nanos min_rto = Millis(200);       // as Linux; RFC 6298 has 1 s
  Nanos max_rto = Seconds(120);
  Nanos delayed_ack = Millis(40);    // RFC 9293: below 500 ms
  Nanos answer_wait = Millis(5);     // what TcpSocketOptions::answers waits for
  Nanos time_wait = Seconds(60);     // 2 MSL, as Linux
  Nanos fin_wait_2 = Seconds(60);    // of a connection that its program has closed
  Nanos orphan = Seconds(60);        // such a connection is reset after that, and after the time that
  uint32_t orphan_least_rate = 16 * 1024;  // its data takes at so many bytes per second
  Nanos orphan_stalled = Seconds(5);  // without progress: reset while memory for sending is short
  Nanos syn_give_up = Seconds(180);  // RFC 9293 section 3.8.3: at least 3 minutes
  Nanos syn_ack_give_up = Seconds(63);
  Nanos data_give_up = Seconds(924);  // what Linux' 15 retries amount to; at least 100 s
  Nanos invalid_ack_interval = Millis(500);  // answers to segments that do not fit, per connection
  Nanos pmtu_aging = Seconds(600);   // RFC 1191 section 6.3
};

// No mark: what the send buffer has room for may wait.
inline constexpr uint32_t kNoLowWater = 0xffff'ffff;

struct TcpConfig {
  TcpLimits limits;
  TcpTimes times;
  uint32_t receive_buffer_initial = 128 * 1024;
  uint32_t receive_buffer_max = 6 * 1024 * 1024;  // decides the window scale
  uint32_t send_buffer_initial = 64 * 1024;
  uint32_t send_buffer_max = 4 * 1024 * 1024;
  uint32_t initial_window = 64 * 1024;  // the first window offered, at most
  uint32_t not_sent_low_water = kNoLowWater;  // of the sockets that set none
  uint16_t base_mss = 1024;             // what is left after a black hole was found (RFC 4821)
  EcnMode ecn = EcnMode::kPassive;
  bool timestamps = true;
  bool sack = true;
  bool window_scaling = true;
  bool syn_cookies = true;
  bool tail_loss_probes = true;    // RFC 8985 section 7
  bool restart_after_idle = true;  // a restart window after an idle RTO (RFC 5681 section 4.1)
  uint8_t ttl = 64;
  // RFC 9406's L: cwnd grows by at most so many segments per ACK in the first slow start, unless the
  // socket paces. 0: no limit, as in Linux, which counts on pacing or a queue below to spread bursts.
  uint8_t slow_start_limit = HyStart::kNonPacedL;
  uint8_t least_burst = 2;   // segments that are sent back to back, at least (tcp_output.cc, BurstSize)
  uint16_t first_port = 32768;  // of connections from here (RFC 6056)
  uint16_t last_port = 60999;
};

struct TcpSocketOptions {
  bool no_delay = false;             // no Nagle (RFC 896)
  bool cork = false;                 // nothing less than a full segment for 200 ms, as TCP_CORK
  bool answers = false;              // what the peer says will be answered soon: the ACK of a message,
                                     // or of a FIN, waits for that (TcpTimes::answer_wait)
  bool pacing = false;               // new data spread over the round trip (where that is > 2 ms)
  bool keepalive = false;            // RFC 9293 section 3.8.4: off unless asked for
  uint8_t keepalive_probes = 9;
  CongestionAlgorithm congestion = CongestionAlgorithm::kCubic;
  bool reset_on_close = false;       // Close() resets, as SO_LINGER with 0
  uint16_t max_segment = 0;          // 0: what the path allows
  std::optional<EcnMode> ecn;        // none: the worker's; counts for the handshake
  uint32_t receive_buffer_max = 0;   // 0: the worker's
  Nanos keepalive_idle = Seconds(7200);
  Nanos keepalive_interval = Seconds(75);
  Nanos user_timeout;                // RFC 5482's local value; zero: data_give_up
  uint32_t send_buffer_max = 0;      // 0: the worker's
  // As TCP_NOTSENT_LOWAT: OnWritable comes when less than half of so many bytes wait to be sent for the
  // first time. Until then sending takes what makes so many, or a burst: half of the largest window that
  // the peer has offered, at most 64 KiB. 0: the worker's.
  uint32_t not_sent_low_water = 0;
};

}  // namespace sluice::transport

#endif  // SLUICE_TRANSPORT_TCP_CONFIG_H_
