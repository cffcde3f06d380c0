// The clock of the process: monotonic, read by the worker loops and the control thread only.
#ifndef SLUICE_APP_CLOCK_H_
#define SLUICE_APP_CLOCK_H_

#include <time.h>

#include "base/time.h"

namespace sluice::app {

inline Nanos MonotonicNow() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);  // vDSO: no system call
  return Seconds(t.tv_sec) + Nanos(t.tv_nsec);
}

}  // namespace sluice::app

#endif  // SLUICE_APP_CLOCK_H_
