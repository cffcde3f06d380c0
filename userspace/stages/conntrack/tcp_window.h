// Is a TCP segment inside the windows of its connection? And what it teaches about them.
//
// The checks of G. van Rooij, "Real stateful TCP packet filtering in IP Filter" (2000), as the
// kernel makes them (tcp_in_window in net/netfilter/nf_conntrack_proto_tcp.c, 6.18):
//   I    its first byte is within what the receiver's window allowed
//   II   its end is not older than a window of the receiver's
//   III  what it acknowledges (or selectively acknowledges) was sent
//   IV   and is not older than the sender's largest window, at least 66,000
// I and III failing make it invalid. II and IV failing (old duplicates) and data a little beyond
// the window let it pass without a change of state. A connection that was picked up in its middle,
// and settings.tcp_be_liberal, turn all into acceptance.
#ifndef SLUICE_STAGES_CONNTRACK_TCP_WINDOW_H_
#define SLUICE_STAGES_CONNTRACK_TCP_WINDOW_H_

#include <cstdint>

#include "stages/conntrack/tcp_segment.h"
#include "tables/flow.h"

namespace sluice::stages {

enum class WindowCheck : uint8_t { kAccept, kIgnore, kInvalid };

// Updates `tcp` when the segment is accepted.
WindowCheck CheckTcpWindow(tables::TcpTracking& tcp, tables::FlowDirection direction,
                           const TcpSegment& segment, bool be_liberal);

// The first segment of a new connection, from its original direction. Without SYN the connection is
// picked up in its middle: no scale is known, so windows are not enforced.
void BeginTcpWindow(tables::TcpTracking& tcp, const TcpSegment& segment);

// What is known of sequence numbers is old: both sides are learned anew from what they send next
// (net/netfilter/nf_flow_table_core.c, flow_offload_fixup_tcp). That may be a retransmission, which
// says little about what the other side has, so from here on windows are not enforced
// (net/netfilter/nft_flow_offload.c, flow_offload_ct_tcp).
void ForgetTcpWindows(tables::TcpTracking& tcp);

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_CONNTRACK_TCP_WINDOW_H_
