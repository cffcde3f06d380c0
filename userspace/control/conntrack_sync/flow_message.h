// Flows as ctnetlink messages (linux/netfilter/nfnetlink_conntrack.h), and back.
//
// What a message tells and what becomes of it:
//   tuples, mark, counters   as they are (counters only with nf_conntrack_acct; they cannot be
//                            written)
//   status                   bits 0 to 10; the others are the kernel's own
//   timeout                  seconds; `expires` is that from now on. Absent (a flow in one of the
//                            kernel's flowtables): kUntoldTimeout
//   TCP                      state, window scales, SACK permitted. No sequence numbers: windows
//                            begin with the first packet of each side, and neither side is held to
//                            them (kTcpBeLiberal), as when Linux picks up a connection in its
//                            middle (net.netfilter.nf_conntrack_tcp_loose)
//   SCTP                     state and verification tags
//   NAT                      the reply tuple and status; that an address came from `masquerade` is
//                            not told
//   helper, adjusted         such a flow stays the kernel's (kFlowKernel)
//   sequence numbers
//
// Not taken: flows of other zones than the default one, unconfirmed and dying ones.
//
// Any thread; nothing is kept.
#ifndef SLUICE_CONTROL_CONNTRACK_SYNC_FLOW_MESSAGE_H_
#define SLUICE_CONTROL_CONNTRACK_SYNC_FLOW_MESSAGE_H_

#include <linux/netlink.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "base/time.h"
#include "tables/flow.h"

namespace sluice::control {

inline constexpr Nanos kUntoldTimeout = Seconds(120);

// A flow from a message of type IPCTNL_MSG_CT_NEW; nullopt when it is malformed or not taken.
std::optional<tables::Flow> ParseFlowMessage(const nlmsghdr& message, Nanos now);

// Whether ParseFlowMessage may be given this message.
bool IsFlowMessage(const nlmsghdr& message);

// Each of these appends one whole message to `out`.

// Creates the flow, and fails when there is one with its tuples (NLM_F_EXCL). The kernel makes the
// translated reply tuple itself, of the original one and what NAT is said to do.
void AppendCreate(std::vector<uint8_t>& out, uint32_t sequence, const tables::Flow& flow,
                  Nanos now);
// Removes the flow that has this tuple in either direction, or asks for it.
void AppendDelete(std::vector<uint8_t>& out, uint32_t sequence, const tables::FlowTuple& tuple);
void AppendGet(std::vector<uint8_t>& out, uint32_t sequence, const tables::FlowTuple& tuple);
// Asks for all flows of both families.
void AppendDump(std::vector<uint8_t>& out, uint32_t sequence);

// Of the message that begins at `at`: wants an acknowledgement.
void AskForAck(std::vector<uint8_t>& out, size_t at);

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_CONNTRACK_SYNC_FLOW_MESSAGE_H_
