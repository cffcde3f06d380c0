#include "control/config.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace sluice::control {

std::string ToString(const ListenAddress& listen) {
  const std::string address = ToString(listen.address);
  const std::string port = std::to_string(listen.port);
  return listen.address.is_v4() ? address + ":" + port : "[" + address + "]:" + port;
}

std::string ToString(const ConfigError& error) {
  return error.file + ":" + std::to_string(error.line) + ":" + std::to_string(error.column) + ": " +
         error.message;
}

ConfigFileResult LoadConfig(const std::string& path) {
  ConfigFileResult out;
  const auto fail = [&](const std::string& why) {
    out.unreadable = "cannot read configuration file " + path + ": " + why;
    return out;
  };
  // O_NONBLOCK: a FIFO must not hang us, it reads as empty instead.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return fail(std::strerror(errno));
  std::string text;
  char buffer[16384];
  ssize_t n;
  do {
    n = read(fd, buffer, sizeof buffer);
    if (n > 0) text.append(buffer, static_cast<size_t>(n));
  } while ((n > 0 && text.size() <= kMaxConfigBytes) || (n < 0 && errno == EINTR));
  const int read_errno = errno;
  close(fd);
  if (n < 0) return fail(std::strerror(read_errno));
  if (text.size() > kMaxConfigBytes) {
    return fail("larger than " + std::to_string(kMaxConfigBytes >> 20) + " MiB");
  }
  out.result = ParseConfig(text, path);
  return out;
}

}  // namespace sluice::control
