#include "stages/conntrack/tcp_window.h"

#include <algorithm>

#include "wire/tcp.h"

namespace sluice::stages {

using tables::FlowDirection;
using tables::TcpPeer;
using tables::TcpState;
using tables::TcpTracking;

namespace {

constexpr uint32_t kMinAckWindow = 66'000;

// The two sides as seen from the segment, and its numbers, which are adjusted on the way.
struct View {
  TcpTracking& tcp;
  size_t from;
  size_t to;
  uint32_t sequence;
  uint32_t end;
  uint32_t ack;
  uint32_t sack;

  TcpPeer& sender() const { return tcp.peers[from]; }
  TcpPeer& receiver() const { return tcp.peers[to]; }
  uint8_t& sender_flags() const { return tcp.flags[from]; }
  uint8_t& receiver_flags() const { return tcp.flags[to]; }
};

// From a SYN or SYN-ACK: sequence, window (never scaled here) and options.
void BeginSender(View& v, const TcpSegment& s) {
  TcpPeer& sender = v.sender();
  sender.end = sender.max_end = s.end;
  sender.max_window = std::max<uint32_t>(s.window, 1);
  if (!s.options.empty()) {
    const TcpSynOptions options = ReadSynOptions(s);
    v.tcp.scales[v.from] = options.scale;
    v.sender_flags() = static_cast<uint8_t>((v.sender_flags() & tables::kTcpBeLiberal) |
                                            options.flags);
  }
  // Scaling needs both sides (RFC 7323 section 2.2); known with the reply's.
  if (v.from == static_cast<size_t>(FlowDirection::kReply) &&
      (v.tcp.flags[0] & v.tcp.flags[1] & tables::kTcpWindowScale) == 0) {
    v.tcp.scales = {};
  }
}

// A sender of which nothing is known yet, in the middle of a connection.
void GuessSender(View& v, const TcpSegment& s) {
  TcpPeer& sender = v.sender();
  TcpPeer& receiver = v.receiver();
  sender.end = s.end;
  sender.max_window = std::max<uint32_t>(uint32_t{s.window} << v.tcp.scales[v.from], 1);
  sender.max_end = s.end + sender.max_window;
  if (receiver.max_window == 0) {
    receiver.end = receiver.max_end = v.sack;
  } else if (v.sack == receiver.end + 1) {
    ++receiver.end;  // the answer to a keep-alive probe
  }
}

// True: the segment needs no check.
bool LearnSender(View& v, const TcpSegment& s) {
  const bool syn = s.Has(wire::kTcpSyn);
  const bool ack = s.Has(wire::kTcpAck);
  const auto state = static_cast<TcpState>(v.tcp.state);
  if (v.sender().max_window == 0) {
    if (!syn) {
      GuessSender(v, s);
      return false;
    }
    BeginSender(v, s);
    return !ack;  // a simultaneous open
  }
  if (syn && SequenceAfter(s.end, v.sender().end) &&
      (state == TcpState::kSynSent || state == TcpState::kSynReceived)) {
    // Another attempt, with numbers of its own (RFC 9293 section 3.4.3).
    BeginSender(v, s);
    return v.from == static_cast<size_t>(FlowDirection::kReply) && !ack;
  }
  return false;
}

uint32_t AckWindow(const TcpPeer& sender) { return std::max(sender.max_window, kMinAckWindow); }

WindowCheck CheckBounds(View& v) {
  TcpPeer& sender = v.sender();
  const TcpPeer& receiver = v.receiver();
  const bool ends_in_window =
      SequenceAfter(v.end, sender.end - receiver.max_window - 1);                      // II
  const bool acks_known = SequenceBefore(v.sack, receiver.end + 1);                    // III
  const bool acks_recent = SequenceAfter(v.sack, receiver.end - AckWindow(sender) - 1);  // IV
  if (!SequenceBefore(v.sequence, sender.max_end + 1)) {                               // I
    const uint32_t overshot = v.end - sender.max_end + 1;
    if (receiver.max_window != 0 && ends_in_window && acks_recent && acks_known &&
        overshot <= receiver.max_window) {
      // The rules may let it pass, and then it will be acknowledged: that must not be invalid.
      sender.end = v.end;
      v.sender_flags() |= tables::kTcpDataUnacknowledged;
      return WindowCheck::kIgnore;
    }
    return WindowCheck::kInvalid;
  }
  if (!acks_known) return WindowCheck::kInvalid;
  if (receiver.max_window != 0 && !ends_in_window) return WindowCheck::kIgnore;
  return acks_recent ? WindowCheck::kAccept : WindowCheck::kIgnore;
}

void UpdateSender(View& v, bool has_ack, uint32_t window) {
  TcpPeer& sender = v.sender();
  sender.max_window = std::max(sender.max_window, window + (v.sack - v.ack));
  if (SequenceAfter(v.end, sender.end)) {
    sender.end = v.end;
    v.sender_flags() |= tables::kTcpDataUnacknowledged;
  }
  if (!has_ack) return;
  const bool known = (v.sender_flags() & tables::kTcpMaxAckSet) != 0;
  if (!known || SequenceAfter(v.ack, sender.max_ack)) sender.max_ack = v.ack;
  v.sender_flags() |= tables::kTcpMaxAckSet;
}

void UpdateReceiver(View& v, uint32_t window) {
  TcpPeer& receiver = v.receiver();
  const TcpPeer& sender = v.sender();
  if (receiver.max_window != 0 && SequenceAfter(v.end, sender.max_end)) {
    receiver.max_window += v.end - sender.max_end;
  }
  if (SequenceAfter(v.sack + window, receiver.max_end - 1)) {
    receiver.max_end = v.sack + std::max<uint32_t>(window, 1);
  }
  if (v.ack == receiver.end) {
    v.receiver_flags() &= static_cast<uint8_t>(~tables::kTcpDataUnacknowledged);
  }
}

void CountRetransmissions(View& v, const TcpSegment& s) {
  TcpTracking& tcp = v.tcp;
  if (tcp.last_direction == v.from && tcp.last_sequence == v.sequence && tcp.last_ack == v.ack &&
      tcp.last_end == v.end && tcp.last_window == s.window) {
    ++tcp.retransmissions;
    return;
  }
  tcp.last_direction = static_cast<uint8_t>(v.from);
  tcp.last_sequence = v.sequence;
  tcp.last_ack = v.ack;
  tcp.last_end = v.end;
  tcp.last_window = s.window;
  tcp.retransmissions = 0;
}

}  // namespace

WindowCheck CheckTcpWindow(TcpTracking& tcp, FlowDirection direction, const TcpSegment& s,
                           bool be_liberal) {
  View v{tcp,        static_cast<size_t>(direction), static_cast<size_t>(Opposite(direction)),
         s.sequence, s.end,                          s.acknowledgment,
         s.acknowledgment};
  if ((v.receiver_flags() & tables::kTcpSackPermitted) != 0) v.sack = HighestSack(s, v.ack);
  if (LearnSender(v, s)) return WindowCheck::kAccept;

  const bool has_ack = s.Has(wire::kTcpAck);
  const bool rst = s.Has(wire::kTcpRst);
  // Some set ACK in an RST and leave the number zero.
  if (!has_ack || (rst && v.ack == 0)) v.ack = v.sack = v.receiver().end;
  // The answer to a SYN.
  if (rst && v.sequence == 0 && static_cast<TcpState>(tcp.state) == TcpState::kSynSent) {
    v.sequence = v.end = v.sender().end;
  }

  const WindowCheck check = CheckBounds(v);
  if (check != WindowCheck::kAccept) {
    const bool liberal = be_liberal || (v.sender_flags() & tables::kTcpBeLiberal) != 0;
    return liberal ? WindowCheck::kAccept : check;
  }
  const uint32_t window =
      s.Has(wire::kTcpSyn) ? s.window : uint32_t{s.window} << tcp.scales[v.from];
  UpdateSender(v, has_ack, window);
  UpdateReceiver(v, window);
  if (s.kind == SegmentKind::kAck) CountRetransmissions(v, s);
  return WindowCheck::kAccept;
}

void ForgetTcpWindows(TcpTracking& tcp) {
  for (size_t i = 0; i < 2; ++i) {
    tcp.peers[i].max_window = 0;
    tcp.flags[i] &= static_cast<uint8_t>(~(tables::kTcpMaxAckSet | tables::kTcpDataUnacknowledged));
    tcp.flags[i] |= tables::kTcpBeLiberal;
  }
  tcp.retransmissions = 0;
}

void BeginTcpWindow(TcpTracking& tcp, const TcpSegment& s) {
  tcp = TcpTracking{};
  tcp.last_kind = static_cast<uint8_t>(SegmentKind::kNone);
  TcpPeer& sender = tcp.peers[0];
  sender.end = sender.max_end = s.end;
  sender.max_window = std::max<uint32_t>(s.window, 1);
  if (s.kind == SegmentKind::kSyn) {
    const TcpSynOptions options = ReadSynOptions(s);
    tcp.scales[0] = options.scale;
    tcp.flags[0] = options.flags;
    return;
  }
  sender.max_end += sender.max_window;
  tcp.flags[0] = tcp.flags[1] = tables::kTcpSackPermitted | tables::kTcpBeLiberal;
}

}  // namespace sluice::stages
