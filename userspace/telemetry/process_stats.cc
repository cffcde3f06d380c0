#include "telemetry/process_stats.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

namespace sluice::telemetry {
namespace {

// The fields of /proc/self/stat from the third on (proc(5)); the second, the program's name, may
// hold spaces and is skipped with its closing bracket.
std::vector<uint64_t> StatFields() {
  std::ifstream file("/proc/self/stat");
  std::string line;
  std::getline(file, line);
  std::vector<uint64_t> out;
  const size_t bracket = line.rfind(')');
  if (bracket == std::string::npos) return out;
  std::istringstream rest(line.substr(bracket + 1));
  std::string word;
  while (rest >> word) out.push_back(std::strtoull(word.c_str(), nullptr, 10));
  return out;
}

uint64_t BootTime() {
  std::ifstream file("/proc/stat");
  std::string line;
  while (std::getline(file, line)) {
    if (line.rfind("btime ", 0) == 0) return std::strtoull(line.c_str() + 6, nullptr, 10);
  }
  return 0;
}

uint64_t CountOpenFds() {
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(opendir("/proc/self/fd"), &closedir);
  if (!dir) return 0;
  uint64_t count = 0;
  while (const dirent* entry = readdir(dir.get())) count += entry->d_name[0] != '.';
  return count - 1;  // without the directory's own
}

}  // namespace

ProcessStats ReadProcessStats() {
  // Numbers of proc(5): utime 14, stime 15, starttime 22, vsize 23, rss 24; ours begin at 3.
  constexpr size_t kUtime = 11, kStime = 12, kStartTime = 19, kVsize = 20, kRss = 21;
  ProcessStats stats;
  const std::vector<uint64_t> fields = StatFields();
  if (fields.size() > kRss) {
    const double ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
    stats.cpu_seconds = static_cast<double>(fields[kUtime] + fields[kStime]) / ticks;
    stats.start_time_seconds =
        static_cast<double>(BootTime()) + static_cast<double>(fields[kStartTime]) / ticks;
    stats.virtual_bytes = fields[kVsize];
    stats.resident_bytes = fields[kRss] * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  }
  stats.open_fds = CountOpenFds();
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) stats.max_fds = limit.rlim_cur;
  return stats;
}

}  // namespace sluice::telemetry
