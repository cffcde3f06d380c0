// The early filter of the running program: what of the ruleset XDP carries out on which interface,
// kept in step with what the workers leave out, and the counts of its rules.
//
// A change goes as early_program.h wants it, so that no packet is judged by a mixture:
//   Prepare   compiles. True: XDP must run something else; until then nothing is left out
//   (publish; every worker has seen it)
//   Install   writes the programs, and remembers how far the receive rings had come
//   Settle    true once the workers have judged all frames up to there
//   (publish: LeftOut names the new programs' rules)
// Workers that are slow delay only the last step. When XDP does not take a program, it runs no rule
// until the ruleset or the interfaces change, and the workers run all.
//
// Thread: control. Cost: see control/early and io/af_xdp/early_filter.h.
#ifndef SLUICE_APP_EARLY_CONTROL_H_
#define SLUICE_APP_EARLY_CONTROL_H_

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "app/interfaces.h"
#include "app/rule_status.h"
#include "base/time.h"
#include "control/early/early_compiler.h"
#include "control/mirror/sysctl.h"
#include "control/nft/model.h"
#include "io/af_xdp/early_limits.h"
#include "tables/early_left_out.h"
#include "tables/ruleset/ruleset.h"

namespace sluice::app {

class EarlyControl {
 public:
  using Served = std::span<const ServedInterface, kMaxInterfaces>;

  static absl::StatusOr<std::unique_ptr<EarlyControl>> Create();

  io::af_xdp::EarlyLimits& limits() { return *limits_; }

  // `kernel`: the ruleset that `compiled` was made of; `change`: what is new in it since the last
  // call, null when that is not known. `compiled` may be null: no rules.
  bool Prepare(const control::nft::Ruleset& kernel, const control::nft::RulesetChange* change,
               const tables::Ruleset* compiled, Served served, Nanos now);
  void Install(Served served, const control::Sysctls& sysctls);
  bool Settle(Served served, Interfaces::Workers workers);

  // From now on the workers run everything, until the next Install: an interface comes that has no
  // program yet.
  void Suspend();
  // Its last counts, while it still has its program.
  void Leaves(const ServedInterface& served);
  void SetChecks(Served served, const control::Sysctls& sysctls);

  // When Prepare has something to do although nothing has changed, or Settle is to be asked again.
  // Whether XDP runs what it shall, and workers leave that out.
  bool settled() const { return !dirty_ && state_ != State::kSettling; }
  Nanos NextDeadline(Nanos now) const;
  bool IsDue(Nanos now) const { return dirty_ || now >= valid_until_; }
  void MarkDirty() { dirty_ = true; }

  // To be published with `compiled`; null: XDP runs no rule of it.
  std::shared_ptr<const tables::EarlyLeftOut> LeftOut(const tables::Ruleset& compiled) const;
  // What XDP has counted of the rules of `compiled`, by rule.
  EarlyCounts Counts(const tables::Ruleset* compiled, Served served) const;

 private:
  enum class State : uint8_t { kWorkers, kSettling, kInForce };
  using Totals = std::map<tables::EarlyRuleKey, tables::PacketCount>;
  // What a rule had counted in programs that have gone. Of a rule that has another's name (handles
  // begin anew in a new table), less what its program had counted before: modulo 2^64.
  struct Past {
    uint64_t owner = 0;  // RuleInfo::owner
    tables::PacketCount count;
  };

  EarlyControl() = default;
  bool Runs(Served served) const;
  absl::Status InstallAll(Served served);
  void Retire(const std::vector<io::af_xdp::EarlyRuleCount>& counts);
  Totals Read(Served served) const;
  void FollowOwners(const tables::Ruleset* compiled, Served served);

  std::unique_ptr<io::af_xdp::EarlyLimits> limits_;
  control::EarlyCompiler compiler_;
  std::vector<uint8_t> slots_;  // of the interfaces that programs_ are for
  std::vector<std::shared_ptr<const tables::EarlyProgram>> programs_;
  State state_ = State::kWorkers;
  bool dirty_ = true;
  Nanos valid_until_ = Nanos::Max();
  std::map<const ServedPort*, uint32_t> targets_;  // how far a port's worker must have come
  std::map<tables::EarlyRuleKey, Past> past_;
  std::string failure_;  // that the log has told
};

}  // namespace sluice::app

#endif  // SLUICE_APP_EARLY_CONTROL_H_
