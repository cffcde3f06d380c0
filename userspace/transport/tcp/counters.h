// What the TCP of one worker counts. Written by the worker, read by anyone.
//
// Segments that end in a drop are counted by their reason by whoever is given the verdict
// (base/drop_reasons.inc); this is about connections and what was done.
#ifndef SLUICE_TRANSPORT_TCP_COUNTERS_H_
#define SLUICE_TRANSPORT_TCP_COUNTERS_H_

#include "base/counter.h"

namespace sluice::transport {

struct TcpCounters {
  Counter segments_received;
  Counter segments_sent;
  Counter segments_retransmitted;
  Counter resets_sent;
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
  Counter path_mtu_changes;
  Counter path_probes;            // segments that tried a larger path MTU
  Counter black_holes;            // paths found to lose large segments without a word
  // Limits.
  Counter no_connection;   // a SYN dropped, or Connect refused
  Counter time_wait_evicted;
  Counter orphans_reset;
  Counter accept_queue_full;
  Counter no_segment;      // sending waited for a place in the scoreboard
  Counter no_send_buffer;
  Counter no_frame;        // no free frame for a segment of ours
  Counter receive_pruned;  // segments out of order let go for want of frames
  Counter receive_refused;  // data dropped for want of frames, ranges or window
};

}  // namespace sluice::transport

#endif  // SLUICE_TRANSPORT_TCP_COUNTERS_H_
