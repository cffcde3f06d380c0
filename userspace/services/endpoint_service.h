// Echo (RFC 862), discard (RFC 863) and chargen (RFC 864) over TCP and UDP, for test rigs.
//
// Echo queues received frames to be sent back (as tcp_proxy.h does), and does not read what it could not
// send. Chargen over TCP lends the stack one pattern again and again, and discards what it is sent; over
// UDP it answers each datagram with up to 512 characters. Datagrams from the ports of these services, or
// from the port that this one has here, get no answer (kLoop), since two of them would talk for ever.
#ifndef SLUICE_SERVICES_ENDPOINT_SERVICE_H_
#define SLUICE_SERVICES_ENDPOINT_SERVICE_H_

#include "services/service.h"

namespace sluice::services {

class EndpointService final : public Service {
 public:
  using Service::Service;

  void OnAcceptable(transport::TcpListenerId listener, Nanos now) override;
  void OnReadable(transport::TcpSocket socket, Nanos now) override;
  void OnWritable(transport::TcpSocket socket, Nanos now) override;
  void OnError(transport::TcpSocket socket, transport::SocketError error, Nanos now) override;
  void OnReadable(transport::UdpSocket socket, Nanos now) override;
  void OnError(transport::UdpSocket, transport::SocketError, Nanos) override {}
  void OnItemTimer(uint32_t index, Nanos now) override;
  void AbortAll(Nanos now) override;

 private:
  EndpointConnection& Of(transport::TcpSocket s) {
    return context_.endpoints[context_.item_of_tcp[s.index]];
  }
  void Echo(EndpointConnection& c, Nanos now);
  void Discard(EndpointConnection& c, Nanos now);
  void Generate(EndpointConnection& c, Nanos now);
  void Finish(EndpointConnection& c, bool abort, Nanos now);
  void Answer(transport::UdpSocket socket, const transport::Endpoint& from,
              std::span<const uint8_t> data, Nanos now);
};

}  // namespace sluice::services

#endif  // SLUICE_SERVICES_ENDPOINT_SERVICE_H_
