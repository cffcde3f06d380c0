// What a program gets of a received packet when it takes the frames themselves.
#ifndef SLUICE_TRANSPORT_COMMON_RECEIVED_DATA_H_
#define SLUICE_TRANSPORT_COMMON_RECEIVED_DATA_H_

#include <cstdint>

#include "packet/packet.h"

namespace sluice::transport {

// A received packet as a program gets it: `length` bytes of data from `offset` (from packet.data, over
// pieces). The frames are the program's, to be given back by Release or passed on by SendPacket.
struct ReceivedData {
  packet::Packet packet;
  uint32_t offset = 0;
  uint32_t length = 0;
};

}  // namespace sluice::transport

#endif  // SLUICE_TRANSPORT_COMMON_RECEIVED_DATA_H_
