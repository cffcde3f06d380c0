// What a fragment says about itself: which datagram, which part of it.
//
// IPv6 (nf_ct_frag6_gather): the first fragment header counts. A first fragment that does not reach
// to the end of its L4 header (TCP 20 bytes, UDP and ICMPv6 8, others 1) is none: the kernel lets
// it pass as it is (RFC 8200 section 4.5 would discard it), and so does Sluice, for rules to judge.
// Headers are looked for in the packet's first segment only.
#ifndef SLUICE_STAGES_DEFRAG_FRAGMENT_INFO_H_
#define SLUICE_STAGES_DEFRAG_FRAGMENT_INFO_H_

#include <cstdint>

#include "base/address.h"
#include "base/ids.h"
#include "packet/packet.h"

namespace sluice::stages {

// What fragments of one datagram have in common.
struct FragmentKey {
  Ipv6 source;  // an IPv4 address: in `lo`
  Ipv6 destination;
  uint32_t identification = 0;
  uint8_t version = 0;
  uint8_t protocol = 0;                  // IPv4: two protocols may use one identification
  IfaceSlot link = IfaceSlot::None();    // IPv6 within a link: which one

  bool operator==(const FragmentKey&) const = default;
};

struct Fragment {
  FragmentKey key;
  uint32_t begin = 0;    // of its data in the datagram
  uint32_t end = 0;
  uint32_t data_at = 0;  // of its data in the packet
  uint32_t size = 0;     // IP length of the fragment, for fragment_size
  bool more = false;
  bool dont_fragment = false;       // IPv4
  uint8_t ecn = 0;                  // the two bits
  uint16_t next_header_at = 0;      // IPv6, in the packet: what names the fragment header
  uint16_t fragment_header_at = 0;  // IPv6, in the packet
};

// False: nothing to put together; it goes on as it is.
bool ReadFragment4(const packet::Packet& p, Fragment& f);
bool ReadFragment6(const packet::Packet& p, Fragment& f);

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_DEFRAG_FRAGMENT_INFO_H_
