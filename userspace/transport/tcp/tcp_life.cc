// How connections come to be, where they wait, how they end; and telling programs of it.
#include <algorithm>
#include <utility>

#include "transport/common/datagram.h"
#include "transport/tcp/tcp.h"

namespace sluice::transport {

namespace {

constexpr Nanos kOrphanScan = Millis(250);

}  // namespace

Tcp::Tcp(const TcpConfig& config, const HashKey& key, packet::FramePool& frames, IpLayer& ip,
         PathMtuCache& path_mtus, Nanos start)
    : config_(config),
      secrets_(key),
      path_mtus_(path_mtus),
      frames_(frames),
      ip_(ip),
      rng_(SecretHash(key, {0})),
      tcbs_(config.limits.connections),
      listeners_(config.limits.listeners),
      table_(config.limits.connections, {key.k1, key.k0}),
      listener_table_(config.limits.listeners, {key.k1, key.k0}),
      segments_(config.limits.segments),
      send_pool_(config.limits.send_buffers, config.limits.send_frames, frames),
      receive_pool_(config.limits.out_of_order_ranges, config.limits.ranges_per_connection,
                    config.limits.receive_frames, frames),
      timers_(config.limits.connections, Micros(500), 4096, start),
      ready_(config.limits.connections),
      unfinished_(config.limits.connections),
      wanting_(config.limits.connections),
      latest_(start),
      next_port_(static_cast<uint32_t>(rng_.Next())) {
  ready_listeners_.reserve(config.limits.listeners);
  waiting_for_end_.reserve(config.limits.connections);
  BeginTurn();
}

void Tcp::PushBack(uint32_t& head, uint32_t& tail, Tcb& t, Links links) {
  const uint32_t index = tcbs_.IndexOf(t);
  t.*links = {kNoIndex, tail};
  (tail == kNoIndex ? head : (tcbs_[tail].*links).next) = index;
  tail = index;
}

void Tcp::Unlink(uint32_t& head, uint32_t& tail, Tcb& t, Links links) {
  const ListLinks at = t.*links;
  (at.previous == kNoIndex ? head : (tcbs_[at.previous].*links).next) = at.next;
  (at.next == kNoIndex ? tail : (tcbs_[at.next].*links).previous) = at.previous;
  t.*links = {};
}

// A place for a new connection: of the oldest that waits in TIME-WAIT, if all are taken, or of the oldest
// that is half open.
bool Tcp::MakeRoom(bool evict_half_open) {
  if (tcbs_.used() < tcbs_.capacity()) return true;
  for (uint32_t i = time_wait_head_; i != kNoIndex; i = tcbs_[i].in_list.next) {
    if (tcbs_[i].owned) continue;
    counters_.time_wait_evicted.Add();
    ReleaseTcb(tcbs_[i]);
    return true;
  }
  if (!evict_half_open || half_open_head_ == kNoIndex) return false;
  counters_.half_open_evicted.Add();
  Fail(tcbs_[half_open_head_], SocketError::kNoMemory);
  return true;
}

Tcb* Tcp::Make(const Tuple& tuple, const TcpSocketOptions& options, bool evict_half_open,
               Nanos now) {
  IpLayer::Path path;
  if (!ip_.FindPath(tuple.remote.address, path) || !MakeRoom(evict_half_open)) return nullptr;
  Tcb& t = tcbs_[tcbs_.Alloc()];
  const uint32_t generation = t.generation;
  const bool queued = t.queued_for_events;
  const bool waits = t.waits_for_end;
  const bool wanting = t.waits_for_memory;
  const bool unfinished = t.unfinished;
  t = Tcb{};
  t.generation = generation;
  t.queued_for_events = queued;
  t.waits_for_end = waits;
  t.waits_for_memory = wanting;
  t.unfinished = unfinished;
  t.tuple = tuple;
  t.options = options;
  t.deadlines.fill(Nanos::Max());
  t.ts_offset = secrets_.TimestampOffset(tuple);
  t.rtt.Start(config_.times.initial_rto, config_.times.min_rto, config_.times.max_rto);
  t.link_mtu = t.path_mtu = path.mtu;
  if (const auto* const known = path_mtus_.Find(tuple.remote.address, now);
      known != nullptr && known->mtu < path.mtu) [[unlikely]] {
    t.path_mtu = known->mtu;
    t.path_mtu_expires = known->expires;
  }
  t.advertised_mss = AdvertisedMss(options, path.mtu, tuple.is_v4());
  t.rcv_buffer_max = ReceiveBufferMax(options);
  t.rcv_buffer = std::min(config_.receive_buffer_initial, t.rcv_buffer_max);
  t.snd_buffer_max =
      options.send_buffer_max != 0 ? options.send_buffer_max : config_.send_buffer_max;
  t.rcv_wnd_shift = config_.window_scaling ? WindowShift(options) : uint8_t{0};
  t.last_received = t.last_sent = t.copied_since = now;
  table_.Insert(tuple, tcbs_.IndexOf(t));
  return &t;
}

// The end that was not meant: everything that waits to be sent goes, what came in order stays.
void Tcp::Fail(Tcb& t, SocketError error) {
  if (!t.was_established) counters_.connections_failed.Add();
  t.error = error;
  if (t.owned) Raise(t, kEventError);
  Finish(t);
}

// No longer a connection. If a program has it, it stays until that closes it.
void Tcp::Finish(Tcb& t) {
  if (t.state == TcpState::kClosed) return;
  if (t.partner != kNoIndex) tcbs_[std::exchange(t.partner, kNoIndex)].partner = kNoIndex;
  LeaveLists(t);
  table_.Erase(t.tuple, tcbs_.IndexOf(t));
  ClearTimers(t);
  SetState(t, TcpState::kClosed);
  t.scoreboard.Clear(segments_);
  t.send.Clear(send_pool_);
  t.snd_una = t.snd_nxt;
  t.sending.Enter(Sending::kIdle, latest_);
  if (!t.owned) ReleaseTcb(t);
}

void Tcp::ReleaseTcb(Tcb& t) {
  if (t.state != TcpState::kClosed) {
    t.owned = true;  // so that Finish does not come back here
    Finish(t);
  }
  t.receive.Clear(receive_pool_);
  t.events = 0;
  t.owned = false;
  t.handler = nullptr;
  ++t.generation;
  tcbs_.Free(tcbs_.IndexOf(t));
}

// What the state and the lists count of it.
void Tcp::LeaveLists(Tcb& t) {
  if (t.listener != kNoIndex) LeaveListener(t);
  if (t.state == TcpState::kTimeWait) {
    Unlink(time_wait_head_, time_wait_tail_, t);
    --time_wait_count_;
  }
  if (t.orphan) LeaveOrphans(t);
}

void Tcp::EnterTimeWait(Tcb& t, Nanos now) {
  if (t.orphan) LeaveOrphans(t);
  if (time_wait_count_ >= config_.limits.time_wait) {
    counters_.time_wait_evicted.Add();
    Finish(tcbs_[time_wait_head_]);
  }
  ClearTimers(t);
  t.send.Clear(send_pool_);
  SetState(t, TcpState::kTimeWait);
  PushBack(time_wait_head_, time_wait_tail_, t);
  ++time_wait_count_;
  SetTimer(t, TcpTimer::kState, now + config_.times.time_wait);
}

// Closed by its program, with something left to do.
void Tcp::BecomeOrphan(Tcb& t, Nanos now) {
  t.owned = false;
  t.handler = nullptr;
  t.events = 0;
  if (t.state == TcpState::kTimeWait) return;
  if (orphans_ >= config_.limits.orphans) {
    counters_.orphans_reset.Add();
    ResetPeer(t, now);
    return ReleaseTcb(t);
  }
  t.orphan = true;
  ++orphans_;
  PushBack(orphan_head_, orphan_tail_, t);
  t.orphan_progress = now;
  Nanos life = config_.times.fin_wait_2;
  if (t.state != TcpState::kFinWait2) {
    life = config_.times.orphan + Seconds(t.send.size() / config_.times.orphan_least_rate);
  }
  SetTimer(t, TcpTimer::kState, now + life);
}

void Tcp::LeaveOrphans(Tcb& t) {
  t.orphan = false;
  --orphans_;
  Unlink(orphan_head_, orphan_tail_, t);
}

// A segment's worth, or all there is: a peer that acknowledges byte by byte makes none.
void Tcp::NoteOrphanProgress(Tcb& t, uint32_t acked, Nanos now) {
  if (acked < t.mss && !t.EverythingAcked()) return;
  t.orphan_progress = now;
  Unlink(orphan_head_, orphan_tail_, t);
  PushBack(orphan_head_, orphan_tail_, t);
}

// Others wait for the memory that they hold. All may have to be looked at, if most hold none.
void Tcp::ResetStalledOrphans(Nanos now) {
  if (now < next_orphan_scan_) return;
  next_orphan_scan_ = now + kOrphanScan;
  uint32_t next;
  for (uint32_t i = orphan_head_; i != kNoIndex; i = next) {
    Tcb& t = tcbs_[i];
    next = t.in_list.next;
    if (SendMemory() >= config_.limits.send_frames / 4 && SendMemory() > 0) return;
    if (now - t.orphan_progress < config_.times.orphan_stalled) return;
    if (t.send.pieces() == 0) continue;
    counters_.orphans_for_memory.Add();
    ResetPeer(t, now);
    Fail(t, SocketError::kTimedOut);
  }
}

// A half-open connection begins.
void Tcp::JoinListener(Tcb& t, uint32_t index) {
  TcpListener& listener = listeners_[index];
  t.handler = listener.handler;
  t.listener = index;
  t.passive = true;
  PushBack(listener.head, listener.tail, t, &Tcb::of_listener);
  ++listener.half_open;
  PushBack(half_open_head_, half_open_tail_, t);
  ++half_open_;
}

void Tcp::EndHalfOpen(Tcb& t) {
  --listeners_[t.listener].half_open;
  Unlink(half_open_head_, half_open_tail_, t);
  --half_open_;
}

// It has been accepted, or has ended.
void Tcp::LeaveListener(Tcb& t) {
  TcpListener& listener = listeners_[t.listener];
  if (t.in_accept_queue) {
    Unlink(listener.accept_head, listener.accept_tail, t);
    t.in_accept_queue = false;
    --listener.waiting;
  } else {
    EndHalfOpen(t);
  }
  Unlink(listener.head, listener.tail, t, &Tcb::of_listener);
  t.listener = kNoIndex;
}

void Tcp::QueueForAccept(Tcb& t) {
  TcpListener& listener = listeners_[t.listener];
  EndHalfOpen(t);
  PushBack(listener.accept_head, listener.accept_tail, t);
  t.in_accept_queue = true;
  ++listener.waiting;
  if (listener.queued_for_events) return;
  listener.queued_for_events = true;
  ready_listeners_.push_back(t.listener);
}

void Tcp::Raise(Tcb& t, uint8_t event) {
  t.events |= event;
  if (t.queued_for_events) return;
  t.queued_for_events = true;
  ready_.Push(tcbs_.IndexOf(t));
}

void Tcp::Dispatch(Nanos now) {
  DispatchListeners(now);
  while (!ready_.empty()) {
    Tcb& t = tcbs_[ready_.Pop()];
    t.queued_for_events = false;
    const uint8_t events = t.events;
    t.events = 0;
    if (!t.owned) {
      t.events = events;  // told when it has been accepted
      continue;
    }
    const TcpSocket id = IdOf(t);
    const auto handler = [&]() -> TcpHandler* {
      return t.generation == id.generation && t.owned ? t.handler : nullptr;
    };
    if (events & kEventConnected) {
      if (TcpHandler* const h = handler()) h->OnConnected(id, now);
    }
    if (events & kEventReadable) {
      if (TcpHandler* const h = handler()) h->OnReadable(id, now);
    }
    if (events & kEventWritable) {
      if (TcpHandler* const h = handler()) h->OnWritable(id, now);
    }
    if (events & kEventSpliceEnded) {
      if (TcpHandler* const h = handler()) h->OnSpliceEnded(id, now);
    }
    if (events & kEventError) {
      if (TcpHandler* const h = handler()) h->OnError(id, t.error, now);
    }
  }
}

void Tcp::DispatchListeners(Nanos now) {
  while (!ready_listeners_.empty()) {
    const uint32_t index = ready_listeners_.back();
    ready_listeners_.pop_back();
    TcpListener& listener = listeners_[index];
    listener.queued_for_events = false;
    if (!listener.active || listener.waiting == 0 || listener.handler == nullptr) continue;
    listener.handler->OnAcceptable({index, listener.generation}, now);
  }
}

Tcb* Tcp::Resolve(TcpSocket socket) {
  if (socket.index >= tcbs_.capacity()) return nullptr;
  Tcb& t = tcbs_[socket.index];
  return t.generation == socket.generation && t.owned ? &t : nullptr;
}

TcpListener* Tcp::Resolve(TcpListenerId id) {
  if (id.index >= listeners_.capacity()) return nullptr;
  TcpListener& listener = listeners_[id.index];
  return listener.generation == id.generation && listener.active ? &listener : nullptr;
}

const Tcb* Tcp::Find(TcpSocket socket) const { return const_cast<Tcp*>(this)->Resolve(socket); }

TcpUsage Tcp::usage() const {
  return {.connections = tcbs_.used(),
          .time_wait = time_wait_count_,
          .half_open = half_open_,
          .orphans = orphans_,
          .listeners = listeners_.used(),
          .segments = segments_.used(),
          .send_pieces = send_pool_.pieces.used(),
          .send_frames = config_.limits.send_frames - send_pool_.frames_left,
          .receive_frames = config_.limits.receive_frames - receive_pool_.frames_left,
          .ranges = receive_pool_.ranges.used(),
          .timers = static_cast<uint32_t>(timers_.size()),
          .splices = spliced_};
}

}  // namespace sluice::transport
