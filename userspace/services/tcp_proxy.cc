#include "services/tcp_proxy.h"

#include <algorithm>
#include <array>
#include <utility>

#include "services/proxy_protocol.h"

namespace sluice::services {

namespace {

using transport::SocketError;
using transport::TcpSocket;

// How long a backend is left alone towards which there was no free port.
constexpr Nanos kPortsShort = Millis(20);

}  // namespace

transport::TcpSocketOptions TcpProxy::ListenOptions() const {
  // Data is passed on as it comes: whoever wrote it has decided on its pieces. What one end says the other
  // mostly answers, and when one closes so does the other: ACKs wait for that.
  return {.no_delay = true, .answers = true};
}

void TcpProxy::OnReconfigured(Nanos now) {
  std::vector<tables::ServiceAddress> before;
  for (const Backend* const b : pool_.current()) before.push_back(b->config.address);
  ProxyService::OnReconfigured(now);
  // Indices have changed.
  full_ = 0;
  for (uint32_t i = 0; i < context_.relays.capacity() && active() > 0; ++i) {
    Relay& r = context_.relays[i];
    if (r.owner == this && !r.connected) r.tried = Renumber(r.tried, before);
  }
}

BackendMask TcpProxy::Renumber(BackendMask mask,
                               const std::vector<tables::ServiceAddress>& before) const {
  BackendMask after = 0;
  for (const Backend* const b : pool_.current()) {
    const auto was = std::find(before.begin(), before.end(), b->config.address);
    if (was == before.end()) continue;
    after |= (mask >> (was - before.begin()) & 1) << b->index;
  }
  return after;
}

void TcpProxy::OnAcceptable(transport::TcpListenerId listener, Nanos now) {
  TcpSocket socket;
  while (tcp().Accept(listener, this, socket) == SocketError::kNone) {
    const uint32_t index = HasRoom() ? context_.relays.Alloc() : transport::kNoIndex;
    if (index == transport::kNoIndex) {
      stats_->Fail(ServiceFailure::kLimit);
      tcp().Abort(socket, now);
      continue;
    }
    Relay& r = context_.relays[index];
    r = Relay{};
    r.owner = this;
    r.client = socket;
    r.attempts_left = static_cast<uint8_t>(std::min(config_->retries, 64u) + 1);
    Name(socket, r, kClient);
    Begin();
    Dial(r, now);
  }
}

// Tries backends until one is being connected to; without any the client is reset.
void TcpProxy::Dial(Relay& r, Nanos now) {
  const transport::Tcb* const client = tcp().Find(r.client);
  const IpAddress address = client == nullptr ? IpAddress() : client->tuple.remote.address;
  if (now >= full_until_) full_ = 0;
  while (r.attempts_left > 0) {
    Backend* const b = pool_.Pick(address, r.tried | full_);
    if (b == nullptr) break;
    const SocketError error = tcp().Connect({}, EndpointOf(b->config.address), ListenOptions(),
                                            this, now, r.server);
    if (error == SocketError::kNoPorts) {
      r.server = {};
      full_ |= BackendMask{1} << b->index;
      full_until_ = now + kPortsShort;
      continue;
    }
    if (r.tried != 0) stats_->retries.Add();
    r.tried |= BackendMask{1} << b->index;
    --r.attempts_left;
    if (error == SocketError::kNone) {
      Name(r.server, r, kServer);
      r.backend = b;
      b->Began();
      r.last_activity = now;
      context_.timers.Set(TimerKind::kRelay, context_.relays.IndexOf(r),
                          now + config_->connect_timeout);
      return;
    }
    r.server = {};
    if (error == SocketError::kNoMemory) return Break(r, ServiceFailure::kMemory, now);
    b->stats->failures.Add();
    checker_.Hurry(*b, now);
  }
  if (r.tried != 0) return Break(r, ServiceFailure::kConnectFailed, now);
  Break(r, full_ != 0 ? ServiceFailure::kLimit : ServiceFailure::kNoBackend, now);
}

void TcpProxy::OnAttemptFailed(Relay& r, Nanos now) {
  Backend& b = *std::exchange(r.backend, nullptr);
  tcp().Abort(std::exchange(r.server, {}), now);
  b.stats->failures.Add();
  checker_.Hurry(b, now);
  Leave(b);
  Dial(r, now);
}

void TcpProxy::OnConnected(TcpSocket socket, Nanos now) {
  Relay& r = Of(socket);
  CountConnectTime(now - r.last_activity);
  r.backend->stats->connections.Add();
  r.connected = true;
  r.last_activity = now;
  context_.timers.Set(TimerKind::kRelay, context_.relays.IndexOf(r), now + config_->idle_timeout);
  if (config_->proxy_protocol && !Introduce(r, now)) {
    return Break(r, ServiceFailure::kMemory, now);
  }
  if (config_->splice) tcp().Join(r.client, r.server);
  Pump(r, kClient, now);
}

// Says who the client is. A connection that has just been made has room for that.
bool TcpProxy::Introduce(Relay& r, Nanos now) {
  const transport::Tcb* const client = tcp().Find(r.client);
  if (client == nullptr) return false;
  std::array<uint8_t, kProxyHeaderMax> header;
  const size_t n = WriteProxyHeader(client->tuple.remote, client->tuple.local, header);
  return tcp().Send(r.server, std::span(header).first(n), now).bytes == n;
}

void TcpProxy::CountConnectTime(Nanos took) {
  const auto bound =
      std::lower_bound(kConnectTimeBounds.begin(), kConnectTimeBounds.end(), took);
  stats_->connect_time[static_cast<size_t>(bound - kConnectTimeBounds.begin())].Add();
  stats_->connect_time_ns.Add(static_cast<uint64_t>(std::max(took, Nanos()).count()));
}

void TcpProxy::OnReadable(TcpSocket socket, Nanos now) {
  Relay& r = Of(socket);
  if (r.connected) Pump(r, SideOf(socket), now);
}

void TcpProxy::OnWritable(TcpSocket socket, Nanos now) {
  Relay& r = Of(socket);
  if (r.connected) Pump(r, Other(SideOf(socket)), now);
}

// Passes on what has come from one end. The relay may be gone afterwards.
void TcpProxy::Pump(Relay& r, Side from, Nanos now) {
  const TcpSocket in = SocketOf(r, from);
  const TcpSocket out = SocketOf(r, Other(from));
  bool& ended = from == kClient ? r.client_ended : r.server_ended;
  if (ended) return;
  uint64_t bytes = 0;
  while (tcp().SendRoom(out) > 0) {
    transport::ReceivedData data;
    const SocketError error = tcp().ReceivePacket(in, data, now);
    if (error == SocketError::kNone) {
      if (tcp().QueueReceived(out, data, now).ok()) {
        bytes += data.length;
        continue;
      }
      tcp().Release(data);  // of more pieces than there may be
      return Break(r, ServiceFailure::kMemory, now);
    }
    if (error == SocketError::kEndOfData) {
      ended = true;
      tcp().Shutdown(out, now);
    }
    break;  // of other errors OnError tells
  }
  if (bytes > 0) {
    if (!ended) tcp().Push(out, now);
    Count(r, from, bytes, now);
  }
  if (r.client_ended && r.server_ended) Finish(r, now);
}

void TcpProxy::Count(Relay& r, Side from, uint64_t bytes, Nanos now) {
  (from == kClient ? stats_->bytes_in : stats_->bytes_out).Add(bytes);
  r.last_activity = now;
}

void TcpProxy::OnRelayed(TcpSocket socket, uint32_t bytes, Nanos now) {
  Count(Of(socket), SideOf(socket), bytes, now);
}

void TcpProxy::OnSpliceEnded(TcpSocket socket, Nanos now) { Finish(Of(socket), now); }

void TcpProxy::OnError(TcpSocket socket, SocketError, Nanos now) {
  Relay& r = Of(socket);
  const Side side = SideOf(socket);
  if (side == kServer && !r.connected) return OnAttemptFailed(r, now);
  if (r.connected) {
    // What came before the error is still passed on, as far as there is room.
    const TcpSocket client = r.client;
    Pump(r, side, now);
    if (r.owner == nullptr || r.client != client) return;
  }
  Break(r, side == kClient ? ServiceFailure::kClientReset : ServiceFailure::kBackendReset, now);
}

void TcpProxy::OnItemTimer(uint32_t index, Nanos now) {
  Relay& r = context_.relays[index];
  if (!r.connected) return OnAttemptFailed(r, now);
  const auto due = [&] { return r.last_activity + config_->idle_timeout; };
  // Something may have been carried since it was last told of.
  if (due() <= now) tcp().TellCarried(r.client, now);
  if (due() > now) return context_.timers.Set(TimerKind::kRelay, index, due());
  // Nothing new has come, but what came before may still be on its way out.
  if (const uint32_t rest = Undelivered(r); rest != 0 && rest != r.undelivered) {
    r.undelivered = rest;
    return context_.timers.Set(TimerKind::kRelay, index, now + config_->idle_timeout);
  }
  Break(r, ServiceFailure::kIdleTimeout, now);
}

uint32_t TcpProxy::Undelivered(const Relay& r) const {
  uint32_t bytes = 0;
  for (const TcpSocket socket : {r.client, r.server}) {
    const transport::Tcb* const t = context_.transport.tcp().Find(socket);
    if (t != nullptr) bytes += t->send.size();
  }
  return bytes;
}

void TcpProxy::Finish(Relay& r, Nanos now) {
  tcp().Close(r.client, now);
  tcp().Close(r.server, now);
  Free(r);
}

void TcpProxy::Break(Relay& r, ServiceFailure why, Nanos now) {
  stats_->Fail(why);
  tcp().Abort(r.client, now);
  if (r.server.valid()) tcp().Abort(r.server, now);
  Free(r);
}

void TcpProxy::Free(Relay& r) {
  const uint32_t index = context_.relays.IndexOf(r);
  context_.timers.Clear(TimerKind::kRelay, index);
  if (r.backend != nullptr) Leave(*r.backend);
  r.owner = nullptr;
  r.backend = nullptr;
  context_.relays.Free(index);
  End();
}

void TcpProxy::AbortAll(Nanos now) {
  for (uint32_t i = 0; i < context_.relays.capacity() && active() > 0; ++i) {
    Relay& r = context_.relays[i];
    if (r.owner == this) Break(r, ServiceFailure::kDrainTimeout, now);
  }
}

}  // namespace sluice::services
