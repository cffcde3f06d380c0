#include "services/udp_proxy.h"

#include <algorithm>
#include <utility>

#include "transport/common/datagram.h"
#include "wire/protocol.h"
#include "wire/udp.h"

namespace sluice::services {

namespace {

using transport::kNoIndex;
using transport::SocketError;

// Which socket of a session's: bit 0 of what Context::item_of_udp says.
constexpr uint32_t kBackendSide = 0;
constexpr uint32_t kClientSide = 1;
// So many sessions make room for one, at most.
constexpr int kEvictions = 4;
// How long no free port is looked for after there was none: looking costs much.
constexpr Nanos kPortsShort = Millis(20);

// Of what XDP carries.
uint64_t TokenOf(uint32_t session, bool to_backend) {
  return uint64_t{session} << 1 | (to_backend ? 1 : 0);
}

}  // namespace

UdpProxy::UdpProxy(Context& context, ConfigPtr config, uint32_t timer)
    : ProxyService(context, std::move(config), timer) {
  context_.udp_proxies.push_back(this);
}

UdpProxy::~UdpProxy() { std::erase(context_.udp_proxies, this); }

void UdpProxy::Link(UdpSession& s) {
  const uint32_t index = context_.sessions.IndexOf(s);
  s.previous = latest_;
  s.next = kNoIndex;
  (latest_ == kNoIndex ? idlest_ : context_.sessions[latest_].next) = index;
  latest_ = index;
}

void UdpProxy::Unlink(UdpSession& s) {
  (s.previous == kNoIndex ? idlest_ : context_.sessions[s.previous].next) = s.next;
  (s.next == kNoIndex ? latest_ : context_.sessions[s.next].previous) = s.previous;
}

void UdpProxy::Touch(UdpSession& s, Nanos now) {
  s.last_activity = now;
  if (latest_ == context_.sessions.IndexOf(s)) return;
  Unlink(s);
  Link(s);
}

void UdpProxy::OnReadable(transport::UdpSocket socket, Nanos now) {
  const uint32_t item = context_.item_of_udp[socket.index];
  if (item == kNoIndex) return FromListener(socket, now);
  UdpSession& s = context_.sessions[item >> 1];
  ReceivedDatagram d(context_);
  while (d.Next(socket)) {  // until the session, and its socket with it, has ended
    if ((item & 1) == kClientSide) {
      FromClient(s, d, now);
    } else {
      FromBackend(s, d, now);
    }
  }
}

void UdpProxy::FromListener(transport::UdpSocket socket, Nanos now) {
  const transport::Endpoint* const local = udp().LocalOf(socket);
  if (local == nullptr) return;
  transport::Tuple tuple{*local, {}};
  ReceivedDatagram d(context_);
  while (d.Next(socket)) {
    tuple.remote = d.from();
    const uint32_t index = context_.FindSession(tuple);
    UdpSession* s = index == kNoIndex ? nullptr : &context_.sessions[index];
    if (s != nullptr && !s->backend->up) {
      End(*s, now);
      s = nullptr;
    }
    if (s == nullptr) s = Begin(tuple, socket, now);
    if (s != nullptr) FromClient(*s, d, now);
  }
}

bool UdpProxy::MakeRoom(Nanos now) {
  if (idlest_ == kNoIndex) return false;
  stats_->Fail(ServiceFailure::kEvicted);
  End(context_.sessions[idlest_], now);
  return true;
}

bool UdpProxy::MakeRoomAmongAll(Nanos now) {
  UdpProxy* most = this;
  for (UdpProxy* const other : context_.udp_proxies) {
    if (other->active() > most->active()) most = other;
  }
  return most->MakeRoom(now);
}

// A socket towards the backend; at a limit of sockets or ports the idlest sessions make room for it.
SocketError UdpProxy::OpenFor(UdpSession& s, const Backend& backend, Nanos now) {
  const transport::Endpoint remote = EndpointOf(backend.config.address);
  SocketError error = SocketError::kNoPorts;
  if (now >= ports_short_until_ || idlest_ == kNoIndex) {
    error = udp().Open({}, remote, this, s.server);
  }
  for (int i = 0; i < kEvictions; ++i) {
    if (error != SocketError::kNoMemory && error != SocketError::kNoPorts) return error;
    if (error == SocketError::kNoPorts && now >= ports_short_until_) {
      ports_short_until_ = now + kPortsShort;
    }
    if (idlest_ == kNoIndex) break;
    const UdpSession& idlest = context_.sessions[idlest_];
    const bool same = idlest.backend == &backend && udp().LocalOf(idlest.server) != nullptr;
    const transport::Endpoint local = same ? *udp().LocalOf(idlest.server) : transport::Endpoint{};
    MakeRoom(now);
    error = udp().Open(local, remote, this, s.server);
  }
  return error;
}

UdpSession* UdpProxy::Begin(const transport::Tuple& client, transport::UdpSocket listener,
                            Nanos now) {
  Backend* const backend = pool_.Pick(client.remote.address, 0);
  if (backend == nullptr) {
    stats_->Fail(ServiceFailure::kNoBackend);
    return nullptr;
  }
  if (!HasRoom()) MakeRoom(now);
  uint32_t index = context_.sessions.Alloc();
  if (index == kNoIndex && MakeRoomAmongAll(now)) index = context_.sessions.Alloc();
  if (index == kNoIndex) {
    stats_->Fail(ServiceFailure::kLimit);
    return nullptr;
  }
  UdpSession& s = context_.sessions[index];
  s = UdpSession{};
  const SocketError error = OpenFor(s, *backend, now);
  if (error != SocketError::kNone) {
    context_.sessions.Free(index);
    stats_->Fail(error == SocketError::kUnreachable ? ServiceFailure::kConnectFailed
                                                    : ServiceFailure::kLimit);
    if (error == SocketError::kUnreachable) backend->stats->failures.Add();
    return nullptr;
  }
  s.owner = this;
  s.tuple = client;
  s.client = listener;
  s.backend = backend;
  s.last_activity = now;
  context_.item_of_udp[s.server.index] = index << 1 | kBackendSide;
  context_.session_table.Insert(client, index);
  Link(s);
  backend->Began();
  backend->stats->connections.Add();
  Service::Begin();
  WantWork(now + config_->idle_timeout);
  return &s;
}

void UdpProxy::FromClient(UdpSession& s, const ReceivedDatagram& d, Nanos now) {
  stats_->messages_in.Add();
  stats_->bytes_in.Add(d.data().size());
  Touch(s, now);
  s.replies_due += std::min(config_->replies, UINT32_MAX - s.replies_due);
  if (!Pass(s, /*to_backend=*/true, d, now).ok()) stats_->Fail(ServiceFailure::kSendFailed);
}

void UdpProxy::FromBackend(UdpSession& s, const ReceivedDatagram& d, Nanos now) {
  Touch(s, now);
  if (Pass(s, /*to_backend=*/false, d, now).ok()) {
    stats_->messages_out.Add();
    stats_->bytes_out.Add(d.data().size());
  } else {
    stats_->Fail(ServiceFailure::kSendFailed);
  }
  // A client may ask again before it has its answer.
  if (s.replies_due > 0) --s.replies_due;
  if (config_->replies != 0 && s.replies_due == 0) End(s, now);
}

transport::IoResult UdpProxy::Pass(UdpSession& s, bool to_backend, const ReceivedDatagram& d,
                                   Nanos now) {
  const transport::UdpSocket socket = to_backend ? s.server : s.client;
  const transport::Endpoint remote =
      to_backend ? EndpointOf(s.backend->config.address) : s.tuple.remote;
  if (MayBeCarried(s, d)) {
    return udp().SendRelayed(socket, remote, d.data(),
                             {.in = d.in(),
                              .arrives = d.arrived(),
                              .protocol = wire::kProtocolUdp,
                              .handle = to_backend ? &s.to_backend : &s.to_client,
                              .user = this,
                              .token = TokenOf(context_.sessions.IndexOf(s), to_backend)},
                             now);
  }
  if (to_backend || s.own_client_socket) return udp().Send(socket, d.data(), now);
  return udp().SendTo(socket, remote, d.data(), now);
}

bool UdpProxy::MayBeCarried(const UdpSession& s, const ReceivedDatagram& d) const {
  const IpAddress& listening = s.tuple.local.address;
  return config_->replies == 0 && d.whole() && s.backend->up && !transport::IsMulticast(listening) &&
         listening.family == s.backend->config.address.address.family;
}

void UdpProxy::OnCarried(uint64_t token, const transport::Carried& carried, Nanos now) {
  UdpSession& s = context_.sessions[static_cast<uint32_t>(token >> 1)];
  Touch(s, now);
  const bool in = (token & 1) != 0;
  const uint64_t headers = transport::IpHeaderSize(s.tuple.is_v4()) + wire::UdpView::kSize;
  (in ? stats_->messages_in : stats_->messages_out).Add(carried.packets);
  (in ? stats_->bytes_in : stats_->bytes_out).Add(carried.bytes - carried.packets * headers);
  udp().CountCarried(carried.packets);
}

void UdpProxy::EndCarried(UdpSession& s, Nanos now) {
  udp().EndRelayed(s.to_backend, now);
  udp().EndRelayed(s.to_client, now);
}

// Sessions in use move to the end of the list meanwhile, and are met there again.
template <class Wanted>
void UdpProxy::EndCarriedOf(Wanted&& wanted, Nanos now) {
  for (uint32_t i = idlest_; i != kNoIndex;) {
    UdpSession& s = context_.sessions[i];
    i = s.next;
    if (wanted(s)) EndCarried(s, now);
  }
}

// Its clients' next datagrams come here, and get them another one.
void UdpProxy::OnBackendDown(Backend& backend, Nanos now) {
  EndCarriedOf([&](const UdpSession& s) { return s.backend == &backend; }, now);
}

void UdpProxy::OnReconfigured(Nanos now) {
  ProxyService::OnReconfigured(now);
  if (config_->replies != 0) EndCarriedOf([](const UdpSession&) { return true; }, now);
}

void UdpProxy::OnPathNarrower(transport::UdpSocket socket, const transport::Endpoint& remote,
                              Nanos now) {
  const uint32_t item = context_.item_of_udp[socket.index];
  const transport::Endpoint* const local = udp().LocalOf(socket);
  const uint32_t index =
      item != kNoIndex ? item >> 1 : context_.FindSession({*local, remote});
  if (index == kNoIndex) return;
  UdpSession& s = context_.sessions[index];
  const bool to_backend = item != kNoIndex && (item & 1) == kBackendSide;
  udp().EndRelayed(to_backend ? s.to_backend : s.to_client, now);
}

void UdpProxy::OnError(transport::UdpSocket socket, SocketError, Nanos now) {
  const uint32_t item = context_.item_of_udp[socket.index];
  if (item == kNoIndex) return;
  UdpSession& s = context_.sessions[item >> 1];
  if ((item & 1) == kClientSide) {
    stats_->Fail(ServiceFailure::kClientReset);
  } else {
    stats_->Fail(ServiceFailure::kBackendReset);
    s.backend->stats->failures.Add();
    checker_.Hurry(*s.backend, now);
  }
  End(s, now);
}

void UdpProxy::End(UdpSession& s, Nanos now) {
  const uint32_t index = context_.sessions.IndexOf(s);
  EndCarried(s, now);
  udp().Close(s.server);
  if (s.own_client_socket) udp().Close(s.client);
  context_.session_table.Erase(s.tuple, index);
  Unlink(s);
  Backend& backend = *s.backend;
  s.owner = nullptr;
  context_.sessions.Free(index);
  Leave(backend);
  Service::End();
}

void UdpProxy::OnUdpClosed(const UdpListening& listening, Nanos now) {
  for (uint32_t i = idlest_; i != kNoIndex;) {
    UdpSession& s = context_.sessions[i];
    i = s.next;
    if (s.own_client_socket || s.client != listening.socket) continue;
    transport::UdpSocket own;
    if (udp().Open(s.tuple.local, s.tuple.remote, this, own) == SocketError::kNone) {
      s.client = own;
      s.own_client_socket = true;
      context_.item_of_udp[own.index] = context_.sessions.IndexOf(s) << 1 | kClientSide;
    } else {
      stats_->Fail(ServiceFailure::kMemory);
      End(s, now);
    }
  }
}

Nanos UdpProxy::OnWork(Nanos now) {
  while (idlest_ != kNoIndex) {
    UdpSession& s = context_.sessions[idlest_];
    const auto due = [&] { return s.last_activity + config_->idle_timeout; };
    if (due() > now) return due();
    EndCarried(s, now);  // something may have been carried since it was last told of
    if (due() <= now) End(s, now);
  }
  return Nanos::Max();
}

void UdpProxy::AbortAll(Nanos now) {
  while (idlest_ != kNoIndex) {
    stats_->Fail(ServiceFailure::kDrainTimeout);
    End(context_.sessions[idlest_], now);
  }
}

}  // namespace sluice::services
