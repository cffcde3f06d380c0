#include "control/reserved_ports.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
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

}  // namespace

std::optional<std::string> AddPorts(std::string_view list, PortRange range) {
  std::vector<PortRange> ranges = {range};
  while (!list.empty()) {
    const size_t comma = list.find(',');
    const auto one = ParseRange(list.substr(0, comma));
    if (!one) return {};
    ranges.push_back(*one);
    list = comma == std::string_view::npos ? std::string_view() : list.substr(comma + 1);
  }
  std::sort(ranges.begin(), ranges.end(),
            [](const PortRange& a, const PortRange& b) { return a.first < b.first; });
  std::vector<PortRange> merged;
  for (const PortRange& r : ranges) {
    if (!merged.empty() && r.first <= uint32_t{merged.back().last} + 1) {
      merged.back().last = std::max(merged.back().last, r.last);
    } else {
      merged.push_back(r);
    }
  }
  std::string text;
  for (const PortRange& r : merged) {
    absl::StrAppend(&text, text.empty() ? "" : ",", r.first);
    if (r.last != r.first) absl::StrAppend(&text, "-", r.last);
  }
  return text;
}

absl::Status ReservedPorts::Reserve(PortRange range) {
  if (!ours_.empty()) return absl::OkStatus();
  const auto before = ReadList();
  if (!before) return absl::NotFoundError(absl::StrCat(kPath, " cannot be read"));
  const auto with = AddPorts(*before, range);
  if (!with) return absl::InternalError(absl::StrCat(kPath, " holds no list of ports"));
  if (absl::Status written = WriteList(*with); !written.ok()) return written;
  before_ = *before;
  // As the kernel prints it, to be recognised at the end.
  ours_ = ReadList().value_or(*with);
  return absl::OkStatus();
}

void ReservedPorts::Release() {
  if (ours_.empty()) return;
  if (ReadList() == ours_) static_cast<void>(WriteList(before_));
  ours_.clear();
}

}  // namespace sluice::control
