#include "control/reserved_ports.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace sluice::control {
namespace {

constexpr char kPath[] = "/proc/sys/net/ipv4/ip_local_reserved_ports";

std::optional<uint16_t> ParsePort(std::string_view text) {
  uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc() || end != text.data() + text.size()) return {};
  return port;
}

std::optional<PortRange> ParseRange(std::string_view text) {
  const size_t dash = text.find('-');
  const auto first = ParsePort(text.substr(0, dash));
  const auto last = dash == std::string_view::npos ? first : ParsePort(text.substr(dash + 1));
  if (!first || !last || *first > *last) return {};
  return PortRange{*first, *last};
}

std::optional<std::string> ReadList() {
  const int fd = open(kPath, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return {};
  std::string text(size_t{1} << 16, '\0');
  const ssize_t n = read(fd, text.data(), text.size());
  close(fd);
  if (n < 0) return {};
  text.resize(static_cast<size_t>(n));
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text;
}

absl::Status WriteList(const std::string& list) {
  const int fd = open(kPath, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return absl::ErrnoToStatus(errno, kPath);
  const std::string line = list + "\n";  // an empty line empties the list
  const ssize_t n = write(fd, line.data(), line.size());
  const int error = errno;
  close(fd);
  return n == static_cast<ssize_t>(line.size()) ? absl::OkStatus()
                                                : absl::ErrnoToStatus(error, kPath);
}

// One bit per port.
using PortSet = std::vector<bool>;

bool Read(std::string_view list, PortSet& ports) {
  ports.assign(size_t{1} << 16, false);
  while (!list.empty()) {
    const size_t comma = list.find(',');
    const auto one = ParseRange(list.substr(0, comma));
    if (!one) return false;
    for (uint32_t port = one->first; port <= one->last; ++port) ports[port] = true;
    list = comma == std::string_view::npos ? std::string_view() : list.substr(comma + 1);
  }
  return true;
}

std::string Format(const PortSet& ports) {
  std::string text;
  for (size_t first = 0; first < ports.size(); ++first) {
    if (!ports[first]) continue;
    size_t last = first;
    while (last + 1 < ports.size() && ports[last + 1]) ++last;
    absl::StrAppend(&text, text.empty() ? "" : ",", first);
    if (last != first) absl::StrAppend(&text, "-", last);
    first = last;
  }
  return text;
}

}  // namespace

std::optional<std::string> AddPorts(std::string_view list, const std::vector<PortRange>& ranges) {
  PortSet ports;
  if (!Read(list, ports)) return {};
  for (const PortRange& range : ranges) {
    for (uint32_t port = range.first; port <= range.last; ++port) ports[port] = true;
  }
  return Format(ports);
}

std::optional<std::string> RemovePorts(std::string_view list,
                                       const std::vector<PortRange>& ranges,
                                       std::string_view keep) {
  PortSet ports;
  PortSet kept;
  if (!Read(list, ports) || !Read(keep, kept)) return {};
  for (const PortRange& range : ranges) {
    for (uint32_t port = range.first; port <= range.last; ++port) {
      if (!kept[port]) ports[port] = false;
    }
  }
  return Format(ports);
}

absl::Status ReservedPorts::Reserve(std::vector<PortRange> ranges) {
  if (ranges == ranges_) return absl::OkStatus();
  const auto now = ReadList();
  if (!now) return absl::NotFoundError(absl::StrCat(kPath, " cannot be read"));
  const auto without = RemovePorts(*now, ranges_, before_);
  const auto with = without ? AddPorts(*without, ranges) : std::nullopt;
  if (!with) return absl::InternalError(absl::StrCat(kPath, " holds no list of ports"));
  if (*with != *now) {
    if (absl::Status written = WriteList(*with); !written.ok()) return written;
  }
  before_ = *without;
  ranges_ = std::move(ranges);
  return absl::OkStatus();
}

// Where the list can no longer be read or written, nothing can be done about it.
void ReservedPorts::Release() {
  static_cast<void>(Reserve({}));
  ranges_.clear();
}

}  // namespace sluice::control
