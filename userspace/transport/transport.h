// TCP and UDP on a worker: the library that programs use, and that the pipeline feeds.
//
// It is a library without I/O, clock, threads or locks, and shares nothing: each worker has its own,
// with its own connections, of the flows that arrive there. A service that is to run on all workers
// listens on each (the same address and port; RSS spreads the connections).
//
// For the pipeline: give each whole TCP, UDP or ICMP packet for an address of ours to Receive, before
// it would be punted; call OnTimer when NextDeadline has come; implement IpLayer. `now` never goes
// back.
//
// For programs: tcp() and udp(). The rules:
//
// - Thread: the worker's, for every call and every call back.
// - Names. A socket is a value (TcpSocket, UdpSocket). Using one that is gone is harmless:
//   kBadSocket.
// - Call backs come at the end of Receive and OnTimer, never within a call of the program's, and tell
//   of changes. Every call is allowed in them. A handler must outlive its sockets, or be taken off by
//   SetHandler.
// - Every connection that Connect or Accept gave must be closed, also after OnError. Close sends what
//   is still to be sent, and then says so to the peer; with data unread it resets, since the peer must
//   not believe that it was read. Abort resets. Shutdown ends sending only.
// - Sending. Send copies. SendOwned lends the program's memory until `release` is called (acknowledged
//   or given up). SendReceived queues a received packet's frames as they are; on success they are the
//   stack's. What is queued is copied when it is sent, since it may have to be sent again. kWouldBlock
//   (or SendRoom of 0): nothing was taken; OnWritable comes when there is room, or memory, if that was
//   missing (within milliseconds). By TcpSocketOptions::not_sent_low_water a program that wants to decide
//   late what it sends keeps little waiting. EndRecord keeps the data before it and after it in
//   segments of their own.
// - Receiving. Receive copies; ReceivePacket hands out the frames, which the program gives back by
//   Release or SendReceived. Frames that it keeps are missed elsewhere: a worker has so many.
// - Errors are values (transport/common/errors.h); nothing throws. A connection's first error stays:
//   each call returns it, once the data received before has been read.
//
// Memory is had at construction, and per call nothing is allocated. TcpLimits and UdpConfig say what
// happens at each limit.
#ifndef SLUICE_TRANSPORT_TRANSPORT_H_
#define SLUICE_TRANSPORT_TRANSPORT_H_

#include <algorithm>

#include "base/time.h"
#include "packet/frame_pool.h"
#include "packet/packet.h"
#include "packet/verdict.h"
#include "transport/common/ip_layer.h"
#include "transport/common/path_mtu_cache.h"
#include "transport/tcp/tcp.h"
#include "transport/udp/udp.h"

namespace sluice::transport {

struct TransportConfig {
  TcpConfig tcp;
  UdpConfig udp;
  uint32_t path_mtus = 1024;  // destinations whose path's MTU is remembered
  HashKey key;  // random and secret, of each worker its own
  Nanos start;  // the time now
};

class Transport {
 public:
  Transport(const TransportConfig& config, packet::FramePool& frames, IpLayer& ip)
      : path_mtus_(config.path_mtus, config.tcp.times.pmtu_aging, config.key),
        tcp_(config.tcp, config.key, frames, ip, path_mtus_, config.start),
        udp_(config.udp, config.key, frames, ip, path_mtus_),
        frames_(frames) {}

  // A whole packet for an address of ours (common/datagram.h says what "whole" is), by l4_protocol.
  //   kContinue  no socket of ours is concerned: the packet is as it was, and the caller's
  //   kLocal     taken
  //   kDrop      the caller frees it and counts the reason
  packet::Verdict Receive(packet::Packet& p, Nanos now);

  // What a socket has sent was refused on its way out (rules for output): as an ICMP error would say
  // that it is prohibited, or (`mtu` not 0) too large. Not from within IpLayer::Output.
  void OnRefused(uint8_t protocol, const Tuple& tuple, uint32_t sequence, uint32_t mtu, Nanos now);
  // A TCP packet of a connection was refused on its way in, and its sender reset. (The packet may have
  // been on its way to a translation: `tuple` says whose it is.)
  void OnSevered(const packet::Packet& p, const Tuple& tuple, Nanos now);

  // Around the Receives of a burst, if the caller likes (tcp.h): one answer for several segments.
  void BeginBurst() { tcp_.BeginBurst(); }
  void EndBurst(Nanos now) { tcp_.EndBurst(now); }

  // Whether a TCP or UDP packet for an address of ours is a socket's: Receive would not say kContinue.
  // For who must know before (rules for input). An ICMP error is judged by Receive alone.
  bool Claims(const packet::Packet& p) const;

  void OnTimer(Nanos now) { tcp_.OnTimer(now); }
  Nanos NextDeadline() const { return tcp_.NextDeadline(); }

  Tcp& tcp() { return tcp_; }
  Udp& udp() { return udp_; }
  const Tcp& tcp() const { return tcp_; }
  const Udp& udp() const { return udp_; }
  const PathMtuCache& path_mtus() const { return path_mtus_; }
  packet::FramePool& frames() { return frames_; }

 private:
  packet::Verdict ReceiveIcmp(packet::Packet& p, Nanos now);

  PathMtuCache path_mtus_;  // before those who use it
  Tcp tcp_;
  Udp udp_;
  packet::FramePool& frames_;
};

}  // namespace sluice::transport

#endif  // SLUICE_TRANSPORT_TRANSPORT_H_
