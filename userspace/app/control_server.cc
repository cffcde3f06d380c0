#include "app/control_server.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "app/control_reply.h"
#include "telemetry/view_json.h"

namespace sluice::app {
namespace {

absl::StatusOr<telemetry::RouteFilter> ReadRouteFilter(const ControlServer::Query& query) {
  telemetry::RouteFilter filter;
  for (const auto& [key, value] : query) {
    if (key == "destination") {
      filter.destination = ParseIpAddress(value);
      if (!filter.destination) {
        return absl::InvalidArgumentError(
            absl::StrCat("destination: \"", value, "\" is not an address"));
      }
    } else if (key == "limit") {
      const absl::Status read = ReadLimit(value, telemetry::kMaxRouteLimit, &filter.limit);
      if (!read.ok()) return read;
    } else {
      return UnknownParameter(key);
    }
  }
  return filter;
}

// Whether somebody listens on the socket: 0, or the errno of connecting.
int TryConnect(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return errno;
  const int result = connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address);
  const int error = result == 0 ? 0 : errno;
  close(fd);
  return error;
}

absl::Status Failed(const std::string& what, int error) {
  const std::string text = absl::StrCat("control socket: ", what, ": ", std::strerror(error));
  return error == EACCES || error == EPERM ? absl::PermissionDeniedError(text)
                                           : absl::UnavailableError(text);
}

// Makes sure that `path` can be taken: its directory exists, and nobody alive holds it.
absl::Status CheckPath(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  if (mkdir(directory.c_str(), 0755) != 0 && errno != EEXIST) {
    return Failed("cannot make directory " + directory, errno);
  }
  struct stat info {};
  if (lstat(path.c_str(), &info) != 0) {
    return errno == ENOENT ? absl::OkStatus() : Failed("cannot use " + path, errno);
  }
  if (!S_ISSOCK(info.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat("control socket: ", path, " exists and is not a socket"));
  }
  const int error = TryConnect(path);
  if (error == ECONNREFUSED || error == ENOENT) return absl::OkStatus();
  if (error == 0 || error == EAGAIN) {  // EAGAIN: its backlog is full, so it lives
    return absl::AlreadyExistsError(absl::StrCat("already running: another sluice answers on ",
                                                 path, " (use --control PATH for a second one)"));
  }
  return Failed("cannot use " + path, error);
}

}  // namespace

ControlServer::ControlServer(Executor executor) : executor_(std::move(executor)) {
  if (!executor_) {
    executor_ = [](const std::function<void()>& task) {
      task();
      return true;
    };
  }
  server_.HandleOther([](const std::string& path) {
    return JsonReply(absl::NotFoundError(absl::StrCat("no such path in this version: ", path)));
  });
}

ControlServer::~ControlServer() { Stop(); }

void ControlServer::Handle(const std::string& path, Handler handler) {
  server_.Handle(path, [this, handler = std::move(handler)](const Query& query) {
    absl::StatusOr<std::string> answer = absl::UnavailableError("shutting down");
    const bool done = executor_([&] { answer = handler(query); });
    if (!done) answer = absl::UnavailableError("shutting down");
    return JsonReply(answer);
  });
}

void ControlServer::HandlePost(const std::string& path, PostHandler handler) {
  server_.HandlePost(path, [this, handler = std::move(handler)](const std::string& body) {
    absl::StatusOr<std::string> answer = absl::UnavailableError("shutting down");
    const bool done = executor_([&] { answer = handler(body); });
    if (!done) answer = absl::UnavailableError("shutting down");
    return JsonReply(answer);
  });
}

void ControlServer::HandleViews(telemetry::ViewSource& source) {
  using telemetry::ToJson;
  Handle("/v1/ready", [&](const Query&) { return ToJson(source.Ready()); });
  Handle("/v1/status", [&](const Query&) { return ToJson(source.Status()); });
  Handle("/v1/interfaces", [&](const Query&) { return ToJson(source.Interfaces()); });
  Handle("/v1/neighbors", [&](const Query&) { return ToJson(source.Neighbors()); });
  Handle("/v1/workers", [&](const Query&) { return ToJson(source.Workers()); });
  Handle("/v1/drops", [&](const Query&) { return ToJson(source.Drops()); });
  Handle("/v1/routes", [&](const Query& query) -> absl::StatusOr<std::string> {
    const auto filter = ReadRouteFilter(query);
    if (!filter.ok()) return filter.status();
    return ToJson(source.Routes(*filter));
  });
  Handle("/v1/services", [&](const Query&) { return ToJson(source.Services()); });
  Handle("/v1/sockets", [&](const Query& query) -> absl::StatusOr<std::string> {
    uint64_t limit = telemetry::kSocketLimit;
    for (const auto& [key, value] : query) {
      if (key != "limit") return UnknownParameter(key);
      const absl::Status read = ReadLimit(value, telemetry::kMaxSocketLimit, &limit);
      if (!read.ok()) return read;
    }
    return ToJson(source.Sockets(limit));
  });
  HandleFirewallViews(source);
}

absl::Status ControlServer::Start(const std::string& path) {
  // Bound beside its place, given its mode, and then moved there: nobody can connect before the
  // mode is right, and a stale file is replaced in one step.
  const std::string temporary = absl::StrCat(path, ".", getpid());
  if (path.empty() || temporary.size() >= sizeof(sockaddr_un::sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat("control socket: the path must have 1 to ",
                                                   sizeof(sockaddr_un::sun_path) - 12,
                                                   " characters: ", path));
  }
  if (absl::Status s = CheckPath(path); !s.ok()) return s;
  unlink(temporary.c_str());  // of a dead process that had our pid
  if (absl::Status s = server_.StartUnix(temporary); !s.ok()) return s;
  struct stat info {};
  if (chmod(temporary.c_str(), 0660) != 0 || rename(temporary.c_str(), path.c_str()) != 0 ||
      lstat(path.c_str(), &info) != 0) {
    const int error = errno;
    unlink(temporary.c_str());
    server_.Stop();
    return Failed("cannot make " + path, error);
  }
  path_ = path;
  device_ = info.st_dev;
  inode_ = info.st_ino;
  return absl::OkStatus();
}

void ControlServer::Stop() {
  RemoveSocket();
  server_.Stop();
}

void ControlServer::RemoveSocket() {
  if (path_.empty()) return;
  struct stat info {};
  if (lstat(path_.c_str(), &info) == 0 && info.st_dev == device_ && info.st_ino == inode_) {
    unlink(path_.c_str());
  }
  path_.clear();
}

}  // namespace sluice::app
