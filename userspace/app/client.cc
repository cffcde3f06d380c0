// Written by hand, since httplib's client connects without blocking: on a Unix socket whose backlog
// is full for a moment that fails at once, where a blocking connect waits its turn.
#include "app/client.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
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

absl::Status Failed(const std::string& socket_path, int error) {
  if (error == EAGAIN) {
    return absl::DeadlineExceededError(absl::StrCat("no answer on ", socket_path, " in time"));
  }
  return absl::InternalError(absl::StrCat(socket_path, ": ", std::strerror(error)));
}

// A connection to the control socket, for one request.
class Connection {
 public:
  explicit Connection(const std::string& socket_path)
      : path_(socket_path), fd_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {}

  absl::Status Open(Nanos timeout) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path_.empty() || path_.size() >= sizeof address.sun_path) {
      return absl::InvalidArgumentError(absl::StrCat("not a path for a socket: \"", path_, "\""));
    }
    std::memcpy(address.sun_path, path_.data(), path_.size());
    if (fd_.get() < 0) return absl::InternalError(std::strerror(errno));
    timeval limit{};
    limit.tv_sec = static_cast<time_t>(timeout / Seconds(1));
    limit.tv_usec = static_cast<suseconds_t>((timeout - Seconds(limit.tv_sec)) / Micros(1));
    setsockopt(fd_.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);  // also of connect
    setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (connect(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
      return ConnectError(path_, errno);
    }
    return absl::OkStatus();
  }

  absl::Status Send(const std::string& request) {
    for (size_t sent = 0; sent < request.size();) {
      const ssize_t n =
          send(fd_.get(), request.data() + sent, request.size() - sent, MSG_NOSIGNAL);
      if (n >= 0) {
        sent += static_cast<size_t>(n);
      } else if (errno != EINTR) {
        return Failed(path_, errno);
      }
    }
    return absl::OkStatus();
  }

  // Appends what has come. False: the server has closed, which it does after each answer.
  absl::StatusOr<bool> Receive(std::string* out) {
    char buffer[16384];
    for (;;) {
      const ssize_t n = recv(fd_.get(), buffer, sizeof buffer, 0);
      if (n >= 0) {
        out->append(buffer, static_cast<size_t>(n));
        return n > 0;
      }
      if (errno != EINTR) return Failed(path_, errno);
    }
  }

 private:
  const std::string& path_;
  const Descriptor fd_;
};

std::string Request(const char* method, const std::string& path, const std::string* body) {
  std::string out =
      absl::StrCat(method, " ", path, " HTTP/1.1\r\nHost: sluice\r\nConnection: close\r\n");
  if (body != nullptr) {
    absl::StrAppend(&out, "Content-Type: application/json\r\nContent-Length: ", body->size(),
                    kEndOfHeaders, *body);
  } else {
    absl::StrAppend(&out, "\r\n");
  }
  return out;
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
    case 429:
      return absl::ResourceExhaustedError(message);
    default:
      return absl::InternalError(message);
  }
}

absl::StatusOr<std::string> Exchange(const std::string& socket_path, const std::string& request,
                                     Nanos timeout) {
  Connection connection(socket_path);
  if (absl::Status s = connection.Open(timeout); !s.ok()) return s;
  if (absl::Status s = connection.Send(request); !s.ok()) return s;
  std::string answer;
  for (;;) {
    const absl::StatusOr<bool> more = connection.Receive(&answer);
    if (!more.ok()) return more.status();
    if (!*more) return BodyOf(socket_path, answer);
  }
}

// Takes the body out of a chunked answer (RFC 9112 section 7.1) as it comes.
class ChunkReader {
 public:
  // Moves what is complete from `raw` to `body`. False when `raw` is no chunked encoding.
  bool Take(std::string* raw, std::string* body) {
    size_t at = 0;
    bool fine = true;
    while (!done_) {
      if (left_ == 0) {
        const size_t end = raw->find("\r\n", at);
        if (end == std::string::npos) break;
        const auto [stop, error] =
            std::from_chars(raw->data() + at, raw->data() + end, left_, /*base=*/16);
        fine = error == std::errc() && stop == raw->data() + end;
        if (!fine) break;
        at = end + 2;
        done_ = left_ == 0;
        left_ += 2;  // the end of line behind the data
      } else {
        const size_t n = std::min(left_, raw->size() - at);
        const size_t data = left_ > 2 ? std::min(n, left_ - 2) : 0;
        body->append(*raw, at, data);
        at += n;
        left_ -= n;
        if (n == 0) break;
      }
    }
    raw->erase(0, at);
    return fine;
  }
  bool done() const { return done_; }

 private:
  size_t left_ = 0;
  bool done_ = false;
};

// Gives whole lines away; false when `line` has had enough.
bool TakeLines(std::string* body, const std::function<bool(const std::string&)>& line) {
  for (size_t end; (end = body->find('\n')) != std::string::npos;) {
    const std::string one = body->substr(0, end);
    body->erase(0, end + 1);
    if (!one.empty() && !line(one)) return false;
  }
  return true;
}

}  // namespace

absl::StatusOr<std::string> ControlGet(const std::string& socket_path, const std::string& path,
                                       Nanos timeout) {
  return Exchange(socket_path, Request("GET", path, nullptr), timeout);
}

absl::StatusOr<std::string> ControlPost(const std::string& socket_path, const std::string& path,
                                        const std::string& body, Nanos timeout) {
  return Exchange(socket_path, Request("POST", path, &body), timeout);
}

absl::Status ControlStream(const std::string& socket_path, const std::string& path,
                           const std::string& body,
                           const std::function<bool(const std::string&)>& line, Nanos timeout) {
  Connection connection(socket_path);
  if (absl::Status s = connection.Open(timeout); !s.ok()) return s;
  if (absl::Status s = connection.Send(Request("POST", path, &body)); !s.ok()) return s;
  std::string raw;
  bool more = true;
  while (more && raw.find(kEndOfHeaders) == std::string::npos) {
    const absl::StatusOr<bool> received = connection.Receive(&raw);
    if (!received.ok()) return received.status();
    more = *received;
  }
  if (raw.rfind(absl::StrCat(kVersion11, "200"), 0) != 0) {  // an error: a whole answer
    while (more) {
      const absl::StatusOr<bool> received = connection.Receive(&raw);
      if (!received.ok()) return received.status();
      more = *received;
    }
    return BodyOf(socket_path, raw).status();
  }
  raw.erase(0, raw.find(kEndOfHeaders) + sizeof kEndOfHeaders - 1);
  ChunkReader reader;
  std::string text;
  for (;;) {
    if (!reader.Take(&raw, &text)) {
      return absl::InternalError(absl::StrCat("not an answer of sluice's on ", socket_path));
    }
    if (!TakeLines(&text, line) || reader.done()) return absl::OkStatus();
    if (!more) return absl::UnavailableError("sluice has ended");
    const absl::StatusOr<bool> received = connection.Receive(&raw);
    if (!received.ok()) return received.status();
    more = *received;
  }
}

}  // namespace sluice::app
