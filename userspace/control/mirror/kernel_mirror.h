// Keeps KernelState and the two RIBs in step with the kernel through rtnetlink.
//
// Two sockets: one is subscribed to every change, one asks for dumps. The subscription comes before
// the first dump, so that nothing falls between. What an event says is applied at once. Dumps are
// asked for
//  - at the start and after lost events (ENOBUFS): everything, and until that is done
//    divergence() is not 0;
//  - after events behind which the kernel changes routes silently. IPv4 routes vanish without a
//    word when a device goes down (fib_disable_ip), when an address is deleted that they name as
//    source (fib_sync_down_addr), and when their nexthop object is deleted (__remove_nexthop_fib);
//    objects vanish with their device or its carrier. Dead paths are recognised from the link at
//    once; the dump a few milliseconds later makes an end of them;
//  - every `audit_interval`, and on demand: what they correct is counted.
// A dump is read in small portions between events; a route that changes meanwhile follows its
// event, and is compared again by another dump.
//
// Threads: the control thread only. It must be in the network namespace in which Open was called.
// Use: poll fds() for input, until NextDeadline(); then Run(now). Run does a limited portion of
// work, and the descriptors stay readable while there is more.
#ifndef SLUICE_CONTROL_MIRROR_KERNEL_MIRROR_H_
#define SLUICE_CONTROL_MIRROR_KERNEL_MIRROR_H_

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/time.h"
#include "control/mirror/kernel_state.h"
#include "control/netlink/netlink_socket.h"
#include "control/rib/attribute_store.h"
#include "control/rib/rib.h"
#include "control/rib/route_sink.h"

namespace sluice::control {

struct MirrorOptions {
  Nanos audit_interval = Seconds(60);  // 0: only on demand
  Nanos debounce = Millis(3);          // from an event to the dump that it asks for
  int receive_buffer = 16 << 20;       // of the subscribed socket
  bool force_buffer = true;            // beyond net.core.rmem_max; false is for tests
};

// What Run has changed, as bits.
namespace mirror_change {
inline constexpr uint32_t kLinks = 1;     // an interface came, went, or changed in any way
inline constexpr uint32_t kSnapshot = 2;  // addresses, rules or link properties: build a new one
inline constexpr uint32_t kRoutes = 4;
inline constexpr uint32_t kSysctls = 8;  // a netconf notification: read the sysctls again
}  // namespace mirror_change

struct MirrorStats {
  uint64_t events = 0;          // messages of the subscribed socket
  uint64_t dumps = 0;           // finished
  uint64_t dumps_repeated = 0;  // interrupted by changes (NLM_F_DUMP_INTR), or failed
  uint64_t overflows = 0;       // ENOBUFS
  uint64_t resyncs = 0;         // complete ones, the first load included
  uint64_t audits = 0;
  // What audits found wrong: prefixes; and links, addresses, rules, nexthops. 0 unless something
  // is, but that an IPv6 address may be found a moment before its event comes.
  uint64_t audit_route_corrections = 0;
  uint64_t audit_other_corrections = 0;
  std::string last_dump_error;
  RibStats rib4;
  RibStats rib6;
  size_t attribute_bytes = 0;
};

class KernelMirror {
 public:
  using SlotLookup = std::function<IfaceSlot(IfIndex)>;
  using NeighborObserver = std::function<void(const NeighborEvent&)>;

  // The sink must outlive the mirror.
  static absl::StatusOr<std::unique_ptr<KernelMirror>> Open(const MirrorOptions& options,
                                                            RouteSink& sink, SlotLookup slots,
                                                            Nanos now);
  ~KernelMirror();
  KernelMirror(const KernelMirror&) = delete;
  KernelMirror& operator=(const KernelMirror&) = delete;

  std::array<int, 2> fds() const { return {events_.fd(), requests_.fd()}; }
  Nanos NextDeadline() const;
  // An error is final: the sockets are of no use any more.
  absl::Status Run(Nanos now);
  // Runs until all has been loaded, with poll() in between. For the start of the program and tests.
  absl::Status LoadAll(std::function<Nanos()> clock, Nanos deadline);

  uint32_t TakeChanges();  // mirror_change bits since the last call
  void set_neighbor_observer(NeighborObserver observer) { observer_ = std::move(observer); }

  // Interfaces are served or not served any more, or a slot has moved.
  void OnSlotsChanged();
  void RequestAudit(Nanos now);

  bool synced() const { return synced_; }  // all was loaded once
  bool idle() const;                       // no dump runs or waits
  // Objects known to be wrong and not corrected yet: the metric sluice_mirror_divergence.
  uint64_t divergence() const;
  MirrorStats stats() const;

  const KernelState& state() const { return state_; }
  const AttributeStore& attributes() const { return attributes_; }
  const Rib4& rib4() const { return rib4_; }
  const Rib6& rib6() const { return rib6_; }

 private:
  // In the order in which they are dumped: routes refer to what is before them.
  enum Dump : uint32_t {
    kLinks,
    kAddresses4,
    kAddresses6,
    kNetconf4,
    kNetconf6,
    kRules4,
    kRules6,
    kNexthops,
    kLocal4,
    kMain4,
    kDefault4,
    kLocal6,
    kMain6,
    kNeighbors4,
    kNeighbors6,
    kDumpCount,
  };
  static constexpr uint32_t kNone = kDumpCount;
  static constexpr uint32_t kAll = (1u << kDumpCount) - 1;
  static constexpr uint32_t kRoutes4 = 1u << kLocal4 | 1u << kMain4 | 1u << kDefault4;
  static constexpr uint32_t kRoutes6 = 1u << kLocal6 | 1u << kMain6;

  KernelMirror(const MirrorOptions& options, RouteSink& sink, SlotLookup slots,
               NetlinkSocket events, NetlinkSocket requests);

  absl::Status ReadDump();
  absl::Status StartDump(Nanos now);
  absl::StatusOr<uint32_t> SendRequest();  // for the dump `running_`
  void Want(uint32_t dumps);
  void Overflowed();
  void FinishDump(Nanos now);
  void AbandonDump();
  void Flush();  // carries changed links and nexthops into the routes

  void OnEvent(const nlmsghdr& message);
  void OnDumped(const nlmsghdr& message);
  void OnRouteEvent(const nlmsghdr& message);
  void OnLink(const LinkMessage& link, bool removed);
  void OnNexthop(const NexthopUpdate& nexthop, bool removed);
  void OnNeighbor(const NeighborMessage& neighbor, bool removed);
  void OnNetconf(const NetconfMessage& netconf);
  LinkStatus StatusOf(IfIndex ifindex) const;
  static uint32_t DumpOf(const RouteUpdate& route);  // the Dump that has it
  bool IsRoutes(uint32_t dump) const { return (1u << dump & (kRoutes4 | kRoutes6)) != 0; }

  // Each puts what was dumped in the place of what was known, and returns how much differed.
  size_t AdoptLinks();
  size_t AdoptAddresses(absl::flat_hash_map<uint32_t, std::vector<AddressMessage>>& known);
  size_t AdoptRules(std::vector<RuleMessage>& known);
  size_t AdoptNexthops();
  size_t AdoptNeighbors(Family family);
  size_t AdoptRoutes(Nanos now);

  const MirrorOptions options_;
  SlotLookup slots_;
  NetlinkSocket events_;
  NetlinkSocket requests_;
  KernelState state_;
  AttributeStore attributes_;
  Rib4 rib4_;
  Rib6 rib6_;
  NeighborObserver observer_;
  RouteUpdate update_;  // reused
  uint32_t changes_ = 0;
  bool all_ignore_linkdown4_ = false;  // net.ipv4.conf.all.ignore_routes_with_linkdown
  bool refresh_ = false;               // links, slots or nexthops changed: see Flush

  // Dumps.
  Nanos now_;
  uint32_t wanted_ = 0;    // bits
  uint32_t by_audit_ = 0;  // of wanted_: only an audit asked
  Nanos due_ = Nanos::Max();
  Nanos not_before_;  // for route dumps: a pause in proportion to what the last ones took
  uint32_t running_ = kNone;
  uint32_t sequence_ = 0;
  Nanos started_;
  bool interrupted_ = false;
  bool audited_ = false;  // the running one
  absl::Status dump_status_;
  bool dump_done_ = false;
  bool synced_ = false;
  uint32_t resync_ = 0;  // dumps that a complete resync still lacks
  std::array<uint64_t, kDumpCount> uncertain_{};
  Nanos next_audit_ = Nanos::Max();

  // What the running dump has brought, and what events touched meanwhile.
  absl::flat_hash_map<uint32_t, LinkMessage> dumped_links_;
  absl::flat_hash_set<uint32_t> touched_ids_;
  absl::flat_hash_map<uint32_t, std::vector<AddressMessage>> dumped_addresses_;
  std::vector<RuleMessage> dumped_rules_;
  absl::flat_hash_map<uint32_t, NexthopUpdate> dumped_nexthops_;
  absl::flat_hash_map<NeighborKey, Neighbor> dumped_neighbors_;
  absl::flat_hash_set<NeighborKey> touched_neighbors_;

  MirrorStats stats_;
};

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_MIRROR_KERNEL_MIRROR_H_
