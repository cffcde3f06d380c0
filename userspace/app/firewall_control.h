// The firewall's control side: follows the kernel's nftables ruleset, has it compiled, and keeps each
// Ruleset until no worker uses it any more. What rules log or add to sets comes back here.
//
// A new ruleset is built aside; PublishSnapshot hands it to the workers with everything else that
// packets are judged by, so that one packet sees one generation. With `unsupported: refuse` a ruleset
// with rules that Sluice cannot carry out is not taken: the one before stays in force, and the log
// says which rules they are. Where there is none before it, everything is left to the kernel.
//
// What packets add to sets is also written into the kernel's (control/nft/set_writer.h), a while later
// and at a bounded rate; what does not fit, a flood of new elements, is in Sluice alone.
//
// Thread: control, in the network namespace of Open.
#ifndef SLUICE_APP_FIREWALL_CONTROL_H_
#define SLUICE_APP_FIREWALL_CONTROL_H_

#include <algorithm>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/time.h"
#include "control/config.h"
#include "control/nft/nft_mirror.h"
#include "control/nft/set_writer.h"
#include "control/reserved_ports.h"
#include "control/ruleset/compiler.h"
#include "stages/filter/filter.h"
#include "tables/ruleset/ruleset.h"

namespace sluice::app {

class FirewallControl {
 public:
  // Reads and compiles what is there. FailedPrecondition: it is refused (`unsupported: refuse`).
  static absl::StatusOr<std::unique_ptr<FirewallControl>> Open(const control::Config& config,
                                                               uint32_t workers, uint64_t seed,
                                                               Nanos now);

  int fd() const { return mirror_->fd(); }
  Nanos NextDeadline() const {
    return unwritten_.empty() ? mirror_->NextDeadline()
                              : std::min(mirror_->NextDeadline(), next_write_);
  }
  // True: current() is another one than before, to be published.
  absl::StatusOr<bool> Run(Nanos now);
  // Of the last Run: nothing is new but elements that packets have added.
  bool only_packets_elements() const { return only_packets_elements_; }

  // Of the last Run: kernel_ruleset() is another one, whether it was taken or not.
  bool kernel_rules_changed() const { return kernel_rules_changed_; }

  // What has changed in kernel_ruleset() since the last call. With `known` false: anything.
  struct ModelChange {
    bool known = true;
    control::nft::RulesetChange change;
  };
  ModelChange TakeModelChange() { return std::exchange(model_change_, {}); }

  // Whether services are configured: the log says what rules that Sluice cannot carry out do to them.
  void UseServices(bool there);

  // Null while there are no rules.
  const tables::Ruleset* current() const { return current_.get(); }
  // Every worker uses current(): what came before may go.
  void Retire() { retired_.clear(); }

  // Takes what a worker's rules have logged and added to sets, while the worker runs. What was added
  // reaches the other workers by the next Run.
  void Drain(stages::Filter& filter);
  // What was logged since the last call.
  std::vector<stages::LogRecord> TakeLogged() { return std::exchange(logged_, {}); }
  // Of the rule that logged it; empty when its ruleset has gone.
  std::string LogPrefix(const stages::LogRecord& record) const;

  const control::nft::Ruleset& kernel_ruleset() const { return mirror_->ruleset(); }
  // Why the last ruleset was not taken; empty: it was.
  const std::string& refusal() const { return refusal_; }
  // The kernel has rules that were not taken, and there is nothing before them that is in force.
  bool LeavesAllToKernel() const { return current_ == nullptr && !refusal_.empty(); }
  double last_compile_seconds() const { return last_compile_seconds_; }

 private:
  FirewallControl(const control::Config& config, uint32_t workers, uint64_t seed)
      : refuse_(config.unsupported == control::UnsupportedRules::kRefuse),
        nat_ports_(config.limits.nat_ports),
        compiler_({.workers = workers, .seed = seed}) {}

  bool Compile(const control::nft::RulesetChange& change, Nanos now);
  bool Accept(const tables::Ruleset& ruleset);
  void WarnServices();
  bool Install(std::shared_ptr<const tables::Ruleset> next);
  void NoteUnwritten();
  void WriteElements(Nanos now);

  const bool refuse_;
  const control::PortRange nat_ports_;
  std::unique_ptr<control::nft::NftMirror> mirror_;
  control::RulesetCompiler compiler_;
  std::shared_ptr<const tables::Ruleset> current_;
  std::vector<std::shared_ptr<const tables::Ruleset>> retired_;
  control::ReservedPorts reserved_;
  std::vector<tables::SetEvent> events_;
  std::optional<control::nft::SetWriter> writer_;  // none: it could not be opened
  // Of the set with these handles: another one of its name is none of theirs.
  struct Unwritten {
    control::nft::ElementChange change;
    uint64_t table = 0;
    uint64_t set = 0;
  };
  std::deque<Unwritten> unwritten_;
  Nanos next_write_;
  uint64_t not_written_ = 0;  // since the log has said so
  Nanos next_complaint_;
  std::vector<stages::LogRecord> logged_;
  ModelChange model_change_{.known = false, .change = {}};
  bool only_packets_elements_ = false;
  bool kernel_rules_changed_ = false;
  std::string refusal_;
  std::vector<std::string> announced_;  // unsupported rules that the log has named
  std::vector<std::string> announced_to_services_;  // likewise, as a matter of theirs
  bool services_ = false;
  double last_compile_seconds_ = 0;
};

}  // namespace sluice::app

#endif  // SLUICE_APP_FIREWALL_CONTROL_H_
