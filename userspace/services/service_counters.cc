#include "services/service_counters.h"

namespace sluice::services {

void Reset(ServiceStats& s) {
  for (Counter* c : {&s.listening, &s.accepted, &s.active, &s.retries, &s.bytes_in, &s.bytes_out,
                     &s.messages_in, &s.messages_out, &s.connect_time_ns}) {
    c->Set(0);
  }
  for (Counter& c : s.failed) c.Set(0);
  for (Counter& c : s.connect_time) c.Set(0);
}

void Reset(BackendStats& s) {
  for (Counter* c : {&s.up, &s.active, &s.connections, &s.failures, &s.went_up, &s.went_down,
                     &s.checks_passed, &s.checks_failed, &s.checks_skipped}) {
    c->Set(0);
  }
}

}  // namespace sluice::services
