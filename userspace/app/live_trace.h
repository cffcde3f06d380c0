// A running `sluice trace`: the workers' sessions gathered into one stream of packets to look at.
//
// Made by the engine on the control thread, which hands each worker its session (Tracer::Use) and
// takes it away again before this object goes; read by one thread of the HTTP server. What records
// hold as numbers (interfaces, rules) is looked up in names that the control thread sets, since the
// ruleset itself may go at any time.
//
// Thread: as named per function.
#ifndef SLUICE_APP_LIVE_TRACE_H_
#define SLUICE_APP_LIVE_TRACE_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "dataplane/tracer.h"
#include "telemetry/firewall_views.h"

namespace sluice::app {

// What rules of one generation are called: "inet filter forward handle 7", by their index; and
// chains: "inet filter forward policy drop".
struct RuleNames {
  uint64_t generation = 0;
  std::vector<std::string> names;
  std::vector<std::string> chains;
};

class LiveTrace final : public telemetry::TraceStream {
 public:
  using InterfaceNames = std::array<std::string, kMaxInterfaces>;

  // --- Control ---
  // `ended` runs in the destructor: there the sessions are taken from the workers.
  LiveTrace(const dataplane::PacketFilter& filter, size_t workers, InterfaceNames interfaces,
            Nanos start, std::function<void()> ended);
  ~LiveTrace() override;
  dataplane::TraceSession* session(size_t worker) { return sessions_[worker].get(); }
  // Another ruleset is in force. Names of the last two generations are kept.
  void UseRules(RuleNames rules);
  // No worker has its session any more, and `ended` must not run: Sluice ends.
  void Close();

  // --- The reader ---
  bool Next(Nanos patience, std::vector<telemetry::TraceView>& out) override;
  uint64_t lost() const override;

 private:
  telemetry::TraceView ViewOf(const dataplane::TraceRecord& record, uint32_t worker);
  std::string RuleName(uint64_t generation, uint32_t rule);

  std::vector<std::unique_ptr<dataplane::TraceSession>> sessions_;  // by worker
  const InterfaceNames interfaces_;
  const Nanos start_;
  std::function<void()> ended_;
  std::atomic<bool> closed_{false};
  std::mutex mutex_;
  std::array<RuleNames, 2> rules_;  // the newest first; under mutex_
};

}  // namespace sluice::app

#endif  // SLUICE_APP_LIVE_TRACE_H_
