// SYNs: what a listener makes of segments, cookies, SYN-SENT, and what is agreed on.
#include <algorithm>
#include <bit>

#include "transport/common/datagram.h"
#include "transport/tcp/tcp.h"
#include "wire/tcp_segment.h"

namespace sluice::transport {

namespace {

// As Linux (TCP_MIN_MSS): a peer that says less would have us send headers only.
constexpr uint16_t kLeastMss = 88;

// RFC 9293 section 3.7.1, when the peer does not say.
constexpr uint16_t DefaultMss(bool v4) { return v4 ? 536 : 1220; }

// A cookie is only looked at while some can be under way (their life is two minutes).
constexpr Nanos kCookieLife = Seconds(120);

}  // namespace

uint32_t Tcp::FindListener(const Endpoint& local) const {
  const auto key_of = [&](uint32_t i) { return listeners_[i].Key(); };
  const uint32_t exact = listener_table_.Find({local, {}}, key_of);
  if (exact != kNoIndex) return exact;
  Endpoint any = local;
  any.address.bits = {};
  return listener_table_.Find({any, {}}, key_of);
}

// The smallest shift with which the largest window of the buffer can be told (RFC 7323 section 2.3).
uint8_t Tcp::WindowShift(const TcpSocketOptions& options) const {
  const int bits = std::bit_width(ReceiveBufferMax(options));
  return static_cast<uint8_t>(std::clamp(bits - 16, 0, int{wire::TcpOptions::kMaxWindowScale}));
}

uint16_t Tcp::AdvertisedMss(const TcpSocketOptions& options, uint32_t mtu, bool v4) const {
  const auto most = static_cast<uint16_t>(std::min<uint32_t>(mtu, 65535) - IpHeaderSize(v4) -
                                          wire::TcpView::kMinSize);
  return options.max_segment != 0 ? std::min(most, options.max_segment) : most;
}

uint32_t Tcp::FirstWindow(const TcpSocketOptions& options) const {
  return std::min({config_.receive_buffer_initial, ReceiveBufferMax(options),
                   config_.initial_window, uint32_t{65535}});
}

wire::TcpOptions Tcp::SynOptions(const Tcb& t, Nanos now) const {
  wire::TcpOptions o;
  o.mss = t.advertised_mss;
  const bool answer = t.state == TcpState::kSynReceived;
  // An answer agrees to what the SYN has offered, and offers nothing else.
  o.has_timestamps = answer ? t.ts_enabled : config_.timestamps;
  if (o.has_timestamps) {
    o.ts_value = TsNow(t, now);
    o.ts_echo_reply = answer ? t.ts_recent : 0;
  }
  o.sack_permitted = answer ? t.sack_enabled : config_.sack;
  o.has_window_scale = answer ? t.rcv_wnd_shift > 0 || t.snd_wnd_shift > 0
                              : config_.window_scaling;
  o.window_scale = t.rcv_wnd_shift;
  return o;
}

void Tcp::AgreeOnOptions(Tcb& t, const wire::TcpOptions& o) {
  t.peer_mss = std::max(o.mss != 0 ? o.mss : DefaultMss(t.tuple.is_v4()), kLeastMss);
  t.ts_enabled = config_.timestamps && o.has_timestamps;
  t.sack_enabled = config_.sack && o.sack_permitted;
  if (config_.window_scaling && o.has_window_scale) {
    t.snd_wnd_shift = o.window_scale;
  } else {
    t.snd_wnd_shift = t.rcv_wnd_shift = 0;
  }
  UpdateMss(t);
  // RFC 9406 section 4.2: with pacing no ACK is too large to grow by.
  t.congestion.Start(t.options.congestion, t.mss,
                     t.options.pacing ? HyStart::kNoLimit : config_.slow_start_limit);
}

bool Tcp::SendSyn(Tcb& t, Nanos now) {
  t.iss = t.snd_una = t.snd_nxt;
  t.send.Start(t.iss + 1);
  t.rack.Start(t.iss);
  t.snd_small_end = t.push_seq = t.usage_end = t.iss;
  if (!t.scoreboard.Append(segments_, t.iss, 1, kTxSyn, now)) {
    counters_.no_segment.Add();
    return false;
  }
  t.snd_nxt = t.iss + 1;
  t.first_unanswered = now;
  uint8_t flags = wire::kTcpSyn;
  if (t.state == TcpState::kSynReceived) flags |= wire::kTcpAck;
  Transmit(t, t.iss, 0, flags, false, now);
  RestartRetransmitTimer(t, now);
  return true;
}

Tcp::Disposition Tcp::OnListenerSegment(uint32_t listener, Segment& s, Nanos now, Tcb*& made) {
  // Section 3.10.7.2: RST first, then ACK, then SYN.
  if (s.Has(wire::kTcpRst)) return DropReason::kTcpBadReset;
  if (s.Has(wire::kTcpAck)) return OnCookieAck(listener, s, now, made);
  if (!s.Has(wire::kTcpSyn)) return DropReason::kTcpNoConnection;
  return OnSyn(listener, s, {}, now);
}

Tcp::Disposition Tcp::OnSyn(uint32_t listener_index, const Segment& s,
                            std::optional<TcpSeq> iss, Nanos now) {
  TcpListener& listener = listeners_[listener_index];
  if (s.Has(wire::kTcpFin)) return DropReason::kTcpHeader;  // nobody means that
  if (listener.waiting >= listener.backlog) {
    counters_.accept_queue_full.Add();
    return DropReason::kTcpBacklogFull;
  }
  const bool may_wait =
      listener.half_open < listener.backlog && half_open_ < config_.limits.half_open;
  Tcb* const t = may_wait ? Make(s.tuple, listener.options, false, now) : nullptr;
  if (t == nullptr) {
    if (config_.syn_cookies) {
      SendCookie(listener, s, now);
      return {};
    }
    counters_.no_connection.Add();
    return DropReason::kTcpBacklogFull;
  }
  JoinListener(*t, listener_index);
  SetState(*t, TcpState::kSynReceived);
  t->irs = s.seq;
  t->rcv_nxt = t->last_ack_sent = s.seq + 1;
  t->rcv_adv = t->rcv_nxt;
  AgreeOnOptions(*t, s.options);
  t->ts_recent = s.options.ts_value;
  t->ts_recent_time = now;
  t->ecn_enabled =
      EcnOf(t->options) != EcnMode::kOff && s.Has(wire::kTcpEce) && s.Has(wire::kTcpCwr);
  t->snd_wnd = t->max_snd_wnd = s.window;
  t->snd_nxt = iss.value_or(secrets_.InitialSequence(s.tuple, now));
  if (!SendSyn(*t, now)) {
    Fail(*t, SocketError::kNoMemory);
    return DropReason::kTcpBacklogFull;
  }
  return {};
}

void Tcp::SendCookie(TcpListener& listener, const Segment& s, Nanos now) {
  // A connection that is forgotten as soon as its SYN-ACK is written.
  IpLayer::Path path;
  if (!ip_.FindPath(s.tuple.remote.address, path)) return;
  const bool v4 = s.tuple.is_v4();
  const uint16_t mss = std::max(s.options.mss != 0 ? s.options.mss : DefaultMss(v4), kLeastMss);
  const bool ecn =
      EcnOf(listener.options) != EcnMode::kOff && s.Has(wire::kTcpEce) && s.Has(wire::kTcpCwr);
  wire::TcpOptions o;
  o.mss = AdvertisedMss(listener.options, path.mtu, v4);
  if (s.options.has_timestamps && config_.timestamps) {
    // Only the timestamp can carry what else was agreed on.
    const uint32_t now_ms = static_cast<uint32_t>(now / Millis(1));
    o.has_timestamps = true;
    o.sack_permitted = s.options.sack_permitted && config_.sack;
    o.has_window_scale = s.options.has_window_scale && config_.window_scaling;
    o.window_scale = WindowShift(listener.options);
    o.ts_value = TcpSecrets::CookieTimestamp(
        now_ms + secrets_.TimestampOffset(s.tuple),
        {o.has_window_scale, s.options.window_scale, o.sack_permitted, ecn});
    o.ts_echo_reply = s.options.ts_value;
  }
  const auto size = static_cast<uint32_t>(wire::TcpView::kMinSize + wire::TcpOptionsLength(o));
  packet::Packet p;
  if (!BeginDatagram(frames_, s.tuple, wire::kProtocolTcp, size, {.ttl = config_.ttl}, p)) {
    counters_.no_frame.Add();
    return;
  }
  const uint8_t flags = static_cast<uint8_t>(wire::kTcpSyn | wire::kTcpAck |
                                             (ecn && o.has_timestamps ? wire::kTcpEce : 0));
  wire::EmitTcpHeader({p.l4(), size},
                      {s.tuple.local.port, s.tuple.remote.port,
                       secrets_.MakeCookie(s.tuple, s.seq, mss, now), s.seq + 1, flags,
                       static_cast<uint16_t>(FirstWindow(listener.options))},
                      o);
  wire::FillTcpChecksum({p.l4(), size},
                        PseudoSumOf(s.tuple.local.address, s.tuple.remote.address,
                                    wire::kProtocolTcp, size));
  listener.last_cookie = now;
  counters_.syn_cookies_sent.Add();
  counters_.segments_sent.Add();
  ip_.Output(p, now);
}

Tcp::Disposition Tcp::OnCookieAck(uint32_t listener_index, Segment& s, Nanos now, Tcb*& made) {
  TcpListener& listener = listeners_[listener_index];
  const bool possible = !s.Has(wire::kTcpSyn) && now - listener.last_cookie < kCookieLife;
  const TcpSeq irs = s.seq - 1;
  const auto mss = possible ? secrets_.CheckCookie(s.tuple, irs, s.ack - 1, now)
                            : std::optional<uint16_t>();
  if (!mss) {
    if (possible) counters_.syn_cookies_rejected.Add();
    ResetFor(s, now);
    return DropReason::kTcpNoConnection;
  }
  if (listener.waiting >= listener.backlog) {
    // The peer sends again, and the cookie is still good.
    counters_.accept_queue_full.Add();
    return DropReason::kTcpBacklogFull;
  }
  Tcb* const t = Make(s.tuple, listener.options, true, now);
  if (t == nullptr) {
    // The peer believes that it is connected.
    counters_.no_connection.Add();
    ResetFor(s, now);
    return DropReason::kTcpBacklogFull;
  }
  counters_.syn_cookies_accepted.Add();
  JoinListener(*t, listener_index);
  SetState(*t, TcpState::kSynReceived);
  t->irs = irs;
  t->rcv_nxt = t->last_ack_sent = s.seq;
  wire::TcpOptions agreed;
  agreed.mss = *mss;
  if (s.options.has_timestamps) {
    const auto o = TcpSecrets::OptionsOfTimestamp(s.options.ts_echo_reply);
    agreed.has_timestamps = true;
    agreed.sack_permitted = o.sack_permitted;
    agreed.has_window_scale = o.has_window_scale;
    agreed.window_scale = o.window_scale;
    t->ecn_enabled = EcnOf(t->options) != EcnMode::kOff && o.ecn;
  }
  AgreeOnOptions(*t, agreed);
  t->ts_recent = s.options.ts_value;
  t->ts_recent_time = now;
  t->rcv_adv = t->rcv_nxt + FirstWindow(listener.options);
  t->iss = s.ack - 1;
  t->snd_una = t->iss;
  t->snd_nxt = t->iss + 1;
  t->snd_small_end = t->push_seq = t->usage_end = t->iss;
  t->send.Start(t->snd_nxt);
  t->rack.Start(t->iss);
  t->scoreboard.Append(segments_, t->iss, 1, kTxSyn | kTxEverRetransmitted, now);
  t->max_snd_wnd = 65535;
  made = t;
  return OnSynchronized(*t, s, now);
}

// Section 3.10.7.3.
Tcp::Disposition Tcp::OnSynSent(Tcb& t, Segment& s, Nanos now) {
  const bool has_ack = s.Has(wire::kTcpAck);
  if (has_ack && (s.ack.AtOrBefore(t.iss) || s.ack.After(t.snd_nxt))) {
    if (!s.Has(wire::kTcpRst)) ResetFor(s, now);
    return DropReason::kTcpBadAck;
  }
  if (s.Has(wire::kTcpRst)) {
    if (!has_ack) return DropReason::kTcpBadReset;
    counters_.resets_received.Add();
    Fail(t, SocketError::kRefused);
    return {};
  }
  if (!s.Has(wire::kTcpSyn)) return DropReason::kTcpNoConnection;
  t.irs = s.seq;
  t.rcv_nxt = t.last_ack_sent = s.seq + 1;
  t.rcv_adv = t.rcv_nxt;
  AgreeOnOptions(t, s.options);
  t.ts_recent = s.options.ts_value;
  t.ts_recent_time = now;
  t.last_received = now;
  const bool asked = EcnOf(t.options) == EcnMode::kActive;
  if (!has_ack) {
    // Simultaneous open: our SYN again, as an answer.
    t.ecn_enabled = asked && s.Has(wire::kTcpEce) && s.Has(wire::kTcpCwr);
    SetState(t, TcpState::kSynReceived);
    t.snd_wnd = t.max_snd_wnd = s.window;
    if (!t.scoreboard.empty()) Retransmit(t, t.scoreboard.head(), now);
    RestartRetransmitTimer(t, now);
    return {};
  }
  t.ecn_enabled = asked && s.Has(wire::kTcpEce) && !s.Has(wire::kTcpCwr);
  // The SYN-ACK's ACK, and then its data and FIN if it has any, as those of any segment.
  t.rcv_adv = t.rcv_nxt + FreeReceiveSpace(t);
  SetState(t, TcpState::kSynReceived);
  s.seq += 1;
  s.flags &= static_cast<uint8_t>(~(wire::kTcpSyn | wire::kTcpEce | wire::kTcpCwr));
  t.snd_wl1 = s.seq;
  // The window of a SYN is never scaled (RFC 7323 section 2.2), which OnAck would do.
  t.snd_wl2 = s.ack;
  t.snd_wnd = t.max_snd_wnd = s.window;
  s.window = static_cast<uint16_t>(s.window >> t.snd_wnd_shift);
  t.ack_now = true;
  return OnSynchronized(t, s, now);
}

// The handshake is done: from SYN-RECEIVED. `repeated`: our SYN had to be sent again.
void Tcp::Establish(Tcb& t, bool repeated, Nanos now) {
  SetState(t, TcpState::kEstablished);
  t.was_established = true;
  t.quick_acks = 16;
  t.copied_since = t.last_data_received = now;
  if (repeated) {
    t.rtt.SynWasLost();
    t.congestion.set_cwnd(t.mss);  // RFC 5681 section 3.1
  }
  if (t.passive) {
    counters_.connections_accepted.Add();
    if (t.listener != kNoIndex) QueueForAccept(t);
  } else {
    counters_.connections_opened.Add();
    Raise(t, kEventConnected);
    Raise(t, kEventWritable);
  }
  StartKeepalive(t, now);
}

}  // namespace sluice::transport
