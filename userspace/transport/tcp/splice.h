// Two connections of ours that are relayed into each other segment by segment, without either ending here
// any more: what arrives on one leaves on the other, with other addresses, ports and numbers.
//
// That may begin when both connections are at rest (tcp_splice.cc says when exactly): then sequence
// numbers, acknowledgments and timestamps of one differ from those of the other by constants from then on,
// and the peers agree on everything else with each other: what is lost they send again themselves, windows
// are those of the far end. A NAT does no less and no more to their segments.
//
// Side i is what arrives on its connection. Thread: the worker's.
#ifndef SLUICE_TRANSPORT_TCP_SPLICE_H_
#define SLUICE_TRANSPORT_TCP_SPLICE_H_

#include <array>
#include <cstdint>

#include "bpf/include/offload_abi.h"
#include "packet/packet.h"
#include "transport/common/relayed.h"
#include "transport/common/slab.h"
#include "transport/tcp/config.h"
#include "wire/tcp_sequence.h"

namespace sluice::transport {

struct Splice {
  struct Side {
    uint32_t connection = kNoIndex;  // what its segments arrive on
    sluice_splice map = {};          // what they become
    RelayHandle handle;
    // As the peer has sent them: the end of its data, its latest acknowledgment, the end of its FIN.
    wire::TcpSeq end;
    wire::TcpSeq ack;
    wire::TcpSeq fin_end;
    wire::TcpSeq said;  // the acknowledgment that came last, which need not be true
    uint32_t ts_value = 0;  // of the segments that came by here
    bool fin = false;
    bool fin_acked = false;
  };
  std::array<Side, 2> sides;
  bool second_fin_of_1 = false;  // side 1 has finished after side 0 had
  bool fins_crossed = false;     // ... or before it knew
};

// The segment as it leaves: in place, with the least IP header, and all checksums updated, not computed
// (RFC 1624): a wrong one stays wrong. The whole TCP header is in the first piece.
void TranslateSegment(packet::Packet& p, const Tuple& leaves, const sluice_splice& map, uint8_t ttl);

}  // namespace sluice::transport

#endif  // SLUICE_TRANSPORT_TCP_SPLICE_H_
