// What programs call. The rules are written down in transport/transport.h.
#include <algorithm>

#include "transport/tcp/tcp.h"

namespace sluice::transport {

namespace {

// A connection in TIME-WAIT may make way for one from here after this long, if timestamps tell the
// two apart (RFC 6191 section 2).
constexpr Nanos kReuseAfter = Seconds(1);

// Memory for sending. The last of it is for packets of many pieces, so that passing one on does not fail.
constexpr uint32_t kSendReserve = 64;
constexpr uint64_t kPiecesWhenShort = 12;
constexpr uint32_t kLittle = 1024;
// What may wait beyond a low-water mark (as much as Linux gives its NIC at once).
constexpr uint32_t kMostPerMark = 64 * 1024;
// How often connections that wait for memory are looked at, and how many of them.
constexpr Nanos kMemoryRetry = Millis(4);
constexpr uint32_t kMemoryRetries = 1024;

}  // namespace

SocketError Tcp::Listen(const Endpoint& local, const TcpSocketOptions& options, uint32_t backlog,
                        TcpHandler* handler, TcpListenerId& id) {
  if (local.port == 0 || backlog == 0) return SocketError::kInvalid;
  const auto key_of = [&](uint32_t i) { return listeners_[i].Key(); };
  if (listener_table_.Find({local, {}}, key_of) != kNoIndex) return SocketError::kAddressInUse;
  const uint32_t index = listeners_.Alloc();
  if (index == kNoIndex) return SocketError::kNoMemory;
  TcpListener& listener = listeners_[index];
  const uint32_t generation = listener.generation;
  const bool queued = listener.queued_for_events;
  listener = TcpListener{.local = local, .options = options, .handler = handler};
  listener.generation = generation;
  listener.queued_for_events = queued;
  listener.backlog = backlog;
  listener.active = true;
  listener_table_.Insert(listener.Key(), index);
  id = {index, generation};
  return SocketError::kNone;
}

SocketError Tcp::CloseListener(TcpListenerId id, Nanos now) {
  TcpListener* const listener = Resolve(id);
  if (listener == nullptr) return SocketError::kBadSocket;
  listener_table_.Erase(listener->Key(), id.index);
  listener->active = false;
  // Those that nobody has accepted are reset.
  while (listener->head != kNoIndex) {
    Tcb& t = tcbs_[listener->head];
    ResetPeer(t, now);
    ReleaseTcb(t);
  }
  ++listener->generation;
  listeners_.Free(id.index);
  return SocketError::kNone;
}

SocketError Tcp::Accept(TcpListenerId id, TcpHandler* handler, TcpSocket& socket) {
  TcpListener* const listener = Resolve(id);
  if (listener == nullptr) return SocketError::kBadSocket;
  if (listener->accept_head == kNoIndex) return SocketError::kWouldBlock;
  Tcb& t = tcbs_[listener->accept_head];
  LeaveListener(t);
  t.owned = true;
  t.handler = handler;
  if (t.events != 0) Raise(t, t.events);
  socket = IdOf(t);
  return SocketError::kNone;
}

bool Tcp::Acceptable(TcpListenerId id) const {
  const TcpListener* const listener = const_cast<Tcp*>(this)->Resolve(id);
  return listener != nullptr && listener->accept_head != kNoIndex;
}

// RFC 6056 section 3.3.3: from an offset that depends on the peer, on by a counter.
std::optional<uint16_t> Tcp::ChoosePort(const Tuple& wanted, Nanos now) {
  const uint32_t count = uint32_t{config_.last_port} - config_.first_port + 1;
  const uint32_t offset = secrets_.PortOffset(wanted.local.address, wanted.remote);
  Tuple t = wanted;
  for (uint32_t i = 0; i < count; ++i) {
    t.local.port = static_cast<uint16_t>(config_.first_port + (offset + next_port_++) % count);
    if (FindListener(t.local) != kNoIndex || !ip_.ArrivesHere(t)) continue;
    const uint32_t index = FindConnection(t);
    if (index == kNoIndex) return t.local.port;
    Tcb& old = tcbs_[index];
    if (old.state == TcpState::kTimeWait && old.ts_enabled && !old.owned &&
        now - old.last_received > kReuseAfter) {
      counters_.time_wait_reused.Add();
      ReleaseTcb(old);
      return t.local.port;
    }
  }
  return {};
}

SocketError Tcp::Connect(const Endpoint& local, const Endpoint& remote,
                         const TcpSocketOptions& options, TcpHandler* handler, Nanos now,
                         TcpSocket& socket) {
  if (remote.port == 0 || IsAny(remote.address)) return SocketError::kInvalid;
  Tuple tuple{local, remote};
  tuple.local.address.family = remote.address.family;
  IpLayer::Path path;
  if (!ip_.FindPath(remote.address, path)) return SocketError::kUnreachable;
  if (IsAny(tuple.local.address)) tuple.local.address = path.source;
  if (tuple.local.port == 0) {
    const auto port = ChoosePort(tuple, now);
    if (!port) return SocketError::kNoPorts;
    tuple.local.port = *port;
  } else if (FindConnection(tuple) != kNoIndex) {
    return SocketError::kAddressInUse;
  }
  Tcb* const t = Make(tuple, options, true, now);
  if (t == nullptr) {
    counters_.no_connection.Add();
    return SocketError::kNoMemory;
  }
  t->owned = true;
  t->handler = handler;
  SetState(*t, TcpState::kSynSent);
  t->snd_nxt = secrets_.InitialSequence(tuple, now);
  if (!SendSyn(*t, now)) {
    ReleaseTcb(*t);
    return SocketError::kNoMemory;
  }
  socket = IdOf(*t);
  return SocketError::kNone;
}

// Twice the congestion window, so that there is always something to send when an ACK comes.
uint32_t Tcp::BufferRoom(const Tcb& t) const {
  const uint32_t most =
      std::clamp(2 * std::min(t.congestion.cwnd(), CongestionControl::kMaxWindow / 2),
                 std::min(config_.send_buffer_initial, t.snd_buffer_max), t.snd_buffer_max);
  return most > t.send.size() ? most - t.send.size() : 0;
}

// Of that, what the low-water mark lets wait. A mark below a burst would only make writes small.
uint32_t Tcp::SendRoom(const Tcb& t) const {
  const uint32_t room = BufferRoom(t);
  const uint32_t mark = LowWater(t);
  if (mark == kNoLowWater) return room;
  const uint32_t mss = t.mss;
  const uint32_t burst = std::max(std::min(t.max_snd_wnd / 2, kMostPerMark) / mss, 1u) * mss;
  const uint32_t most = std::max(mark, burst);
  return std::min(room, most - std::min(most, t.Unsent()));
}

bool Tcp::IsBelowLowWater(const Tcb& t) const {
  const uint32_t mark = LowWater(t);
  return mark == kNoLowWater || uint64_t{t.Unsent()} * 2 < mark;
}

uint32_t Tcp::SendRoom(TcpSocket socket) {
  Tcb* const t = Resolve(socket);
  if (t == nullptr || CheckSend(*t) != SocketError::kNone) return 0;
  const uint32_t room = IsShortOfMemory(*t) ? 0 : SendRoom(*t);
  if (room == 0) {
    t->waits_to_write = false;
    WaitForRoom(*t);
  }
  return room;
}

// Of the last quarter each may have so many pieces, by the square of what is left.
bool Tcp::IsShortOfMemory(const Tcb& t) const {
  const uint64_t left = SendMemory();
  const uint64_t quarter = config_.limits.send_frames / 4;
  if (left >= quarter) return left == 0;
  if (left < kSendReserve) return true;
  return t.send.pieces() > kPiecesWhenShort * left * left / (quarter * quarter);
}

// Who has nothing waiting, of what is kept back (an answer to a health check).
bool Tcp::MaySayALittle(const Tcb& t) const { return t.send.pieces() == 0 && SendMemory() > 0; }

// OnWritable is owed: when ACKs have made room, or, if memory is what is missing, when there is some.
void Tcp::WaitForRoom(Tcb& t) {
  t.wants_writable = true;
  if (t.waits_for_memory || SendRoom(t) == 0) return;
  t.waits_for_memory = true;
  wanting_.Push(tcbs_.IndexOf(t));
  memory_retry_ = std::min(memory_retry_, latest_ + kMemoryRetry);
}

void Tcp::RetryMemory(Nanos now) {
  memory_retry_ = Nanos::Max();
  ResetStalledOrphans(now);
  for (uint32_t n = std::min(wanting_.count(), kMemoryRetries); n > 0; --n) {
    Tcb& t = tcbs_[wanting_.Pop()];
    t.waits_for_memory = false;
    if (!t.owned || !t.wants_writable || CheckSend(t) != SocketError::kNone) continue;
    const bool little = t.waits_to_write && MaySayALittle(t);
    if (frames_.size() == 0 || (IsShortOfMemory(t) && !little)) {
      WaitForRoom(t);
    } else if (SendRoom(t) > 0 && IsBelowLowWater(t)) {
      t.wants_writable = false;
      Raise(t, kEventWritable);
    }
  }
  if (!wanting_.empty()) memory_retry_ = now + kMemoryRetry;
}

SocketError Tcp::CheckSend(Tcb& t) const {
  if (t.error != SocketError::kNone) return t.error;
  if (t.fin_queued || t.state == TcpState::kClosed) return SocketError::kShutdown;
  if (!IsSynchronized(t.state)) return SocketError::kNotConnected;
  return !t.spliced ? SocketError::kNone : SocketError::kInvalid;
}

IoResult Tcp::Send(TcpSocket socket, std::span<const uint8_t> data, Nanos now) {
  return Write(socket, data, false, now);
}

IoResult Tcp::SendMore(TcpSocket socket, std::span<const uint8_t> data, Nanos now) {
  return Write(socket, data, true, now);
}

IoResult Tcp::Write(TcpSocket socket, std::span<const uint8_t> data, bool more, Nanos now) {
  Tcb* const t = Resolve(socket);
  if (t == nullptr) return {SocketError::kBadSocket};
  if (const SocketError error = CheckSend(*t); error != SocketError::kNone) return {error};
  const auto wanted = static_cast<uint32_t>(std::min<size_t>(data.size(), SendRoom(*t)));
  uint32_t most = wanted;
  if (IsShortOfMemory(*t)) {
    most = MaySayALittle(*t) ? std::min(most, kLittle) : 0;
  }
  const uint32_t taken = t->send.Write(send_pool_, data.first(most));
  if (taken < wanted) counters_.no_send_buffer.Add();
  if (taken < data.size()) {
    t->waits_to_write = true;
    WaitForRoom(*t);
  }
  if (!more) t->push_seq = t->write_end();
  if (taken > 0) {
    t->more_to_come = more;
    Output(*t, now);
    t->more_to_come = false;
  }
  if (taken == 0 && !data.empty()) return {SocketError::kWouldBlock};
  return {SocketError::kNone, taken};
}

SocketError Tcp::EndRecord(TcpSocket socket) {
  Tcb* const t = Resolve(socket);
  if (t == nullptr) return SocketError::kBadSocket;
  if (const SocketError error = CheckSend(*t); error != SocketError::kNone) return error;
  if (t->Unsent() > 0) t->send.EndRecord(send_pool_);
  return SocketError::kNone;
}

// Of what goes as a whole or not at all.
IoResult Tcp::AfterWhole(Tcb& t, bool room, bool taken, uint32_t length, Nanos now) {
  if (!taken) {
    if (room) counters_.no_send_buffer.Add();
    t.waits_to_write = false;
    WaitForRoom(t);
    return {SocketError::kWouldBlock};
  }
  t.push_seq = t.write_end();
  Output(t, now);
  return {SocketError::kNone, length};
}

IoResult Tcp::SendOwned(TcpSocket socket, const OwnedBuffer& buffer, Nanos now) {
  Tcb* const t = Resolve(socket);
  if (t == nullptr) return {SocketError::kBadSocket};
  if (const SocketError error = CheckSend(*t); error != SocketError::kNone) return {error};
  if (buffer.length == 0 || buffer.length > CongestionControl::kMaxWindow) {
    return {SocketError::kInvalid};
  }
  // More than there is room for may be lent once, so that one buffer may be of any size.
  const bool room = SendRoom(*t) > 0 && t->send.size() <= CongestionControl::kMaxWindow;
  const bool taken = room && !IsShortOfMemory(*t) && t->send.Lend(send_pool_, buffer);
  return AfterWhole(*t, room, taken, buffer.length, now);
}

IoResult Tcp::TakeReceived(TcpSocket socket, const ReceivedData& data, bool more, Nanos now) {
  Tcb* const t = Resolve(socket);
  if (t == nullptr) return {SocketError::kBadSocket};
  if (const SocketError error = CheckSend(*t); error != SocketError::kNone) return {error};
  const bool room = SendRoom(*t) > 0;
  const bool taken =
      room && t->send.TakePacket(send_pool_, data.packet, data.offset, data.length);
  if (taken && more) return {SocketError::kNone, data.length};
  return AfterWhole(*t, room, taken, data.length, now);
}

IoResult Tcp::SendReceived(TcpSocket socket, const ReceivedData& data, Nanos now) {
  return TakeReceived(socket, data, false, now);
}

IoResult Tcp::QueueReceived(TcpSocket socket, const ReceivedData& data, Nanos now) {
  return TakeReceived(socket, data, true, now);
}

SocketError Tcp::Push(TcpSocket socket, Nanos now) {
  Tcb* const t = Resolve(socket);
  if (t == nullptr) return SocketError::kBadSocket;
  if (const SocketError error = CheckSend(*t); error != SocketError::kNone) return error;
  t->push_seq = t->write_end();
  Output(*t, now);
  return SocketError::kNone;
}

IoResult Tcp::Receive(TcpSocket socket, std::span<uint8_t> out, Nanos now) {
  Tcb* const t = Resolve(socket);
  if (t == nullptr) return {SocketError::kBadSocket};
  const uint32_t read = t->receive.Read(receive_pool_, out);
  if (read > 0) {
    AfterRead(*t, read, now);
    return {SocketError::kNone, read};
  }
  if (out.empty()) return {};
  if (t->error != SocketError::kNone) return {t->error};
  if (t->fin_received || t->state == TcpState::kClosed) return {SocketError::kEndOfData};
  return {IsSynchronized(t->state) ? SocketError::kWouldBlock : SocketError::kNotConnected};
}

SocketError Tcp::ReceivePacket(TcpSocket socket, ReceivedData& out, Nanos now) {
  Tcb* const t = Resolve(socket);
  if (t == nullptr) return SocketError::kBadSocket;
  if (t->receive.Take(receive_pool_, out)) {
    AfterRead(*t, out.length, now);
    return SocketError::kNone;
  }
  if (t->error != SocketError::kNone) return t->error;
  if (t->fin_received || t->state == TcpState::kClosed) return SocketError::kEndOfData;
  return IsSynchronized(t->state) ? SocketError::kWouldBlock : SocketError::kNotConnected;
}

SocketError Tcp::Shutdown(TcpSocket socket, Nanos now) {
  Tcb* const t = Resolve(socket);
  if (t == nullptr) return SocketError::kBadSocket;
  if (t->spliced) return SocketError::kInvalid;
  if (t->fin_queued || t->state == TcpState::kClosed) return t->error;
  switch (t->state) {
    case TcpState::kEstablished:
      SetState(*t, TcpState::kFinWait1);
      break;
    case TcpState::kCloseWait:
      SetState(*t, TcpState::kLastAck);
      break;
    default:
      return SocketError::kNotConnected;
  }
  t->fin_queued = true;
  t->push_seq = t->write_end();
  Output(*t, now);
  return SocketError::kNone;
}

SocketError Tcp::Close(TcpSocket socket, Nanos now) {
  Tcb* const t = Resolve(socket);
  if (t == nullptr) return SocketError::kBadSocket;
  if (t->state == TcpState::kClosed) {
    ReleaseTcb(*t);
    return SocketError::kNone;
  }
  if (t->spliced) return Abort(socket, now);
  // Data that nobody has read would be lost without a word (RFC 9293 section 3.6.1).
  const bool unread = t->receive.bytes() > 0;
  if (!IsSynchronized(t->state) || unread || t->options.reset_on_close) return Abort(socket, now);
  if (!t->fin_queued) Shutdown(socket, now);
  t->receive.Clear(receive_pool_);
  BecomeOrphan(*t, now);
  return SocketError::kNone;
}

SocketError Tcp::Abort(TcpSocket socket, Nanos now) {
  Tcb* const t = Resolve(socket);
  if (t == nullptr) return SocketError::kBadSocket;
  if (t->spliced) AbortSplice(*t, now);
  ResetPeer(*t, now);
  ReleaseTcb(*t);
  return SocketError::kNone;
}

SocketError Tcp::SetHandler(TcpSocket socket, TcpHandler* handler) {
  Tcb* const t = Resolve(socket);
  if (t == nullptr) return SocketError::kBadSocket;
  t->handler = handler;
  return SocketError::kNone;
}

SocketError Tcp::SetOptions(TcpSocket socket, const TcpSocketOptions& options, Nanos now) {
  Tcb* const t = Resolve(socket);
  if (t == nullptr) return SocketError::kBadSocket;
  t->options = options;
  if (IsSynchronized(t->state) && !t->spliced) {
    StartKeepalive(*t, now);
    UpdateMss(*t);
    Output(*t, now);  // what Nagle holds back
    TellWritable(*t);  // more may wait than before
  }
  return SocketError::kNone;
}

SocketError Tcp::SetListenerOptions(TcpListenerId id, const TcpSocketOptions& options) {
  TcpListener* const listener = Resolve(id);
  if (listener == nullptr) return SocketError::kBadSocket;
  listener->options = options;
  return SocketError::kNone;
}

}  // namespace sluice::transport
