// One datagram of which fragments wait: who it belongs to, what has come, and whether another
// fragment fits in.
//
// inet_frag_queue_insert, ip_frag_queue and nf_ct_frag6_queue decide:
//   a fragment whose bytes are all there already, in one run        ignored (IPFRAG_DUP)
//   one that overlaps otherwise                                     the whole datagram is discarded
//   two different ends, or bytes beyond the end                     IPv4: the datagram; IPv6: it alone
//   empty                                                           IPv4: the datagram; IPv6: it alone
//   not the last, length no multiple of 8    IPv4: cut; IPv6: passes, the rest of the datagram is lost
//   beyond 65535                             IPv4: the datagram, when complete; IPv6: it alone
// A run is what came in order without a gap at the then end of the datagram; every fragment that fills
// a gap is a run of its own.
#ifndef SLUICE_STAGES_DEFRAG_DATAGRAM_H_
#define SLUICE_STAGES_DEFRAG_DATAGRAM_H_

#include <cstdint>

#include "base/address.h"
#include "base/ids.h"
#include "base/reason.h"
#include "packet/frame_arena.h"
#include "packet/packet.h"

namespace sluice::stages {

// What fragments of one datagram have in common.
struct FragmentKey {
  Ipv6 source;       // an IPv4 address: in `lo`
  Ipv6 destination;
  uint32_t identification = 0;
  uint8_t version = 0;
  uint8_t protocol = 0;  // IPv4 only
  IfaceSlot in;          // IPv6 only

  bool operator==(const FragmentKey&) const = default;
};

struct Fragment {
  FragmentKey key;
  uint32_t begin = 0;     // of its data in the datagram
  uint32_t end = 0;
  uint32_t data_at = 0;   // of its data in the packet
  uint32_t size = 0;      // the fragment's IP length
  bool more = false;
  bool dont_fragment = false;  // IPv4
  uint8_t ecn = 0;             // the two bits
  uint16_t next_header_at = 0;      // IPv6, in the packet: the field that names the fragment header
  uint16_t fragment_header_at = 0;  // IPv6, in the packet
};

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_DEFRAG_DATAGRAM_H_
