// The packets that a router sends on its own account: ICMP errors, redirects, echo replies. Decides
// whether (limits), from which address, and by which way; the pipeline sends them.
//
// Limits follow Linux: icmp_ratemask and icmp_ratelimit per destination, icmp_msgs_per_sec overall,
// the ip_error bucket for routes that refuse, ip_rt_send_redirect's back-off. Each worker keeps its
// own, so a sender whose packets are spread over several workers may get that many times as much.
//
// Where the answer would leave by a device that Sluice does not serve, or no served interface has an
// address to send it from, the packet goes to the kernel, which then answers itself.
//
// Thread: the owning worker.
#ifndef SLUICE_DATAPLANE_REPLIES_H_
#define SLUICE_DATAPLANE_REPLIES_H_

#include <cstdint>

#include "base/rng.h"
#include "base/time.h"
#include "base/worker_counters.h"
#include "dataplane/way.h"
#include "packet/outbox.h"
#include "packet/packet.h"
#include "stages/icmp/icmp_error.h"
#include "stages/reject/tcp_reset.h"
#include "stages/route/route.h"
#include "tables/snapshot.h"
#include "tables/token_bucket.h"

namespace sluice::dataplane {

enum class ReplyOutcome : uint8_t {
  kNone,  // no answer: not allowed, over a limit, or no free frame
  kSend,  // `message` is ready: out and next_hop are set
  kPunt,  // the kernel must answer
};

struct Reply {
  ReplyOutcome outcome = ReplyOutcome::kNone;
  packet::Packet message;
  IpAddress next_hop;
  // Belongs to the connection of its cause (nf_ct_attach): resets and ICMP errors do.
  bool of_connection = false;
};

class Replies {
 public:
  Replies(const stages::RoutingTables& tables, WorkerCounters& counters, uint64_t seed,
          Nanos start);

  // The ICMP error for a packet that is about to be dropped, if that reason has one. `mtu` is that
  // of its way out, where the error tells it.
  Reply Error4(const packet::Packet& offending, DropReason reason, uint32_t mtu,
               const tables::Snapshot& snapshot, Nanos now, packet::Outbox& outbox);
  Reply Error6(const packet::Packet& offending, DropReason reason, uint32_t mtu,
               const tables::Snapshot& snapshot, Nanos now, packet::Outbox& outbox);

  // What a rule's `reject` answers with: an unreachable error with `code`, under the same limits, or
  // a reset.
  Reply RejectError(const packet::Packet& offending, Family family, uint8_t code,
                    const tables::Snapshot& snapshot, Nanos now, packet::Outbox& outbox);
  Reply Reset(const packet::Packet& segment, Family family, const tables::Snapshot& snapshot,
              packet::Outbox& outbox, stages::ResetBy by = stages::ResetBy::kRule);

  // A redirect to the sender of a packet that leaves as it came. Before its TTL is changed: no;
  // Linux sends the ICMP one after the decrement, the ICMPv6 one before; the caller follows.
  Reply Redirect4(const packet::Packet& p, Ipv4 next_hop, const tables::Snapshot& snapshot,
                  Nanos now, packet::Outbox& outbox);
  Reply Redirect6(const packet::Packet& p, const Ipv6& target, const Mac* target_mac,
                  const tables::Snapshot& snapshot, Nanos now, packet::Outbox& outbox);

  // Turns the echo request, already found to be ours and sound, into its reply.
  Reply Echo4(packet::Packet& request, const tables::Snapshot& snapshot);
  Reply Echo6(packet::Packet& request, const tables::Snapshot& snapshot);

 private:
  Way WayTo(const IpAddress& destination, const tables::Snapshot& snapshot) const {
    return dataplane::WayTo(destination, tables_, snapshot);
  }
  bool WithinLimits4(const stages::IcmpError& error, DropReason reason, Ipv4 offender,
                     const tables::Snapshot& snapshot, Nanos now);
  bool WithinLimits6(const Way& way, const Ipv6& offender, const tables::Snapshot& snapshot,
                     Nanos now);
  bool PassesGlobalLimit(const tables::Snapshot& snapshot, Nanos now);
  Reply Send4(const packet::Packet& offending, const stages::IcmpError& error, DropReason reason,
              const tables::Snapshot& snapshot, Nanos now, packet::Outbox& outbox);
  Reply Send6(const packet::Packet& offending, const stages::IcmpError& error,
              const tables::Snapshot& snapshot, Nanos now, packet::Outbox& outbox);
  Reply Build4(const packet::Packet& offending, const stages::IcmpError& error, const Way& way,
               const tables::Snapshot& snapshot, packet::Outbox& outbox);

  static constexpr size_t kPeers = 4096;

  const stages::RoutingTables tables_;
  WorkerCounters& counters_;
  Rng rng_;
  tables::RateLimitTable peers_;
  tables::GlobalBucket global_;
  uint16_t ip_id_;
};

}  // namespace sluice::dataplane

#endif  // SLUICE_DATAPLANE_REPLIES_H_
