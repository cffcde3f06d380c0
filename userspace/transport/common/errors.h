// What can go wrong with a socket.
#ifndef SLUICE_TRANSPORT_COMMON_ERRORS_H_
#define SLUICE_TRANSPORT_COMMON_ERRORS_H_

#include <cstdint>
#include <string_view>

namespace sluice::transport {

enum class SocketError : uint8_t {
  kNone,
  kBadSocket,     // no such socket (any more)
  kWouldBlock,    // nothing to receive, no room to send, nobody to accept: wait for the call back
  kEndOfData,     // the peer has finished sending, and all of it has been received
  kNotConnected,  // the handshake is not done
  kShutdown,      // sending after Shutdown or Close
  kReset,         // the peer reset the connection
  kRefused,       // the peer reset it during the handshake
  kTimedOut,      // no answer for too long
  kUnreachable,   // an ICMP error ended the handshake, or no route
  kAddressInUse,  // the port is taken
  kNoPorts,       // no free port for a connection to there
  kNoMemory,      // a limit of the worker
  kInvalid,       // the arguments make no sense
  kTooLong,       // a datagram that cannot be sent in one piece
};
inline constexpr std::string_view kSocketErrorNames[] = {
    "none", "bad_socket", "would_block", "end_of_data", "not_connected", "shutdown", "reset",
    "refused", "timed_out", "unreachable", "address_in_use", "no_ports", "no_memory", "invalid",
    "too_long"};
constexpr std::string_view Name(SocketError e) { return kSocketErrorNames[static_cast<uint8_t>(e)]; }

// How much was sent or received, or why nothing.
struct IoResult {
  SocketError error = SocketError::kNone;
  uint32_t bytes = 0;
  constexpr bool ok() const { return error == SocketError::kNone; }
};

}  // namespace sluice::transport

#endif  // SLUICE_TRANSPORT_COMMON_ERRORS_H_
