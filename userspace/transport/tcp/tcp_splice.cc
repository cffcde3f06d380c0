// Two connections that become one (splice.h): when that may begin, what is passed on, and how it
// ends.
//
// It begins with a segment that brings data and finds both connections at rest: established, with
// nothing received that has not been read, nothing written that has not been acknowledged (by this
// segment at the latest), and options, segment sizes and the other end's window such that the peers
// can go on with each other. From then on the state of both, as their control blocks have it, is
// frozen.
//
// It ends when both FINs have been acknowledged, with a reset that the other peer must believe, or
// when the program aborts.
#include <algorithm>
#include <memory>

#include "base/byte_order.h"
#include "transport/common/datagram.h"
#include "transport/tcp/tcp.h"
#include "wire/icmp.h"
#include "wire/icmpv6.h"

namespace sluice::transport {

using packet::Verdict;

namespace {

// A segment must be about so many bytes before or behind the last that came by, to be believed to
// be a peer's; no window of ours or Linux' is larger by default.
constexpr uint32_t kPlausible = SLUICE_SPLICE_NEAR;

bool IsNear(wire::TcpSeq a, wire::TcpSeq b) {
  return a.AtOrAfter(b - kPlausible) && a.AtOrBefore(b + kPlausible);
}

// What segments to this peer may carry, TCP options included.
uint32_t LargestPayload(const Tcb& t) {
  const auto headers =
      static_cast<uint32_t>(IpHeaderSize(t.tuple.is_v4()) + wire::TcpView::kMinSize);
  return std::min<uint32_t>(t.peer_mss, t.path_mtu - headers);
}

bool IsAtRest(const Tcb& t) {
  return t.state == TcpState::kEstablished && t.recovery == Recovery::kOpen && !t.fin_known &&
         !t.fin_queued && t.receive.bytes() == 0 && !t.receive.has_gaps() && t.Unsent() == 0 &&
         !t.waits_for_end && !t.unfinished && t.owned && !t.ecn_enabled;
}

// Windows of `from`'s peer are told in the unit that `to`'s peer knows, and are not to vanish in
// it.
bool TellsWindows(const Tcb& from, const Tcb& to) {
  return from.snd_wnd_shift >= to.rcv_wnd_shift || from.max_snd_wnd >= 4u << to.rcv_wnd_shift;
}

}  // namespace

SocketError Tcp::Join(TcpSocket a, TcpSocket b) {
  Tcb* const t = Resolve(a);
  Tcb* const u = Resolve(b);
  if (t == nullptr || u == nullptr) return SocketError::kBadSocket;
  if (t == u || t->partner != kNoIndex || u->partner != kNoIndex) return SocketError::kInvalid;
  if (t->state != TcpState::kEstablished || u->state != TcpState::kEstablished ||
      t->tuple.is_v4() != u->tuple.is_v4()) {
    return SocketError::kNone;  // they stay two
  }
  t->partner = tcbs_.IndexOf(*u);
  u->partner = tcbs_.IndexOf(*t);
  return SocketError::kNone;
}

// `s`, which is right, has come on `t`.
bool Tcp::MaySplice(const Tcb& t, const Segment& s, Nanos now) const {
  const Tcb& u = tcbs_[t.partner];
  if (s.payload == 0 || (s.flags & ~wire::kTcpPsh) != wire::kTcpAck || s.options.sack_count > 0 ||
      s.seq != t.rcv_nxt || s.ack != t.snd_nxt || s.end().After(t.rcv_adv)) {
    return false;
  }
  if (!IsAtRest(t) || !IsAtRest(u) || !u.EverythingAcked()) return false;
  if (t.ts_enabled != u.ts_enabled || t.sack_enabled != u.sack_enabled) return false;
  if (t.ts_enabled && (!s.options.has_timestamps || PawsRejects(t, s, now))) return false;
  if (!TellsWindows(t, u) || !TellsWindows(u, t)) return false;
  return s.payload <= u.snd_wnd && t.advertised_mss <= LargestPayload(u) &&
         u.advertised_mss <= LargestPayload(t);
}

void Tcp::BeginSplice(Tcb& t, const Segment& s, Nanos now) {
  Tcb& u = tcbs_[t.partner];
  // What has just been acknowledged.
  for (Tcb* const c : {&t, &u}) {
    c->snd_una = c->snd_nxt;
    c->scoreboard.Clear(segments_);
    c->send.Clear(send_pool_);
    c->ack_now = c->ack_pending = false;
    ClearTimers(*c);
    c->sending.Enter(Sending::kIdle, now);
    c->spliced = true;
    std::construct_at(&c->side);
  }
  // Clocks go on from where they are, and never back: what u's peer has said last counts as said
  // now.
  const uint32_t to_u = TsNow(u, now) - s.options.ts_value;
  const uint32_t to_t = TsNow(t, now) - u.ts_recent;
  const auto set = [](Tcb& from, const Tcb& to) {
    SpliceSide& side = from.side;
    side.map.window_left = from.snd_wnd_shift > to.rcv_wnd_shift
                               ? static_cast<uint8_t>(from.snd_wnd_shift - to.rcv_wnd_shift)
                               : 0;
    side.map.window_right = to.rcv_wnd_shift > from.snd_wnd_shift
                                ? static_cast<uint8_t>(to.rcv_wnd_shift - from.snd_wnd_shift)
                                : 0;
    side.map.timestamps = from.ts_enabled ? 1 : 0;
    side.map.seq = to.snd_nxt - from.rcv_nxt;
    side.map.ack = to.rcv_nxt - from.snd_nxt;
    side.end = from.rcv_nxt;
    side.ack = side.said = from.snd_nxt;
    side.ts_value = from.ts_recent;
  };
  set(t, u);
  set(u, t);
  t.side.map.tsval = to_u;
  t.side.map.tsecr = 0 - to_t;
  u.side.map.tsval = to_t;
  u.side.map.tsecr = 0 - to_u;
  ++spliced_;
  counters_.splices.Add();
}

// A segment of a spliced connection: it leaves on the other one.
Verdict Tcp::PassOn(Tcb& t, packet::Packet& p, Nanos now) {
  const auto view = wire::TcpView::Parse(FirstPieceOf(p));
  if (!view) return Verdict::Drop(DropReason::kTcpHeader);
  Tcb& u = tcbs_[t.partner];
  SpliceSide& side = t.side;
  SpliceSide& other = u.side;

  constexpr uint8_t kOdd = wire::kTcpSyn | wire::kTcpFin | wire::kTcpRst;
  const uint8_t flags = view->flags();
  const TcpSeq seq(view->sequence());
  const auto payload = static_cast<uint32_t>(p.length - p.l4_offset - view->header_length());
  // Where the state may change, everything is to be known, and right.
  if ((flags & kOdd) != 0) [[unlikely]] {
    if (!L4ChecksumOf(frames_.arena(), p, EndsOf(p))) return Verdict::Drop(DropReason::kChecksum);
    TellCarried(t, now);
  }
  counters_.segments_received.Add();
  counters_.segments_sent.Add();
  counters_.segments_spliced.Add();
  const Relayed relayed = {.in = p.in,
                           .arrives = t.tuple,
                           .leaves = u.tuple,
                           .protocol = p.l4_protocol,
                           .splice = &side.map,
                           .handle = &side.handle,
                           .user = this,
                           .token = tcbs_.IndexOf(t)};
  if ((flags & wire::kTcpRst) != 0) {
    const bool believed =
        seq == PeersNext(other) || seq == (side.fin ? side.fin_end : side.end);
    Forward(p, relayed, /*may_carry=*/false, now);
    if (!believed) return Verdict::Local();
    counters_.resets_received.Add();
    BreakSplice(t, now);
    if (!in_burst_) Dispatch(now);
    return Verdict::Local();
  }
  const TcpSeq ack(view->acknowledgment());
  const auto is_plausible = [&] {
    return (flags & (wire::kTcpSyn | wire::kTcpAck)) == wire::kTcpAck &&
           IsNear(seq + payload, side.end) && IsNear(ack, side.ack);
  };
  bool plausible = is_plausible();
  if (!plausible) [[unlikely]] {
    // More than that may have been carried since the layer below has last told of it.
    TellCarried(t, now);
    plausible = is_plausible();
  }
  uint32_t news = 0;
  if (plausible) [[likely]] {
    NoteTimestamp(side, *view);
    news = Note(side, seq + payload);
    side.said = ack;
    NoteAcks(side, other);
    NoteAcks(other, side);
    if (other.fin && ack == other.fin_end + other.map.seq) {
      other.fin_acked = true;
      side.ack = ack;
    }
    if ((flags & wire::kTcpFin) != 0) NoteFin(side, other, seq + payload + 1, now);
  }
  // Half closed it may be carried; what acknowledges a FIN is to come by here.
  const bool waits = side.fin != side.fin_acked || other.fin != other.fin_acked;
  Forward(p, relayed, plausible && !waits && (flags & wire::kTcpFin) == 0, now);
  if (payload > 0 || news > 0) TellRelayed(t, news, now);
  if (side.fin_acked && other.fin_acked) CloseSplice(t, now);
  if (!in_burst_) Dispatch(now);
  return Verdict::Local();
}

// What is new of it, in bytes.
uint32_t Tcp::Note(SpliceSide& side, TcpSeq end) {
  if (side.fin) end = Earlier(end, side.fin_end - 1);
  if (!end.After(side.end)) return 0;
  const uint32_t news = end - side.end;
  side.end = end;
  return news;
}

// Nobody acknowledges what has not come by. What the layer below has carried of it may be told
// later.
void Tcp::NoteAcks(SpliceSide& side, const SpliceSide& other) {
  const TcpSeq most = (other.fin ? other.fin_end : other.end) + other.map.seq;
  if (side.said.After(side.ack) && side.said.AtOrBefore(most)) side.ack = side.said;
}

void Tcp::NoteTimestamp(SpliceSide& side, const wire::TcpView& tcp) {
  if (side.map.timestamps == 0) return;
  const auto options = wire::ParseTcpOptions(tcp.options(), false);
  if (!options.has_timestamps) return;
  if (static_cast<int32_t>(options.ts_value - side.ts_value) > 0) side.ts_value = options.ts_value;
}

// It is the peer's if the other one acknowledges it; until then a later one may be (RFC 5961 wants
// as much of a reset: a stranger would have to name that number exactly).
void Tcp::NoteFin(SpliceSide& side, SpliceSide& other, TcpSeq end, Nanos now) {
  if (side.fin_acked) return;
  for (SpliceSide* const each : {&side, &other}) ip_.EndRelayed(each->handle, now);
  if (!side.fin) {
    side.second = other.fin;
    side.crossed = other.fin && !other.fin_acked;
  }
  side.fin = true;
  side.fin_end = end;
}

// What the peer of this side expects next, in the numbers of the other one.
wire::TcpSeq Tcp::PeersNext(const SpliceSide& side) { return side.ack + side.map.ack; }

void Tcp::Forward(packet::Packet& p, const Relayed& relayed, bool may_carry, Nanos now) {
  TranslateSegment(p, relayed.leaves, *relayed.splice, config_.ttl);
  // It is a new packet.
  packet::Packet out;
  out.data = p.data;
  out.frame = p.frame;
  out.length = p.length;
  out.segment_length = p.segment_length;
  out.segment_count = p.segment_count;
  out.l4_protocol = p.l4_protocol;
  out.l3_offset = p.l3_offset;
  out.l4_offset = p.l4_offset;
  Relayed how = relayed;
  if (!may_carry) how.handle = nullptr;
  ip_.OutputRelayed(out, how, now);
}

void Tcp::TellRelayed(const Tcb& t, uint32_t bytes, Nanos now) {
  if (t.handler != nullptr) t.handler->OnRelayed(IdOf(t), bytes, now);
}

// Of both, since acknowledgments of one are judged by the data of the other.
void Tcp::TellCarried(Tcb& t, Nanos now) {
  ip_.TellRelayed(t.side.handle, now);
  ip_.TellRelayed(tcbs_[t.partner].side.handle, now);
}

void Tcp::TellCarried(TcpSocket socket, Nanos now) {
  Tcb* const t = Resolve(socket);
  if (t != nullptr && t->spliced) TellCarried(*t, now);
}

void Tcp::OnCarried(uint64_t token, const Carried& carried, Nanos now) {
  Tcb& t = tcbs_[static_cast<uint32_t>(token)];
  SpliceSide& side = t.side;
  SpliceSide& other = tcbs_[t.partner].side;
  const uint64_t headers =
      IpHeaderSize(t.tuple.is_v4()) + wire::TcpView::kMinSize + (side.map.timestamps != 0 ? 12 : 0);
  const uint64_t payload = carried.bytes - std::min(carried.bytes, carried.packets * headers);
  // It may have come far, but not farther than by what has been carried, and what was lost before.
  uint32_t news = 0;
  if (TcpSeq(carried.end) - side.end <= payload + kPlausible)
    news = Note(side, TcpSeq(carried.end));
  side.said = TcpSeq(carried.ack);
  NoteAcks(side, other);
  NoteAcks(other, side);
  counters_.segments_received.Add(carried.packets);
  counters_.segments_sent.Add(carried.packets);
  counters_.segments_spliced.Add(carried.packets);
  if (payload > 0 || news > 0) TellRelayed(t, news, now);
}

// Nothing is left of it but two connections without a peer.
void Tcp::DissolveSplice(Tcb& t, Nanos now) {
  Tcb& u = tcbs_[t.partner];
  ip_.EndRelayed(t.side.handle, now);
  ip_.EndRelayed(u.side.handle, now);
  const SpliceSide sides[] = {t.side, u.side};
  const auto restore = [&](Tcb& c, const SpliceSide& side, const SpliceSide& other) {
    c.spliced = false;
    c.partner = kNoIndex;
    std::construct_at(&c.congestion);
    // Should anything more be sent: as the peer knows us.
    c.rcv_nxt = side.fin ? side.fin_end : side.end;
    c.snd_una = c.snd_nxt = side.ack;
    c.ts_recent = side.ts_value;
    c.ts_recent_time = c.last_received = now;
    // Our clock goes on behind what the other peer's has said.
    c.ts_offset += other.ts_value + other.map.tsval - TsNow(c, now);
  };
  restore(t, sides[0], sides[1]);
  restore(u, sides[1], sides[0]);
  --spliced_;
}

// Both have finished, and know that of each other. Who was the second waits for an acknowledgment
// that may be lost: TIME-WAIT is there for that. Where the FINs have crossed, either may wait.
void Tcp::CloseSplice(Tcb& t, Nanos now) {
  Tcb& u = tcbs_[t.partner];
  Tcb& second = t.side.second ? t : u;
  Tcb& first = t.side.second ? u : t;
  const bool crossed = second.side.crossed;
  DissolveSplice(t, now);
  for (Tcb* const c : {&first, &second}) {
    c->fin_known = c->fin_received = c->fin_queued = c->fin_sent = true;
    Raise(*c, kEventSpliceEnded);
  }
  EnterTimeWait(second, now);
  if (crossed) {
    EnterTimeWait(first, now);
  } else {
    Finish(first);
  }
}

// The peer of `t` has reset the connection, and the other one knows.
void Tcp::BreakSplice(Tcb& t, Nanos now) {
  Tcb& u = tcbs_[t.partner];
  DissolveSplice(t, now);
  Finish(u);
  Fail(t, SocketError::kReset);
}

// Rules have reset t's peer; the other one is the program's to reset.
void Tcp::SeverSplice(Tcb& t, TcpSeq sequence, Nanos now) {
  TellCarried(t, now);
  if (!IsNear(sequence, t.side.end)) return;
  DissolveSplice(t, now);
  Fail(t, SocketError::kReset);
}

// The program has enough: both peers are told, with the number that they expect.
void Tcp::AbortSplice(Tcb& t, Nanos now) {
  Tcb& u = tcbs_[t.partner];
  DissolveSplice(t, now);
  for (Tcb* const c : {&t, &u}) {
    ResetPeer(*c, now);
    Finish(*c);
  }
}

// A segment that we have passed on to t's peer is too large for its way; so whose it was is told as
// a router would tell it (RFC 1191, RFC 8201), by what the quotation has: eight bytes behind the IP
// header.
void Tcp::PassOnTooBig(const Tcb& t, TcpSeq sequence, uint32_t mtu, Nanos now) {
  Tcb& u = tcbs_[t.partner];
  ip_.TellRelayed(u.side.handle, now);
  const TcpSeq original = sequence - u.side.map.seq;
  if (!IsNear(original, u.side.end)) return;
  constexpr uint32_t kQuoted = 8;
  const bool v4 = u.tuple.is_v4();
  const uint32_t ip_size = IpHeaderSize(v4);
  const auto quoted_payload = static_cast<uint16_t>(u.rcv_mss + wire::TcpView::kMinSize);
  std::array<uint8_t, wire::Ipv6View::kSize + kQuoted> body{};
  if (v4) {
    wire::EmitIpv4Header({body.data(), ip_size}, {.payload_length = quoted_payload,
                                                  .fragment_field = wire::kIpv4DontFragment,
                                                  .ttl = 1,
                                                  .protocol = wire::kProtocolTcp,
                                                  .source = u.tuple.remote.address.v4(),
                                                  .destination = u.tuple.local.address.v4()});
  } else {
    wire::EmitIpv6Header({body.data(), ip_size}, {.payload_length = quoted_payload,
                                                  .next_header = wire::kProtocolTcp,
                                                  .hop_limit = 1,
                                                  .source = u.tuple.remote.address.v6(),
                                                  .destination = u.tuple.local.address.v6()});
  }
  uint8_t* const quoted = body.data() + ip_size;
  StoreBe16(quoted, u.tuple.remote.port);
  StoreBe16(quoted + 2, u.tuple.local.port);
  StoreBe32(quoted + 4, original.value());
  packet::Packet p;
  const uint32_t size = wire::IcmpView::kSize + ip_size + kQuoted;
  const uint8_t protocol = v4 ? wire::kProtocolIcmp : wire::kProtocolIcmpv6;
  if (!BeginDatagram(frames_, u.tuple, protocol, size, {.ttl = config_.ttl}, p)) {
    counters_.no_frame.Add();
    return;
  }
  const std::span<const uint8_t> quotation(body.data(), ip_size + kQuoted);
  if (v4) {
    wire::EmitIcmp({p.l4(), size}, wire::kIcmpUnreachable, wire::kIcmpFragmentationNeeded,
                   wire::IcmpRestMtu(static_cast<uint16_t>(std::min(mtu, 0xffffu))), quotation);
  } else {
    wire::EmitIcmpv6({p.l4(), size}, u.tuple.local.address.v6(), u.tuple.remote.address.v6(),
                     wire::kIcmpv6PacketTooBig, 0, mtu, quotation);
  }
  ip_.Output(p, now);
}

}  // namespace sluice::transport
