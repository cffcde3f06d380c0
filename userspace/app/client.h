// The other end of the control API, for the subcommands.
//
// Thread: any; no state.
#ifndef SLUICE_APP_CLIENT_H_
#define SLUICE_APP_CLIENT_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/time.h"

namespace sluice::app {

// GET `path` (with its query) from the Unix socket. The body, or
//   Unavailable         nobody listens there (no socket, or nobody behind it)
//   DeadlineExceeded    nobody answered within `timeout` (per step: connect, each read)
//   PermissionDenied    the socket is not for this user
//   InvalidArgument, NotFound, Internal, ...  what the server said
absl::StatusOr<std::string> ControlGet(const std::string& socket_path, const std::string& path,
                                       Nanos timeout = Seconds(10));
// POST with a body, else the same.
absl::StatusOr<std::string> ControlPost(const std::string& socket_path, const std::string& path,
                                        const std::string& body, Nanos timeout = Seconds(10));
// POST, and an answer that goes on: each line, without its end, is given to `line` when it comes,
// empty ones left out, until the server ends it or `line` returns false. The server must say
// something (an empty line is enough) within each `timeout`.
absl::Status ControlStream(const std::string& socket_path, const std::string& path,
                           const std::string& body,
                           const std::function<bool(const std::string&)>& line,
                           Nanos timeout = Seconds(10));

}  // namespace sluice::app

#endif  // SLUICE_APP_CLIENT_H_
