// What programs and the stack say to each other: names of sockets, and the call backs.
#ifndef SLUICE_TRANSPORT_TCP_EVENTS_H_
#define SLUICE_TRANSPORT_TCP_EVENTS_H_

#include <cstdint>

#include "base/time.h"
#include "transport/common/errors.h"

namespace sluice::transport {

// Names a connection or a listener of one worker's stack. A name is not used twice (within 2^32
// uses of one place): a call with that of something gone says kBadSocket, and does nothing.
struct TcpSocket {
  uint32_t index = 0xffffffff;
  uint32_t generation = 0;
  constexpr bool valid() const { return index != 0xffffffff; }
  constexpr bool operator==(const TcpSocket&) const = default;
};
struct TcpListenerId {
  uint32_t index = 0xffffffff;
  uint32_t generation = 0;
  constexpr bool valid() const { return index != 0xffffffff; }
  constexpr bool operator==(const TcpListenerId&) const = default;
};

// The call backs of a program. They come on the worker's thread, at the end of Receive and OnTimer,
// never from within a call of the program's own. They tell of changes (edge-triggered): after
// OnReadable read until kWouldBlock, after kWouldBlock on sending wait for OnWritable. Any call is
// allowed in them, also to close the socket; the time is that of the packet or timer. None comes
// after Close or Abort.
class TcpHandler {
 public:
  virtual ~TcpHandler() = default;
  virtual void OnConnected(TcpSocket, Nanos) {}  // Connect has succeeded
  virtual void OnReadable(TcpSocket, Nanos) {}   // there is data, or the end of it
  virtual void OnWritable(TcpSocket, Nanos) {}   // there is room again
  // The connection is gone; its data can still be read, and the socket is to be closed.
  virtual void OnError(TcpSocket, SocketError, Nanos) {}
  // Spliced connections (Tcp::Join): data has passed that came on this one, of which so many bytes had not
  // come before. Comes at any time, within Abort, Close and TellCarried as well, and no call of the stack's is
  // allowed in it.
  virtual void OnRelayed(TcpSocket, uint32_t, Nanos) {}
  // Both ends have finished: close both sockets.
  virtual void OnSpliceEnded(TcpSocket, Nanos) {}
  virtual void OnAcceptable(TcpListenerId, Nanos) {}  // Accept would succeed
};

}  // namespace sluice::transport

#endif  // SLUICE_TRANSPORT_TCP_EVENTS_H_
