// A TCP proxy: each client's connection is relayed over one to a backend, both ends here.
//
//   client ──▶ listener: accepted ──▶ a backend is picked ──▶ connect ──▶ relayed both ways
//                                       ▲      refused, timed out   │
//                                       └── another one, `retries` ─┘
//
// Data is queued as the frames that it came in (Tcp::QueueReceived), and copied once, when it is sent,
// since it may have to be sent again. Nothing is read that could not be sent, so a slow reader at one end
// closes the window at the other; that holds for the worker's memory as well, of which a connection may
// use little while it runs short (Tcp::SendRoom). Each end's FIN is passed on when all its data has been
// (half-close), and a reset resets the other end. What the client sends before a backend is there waits
// with TCP.
//
// As soon as both connections are at rest, which most are after the first answer, they are spliced
// (transport/tcp/splice.h): what comes leaves with other numbers in its header, is not copied, and is
// carried inside XDP once there is enough of it. With `splice: off` everything ends here.
//
// Thread: the worker's. A relay comes from a slab; nothing is allocated per connection.
#ifndef SLUICE_SERVICES_TCP_PROXY_H_
#define SLUICE_SERVICES_TCP_PROXY_H_

#include <vector>

#include "services/proxy_service.h"

namespace sluice::services {

class TcpProxy final : public ProxyService {
 public:
  using ProxyService::ProxyService;

  using Service::OnError;
  using Service::OnReadable;
  void OnAcceptable(transport::TcpListenerId listener, Nanos now) override;
  void OnConnected(transport::TcpSocket socket, Nanos now) override;
  void OnReadable(transport::TcpSocket socket, Nanos now) override;
  void OnWritable(transport::TcpSocket socket, Nanos now) override;
  void OnError(transport::TcpSocket socket, transport::SocketError error, Nanos now) override;
  void OnRelayed(transport::TcpSocket socket, uint32_t bytes, Nanos now) override;
  void OnSpliceEnded(transport::TcpSocket socket, Nanos now) override;
  void OnItemTimer(uint32_t relay, Nanos now) override;
  void AbortAll(Nanos now) override;

 protected:
  void OnReconfigured(Nanos now) override;
  transport::TcpSocketOptions ListenOptions() const override;

 private:
  // Which end of a relay: bit 0 of what Context::item_of_tcp says.
  enum Side : uint32_t { kClient = 0, kServer = 1 };
  static Side Other(Side s) { return s == kClient ? kServer : kClient; }
  static transport::TcpSocket SocketOf(const Relay& r, Side s) {
    return s == kClient ? r.client : r.server;
  }
  Relay& Of(transport::TcpSocket s) { return context_.relays[context_.item_of_tcp[s.index] >> 1]; }
  Side SideOf(transport::TcpSocket s) const {
    return static_cast<Side>(context_.item_of_tcp[s.index] & 1);
  }
  void Name(transport::TcpSocket s, const Relay& r, Side side) {
    context_.item_of_tcp[s.index] = context_.relays.IndexOf(r) << 1 | side;
  }

  void Dial(Relay& r, Nanos now);
  void OnAttemptFailed(Relay& r, Nanos now);
  bool Introduce(Relay& r, Nanos now);
  void Pump(Relay& r, Side from, Nanos now);
  void Finish(Relay& r, Nanos now);                        // both have ended
  void Break(Relay& r, ServiceFailure why, Nanos now);     // reset both
  void Free(Relay& r);
  void CountConnectTime(Nanos took);
  void Count(Relay& r, Side from, uint64_t bytes, Nanos now);
  uint32_t Undelivered(const Relay& r) const;
  // Of indices among the backends `before` a reload: those of the same ones now.
  BackendMask Renumber(BackendMask mask, const std::vector<tables::ServiceAddress>& before) const;

  // Backends towards which there was no free port, which costs much to find out.
  BackendMask full_ = 0;
  Nanos full_until_;
};

}  // namespace sluice::services

#endif  // SLUICE_SERVICES_TCP_PROXY_H_
