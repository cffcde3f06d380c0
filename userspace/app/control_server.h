// The control API: HTTP with JSON over a Unix socket.
//
// The socket has mode 0660. A file left by a process that has died is replaced; one on which
// somebody answers is AlreadyExists ("already running"). Stop removes the file if it is still the
// same one. A missing directory is made (one level).
//
// Thread: Handle, Start and Stop by the control thread. Handlers run one at a time; by default on
// the server's thread, or through `executor`, which must run what it is given and return afterwards
// (as by posting it to the control thread and waiting). The executor must also come back after the
// control thread has stopped serving it, or Stop would wait for ever.
#ifndef SLUICE_APP_CONTROL_SERVER_H_
#define SLUICE_APP_CONTROL_SERVER_H_

#include <sys/types.h>

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "telemetry/http_server.h"
#include "telemetry/views.h"

namespace sluice::app {

class ControlServer {
 public:
  using Query = telemetry::HttpQuery;
  // JSON, or an error: InvalidArgument is 400, NotFound 404, Unavailable 503, others 500.
  using Handler = std::function<absl::StatusOr<std::string>(const Query&)>;
  // Runs the function before it returns; false when it could not (the API is 503 then).
  using Executor = std::function<bool(const std::function<void()>&)>;

  explicit ControlServer(Executor executor = {});
  ~ControlServer();
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

  // Before Start.
  void Handle(const std::string& path, Handler handler);
  // A POST with a body.
  using PostHandler = std::function<absl::StatusOr<std::string>(const std::string& body)>;
  void HandlePost(const std::string& path, PostHandler handler);
  // /v1/ready, status, interfaces, routes?destination=&limit=, neighbors, workers, drops, rules,
  // flows?filter=&sort=&limit=, nat?limit=; POST /v1/explain (an ExplainRequest), and /v1/trace (a
  // TraceRequest), which answers with one TraceView per line until the client has enough.
  void HandleViews(telemetry::ViewSource& source);

  absl::Status Start(const std::string& path);
  void Stop();

 private:
  void HandleFirewallViews(telemetry::ViewSource& source);
  void HandleTrace(telemetry::ViewSource& source);
  void RemoveSocket();

  Executor executor_;
  telemetry::HttpServer server_;
  std::string path_;  // while started
  dev_t device_ = 0;  // of the socket file, to remove no other
  ino_t inode_ = 0;
};

}  // namespace sluice::app

#endif  // SLUICE_APP_CONTROL_SERVER_H_
