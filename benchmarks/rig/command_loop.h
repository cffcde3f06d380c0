// How the rig's programs talk with the driver: one word per line on standard input, one JSON
// object per line on standard output. End of input ends the program, so a driver that dies leaves
// nothing behind. One thread.
#ifndef SLUICE_BENCHMARKS_RIG_COMMAND_LOOP_H_
#define SLUICE_BENCHMARKS_RIG_COMMAND_LOOP_H_

#include <sched.h>
#include <time.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <string>

namespace sluice::rig {

inline uint64_t MonotonicNanos() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return uint64_t(now.tv_sec) * 1000000000u + uint64_t(now.tv_nsec);
}

[[noreturn]] inline void Fail(const std::string& what) {
  std::cerr << "error: " << what << "\n";
  std::exit(1);
}

inline void PinThread(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof(set), &set) != 0)
    Fail("cannot pin to CPU " + std::to_string(cpu));
}

inline void Say(const std::string& line) { std::cout << line << std::endl; }

// Calls `handle` with each line until it returns false or the input ends.
inline void RunCommands(const std::function<bool(const std::string&)>& handle) {
  std::string line;
  while (std::getline(std::cin, line)) {
    if (!handle(line)) return;
  }
}

}  // namespace sluice::rig

#endif  // SLUICE_BENCHMARKS_RIG_COMMAND_LOOP_H_
