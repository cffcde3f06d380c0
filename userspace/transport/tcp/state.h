// The states of a connection (RFC 9293 section 3.3.2). LISTEN is not among them: a listener is a
// thing of its own (listener.h), and a connection begins in SYN-SENT or SYN-RECEIVED.
#ifndef SLUICE_TRANSPORT_TCP_STATE_H_
#define SLUICE_TRANSPORT_TCP_STATE_H_

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string_view>

namespace sluice::transport {

enum class TcpState : uint8_t {
  kClosed,
  kSynSent,
  kSynReceived,
  kEstablished,
  kFinWait1,
  kFinWait2,
  kCloseWait,
  kClosing,
  kLastAck,
  kTimeWait,
};
inline constexpr std::string_view kTcpStateNames[] = {
    "CLOSED",     "SYN-SENT", "SYN-RECEIVED", "ESTABLISHED", "FIN-WAIT-1",
    "FIN-WAIT-2", "CLOSE-WAIT", "CLOSING",    "LAST-ACK",    "TIME-WAIT"};
inline constexpr size_t kTcpStateCount = std::size(kTcpStateNames);
constexpr std::string_view Name(TcpState s) { return kTcpStateNames[static_cast<size_t>(s)]; }

// Whether the handshake is done (RFC 9293's "synchronized" states without SYN-RECEIVED).
constexpr bool IsSynchronized(TcpState s) { return s >= TcpState::kEstablished; }
// Whether the peer may still send data.
constexpr bool MayReceive(TcpState s) {
  return s == TcpState::kEstablished || s == TcpState::kFinWait1 || s == TcpState::kFinWait2;
}
// Whether data of ours may be (re)transmitted.
constexpr bool MaySend(TcpState s) {
  return s == TcpState::kEstablished || s == TcpState::kCloseWait || s == TcpState::kFinWait1 ||
         s == TcpState::kClosing || s == TcpState::kLastAck;
}

}  // namespace sluice::transport

#endif  // SLUICE_TRANSPORT_TCP_STATE_H_
