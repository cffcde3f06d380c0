// Packets and frames that nobody would send: for simulations that look for what must never happen.
#ifndef SLUICE_TESTS_SUPPORT_RANDOM_PACKETS_H_
#define SLUICE_TESTS_SUPPORT_RANDOM_PACKETS_H_

#include <string>
#include <vector>

#include "base/rng.h"
#include "support/packet_builder.h"

namespace sluice::test {

// An IP packet from `source` to `destination` (of one family): of any size up to `most`, any
// protocol, perhaps with options or extension headers, a fragment, or malformed.
Bytes RandomPacket(Rng& rng, const std::string& source, const std::string& destination,
                   size_t most);

// A whole frame to `destination`: ARP or neighbour discovery, true or not, about the addresses
// given, or noise.
Bytes RandomNeighborFrame(Rng& rng, const Mac& source, const Mac& destination,
                          const std::vector<std::string>& addresses);

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_RANDOM_PACKETS_H_
