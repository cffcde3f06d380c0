// The states of an SCTP association as a router in the middle sees them (RFC 9260).
//
// Rules of nf_conntrack_sctp_packet (net/netfilter/nf_conntrack_proto_sctp.c, 6.18): which chunks
// may go together, verification tags (RFC 9260 section 8.5), a table of states, heartbeats of
// further paths. Cost: the number of chunks of the packet, each looked at three times at most.
//
// The CRC is not verified: Linux leaves it to the hardware on virtual links, and a CRC that was not
// filled in cannot be told from a wrong one.
#ifndef SLUICE_STAGES_CONNTRACK_SCTP_TRACKER_H_
#define SLUICE_STAGES_CONNTRACK_SCTP_TRACKER_H_

#include "packet/frame_arena.h"
#include "packet/packet.h"
#include "stages/conntrack/track_result.h"
#include "tables/conntrack_settings.h"
#include "tables/flow.h"

namespace sluice::stages {

// Whether the packet may begin an association, and if so what is known of it then.
bool BeginSctp(const packet::Packet& p, const packet::FrameArena& arena,
               tables::SctpTracking& tracking);

// Brings the flow up to date; sets kFlowAssured when the association is established.
TrackResult TrackSctp(tables::Flow& flow, tables::FlowDirection direction, const packet::Packet& p,
                      const packet::FrameArena& arena, const tables::ConntrackSettings& settings);

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_CONNTRACK_SCTP_TRACKER_H_
