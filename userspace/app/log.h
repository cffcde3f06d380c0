// Logging: one line on stderr per event, for people; say what happened and what to do.
//
// Under systemd (stderr is the journal) lines carry their priority instead of a time. Format
// strings are fmt's and are checked when compiling. spdlog itself stays out of this header.
//
// Thread: any, after InitLogging. Never the packet path; a worker counts and the control thread
// logs.
#ifndef SLUICE_APP_LOG_H_
#define SLUICE_APP_LOG_H_

#include <fmt/core.h>

#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>

#include "base/time.h"

namespace sluice::app {

enum class LogLevel : uint8_t { kDebug, kInfo, kWarning, kError, kOff };
std::optional<LogLevel> ParseLogLevel(std::string_view name);  // debug info warning error off

void InitLogging(LogLevel level);
bool LogEnabled(LogLevel level);
void LogLine(LogLevel level, std::string_view message);
void LogFormatted(LogLevel level, fmt::string_view format, fmt::format_args args);

template <class... Args>
void LogDebug(fmt::format_string<Args...> format, Args&&... args) {
  if (LogEnabled(LogLevel::kDebug)) {
    LogFormatted(LogLevel::kDebug, format, fmt::make_format_args(args...));
  }
}
template <class... Args>
void LogInfo(fmt::format_string<Args...> format, Args&&... args) {
  LogFormatted(LogLevel::kInfo, format, fmt::make_format_args(args...));
}
template <class... Args>
void LogWarning(fmt::format_string<Args...> format, Args&&... args) {
  LogFormatted(LogLevel::kWarning, format, fmt::make_format_args(args...));
}
template <class... Args>
void LogError(fmt::format_string<Args...> format, Args&&... args) {
  LogFormatted(LogLevel::kError, format, fmt::make_format_args(args...));
}

// For an event that may repeat quickly: at most one line per interval, and how many were left out.
//   if (auto skipped = limiter.Allow(now)) LogWarning("... ({} more since the last line)",
//   *skipped);
class LogLimiter {
 public:
  explicit LogLimiter(Nanos interval) : interval_(interval) {}
  // The number of events left out since the last that was allowed; none: leave this one out too.
  std::optional<uint64_t> Allow(Nanos now) {
    if (last_ && now - *last_ < interval_) {
      ++skipped_;
      return {};
    }
    last_ = now;
    return std::exchange(skipped_, 0);
  }

 private:
  const Nanos interval_;
  std::optional<Nanos> last_;
  uint64_t skipped_ = 0;
};

// Whether a stream with this `device:inode` (from JOURNAL_STREAM) is file descriptor `fd`.
bool IsJournalStream(const char* journal_stream, int fd);

}  // namespace sluice::app

#endif  // SLUICE_APP_LOG_H_
