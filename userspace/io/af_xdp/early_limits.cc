#include "io/af_xdp/early_limits.h"

#include <bpf/bpf.h>
#include <unistd.h>

#include <cstring>

#include "absl/strings/str_cat.h"
#include "bpf/include/early_abi.h"

namespace sluice::io::af_xdp {

absl::StatusOr<std::unique_ptr<EarlyLimits>> EarlyLimits::Create() {
  std::unique_ptr<EarlyLimits> limits(new EarlyLimits);
  limits->buckets_fd_ = bpf_map_create(BPF_MAP_TYPE_ARRAY, "early_buckets", sizeof(uint32_t),
                                       sizeof(sluice_early_bucket), SLUICE_EARLY_LIMITS, nullptr);
  limits->sources_fd_ =
      bpf_map_create(BPF_MAP_TYPE_LRU_HASH, "early_sources", sizeof(sluice_early_source),
                     sizeof(sluice_early_bucket), SLUICE_EARLY_SOURCES, nullptr);
  const int error = limits->buckets_fd_ < 0 ? -limits->buckets_fd_ : -limits->sources_fd_;
  if (error > 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("the early filter's rate limits cannot be set up: ", std::strerror(error),
                     "; the process needs CAP_BPF, or `early_filter: off`"));
  }
  return limits;
}

EarlyLimits::~EarlyLimits() {
  if (buckets_fd_ >= 0) close(buckets_fd_);
  if (sources_fd_ >= 0) close(sources_fd_);
}

absl::StatusOr<uint32_t> EarlyLimits::Acquire(const tables::EarlyRuleKey& key,
                                              const tables::EarlyLimit& limit) {
  User& user = users_[{key, limit.cost_ns, limit.depth_ns, limit.per_source}];
  if (user.count == 0) {
    if (limit.per_source) {
      user.number = next_source_++;
    } else {
      while (taken_.count(user.number) != 0) ++user.number;
      const sluice_early_bucket full{};
      if (user.number >= SLUICE_EARLY_LIMITS ||
          bpf_map_update_elem(buckets_fd_, &user.number, &full, BPF_ANY) != 0) {
        users_.erase({key, limit.cost_ns, limit.depth_ns, limit.per_source});
        return absl::ResourceExhaustedError(
            absl::StrCat("more than ", SLUICE_EARLY_LIMITS, " rate limits in the early filter"));
      }
      taken_.insert(user.number);
    }
  }
  ++user.count;
  return user.number;
}

void EarlyLimits::Release(const tables::EarlyRuleKey& key, const tables::EarlyLimit& limit) {
  const auto found = users_.find({key, limit.cost_ns, limit.depth_ns, limit.per_source});
  if (found == users_.end() || --found->second.count != 0) return;
  if (!limit.per_source) taken_.erase(found->second.number);
  users_.erase(found);
}

}  // namespace sluice::io::af_xdp
