// A small HTTP server for GET requests, on a TCP address or a Unix socket: the metrics exporter and
// the control API stand on it.
//
// Bounded: two threads serve, kQueueLength connections wait, and then accept() waits (the kernel's
// backlog takes over). A request without an answer within seconds is cut off; bodies are refused.
// Signals are blocked in its threads.
//
// Thread: Handle, Start and Stop by one thread; handlers run on the server's threads, one at a time
// (a mutex), so that a handler needs no lock against other handlers.
#ifndef SLUICE_TELEMETRY_HTTP_SERVER_H_
#define SLUICE_TELEMETRY_HTTP_SERVER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"

namespace sluice::telemetry {

using HttpQuery = std::map<std::string, std::string>;

struct HttpReply {
  int status = 200;
  std::string content_type;
  std::string body;
};

class HttpServer {
 public:
  using Handler = std::function<HttpReply(const HttpQuery&)>;
  static constexpr size_t kQueueLength = 16;

  HttpServer();
  ~HttpServer();  // stops
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // Before Start. `path` is literal.
  void Handle(const std::string& path, Handler handler);
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
