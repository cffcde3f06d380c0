// Follows nf_tables' ruleset of a network namespace: read once, then by its notifications.
//
// A transaction's messages are kept until the kernel closes it (NFT_MSG_NEWGEN) and then applied,
// so ruleset() is always one generation as a whole. What cannot be applied exactly is read again:
//   - the structure, when ruleset_editor.h says so, while elements are still followed. It may be of
//     a newer generation than the messages so far; it is put in place when they have come to it;
//   - everything, after lost messages (ENOBUFS), a gap between generations, or when the audit,
//   every
//     ten seconds, finds other tables than ours: a table of a process that died goes without a
//     word.
//
// Elements with a timeout vanish from the kernel without a word, and from ruleset() within a minute
// after; whoever uses them looks at `expires_at`. Elements that the kernel's own packet path adds
// come without a word too, and are seen when the set is read anew only.
//
// Cost: a changed element takes some microseconds, whatever the size of its set. Reading takes as
// long as ruleset_reader.h says, in pieces of a few milliseconds: Run never waits.
// Threads: the control thread only, in the namespace of Open.
#ifndef SLUICE_CONTROL_NFT_NFT_MIRROR_H_
#define SLUICE_CONTROL_NFT_NFT_MIRROR_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/time.h"
#include "control/netlink/netlink_socket.h"
#include "control/nft/model.h"
#include "control/nft/ruleset_editor.h"
#include "control/nft/ruleset_reader.h"

namespace sluice::control::nft {

struct NftMirrorStats {
  uint64_t transactions = 0;  // applied by their messages
  uint64_t structure_readings = 0;
  uint64_t full_readings = 0;  // with the first one
  uint64_t overflows = 0;      // messages lost
};

struct NftMirrorOptions {
  int event_buffer = 32 << 20;  // bytes: some 100,000 elements in one transaction
};

class NftMirror {
 public:
  // Reads the ruleset, at once. A kernel without nf_tables is no error: the ruleset is empty.
  static absl::StatusOr<std::unique_ptr<NftMirror>> Open(Nanos now,
                                                         const NftMirrorOptions& options = {});

  int fd() const { return events_ ? events_->fd() : -1; }  // -1: poll() ignores it
  Nanos NextDeadline() const;
  // What has changed in ruleset(), if anything. Never waits.
  absl::StatusOr<std::optional<RulesetChange>> Run(Nanos now);

  // One generation, as of the last change that Run gave out (of Open at first). False while a
  // reading is under way: parts of ruleset() may then be of different generations, so keep what was
  // made of it before, until Run gives out a change.
  bool consistent() const { return state_ == State::kFollowing && !editor_.changed(); }
  const Ruleset& ruleset() const { return ruleset_; }
  const NftMirrorStats& stats() const { return stats_; }

 private:
  enum class State {
    kFollowing,
    kReadingStructure,
    kCatchingUp,  // the structure is read; messages up to its generation are still to come
    kReadingAll,
  };

  NftMirror() = default;
  absl::Status ReadEvents(Nanos now);
  void TakeEvent(const nlmsghdr& message, Nanos now);
  void EndTransaction(uint32_t generation, Nanos now);
  absl::Status ContinueReading(Nanos now);
  void StartStructure();
  void StartAll();
  void InstallStructure();
  void InstallAll(Ruleset ruleset);
  absl::Status Audit(Nanos now);
  void DropExpired(Nanos now);

  std::optional<NetlinkSocket> events_;
  std::optional<RulesetReader> reader_;
  Ruleset ruleset_;
  Ruleset structure_;  // read, not yet in place
  RulesetEditor editor_;
  State state_ = State::kFollowing;
  std::vector<uint8_t> pending_;  // messages of a transaction that is not closed
  bool lost_ = false;
  bool more_events_ = false;
  Nanos next_audit_ = Nanos::Max();
  Nanos next_expiry_ = Nanos::Max();
  Nanos next_reading_;
  uint32_t audited_generation_ = 0;
  NftMirrorStats stats_;
};

}  // namespace sluice::control::nft

#endif  // SLUICE_CONTROL_NFT_NFT_MIRROR_H_
