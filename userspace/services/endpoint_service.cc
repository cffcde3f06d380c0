#include "services/endpoint_service.h"

#include <array>

#include "services/datagrams.h"

namespace sluice::services {

namespace {

using tables::ServiceKind;
using transport::SocketError;

// RFC 864's recommended pattern: lines of 72 of the 95 printable characters, each line one further.
constexpr size_t kLine = 72 + 2;
constexpr size_t kLines = 95;
constexpr std::array<uint8_t, kLine * kLines> kPattern = [] {
  std::array<uint8_t, kLine * kLines> p{};
  for (size_t line = 0; line < kLines; ++line) {
    for (size_t i = 0; i < 72; ++i) {
      p[line * kLine + i] = static_cast<uint8_t>(' ' + (line + i) % kLines);
    }
    p[line * kLine + 72] = '\r';
    p[line * kLine + 73] = '\n';
  }
  return p;
}();
constexpr size_t kMostCharacters = 512;  // of an answer by UDP

constexpr bool AnswersItself(uint16_t port) { return port == 7 || port == 19; }

}  // namespace

void EndpointService::OnAcceptable(transport::TcpListenerId listener, Nanos now) {
  transport::TcpSocket socket;
  while (tcp().Accept(listener, this, socket) == SocketError::kNone) {
    const uint32_t index = HasRoom() ? context_.endpoints.Alloc() : transport::kNoIndex;
    if (index == transport::kNoIndex) {
      stats_->Fail(ServiceFailure::kLimit);
      tcp().Abort(socket, now);
      continue;
    }
    context_.endpoints[index] = {this, socket, now};
    context_.item_of_tcp[socket.index] = index;
    context_.timers.Set(TimerKind::kEndpoint, index, now + config_->idle_timeout);
    Begin();
    if (config_->kind == ServiceKind::kChargen) Generate(context_.endpoints[index], now);
  }
}

void EndpointService::OnReadable(transport::TcpSocket socket, Nanos now) {
  EndpointConnection& c = Of(socket);
  c.last_activity = now;
  if (config_->kind == ServiceKind::kEcho) return Echo(c, now);
  Discard(c, now);
}

void EndpointService::OnWritable(transport::TcpSocket socket, Nanos now) {
  EndpointConnection& c = Of(socket);
  c.last_activity = now;
  if (config_->kind == ServiceKind::kEcho) return Echo(c, now);
  if (config_->kind == ServiceKind::kChargen) Generate(c, now);
}

void EndpointService::Echo(EndpointConnection& c, Nanos now) {
  while (tcp().SendRoom(c.socket) > 0) {
    transport::ReceivedData data;
    const SocketError error = tcp().ReceivePacket(c.socket, data, now);
    if (error == SocketError::kWouldBlock) return;
    if (error != SocketError::kNone) return Finish(c, false, now);
    if (!tcp().SendReceived(c.socket, data, now).ok()) {
      tcp().Release(data);
      stats_->Fail(ServiceFailure::kMemory);
      return Finish(c, true, now);
    }
    stats_->bytes_in.Add(data.length);
    stats_->bytes_out.Add(data.length);
  }
}

void EndpointService::Discard(EndpointConnection& c, Nanos now) {
  transport::ReceivedData data;
  SocketError error;
  while ((error = tcp().ReceivePacket(c.socket, data, now)) == SocketError::kNone) {
    stats_->bytes_in.Add(data.length);
    tcp().Release(data);
  }
  if (error != SocketError::kWouldBlock) Finish(c, false, now);
}

void EndpointService::Generate(EndpointConnection& c, Nanos now) {
  const transport::OwnedBuffer pattern{kPattern.data(), kPattern.size()};
  while (tcp().SendRoom(c.socket) > 0 && tcp().SendOwned(c.socket, pattern, now).ok()) {
    stats_->bytes_out.Add(pattern.length);
  }
}

void EndpointService::OnError(transport::TcpSocket socket, SocketError, Nanos now) {
  stats_->Fail(ServiceFailure::kClientReset);
  Finish(Of(socket), false, now);
}

void EndpointService::Finish(EndpointConnection& c, bool abort, Nanos now) {
  if (abort) {
    tcp().Abort(c.socket, now);
  } else {
    tcp().Close(c.socket, now);
  }
  const uint32_t index = context_.endpoints.IndexOf(c);
  context_.timers.Clear(TimerKind::kEndpoint, index);
  c.owner = nullptr;
  context_.endpoints.Free(index);
  End();
}

void EndpointService::OnItemTimer(uint32_t index, Nanos now) {
  EndpointConnection& c = context_.endpoints[index];
  const Nanos due = c.last_activity + config_->idle_timeout;
  if (due > now) return context_.timers.Set(TimerKind::kEndpoint, index, due);
  stats_->Fail(ServiceFailure::kIdleTimeout);
  Finish(c, true, now);
}

void EndpointService::AbortAll(Nanos now) {
  for (uint32_t i = 0; i < context_.endpoints.capacity() && active() > 0; ++i) {
    EndpointConnection& c = context_.endpoints[i];
    if (c.owner != this) continue;
    stats_->Fail(ServiceFailure::kDrainTimeout);
    Finish(c, true, now);
  }
}

void EndpointService::OnReadable(transport::UdpSocket socket, Nanos now) {
  const transport::Endpoint* const local = udp().LocalOf(socket);
  const uint16_t own = local == nullptr ? uint16_t{0} : local->port;
  ReceivedDatagram d(context_);
  while (d.Next(socket)) {
    stats_->messages_in.Add();
    stats_->bytes_in.Add(d.data().size());
    if (config_->kind == ServiceKind::kDiscard) continue;
    if (AnswersItself(d.from().port) || d.from().port == own) {
      stats_->Fail(ServiceFailure::kLoop);
    } else if (config_->kind == ServiceKind::kEcho) {
      Answer(socket, d.from(), d.data(), now);
    } else {
      const size_t n = context_.rng.Below(kMostCharacters + 1);
      const size_t line = context_.rng.Below(kLines / 2);
      Answer(socket, d.from(), std::span(kPattern).subspan(line * kLine, n), now);
    }
  }
}

void EndpointService::Answer(transport::UdpSocket socket, const transport::Endpoint& from,
                             std::span<const uint8_t> data, Nanos now) {
  if (!udp().SendTo(socket, from, data, now).ok()) {
    stats_->Fail(ServiceFailure::kSendFailed);
    return;
  }
  stats_->messages_out.Add();
  stats_->bytes_out.Add(data.size());
}

}  // namespace sluice::services
