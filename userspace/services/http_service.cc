#include "services/http_service.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <utility>

namespace sluice::services {

namespace {

using transport::SocketError;
using State = HttpConnection::State;

constexpr Nanos kPageTimeout = Seconds(10);   // the control thread is not asked twice
constexpr Nanos kGoodbyeTimeout = Seconds(2);  // for the client to close
constexpr Nanos kPatience = Seconds(5);        // with a request or an answer, while others want the place
constexpr size_t kPiece = 8 * 1024;            // given to the stack between two looks at its memory

struct StatusText {
  uint16_t status;
  std::string_view reason;
  std::string_view body;
};
constexpr StatusText kStatuses[] = {
    {200, "OK", "ok\n"},
    {400, "Bad Request", "bad request\n"},
    {404, "Not Found", "not found: there are /metrics and /healthz\n"},
    {405, "Method Not Allowed", "only GET and HEAD\n"},
    {408, "Request Timeout", "the request did not come in time\n"},
    {413, "Content Too Large", "the body is too large\n"},
    {414, "URI Too Long", "the target is too long\n"},
    {431, "Request Header Fields Too Large", "the header is too large\n"},
    {503, "Service Unavailable", "the page is not available\n"},
    {505, "HTTP Version Not Supported", "only HTTP/1.0 and HTTP/1.1\n"},
};
const StatusText& TextOf(uint16_t status) {
  for (const StatusText& t : kStatuses) {
    if (t.status == status) return t;
  }
  return kStatuses[1];
}

}  // namespace

void HttpService::SetTimer(const HttpConnection& c, Nanos deadline) {
  context_.timers.Set(TimerKind::kHttp, context_.http.IndexOf(c), deadline);
}

void HttpService::OnAcceptable(transport::TcpListenerId listener, Nanos now) {
  transport::TcpSocket socket;
  while (tcp().Accept(listener, this, socket) == SocketError::kNone) {
    const uint32_t index = Place(now);
    if (index == transport::kNoIndex) {
      stats_->Fail(ServiceFailure::kLimit);
      tcp().Abort(socket, now);
      continue;
    }
    HttpConnection& c = context_.http[index];
    c.Start(this, socket, now);
    context_.item_of_tcp[socket.index] = index;
    SetTimer(c, now + config_->idle_timeout);
    Begin();
  }
}

void HttpService::OnReadable(transport::TcpSocket socket, Nanos now) {
  HttpConnection& c = Of(socket);
  if (c.state == State::kGoodbye) return Discard(c, now);
  if (c.state == State::kReading) Advance(c, now);
}

void HttpService::OnWritable(transport::TcpSocket socket, Nanos now) {
  HttpConnection& c = Of(socket);
  if (c.state == State::kSending) Advance(c, now);
}

// A place for one connection more; kNoIndex: none.
uint32_t HttpService::Place(Nanos now) {
  if (!HasRoom() && !MakeRoom(/*of_this=*/true, now)) return transport::kNoIndex;
  const uint32_t index = context_.http.Alloc();
  if (index != transport::kNoIndex || !MakeRoom(/*of_this=*/false, now)) return index;
  return context_.http.Alloc();
}

// Ends the connection, of this service or of any, that has been without a request longest; when there is
// none, the one that has been busy longest with what only the client holds up.
bool HttpService::MakeRoom(bool of_this, Nanos now) {
  HttpConnection* idlest = nullptr;
  HttpConnection* slowest = nullptr;
  for (uint32_t i = 0; i < context_.http.capacity(); ++i) {
    HttpConnection& c = context_.http[i];
    if (c.owner == nullptr || (of_this && c.owner != this) || c.state == State::kWaiting) continue;
    const bool idle = c.state == State::kGoodbye ||
                      (c.state == State::kReading && !c.reader.in_request());
    if (!idle && now - c.since < kPatience) continue;
    HttpConnection*& first = idle ? idlest : slowest;
    if (first == nullptr || c.since < first->since) first = &c;
  }
  HttpConnection* const victim = idlest != nullptr ? idlest : slowest;
  if (victim == nullptr) return false;
  victim->owner->stats_->Fail(ServiceFailure::kEvicted);
  // What has not been taken of an answer would keep its memory.
  victim->owner->Finish(*victim, /*abort=*/victim->state == State::kSending, now);
  return true;
}

void HttpService::OnError(transport::TcpSocket socket, SocketError, Nanos now) {
  HttpConnection& c = Of(socket);
  if (c.state != State::kGoodbye) stats_->Fail(ServiceFailure::kClientReset);
  Finish(c, false, now);
}

// As far as it goes without waiting. The connection may be gone afterwards.
void HttpService::Advance(HttpConnection& c, Nanos now) {
  for (;;) {
    switch (c.state) {
      case State::kReading:
        if (!ReadRequest(c, now)) return;
        break;
      case State::kSending:
        if (!SendAnswer(c, now)) return;
        if (!c.keep_alive) return SayGoodbye(c, now);
        c.state = State::kReading;
        c.since = now;
        SetTimer(c, now + config_->idle_timeout);
        break;
      case State::kWaiting:
      case State::kGoodbye:
        return;
    }
  }
}

// Whether a request, or what is none, has been read; the state tells what comes next.
bool HttpService::ReadRequest(HttpConnection& c, Nanos now) {
  for (;;) {
    if (c.input_begin == c.input_end) {
      const auto received = tcp().Receive(c.socket, c.input, now);
      if (received.error == SocketError::kWouldBlock) return false;
      if (received.error == SocketError::kEndOfData && !c.reader.in_request()) {
        Finish(c, false, now);
        return false;
      }
      if (received.error == SocketError::kEndOfData) {
        stats_->Fail(ServiceFailure::kBadRequest);
        c.keep_alive = false;
        Answer(c, 400, nullptr, now);
        return true;
      }
      if (!received.ok()) return false;  // OnError comes
      stats_->bytes_in.Add(received.bytes);
      c.input_begin = 0;
      c.input_end = static_cast<uint16_t>(received.bytes);
    }
    const auto result = c.reader.Feed(
        std::span(c.input).subspan(c.input_begin, c.input_end - c.input_begin));
    c.input_begin = static_cast<uint16_t>(c.input_begin + result.taken);
    switch (result.outcome) {
      case HttpRequestReader::Outcome::kMore:
        c.input_begin = c.input_end;
        break;
      case HttpRequestReader::Outcome::kComplete:
        OnRequest(c, now);
        return true;
      case HttpRequestReader::Outcome::kBad:
        stats_->Fail(ServiceFailure::kBadRequest);
        c.keep_alive = false;
        c.head_only = false;
        Answer(c, c.reader.error_status(), nullptr, now);
        return true;
    }
  }
}

void HttpService::OnRequest(HttpConnection& c, Nanos now) {
  stats_->messages_in.Add();
  c.keep_alive = c.reader.keep_alive() && !draining();
  c.head_only = c.reader.method() == HTTP_HEAD;
  if (c.reader.method() != HTTP_GET && c.reader.method() != HTTP_HEAD) {
    c.keep_alive = c.keep_alive && c.reader.method() != HTTP_CONNECT;
    return Answer(c, 405, nullptr, now);
  }
  const std::string_view path = c.reader.path();
  if (path == "/healthz") return Answer(c, 200, nullptr, now);
  if (path != "/metrics") return Answer(c, 404, nullptr, now);
  c.state = State::kWaiting;
  SetTimer(c, now + kPageTimeout);
  if (!context_.pages.Request(c.TokenAt(context_.http.IndexOf(c)))) {
    Answer(c, 503, nullptr, now);
  }
}

void HttpService::OnPage(HttpConnection& c, std::shared_ptr<const std::string> page, Nanos now) {
  if (c.state != State::kWaiting) return;
  const uint16_t status = page == nullptr ? 503 : 200;
  Answer(c, status, std::move(page), now);
  Advance(c, now);
}

// Writes the head, and begins to send. Without a page the body is the status' own text, which follows
// the head at once, so that both go in one packet.
void HttpService::Answer(HttpConnection& c, uint16_t status,
                         std::shared_ptr<const std::string> page, Nanos now) {
  ++c.generation;  // a page that comes now is too late
  const StatusText& text = TextOf(status);
  c.page = std::move(page);
  const std::string_view body = c.page == nullptr ? text.body : std::string_view(*c.page);
  const int n = std::snprintf(
      c.head.data(), c.head.size(),
      "HTTP/1.1 %u %.*s\r\nContent-Type: text/plain; %scharset=utf-8\r\n"
      "Content-Length: %zu\r\n%s%s\r\n%.*s",
      static_cast<unsigned>(text.status), static_cast<int>(text.reason.size()),
      text.reason.data(), c.page == nullptr ? "" : "version=0.0.4; ", body.size(),
      status == 405 ? "Allow: GET, HEAD\r\n" : "", c.keep_alive ? "" : "Connection: close\r\n",
      c.page == nullptr && !c.head_only ? static_cast<int>(body.size()) : 0, body.data());
  c.head_size = static_cast<uint16_t>(std::clamp<int>(n, 0, static_cast<int>(c.head.size()) - 1));
  c.body = c.page == nullptr || c.head_only ? std::string_view() : body;
  c.sent = 0;
  c.state = State::kSending;
  c.since = now;
  stats_->messages_out.Add();
  SetTimer(c, now + config_->idle_timeout);
}

// Whether all of it has been given to the stack.
bool HttpService::SendAnswer(HttpConnection& c, Nanos now) {
  const size_t all = c.head_size + c.body.size();
  while (c.sent < all) {
    const std::string_view rest =
        c.sent < c.head_size ? std::string_view(c.head.data(), c.head_size).substr(c.sent)
                             : c.body.substr(c.sent - c.head_size, kPiece);
    const auto result = tcp().Send(
        c.socket, {reinterpret_cast<const uint8_t*>(rest.data()), rest.size()}, now);
    if (!result.ok()) return false;  // OnWritable comes, or OnError, or the timer
    c.sent += result.bytes;
    stats_->bytes_out.Add(result.bytes);
  }
  c.body = {};
  c.page = nullptr;
  return true;
}

void HttpService::SayGoodbye(HttpConnection& c, Nanos now) {
  tcp().Shutdown(c.socket, now);
  c.since = now;
  c.state = State::kGoodbye;
  SetTimer(c, now + kGoodbyeTimeout);
  Discard(c, now);
}

void HttpService::Discard(HttpConnection& c, Nanos now) {
  transport::ReceivedData data;
  SocketError error;
  while ((error = tcp().ReceivePacket(c.socket, data, now)) == SocketError::kNone) {
    tcp().Release(data);
  }
  if (error == SocketError::kEndOfData) Finish(c, false, now);
}

void HttpService::Finish(HttpConnection& c, bool abort, Nanos now) {
  if (abort) {
    tcp().Abort(c.socket, now);
  } else {
    tcp().Close(c.socket, now);
  }
  const uint32_t index = context_.http.IndexOf(c);
  context_.timers.Clear(TimerKind::kHttp, index);
  ++c.generation;
  c.owner = nullptr;
  c.body = {};
  c.page = nullptr;
  context_.http.Free(index);
  End();
}

void HttpService::OnItemTimer(uint32_t index, Nanos now) {
  HttpConnection& c = context_.http[index];
  switch (c.state) {
    case State::kReading:
      // Nobody waits for an answer to a request that has not begun.
      if (!c.reader.in_request()) return Finish(c, false, now);
      stats_->Fail(ServiceFailure::kIdleTimeout);
      c.keep_alive = c.head_only = false;
      Answer(c, 408, nullptr, now);
      return Advance(c, now);
    case State::kWaiting:
      Answer(c, 503, nullptr, now);
      return Advance(c, now);
    case State::kSending:
      stats_->Fail(ServiceFailure::kIdleTimeout);
      return Finish(c, true, now);
    case State::kGoodbye:
      return Finish(c, false, now);
  }
}

// Connections between two requests end now, the others after their answer.
void HttpService::OnDrain(Nanos now) {
  for (uint32_t i = 0; i < context_.http.capacity() && active() > 0; ++i) {
    HttpConnection& c = context_.http[i];
    if (c.owner == this && c.state == State::kReading && !c.reader.in_request()) {
      c.keep_alive = false;
      SayGoodbye(c, now);
    }
  }
}

void HttpService::AbortAll(Nanos now) {
  for (uint32_t i = 0; i < context_.http.capacity() && active() > 0; ++i) {
    HttpConnection& c = context_.http[i];
    if (c.owner != this) continue;
    stats_->Fail(ServiceFailure::kDrainTimeout);
    Finish(c, true, now);
  }
}

}  // namespace sluice::services
