// Connections that live longer than Sluice: taken over from the kernel's conntrack table at the
// start, given back to it at the end.
//
// Start: ReadKernelFlows, before frames arrive. Of what it finds take only flows that are forwarded
// (IsForwarded): those of the machine's own sockets stay the kernel's. The kernel's entries are
// left where they are, on purpose:
// - should Sluice be killed, the kernel carries on with them;
// - they keep the kernel's own NAT off the ports that are in use;
// - they cost nothing: no packet touches them, and each is replaced by WriteKernelFlows or times
//   out. (An established TCP connection takes five days for that; one that has ended under Sluice
//   would hold its translated port so long. So remove those: RemoveKernelFlows.)
//
// End: KernelFlowWriter::Add for each flow, when no more frames arrive, then Finish. An entry that
// the kernel has for the same connection is replaced, and so is a translated one of another
// connection that holds the same reply tuple: it is older than what Sluice knows. One that is not
// translated stays (a socket of this machine), and ours counts as `clashed`.
//
// TCP: the kernel is told not to hold either side to its windows (IP_CT_TCP_FLAG_BE_LIBERAL), since
// ctnetlink carries no sequence numbers.
//
// A kernel without conntrack: nothing is read, and nothing written.
//
// Thread: control, blocking up to some seconds. Cost: about 10 us per flow written, most of it the
// kernel's (measured in tests/unit/control/conntrack_sync).
#ifndef SLUICE_CONTROL_CONNTRACK_SYNC_KERNEL_FLOWS_H_
#define SLUICE_CONTROL_CONNTRACK_SYNC_KERNEL_FLOWS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/time.h"
#include "control/netlink/netlink_socket.h"
#include "tables/flow.h"

namespace sluice::control {

// Calls `visit` for each flow in the kernel's table, both families; `expires` is relative to `now`.
// Returns how many there were, those that are not taken (flow_message.h) included.
absl::StatusOr<size_t> ReadKernelFlows(Nanos now,
                                       absl::FunctionRef<void(const tables::Flow&)> visit);

// Whether the flow is one between two other machines: neither end, as they are inside and outside
// of any translation, is an address of ours.
bool IsForwarded(const tables::Flow& flow, absl::FunctionRef<bool(const IpAddress&)> is_own);

class KernelFlowWriter {
 public:
  struct Result {
    size_t written = 0;  // those that replaced another included
    size_t replaced = 0;
    size_t skipped = 0;  // over already, or the kernel's anyway (kFlowKernel)
    size_t clashed = 0;
    size_t failed = 0;
    absl::Status first_failure;
  };

  static absl::StatusOr<KernelFlowWriter> Open();

  // Errors are those of the socket; what the kernel says about a flow is in the result.
  absl::Status Add(const tables::Flow& flow, Nanos now);
  absl::StatusOr<Result> Finish();

 private:
  explicit KernelFlowWriter(std::optional<NetlinkSocket> socket) : socket_(std::move(socket)) {}

  absl::Status Flush();
  // Creates the flows; those that fail with EEXIST are put into `existing`, other failures counted.
  absl::Status Create(absl::Span<const tables::Flow> flows, std::vector<tables::Flow>& existing);
  // Removes what stands in the way of the flows, as far as it may be; counts clashes.
  absl::Status ClearTheWay(std::vector<tables::Flow>& flows);

  std::optional<NetlinkSocket> socket_;  // none: no conntrack
  std::vector<tables::Flow> pending_;
  Nanos now_;
  Result result_;
};

// All at once.
absl::StatusOr<KernelFlowWriter::Result> WriteKernelFlows(absl::Span<const tables::Flow> flows,
                                                          Nanos now);

// Deletes the kernel's entries with these tuples (of either direction); one that is gone already is
// no error. Returns how many there were.
absl::StatusOr<size_t> RemoveKernelFlows(absl::Span<const tables::FlowTuple> tuples);

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_CONNTRACK_SYNC_KERNEL_FLOWS_H_
