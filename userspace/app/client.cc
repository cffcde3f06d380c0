// Written by hand, since httplib's client connects without blocking: on a Unix socket whose backlog
// is full for a moment that fails at once, where a blocking connect waits its turn.
#include "app/client.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "telemetry/view_json.h"

namespace sluice::app {
namespace {

constexpr char kVersion11[] = "HTTP/1.1 ";
constexpr char kEndOfHeaders[] = "\r\n\r\n";

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  const int fd_;
};

absl::Status ConnectError(const std::string& path, int error) {
  const std::string text = absl::StrCat(path, ": ", std::strerror(error));
  switch (error) {
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(
          absl::StrCat("may not use the control socket ", text, " (try with sudo)"));
    case EAGAIN:
      return absl::DeadlineExceededError(absl::StrCat("no answer on ", path));
    default:
      return absl::UnavailableError(absl::StrCat("sluice is not running (", text, ")"));
  }
}

// Sends the request and reads until the server closes, which it does after each answer.
absl::StatusOr<std::string> Exchange(int fd, const std::string& socket_path,
                                     const std::string& request) {
  const auto failed = [&](int error) {
    if (error == EAGAIN) {
      return absl::DeadlineExceededError(absl::StrCat("no answer on ", socket_path, " in time"));
    }
    return absl::InternalError(absl::StrCat(socket_path, ": ", std::strerror(error)));
  };
  for (size_t sent = 0; sent < request.size();) {
    const ssize_t n = send(fd, request.data() + sent, request.size() - sent, MSG_NOSIGNAL);
    if (n >= 0) {
      sent += static_cast<size_t>(n);
    } else if (errno != EINTR) {
      return failed(errno);
    }
  }
  std::string answer;
  char buffer[16384];
  for (;;) {
    const ssize_t n = recv(fd, buffer, sizeof buffer, 0);
    if (n == 0) return answer;
    if (n > 0) {
      answer.append(buffer, static_cast<size_t>(n));
    } else if (errno != EINTR) {
      return failed(errno);
    }
  }
}

absl::StatusOr<std::string> BodyOf(const std::string& socket_path, const std::string& answer) {
  const size_t headers_end = answer.find(kEndOfHeaders);
  const char* const status_text = answer.data() + sizeof kVersion11 - 1;
  int http_status = 0;
  if (answer.rfind(kVersion11, 0) != 0 || headers_end == std::string::npos ||
      std::from_chars(status_text, answer.data() + headers_end, http_status).ec != std::errc()) {
    return absl::InternalError(absl::StrCat("not an answer of sluice's on ", socket_path));
  }
  std::string body = answer.substr(headers_end + sizeof kEndOfHeaders - 1);
  const std::string message = http_status == 200 ? std::string() : telemetry::ErrorFromJson(body);
  switch (http_status) {
    case 200:
      return body;
    case 400:
      return absl::InvalidArgumentError(message);
    case 404:
      return absl::NotFoundError(message);
    default:
      return absl::InternalError(message);
  }
}

}  // namespace

absl::StatusOr<std::string> ControlGet(const std::string& socket_path, const std::string& path,
                                       Nanos timeout) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_path.empty() || socket_path.size() >= sizeof address.sun_path) {
    return absl::InvalidArgumentError(
        absl::StrCat("not a path for a socket: \"", socket_path, "\""));
  }
  std::memcpy(address.sun_path, socket_path.data(), socket_path.size());
  const Descriptor fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (fd.get() < 0) return absl::InternalError(std::strerror(errno));
  timeval limit{};
  limit.tv_sec = static_cast<time_t>(timeout / Seconds(1));
  limit.tv_usec = static_cast<suseconds_t>((timeout - Seconds(limit.tv_sec)) / Micros(1));
  setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);  // also of connect
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    return ConnectError(socket_path, errno);
  }
  const auto answer = Exchange(
      fd.get(), socket_path,
      absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: sluice\r\nConnection: close\r\n\r\n"));
  if (!answer.ok()) return answer.status();
  return BodyOf(socket_path, *answer);
}

}  // namespace sluice::app
