#include "services/datagrams.h"

#include <algorithm>

#include "packet/packet.h"
#include "transport/common/datagram.h"
#include "wire/tcp.h"

namespace sluice::services {

bool ReceivedDatagram::Next(transport::UdpSocket socket) {
  Release();
  transport::Udp& udp = context_.transport.udp();
  if (udp.ReceivePacket(socket, received_, from_) != transport::SocketError::kNone) return false;
  held_ = true;
  const packet::Packet& p = received_.packet;
  if (p.segment_count == 1) {
    data_ = {p.data + received_.offset, received_.length};
  } else {
    const auto n = std::min<size_t>(received_.length, context_.scratch.size());
    packet::CopyOut(context_.transport.frames().arena(), p, received_.offset,
                    context_.scratch.data(), static_cast<uint32_t>(n));
    data_ = {context_.scratch.data(), n};
  }
  return true;
}

transport::Tuple ReceivedDatagram::arrived() const {
  const packet::Packet& p = received_.packet;
  return {{transport::EndsOf(p).destination, wire::L4PortsView(p.l4()).destination_port()}, from_};
}

}  // namespace sluice::services
