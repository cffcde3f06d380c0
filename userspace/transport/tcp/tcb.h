// One connection: the transmission control block (RFC 9293 section 3.3.1).
//
// Data only; what happens to it is in tcp.h. Names are the RFCs' terms. About 1 KiB, in a slab of
// the worker, with few holes, as memory per connection counts; segments, send and receive buffers are
// elsewhere and are counted where they are.
#ifndef SLUICE_TRANSPORT_TCP_TCB_H_
#define SLUICE_TRANSPORT_TCP_TCB_H_

#include <array>
#include <cstdint>

#include "base/time.h"
#include "transport/common/endpoint.h"
#include "transport/common/slab.h"
#include "transport/congestion/congestion.h"
#include "transport/tcp/config.h"
#include "transport/tcp/events.h"
#include "transport/tcp/prr.h"
#include "transport/tcp/rack.h"
#include "transport/tcp/receive_queue.h"
#include "transport/tcp/rtt.h"
#include "transport/tcp/scoreboard.h"
#include "transport/tcp/send_buffer.h"
#include "transport/tcp/sending_times.h"
#include "transport/tcp/splice.h"
#include "transport/tcp/state.h"
#include "wire/tcp_options.h"
#include "wire/tcp_sequence.h"

namespace sluice::transport {

enum class TcpTimer : uint8_t {
  kRetransmit,  // the RTO, a tail loss probe, or a window probe: Tcb::retransmit_timer says which
  kReorder,     // RACK: what has been overtaken is lost unless it is acknowledged by then
  kDelayedAck,
  kKeepalive,
  kState,       // TIME-WAIT, FIN-WAIT-2
  kPacing,      // the next burst may go
};
inline constexpr size_t kTcpTimerCount = 6;
enum class RetransmitTimer : uint8_t { kNone, kRto, kProbe, kPersist };

// Where the sender stands with losses (what Linux calls the ca_state).
enum class Recovery : uint8_t {
  kOpen,
  kReduced,   // ECN: cwnd comes down, nothing is lost
  kRecovery,  // fast recovery
  kLoss,      // after a retransmission timeout
};

// The search for the path's MTU (RFC 8899 section 5.3), between Tcb::path_mtu, which works, and `high`.
struct PathProbe {
  uint32_t high = 0;  // 0: no search
  uint32_t size = 0;  // of the probe in flight; 0: none
  wire::TcpSeq end;
  uint8_t tries = 0;
  bool used = false;          // path_mtu was found by searching
  bool high_untried = false;  // `high` itself may work
};

enum TcbEvent : uint8_t {
  kEventConnected = 1,
  kEventReadable = 2,
  kEventWritable = 4,
  kEventError = 8,
  kEventSpliceEnded = 16,
};

// A place in a double list of connections.
struct ListLinks {
  uint32_t next = kNoIndex;
  uint32_t previous = kNoIndex;
};

struct Tcb {
  using TcpSeq = wire::TcpSeq;

  Tcb() {}  // NOLINT: there is a union

  Tuple tuple;
  TcpState state = TcpState::kClosed;
  Recovery recovery = Recovery::kOpen;
  RetransmitTimer retransmit_timer = RetransmitTimer::kNone;
  uint32_t generation = 1;  // survives the connection

  // The program's side.
  TcpHandler* handler = nullptr;
  TcpSocketOptions options;
  uint32_t listener = kNoIndex;       // until accepted
  ListLinks of_listener;              // likewise: all that it has
  ListLinks in_list;                  // one of: half-open, accept queue, TIME-WAIT, orphans
  uint32_t partner = kNoIndex;        // Tcp::Join: the other connection
  bool spliced = false;               // the two are one: everything else stays as it was
  SocketError error = SocketError::kNone;
  uint8_t events = 0;                 // TcbEvent, to be told
  bool queued_for_events = false;
  bool waits_for_end = false;         // of the burst
  bool unfinished = false;            // more may be sent, in the next turn
  bool owned = false;                 // a program has it
  bool passive = false;               // began with a SYN from the peer
  bool was_established = false;
  bool wants_writable = false;        // Send has said kWouldBlock
  bool waits_for_memory = false;      // and memory is what it wants
  bool waits_to_write = false;        // ... for Write, which needs little
  bool in_accept_queue = false;
  bool orphan = false;                // closed by its program, and not done
  bool more_to_come = false;          // within SendMore: what is not a full segment waits
  Nanos orphan_progress;              // when it last got rid of something

  // Send sequence variables.
  TcpSeq iss;
  TcpSeq snd_una;
  TcpSeq snd_nxt;
  uint32_t snd_wnd = 0;   // in bytes
  TcpSeq snd_wl1;
  TcpSeq snd_wl2;
  uint32_t max_snd_wnd = 0;
  uint8_t snd_wnd_shift = 0;
  uint8_t rcv_wnd_shift = 0;
  bool fin_queued = false;  // after the data written so far comes a FIN
  bool fin_sent = false;
  TcpSeq snd_small_end;     // the end of the last segment that was not full (Nagle)
  TcpSeq push_seq;          // the end of what Send has written: there belongs a PSH

  // Receive sequence variables.
  TcpSeq irs;
  TcpSeq rcv_nxt;
  TcpSeq rcv_adv;           // the right edge that was offered: RCV.NXT + RCV.WND
  TcpSeq last_ack_sent;     // RFC 7323
  TcpSeq fin_seq;           // of the peer's FIN, while data before it is missing
  bool fin_known = false;
  bool fin_received = false;

  // Segment sizes.
  uint16_t mss = 536;       // payload of a full segment of ours: options taken off
  uint16_t peer_mss = 536;  // what the peer said
  uint16_t advertised_mss = 536;
  uint16_t rcv_mss = 536;   // the largest that came
  uint32_t path_mtu = 1500;
  uint32_t link_mtu = 1500;
  uint32_t snd_buffer_max = 0;
  Nanos path_mtu_expires = Nanos::Max();
  PathProbe path_probe;

  // What was agreed on.
  bool ts_enabled = false;
  bool sack_enabled = false;
  bool ecn_enabled = false;
  uint32_t ts_recent = 0;
  Nanos ts_recent_time;
  uint32_t ts_offset = 0;

  // Acknowledging.
  bool ack_now = false;
  bool ack_pending = false;      // the delayed ACK timer runs
  uint8_t quick_acks = 0;        // so many are not delayed
  bool ecn_echo = false;         // ECE until the peer's CWR (RFC 3168 section 6.1.3)
  bool send_cwr = false;
  wire::TcpSackBlock dsack;      // to be told once; empty: none
  uint32_t copied = 0;           // what the program has read since copied_since
  Nanos last_invalid_ack = Nanos(INT64_MIN / 2);

  // Receive buffer and its tuning.
  uint32_t rcv_buffer = 0;
  uint32_t rcv_buffer_max = 0;
  Nanos copied_since;
  Nanos rcv_rtt;             // round trips as the receiver sees them
  uint32_t rcv_rtt_echo = 0;  // the TSecr that was looked at last
  TcpSeq rcv_rtt_edge;       // without timestamps: a window, timed
  Nanos rcv_rtt_begin;

  // Loss and congestion.
  RttEstimator rtt;
  union {  // congestion is controlled by the peers where it is spliced
    CongestionControl congestion = CongestionControl();
    SpliceSide side;
  };
  Rack rack;
  Prr prr;
  TcpSeq recovery_point;    // SND.NXT when the reduction began
  uint32_t dup_acks = 0;    // without SACK
  uint32_t most_out = 0;
  TcpSeq usage_end;         // of that flight
  uint32_t undo_ts = 0;           // TSval of the first retransmission since the reduction
  // What the last ACK with SACK blocks has told, from segment to segment: what is told again costs nothing.
  std::array<wire::TcpSackBlock, wire::TcpOptions::kMaxSackBlocks> sack_told{};
  uint32_t undo_retransmits = 0;  // of them, not yet shown by D-SACK to have been needless
  TcpSeq tlp_end_seq;
  Nanos pacing_next;        // when the next burst may go
  Nanos last_sent;
  Nanos last_received;
  Nanos last_data_received;  // or, without any, when it was established
  SendingTimes sending;
  Nanos first_unanswered = Nanos::Max();  // since when nothing of ours is acknowledged
  uint32_t retransmitted = 0;     // segments, since the beginning
  uint8_t timeouts_in_a_row = 0;
  uint8_t keepalives_unanswered = 0;
  uint8_t persist_backoff = 0;
  bool undo_possible = false;
  bool undo_ts_valid = false;
  bool tlp_in_flight = false;
  bool tlp_is_retransmission = false;
  // Whether the window was in use, in this flight of data: more waited for it, or by how much was out.
  bool cwnd_limited = false;

  Scoreboard scoreboard;
  SendBuffer send;
  ReceiveQueue receive;

  std::array<Nanos, kTcpTimerCount> deadlines{};
  Nanos wheel_deadline = Nanos::Max();

  uint32_t Flight() const { return snd_nxt - snd_una; }
  // The end of what the program has written; a FIN comes after it.
  TcpSeq write_end() const { return send.end(); }
  // What of it has not been sent.
  uint32_t Unsent() const {
    return snd_nxt.Before(write_end()) ? write_end() - snd_nxt : 0;
  }
  uint32_t OfferedWindow() const { return rcv_adv.After(rcv_nxt) ? rcv_adv - rcv_nxt : 0; }
  bool EverythingAcked() const { return snd_una == snd_nxt; }
};

}  // namespace sluice::transport

#endif  // SLUICE_TRANSPORT_TCP_TCB_H_
