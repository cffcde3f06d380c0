// The example of the socket API: a server that sends back the frames that it receives.
//
// One object per worker. Rules of the API: transport/transport.h.
#ifndef SLUICE_EXAMPLES_ECHO_SERVER_H_
#define SLUICE_EXAMPLES_ECHO_SERVER_H_

#include "transport/transport.h"

namespace sluice::examples {

class EchoServer : public transport::TcpHandler {
 public:
  explicit EchoServer(transport::Tcp& tcp) : tcp_(tcp) {}

  transport::SocketError Listen(const transport::Endpoint& local) {
    return tcp_.Listen(local, {}, /*backlog=*/128, this, listener_);
  }

  void OnAcceptable(transport::TcpListenerId listener, Nanos) override {
    transport::TcpSocket socket;
    while (tcp_.Accept(listener, this, socket) == transport::SocketError::kNone) {
    }
  }
  void OnReadable(transport::TcpSocket socket, Nanos now) override {
    // Nothing is received that could not be sent, so a peer that does not read is not read from.
    while (tcp_.SendRoom(socket) > 0) {
      transport::ReceivedData data;
      const auto error = tcp_.ReceivePacket(socket, data, now);
      if (error == transport::SocketError::kWouldBlock) return;
      if (error != transport::SocketError::kNone) {  // the peer has finished, or is gone
        tcp_.Close(socket, now);
      } else if (!tcp_.SendReceived(socket, data, now).ok()) {
        tcp_.Release(data);  // a limit of the worker
        tcp_.Abort(socket, now);
      }
    }
  }
  void OnWritable(transport::TcpSocket socket, Nanos now) override { OnReadable(socket, now); }
  void OnError(transport::TcpSocket socket, transport::SocketError, Nanos now) override {
    tcp_.Close(socket, now);
  }

 private:
  transport::Tcp& tcp_;
  transport::TcpListenerId listener_;
};

}  // namespace sluice::examples

#endif  // SLUICE_EXAMPLES_ECHO_SERVER_H_
