#include "services/health_checker.h"

#include <array>

#include "services/context.h"
#include "services/proxy_protocol.h"

namespace sluice::services {

namespace {

using tables::HealthCheckConfig;
using transport::SocketError;

// After a failed connection the next check comes no sooner than this part of the interval.
constexpr int64_t kHurry = 4;
// ... and so are those until it is known how a backend is.
constexpr int64_t kAtFirst = 8;

int OnHeadersComplete(http_parser* parser) {
  // Informational answers come before the one that counts (RFC 9110 section 15.2).
  if (parser->status_code >= 200) {
    static_cast<Probe*>(parser->data)->status = static_cast<uint16_t>(parser->status_code);
  }
  return 0;
}

const http_parser_settings kSettings = [] {
  http_parser_settings s;
  http_parser_settings_init(&s);
  s.on_headers_complete = OnHeadersComplete;
  return s;
}();

}  // namespace

Probe& HealthChecker::Of(transport::TcpSocket socket) {
  return context_.probes[context_.item_of_tcp[socket.index]];
}

void HealthChecker::Configure(const tables::ServiceConfig& config, BackendPool& pool, Nanos now) {
  const bool same = config_ == config.health && proxy_protocol_ == config.proxy_protocol;
  config_ = config.health;
  proxy_protocol_ = config.proxy_protocol;
  const bool wanted = config_.kind != HealthCheckConfig::Kind::kNone;
  pool.ForEach([&](Backend& b) {
    if (b.probe != transport::kNoIndex && (b.removed || !wanted || !same)) End(b, now);
    if (b.removed) return;
    if (!wanted) return SetUp(b, true, now);
    if (b.probe != transport::kNoIndex) return;
    b.probe = context_.probes.Alloc();
    if (b.probe == transport::kNoIndex) return;
    Probe& probe = context_.probes[b.probe];
    probe = Probe{};
    probe.owner = this;
    probe.backend = &b;
    context_.timers.Set(TimerKind::kProbe, b.probe, now);
  });
}

void HealthChecker::Stop(BackendPool& pool, Nanos now) {
  pool.ForEach([&](Backend& b) {
    if (b.probe != transport::kNoIndex) End(b, now);
  });
}

void HealthChecker::End(Backend& b, Nanos now) {
  Probe& probe = context_.probes[b.probe];
  if (probe.running) context_.transport.tcp().Abort(probe.socket, now);
  context_.timers.Clear(TimerKind::kProbe, b.probe);
  probe.owner = nullptr;
  context_.probes.Free(b.probe);
  b.probe = transport::kNoIndex;
}

void HealthChecker::Hurry(const Backend& backend, Nanos now) {
  if (backend.probe == transport::kNoIndex) return;
  Probe& probe = context_.probes[backend.probe];
  if (probe.running || !probe.decided || now - probe.started < config_.interval / kHurry) return;
  context_.timers.Set(TimerKind::kProbe, backend.probe, now);
}

void HealthChecker::OnTimer(uint32_t index, Nanos now) {
  Probe& probe = context_.probes[index];
  if (probe.running) return Result(probe, false, now);
  Start(probe, now);
}

void HealthChecker::Start(Probe& probe, Nanos now) {
  probe.started = now;
  probe.status = 0;
  probe.running = true;
  transport::Endpoint to{probe.backend->config.address.address,
                         probe.backend->config.address.port};
  if (config_.port != 0) to.port = config_.port;
  const SocketError error =
      context_.transport.tcp().Connect({}, to, {.no_delay = true}, this, now, probe.socket);
  if (error != SocketError::kNone) {
    probe.socket = {};
    const bool short_of = error == SocketError::kNoMemory || error == SocketError::kNoPorts;
    return short_of ? Skip(probe, now) : Result(probe, false, now);
  }
  const uint32_t index = context_.probes.IndexOf(probe);
  context_.item_of_tcp[probe.socket.index] = index;
  context_.timers.Set(TimerKind::kProbe, index, now + config_.timeout);
}

void HealthChecker::OnConnected(transport::TcpSocket socket, Nanos now) {
  Probe& probe = Of(socket);
  if (config_.kind == HealthCheckConfig::Kind::kTcp) return Result(probe, true, now);
  http_parser_init(&probe.parser, HTTP_RESPONSE);
  probe.parser.data = &probe;
  std::array<uint8_t, kProxyHeaderMax> header;
  const size_t header_size = proxy_protocol_ ? WriteLocalProxyHeader(header) : 0;
  // Cold: a few times a second at most.
  const std::string host =
      config_.host.empty() ? ToString(probe.backend->config.address) : config_.host;
  std::string request(header.begin(), header.begin() + header_size);
  request += "GET " + config_.path + " HTTP/1.1\r\nHost: " + host +
             "\r\nUser-Agent: sluice\r\nConnection: close\r\n\r\n";
  const auto sent = context_.transport.tcp().Send(
      socket, {reinterpret_cast<const uint8_t*>(request.data()), request.size()}, now);
  // Already over again, when the reset came together with the SYN-ACK.
  if (!sent.ok() && sent.error != SocketError::kWouldBlock) return Result(probe, false, now);
  // A new connection has room for it, if the worker has.
  if (sent.bytes < request.size()) Skip(probe, now);
}

void HealthChecker::OnReadable(transport::TcpSocket socket, Nanos now) {
  Probe& probe = Of(socket);
  std::array<uint8_t, 2048> buffer;
  for (;;) {
    const auto result = context_.transport.tcp().Receive(socket, buffer, now);
    if (result.error == SocketError::kWouldBlock) return;
    if (!result.ok() || config_.kind != HealthCheckConfig::Kind::kHttp) break;
    http_parser_execute(&probe.parser, &kSettings, reinterpret_cast<const char*>(buffer.data()),
                        result.bytes);
    if (probe.status != 0 || HTTP_PARSER_ERRNO(&probe.parser) != HPE_OK) break;
  }
  Result(probe, probe.status >= config_.first_status && probe.status <= config_.last_status, now);
}

void HealthChecker::OnError(transport::TcpSocket socket, SocketError, Nanos now) {
  Result(Of(socket), false, now);
}

void HealthChecker::Stop(Probe& probe, Nanos now) {
  if (probe.socket.valid()) context_.transport.tcp().Abort(probe.socket, now);
  probe.socket = {};
  probe.running = false;
}

// What this machine was short of says nothing about the backend.
void HealthChecker::Skip(Probe& probe, Nanos now) {
  Stop(probe, now);
  probe.backend->stats->checks_skipped.Add();
  Schedule(probe, config_.interval / kHurry, now);
}

void HealthChecker::Result(Probe& probe, bool good, Nanos now) {
  Stop(probe, now);
  Backend& b = *probe.backend;
  (good ? b.stats->checks_passed : b.stats->checks_failed).Add();
  probe.in_a_row = good == b.up ? 0 : probe.in_a_row + 1;
  if (probe.in_a_row >= (good ? config_.rise : config_.fall)) {
    probe.in_a_row = 0;
    SetUp(b, good, now);
    probe.decided = true;
  }
  if (good) probe.decided = true;
  Schedule(probe, probe.decided ? config_.interval : config_.interval / kAtFirst, now);
}

// Not all at the same time, nor in step with other workers.
void HealthChecker::Schedule(const Probe& probe, Nanos interval, Nanos now) {
  const auto tenth = static_cast<uint64_t>(interval.count() / 10 + 1);
  const auto jitter = static_cast<int64_t>(context_.rng.Below(2 * tenth));
  const Nanos wait = interval - interval / 10 + Nanos(jitter);
  context_.timers.Set(TimerKind::kProbe, context_.probes.IndexOf(probe), now + wait);
}

void HealthChecker::SetUp(Backend& b, bool up, Nanos now) {
  if (b.up == up) return;
  b.up = up;
  b.since = now;
  b.stats->up.Set(up ? 1 : 0);
  (up ? b.stats->went_up : b.stats->went_down).Add();
  if (!up) observer_.OnBackendDown(b, now);
}

}  // namespace sluice::services
