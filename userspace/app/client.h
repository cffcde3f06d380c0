// The other end of the control API, for the subcommands.
//
// Thread: any; no state.
#ifndef SLUICE_APP_CLIENT_H_
#define SLUICE_APP_CLIENT_H_

#include <string>

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

}  // namespace sluice::app

#endif  // SLUICE_APP_CLIENT_H_
