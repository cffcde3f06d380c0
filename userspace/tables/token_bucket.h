// The kernel's limits on ICMP errors and redirects: what may be sent to one host, and in all.
//
// PeerBucket is what struct inet_peer holds for one address. The kernel uses one bucket for three
// purposes, each with a formula of its own (tokens are time there too):
//   - inet_peer_xrlim_allow (net/ipv4/inetpeer.c), for icmp_ratelimit and icmp6 ratelimit: one
//     message per `interval`, and up to 6 intervals saved up;
//   - ip_error (net/ipv4/route.c), for "no route", unreachable and prohibit routes:
//   ip_rt_error_cost
//     each (1 s), up to ip_rt_error_burst (5 s) saved up, keyed by the offending packet's source;
//   - ip_rt_send_redirect (net/ipv4/route.c): ip_rt_redirect_number redirects at doubling
//     intervals from ip_rt_redirect_load, then silence until ip_rt_redirect_silence without one.
// GlobalBucket is icmp_global_allow and icmp_global_consume (net/ipv4/icmp.c): credit for
// icmp_msgs_per_sec, at most icmp_msgs_burst, added at most every 20 ms, spent 0 to 2 at a time so
// that the credit left cannot be counted from outside. Kernels since 6.12, and the stable series
// that took the same fix (6.1.113 among them), spend credit only for messages that the per-host
// limit lets pass; so does this: Allow first, then the host's bucket, then Consume.
//
// Time is counted in nanoseconds, not jiffies; a worker owns its tables, so limits are per worker.
// One thread; O(1); RateLimitTable allocates at construction only and never refuses an address:
// when it is full the least recently used one makes room (and starts afresh when it comes again).
#ifndef SLUICE_TABLES_TOKEN_BUCKET_H_
#define SLUICE_TABLES_TOKEN_BUCKET_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/address.h"
#include "base/rng.h"
#include "base/time.h"

namespace sluice::tables {

// For ip_error: net.ipv4.route.error_cost and error_burst.
struct ErrorLimit {
  Nanos cost = Seconds(1);
  Nanos burst = Seconds(5);
};

// For redirects: net.ipv4.route.redirect_load, redirect_number and redirect_silence.
struct RedirectLimit {
  Nanos load = Millis(20);
  uint32_t number = 9;
  Nanos silence = Millis(20) * (1 << 10);
};

class PeerBucket {
 public:
  PeerBucket() = default;
  // A bucket first used at `now` is full, whatever its limits.
  explicit PeerBucket(Nanos now) : last_(now - Seconds(60)) {}

  // inet_peer_xrlim_allow. An `interval` of 0 means no limit (icmp_ratelimit = 0).
  bool AllowError(Nanos now, Nanos interval) {
    static constexpr int64_t kBurstFactor = 6;
    if (now != last_) {
      tokens_ = std::min(tokens_ + (now - last_), interval * kBurstFactor);
      last_ = now;
    }
    return Take(interval);
  }

  // ip_error.
  bool AllowUnreachable(Nanos now, const ErrorLimit& limit) {
    tokens_ = std::min(tokens_ + (now - last_), limit.burst);
    last_ = now;
    return Take(limit.cost);
  }

  // ip_rt_send_redirect.
  bool AllowRedirect(Nanos now, const RedirectLimit& limit) {
    if (now > last_ + limit.silence) {
      tokens_ = Nanos();
      redirects_ = 0;
    }
    if (redirects_ >= limit.number) {
      last_ = now;
      return false;
    }
    if (redirects_ != 0 && now <= last_ + limit.load * (int64_t{1} << redirects_)) return false;
    last_ = now;
    ++redirects_;
    return true;
  }

 private:
  bool Take(Nanos cost) {
    if (tokens_ < cost) return false;
    tokens_ -= cost;
    return true;
  }

  Nanos tokens_;
  Nanos last_;
  uint32_t redirects_ = 0;
};

// icmpv6_xrlim_allow (net/ipv6/icmp.c): the wider the prefix of the route to the destination, the
// more messages: the interval is halved for each full 32 bits that it is short of /128.
constexpr Nanos Icmpv6Interval(Nanos ratelimit, uint8_t prefix_length) {
  return prefix_length < 128 ? Nanos(ratelimit.count() >> ((128 - prefix_length) >> 5)) : ratelimit;
}

class GlobalBucket {
 public:
  explicit GlobalBucket(Nanos now) : stamp_(now - Seconds(1)) {}

  bool Allow(Nanos now, uint32_t msgs_per_sec, uint32_t burst) {
    if (credit_ > 0) return true;
    const Nanos since = std::min(now - stamp_, Seconds(1));
    if (since < Millis(20)) return false;
    const int64_t more = int64_t{msgs_per_sec} * since.count() / Seconds(1).count();
    if (more == 0) return false;
    stamp_ = now;
    credit_ = std::min<int64_t>(credit_ + more, burst);
    return true;
  }
  // For each message that Allow and the host's bucket both let pass.
  void Consume(Rng& rng) { credit_ -= static_cast<int64_t>(rng.Below(3)); }

  int64_t credit() const { return credit_; }

 private:
  int64_t credit_ = 0;  // may be negative by one message
  Nanos stamp_;
};

class RateLimitTable {
 public:
  // `seed` keys the hash, so that nobody outside can choose addresses that collide.
  RateLimitTable(size_t capacity, uint64_t seed);

  // The bucket of `peer`, made when there is none. Valid until the next call.
  PeerBucket& Get(const IpAddress& peer, Nanos now);

  size_t size() const { return size_; }
  size_t capacity() const { return nodes_.size(); }
  uint64_t evictions() const { return evictions_; }

 private:
  static constexpr uint32_t kNone = UINT32_MAX;

  struct Node {
    IpAddress peer;
    PeerBucket bucket;
    uint32_t chain = kNone;  // next with the same hash
    uint32_t newer = kNone;
    uint32_t older = kNone;
  };

  uint32_t& ChainOf(const IpAddress& peer);
  void Detach(uint32_t index);  // from the order of use
  void MakeNewest(uint32_t index);

  uint64_t seed_;
  std::vector<Node> nodes_;
  std::vector<uint32_t> chains_;
  size_t size_ = 0;
  uint32_t newest_ = kNone;
  uint32_t oldest_ = kNone;
  uint64_t evictions_ = 0;
};

}  // namespace sluice::tables

#endif  // SLUICE_TABLES_TOKEN_BUCKET_H_
