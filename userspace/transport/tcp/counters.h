// What the TCP of one worker counts. Written by the worker, read by anyone.
//
// Segments that end in a drop are counted by their reason by whoever is given the verdict
// (base/drop_reasons.inc); this is about connections and what was done.
#ifndef SLUICE_TRANSPORT_TCP_COUNTERS_H_
#define SLUICE_TRANSPORT_TCP_COUNTERS_H_

#include <array>

#include "base/counter.h"
#include "base/time.h"
#include "transport/tcp/state.h"

namespace sluice::transport {

// Upper ends of the buckets of round trips; one more holds the rest.
inline constexpr std::array<Nanos, 14> kRoundTripBounds = {
    Micros(50), Micros(100), Micros(250), Micros(500), Millis(1),   Micros(2500), Millis(5),
    Millis(10), Millis(25),  Millis(50),  Millis(100), Millis(250), Millis(500),  Seconds(1)};

struct TcpCounters {
  std::array<Counter, kTcpStateCount> states;  // gauges: connections; kClosed has no meaning
  std::array<Counter, kRoundTripBounds.size() + 1> round_trips;  // samples; each bucket by itself
  Counter round_trip_ns;                                         // the sum of them
  Counter segments_received;
  Counter segments_sent;
  Counter segments_retransmitted;
  Counter resets_sent;
  Counter resets_of_strangers;    // of them: for segments of no connection
  Counter resets_received;
  Counter connections_opened;     // from here
  Counter connections_accepted;   // handshakes finished by a peer
  Counter connections_failed;     // ended before the handshake did
  Counter timeouts;               // of the retransmission timer
  Counter tail_loss_probes;
  Counter fast_recoveries;
  Counter undone;                 // losses that were none
  Counter zero_window_probes;
  Counter keepalive_probes;
  Counter challenge_acks;
  Counter challenge_acks_limited;  // not sent because of the limit
  Counter syn_cookies_sent;
  Counter syn_cookies_accepted;
  Counter syn_cookies_rejected;
  Counter time_wait_reused;       // by a new connection with the same addresses and ports
  Counter ecn_reductions;
  Counter splices;                // pairs of connections that became one
  Counter segments_spliced;       // passed on by them; received and sent too
  Counter path_mtu_changes;
  Counter path_probes;            // segments that tried a larger path MTU
  Counter black_holes;            // paths found to lose large segments without a word
  // Limits.
  Counter no_connection;   // a SYN dropped, a cookie's ACK reset, or Connect refused
  Counter half_open_evicted;
  Counter time_wait_evicted;
  Counter orphans_reset;        // at the limit of their number,
  Counter orphans_timed_out;    // ... of their time,
  Counter orphans_for_memory;   // ... or while memory for sending was short
  Counter accept_queue_full;
  Counter no_segment;      // sending waited for a place in the scoreboard
  Counter no_send_buffer;
  Counter no_frame;        // no free frame for a segment of ours
  Counter receive_pruned;  // segments out of order let go for want of frames
  Counter receive_refused;  // data dropped for want of frames, ranges or window
};

}  // namespace sluice::transport

#endif  // SLUICE_TRANSPORT_TCP_COUNTERS_H_
