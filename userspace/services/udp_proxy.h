// A UDP proxy: each client (address and port) has a session with one backend, over a connected socket
// of its own, so that answers are matched to clients by the port that they come to.
//
// A session ends when neither side has said anything for idle_timeout, after `replies` datagrams of
// the backend's for each of the client's, when ICMP says that the backend is not there, or to make room
// for a new one: at max_connections the idlest of the service goes (kEvicted); at the worker's limit that
// of the service with the most sessions, so that a flood of one leaves the others theirs; where ports
// towards a backend have run out, the new session has the port of the one that went. A client whose
// backend is found down by a health check gets another one with its next datagram.
//
// When an address is no longer listened on, its sessions get sockets of their own for their clients,
// so that they live on to their end, and somebody else can have the address.
//
// Datagrams of a session that is only ended by time may be carried by XDP (transport/common/relayed.h), if
// both sides are of one family and no group is listened to. They count here, and keep the session alive,
// a tenth of a second later at most; when a check finds the backend down, or a router says that the way
// is narrow, they come here again.
//
// Thread: the worker's. Sessions come from a slab; nothing is allocated per session or datagram.
#ifndef SLUICE_SERVICES_UDP_PROXY_H_
#define SLUICE_SERVICES_UDP_PROXY_H_

#include "services/datagrams.h"
#include "services/proxy_service.h"
#include "transport/common/relayed.h"

namespace sluice::services {

class UdpProxy final : public ProxyService, private transport::RelayUser {
 public:
  UdpProxy(Context& context, ConfigPtr config, uint32_t timer);
  ~UdpProxy() override;

  using Service::OnError;
  using Service::OnReadable;
  void OnReadable(transport::UdpSocket socket, Nanos now) override;
  void OnError(transport::UdpSocket socket, transport::SocketError error, Nanos now) override;
  void OnPathNarrower(transport::UdpSocket socket, const transport::Endpoint& remote,
                      Nanos now) override;
  void AbortAll(Nanos now) override;

 protected:
  void OnReconfigured(Nanos now) override;
  void OnBackendDown(Backend& backend, Nanos now) override;
  void OnUdpClosed(const UdpListening& listening, Nanos now) override;
  Nanos OnWork(Nanos now) override;

 private:
  void FromListener(transport::UdpSocket socket, Nanos now);
  void FromClient(UdpSession& s, const ReceivedDatagram& d, Nanos now);
  void FromBackend(UdpSession& s, const ReceivedDatagram& d, Nanos now);
  // On to the backend, or the client.
  transport::IoResult Pass(UdpSession& s, bool to_backend, const ReceivedDatagram& d, Nanos now);
  bool MayBeCarried(const UdpSession& s, const ReceivedDatagram& d) const;
  void OnCarried(uint64_t token, const transport::Carried& carried, Nanos now) override;
  void EndCarried(UdpSession& s, Nanos now);
  template <class Wanted>
  void EndCarriedOf(Wanted&& wanted, Nanos now);
  UdpSession* Begin(const transport::Tuple& client, transport::UdpSocket listener, Nanos now);
  bool MakeRoom(Nanos now);          // one of this service's less
  bool MakeRoomAmongAll(Nanos now);  // ... of the one's that has most
  transport::SocketError OpenFor(UdpSession& s, const Backend& backend, Nanos now);
  void Touch(UdpSession& s, Nanos now);
  void End(UdpSession& s, Nanos now);
  void Link(UdpSession& s);
  void Unlink(UdpSession& s);

  // By last activity, the idlest first; through UdpSession::next and previous.
  uint32_t idlest_ = transport::kNoIndex;
  uint32_t latest_ = transport::kNoIndex;
  Nanos ports_short_until_;  // a free port is not looked for before
};

}  // namespace sluice::services

#endif  // SLUICE_SERVICES_UDP_PROXY_H_
