// A small HTTP server, on a TCP address or a Unix socket: the metrics exporter and the control API
// stand on it. GET, and POST where a handler asks for a body.
//
// Bounded: three threads serve, kQueueLength connections wait, and then accept() waits (the kernel's
// backlog takes over). A request without an answer within seconds is cut off; a body has at most
// kMaxBody bytes. A streamed answer takes one of the threads for as long as it lasts: whoever offers
// streams must bound their number. Signals are blocked in its threads.
//
// Thread: Handle..., Start and Stop by one thread; handlers run on the server's threads, one at a
// time (a mutex), so that a handler needs no lock against other handlers. A stream's functions run
// without that lock.
#ifndef SLUICE_TELEMETRY_HTTP_SERVER_H_
#define SLUICE_TELEMETRY_HTTP_SERVER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <variant>

#include "absl/status/status.h"

namespace sluice::telemetry {

using HttpQuery = std::map<std::string, std::string>;

struct HttpReply {
  int status = 200;
  std::string content_type;
  std::string body;
};

// An answer of no certain length, in chunks.
struct HttpStream {
  std::string content_type;
  // Called again and again: appends to what is sent next (nothing is fine), and returns false when it
  // was the last. Must return within a second or so, so that the server can end.
  std::function<bool(std::string& out)> next;
  // Once, when the stream is over for whatever reason.
  std::function<void()> end;
};

class HttpServer {
 public:
  using Handler = std::function<HttpReply(const HttpQuery&)>;
  using PostHandler = std::function<HttpReply(const std::string& body)>;
  // A stream, or a reply when there cannot be one.
  using StreamHandler = std::function<std::variant<HttpReply, HttpStream>(const std::string& body)>;
  static constexpr size_t kQueueLength = 16;
  static constexpr size_t kMaxBody = size_t{256} << 10;

  HttpServer();
  ~HttpServer();  // stops
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // Before Start. `path` is literal.
  void Handle(const std::string& path, Handler handler);
  void HandlePost(const std::string& path, PostHandler handler);
  void HandleStream(const std::string& path, StreamHandler handler);  // POST as well
  // The answer for a path that nobody handles.
  void HandleOther(std::function<HttpReply(const std::string& path)> handler);

  // A numeric address. Port 0 takes a free one (see port()). AlreadyExists when the port is taken.
  absl::Status StartTcp(const std::string& address, uint16_t port);
  // Binds exactly `path`, which must not exist.
  absl::Status StartUnix(const std::string& path);
  // Ends after requests that are being served. Harmless when not started.
  void Stop();

  uint16_t port() const;  // after StartTcp

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::telemetry

#endif  // SLUICE_TELEMETRY_HTTP_SERVER_H_
