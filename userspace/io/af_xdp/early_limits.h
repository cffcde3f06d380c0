// The token buckets of the early filter's rate limits, one per rule and per source address, shared
// by the programs of all interfaces: the kernel, too, has one bucket for a rule, wherever a packet
// came in.
//
// A rule keeps its buckets as long as any interface has it with the same limit. Of single senders
// the last 65,536 are remembered, and the one that was silent for longest makes room (it starts
// with a full bucket when it comes again).
//
// Thread: control.
#ifndef SLUICE_IO_AF_XDP_EARLY_LIMITS_H_
#define SLUICE_IO_AF_XDP_EARLY_LIMITS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <tuple>

#include "absl/status/statusor.h"
#include "tables/early_program.h"

namespace sluice::io::af_xdp {

class EarlyLimits {
 public:
  static absl::StatusOr<std::unique_ptr<EarlyLimits>> Create();
  ~EarlyLimits();
  EarlyLimits(const EarlyLimits&) = delete;
  EarlyLimits& operator=(const EarlyLimits&) = delete;

  int buckets_fd() const { return buckets_fd_; }
  int sources_fd() const { return sources_fd_; }

  // The number of this rule's bucket, a new and full one when nobody has it. Each Acquire wants a
  // Release.
  absl::StatusOr<uint32_t> Acquire(const tables::EarlyRuleKey& key,
                                   const tables::EarlyLimit& limit);
  void Release(const tables::EarlyRuleKey& key, const tables::EarlyLimit& limit);

 private:
  struct User {
    uint32_t number = 0;
    uint32_t count = 0;
  };
  using Name = std::tuple<tables::EarlyRuleKey, uint64_t, uint64_t, bool>;

  EarlyLimits() = default;

  int buckets_fd_ = -1;
  int sources_fd_ = -1;
  std::map<Name, User> users_;
  std::set<uint32_t> taken_;  // of the rules' buckets
  uint32_t next_source_ = 0;  // never used twice
};

}  // namespace sluice::io::af_xdp

#endif  // SLUICE_IO_AF_XDP_EARLY_LIMITS_H_
