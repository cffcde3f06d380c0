// The states of a TCP connection as a router in the middle sees them.
//
// Rules of nf_conntrack_tcp_packet (net/netfilter/nf_conntrack_proto_tcp.c, 6.18):
// - A table says which state follows from state, direction and kind of segment (tcp_states.h).
// - Segments that may be right although the tables are out of step are let through and remembered
//   ("ignored": a SYN in the middle of a connection, an unexpected SYN-ACK, an ACK that answers a
//   SYN); when the answer shows that both ends agree, the router falls in with them.
// - A RST must carry the sequence number that the other side acknowledged last, or one close to it.
// - A SYN on a connection that has been closed begins a new one at once.
// - Windows are checked (tcp_window.h).
// Constant cost. Thread: the worker that owns the flow.
#ifndef SLUICE_STAGES_CONNTRACK_TCP_TRACKER_H_
#define SLUICE_STAGES_CONNTRACK_TCP_TRACKER_H_

#include "base/time.h"
#include "stages/conntrack/tcp_segment.h"
#include "stages/conntrack/track_result.h"
#include "tables/conntrack_settings.h"
#include "tables/flow.h"

namespace sluice::stages {

// Whether the segment may begin a connection.
bool TcpMayBegin(const TcpSegment& segment, const tables::ConntrackSettings& settings);

// Of a flow that TcpMayBegin allowed, before its first TrackTcp.
void BeginTcp(tables::Flow& flow, const TcpSegment& segment);

// Brings the flow up to date; sets kFlowAssured when it is time.
TrackResult TrackTcp(tables::Flow& flow, tables::FlowDirection direction, const TcpSegment& segment,
                     const tables::ConntrackSettings& settings, Nanos now);

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_CONNTRACK_TCP_TRACKER_H_
