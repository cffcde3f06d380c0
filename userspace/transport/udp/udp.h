// UDP of one worker (RFC 768): bound and connected sockets.
//
// A bound socket takes datagrams for its port (and address, unless that is unspecified) from
// anybody; a connected one only from its peer, and it is told of ICMP errors about what it has sent
// (RFC 1122 section 4.1.3.3). A datagram goes to the connected socket if there is one, else to the one
// bound to the address, else to the one bound to the port.
//
// Received datagrams wait in their frames, at most `queue` per socket; beyond, the new ones are
// dropped, and counted. A datagram to be sent is copied into a frame of its own; one that does not fit
// the path's MTU goes to the layer below as a whole, which sends it in fragments. (Received ones it puts
// together.)
//
// Multicast: a socket bound to the port, and to no address or the group's, gets what is sent to groups
// that it has joined and arrives by an interface that it has joined them on; if several have, each gets a
// copy. Joining is a matter of this table alone: that the network sends the group here (IGMP, MLD, the
// NIC's filter) is the kernel's to do, for the control thread to ask for.
//
// Call backs are as those of TCP (transport/tcp/events.h): at the end of Receive, never within a call
// of the program's. Everything is allocated at construction. Thread: the worker's.
#ifndef SLUICE_TRANSPORT_UDP_UDP_H_
#define SLUICE_TRANSPORT_UDP_UDP_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/counter.h"
#include "base/ids.h"
#include "base/time.h"
#include "packet/frame_pool.h"
#include "packet/packet.h"
#include "packet/verdict.h"
#include "transport/common/errors.h"
#include "transport/common/ip_layer.h"
#include "transport/common/path_mtu_cache.h"
#include "transport/common/received_data.h"
#include "transport/common/slab.h"
#include "transport/common/tuple_table.h"

namespace sluice::transport {

struct UdpSocket {
  uint32_t index = 0xffffffff;
  uint32_t generation = 0;
  constexpr bool valid() const { return index != 0xffffffff; }
  constexpr bool operator==(const UdpSocket&) const = default;
};

class UdpHandler {
 public:
  virtual ~UdpHandler() = default;
  virtual void OnReadable(UdpSocket, Nanos) {}
  // A connected socket's peer cannot be reached; the socket stays as it is.
  virtual void OnError(UdpSocket, SocketError, Nanos) {}
  // The way to `remote`, which the socket has sent to, takes less than was known.
  virtual void OnPathNarrower(UdpSocket, const Endpoint& /*remote*/, Nanos) {}
};

struct UdpConfig {
  uint32_t sockets = 1024;          // Bind fails with kNoMemory
  uint32_t memberships = 64;        // of all sockets in groups: Join fails with kNoMemory
  uint32_t max_datagram = 65507 + 8;  // with its header: more is kTooLong
  uint32_t queue = 256;             // datagrams per socket: more are dropped
  uint32_t receive_frames = 4096;   // of all sockets: likewise
  uint8_t ttl = 64;
  uint16_t first_port = 32768;
  uint16_t last_port = 60999;
};

struct UdpCounters {
  Counter datagrams_received;
  Counter datagrams_sent;
  Counter fragments_sent;
  Counter queue_full;     // dropped: the socket's or the worker's limit
  Counter errors;         // ICMP errors told to a socket
  Counter no_frame;
};

class Udp {
 public:
  Udp(const UdpConfig& config, const HashKey& key, packet::FramePool& frames, IpLayer& ip,
      PathMtuCache& path_mtus);

  // A whole UDP datagram for an address of ours. As Tcp::Receive.
  packet::Verdict Receive(packet::Packet& p, Nanos now);
  // `in`: by which interface it comes, which matters to groups; none: by any.
  bool Claims(const Tuple& t, IfaceSlot in = IfaceSlot::None()) const {
    return IsMulticast(t.local.address) ? ClaimsMulticast(t, in) : Find(t) != kNoIndex;
  }
  // An ICMP error about a datagram that was sent from `tuple`; false: no socket of ours.
  bool OnIcmpError(const Tuple& tuple, bool hard, Nanos now);
  // Of a datagram that must not be fragmented (all of IPv6): likewise.
  bool OnTooBig(const Tuple& tuple, uint32_t mtu, Nanos now);

  // `local` may have no address (all), and no port (one is chosen at random, RFC 6056 section 3.3.1).
  SocketError Bind(const Endpoint& local, UdpHandler* handler, UdpSocket& socket);
  // From now on only with this peer. Once per socket.
  SocketError Connect(UdpSocket socket, const Endpoint& remote);
  // Both in one: a socket of a peer's from the beginning. What `local` leaves open is chosen, and the
  // port so that answers arrive on this worker.
  SocketError Open(const Endpoint& local, const Endpoint& remote, UdpHandler* handler,
                   UdpSocket& socket);
  SocketError Close(UdpSocket socket);
  bool has_members() const { return !members_.empty(); }
  // Whether any socket has joined the group there.
  bool HasMembers(const IpAddress& group, IfaceSlot in) const;
  // From now on what is sent to the group and comes by these interfaces as well. Once more: by these
  // instead. Close leaves.
  SocketError Join(UdpSocket socket, const IpAddress& group, IfaceSet on = IfaceSet::All());
  SocketError Leave(UdpSocket socket, const IpAddress& group);

  // To the peer of a connected socket, or (SendTo) to anybody. An error that ICMP has told of since
  // the last call is returned once, and nothing is sent.
  IoResult Send(UdpSocket socket, std::span<const uint8_t> data, Nanos now);
  IoResult SendTo(UdpSocket socket, const Endpoint& remote, std::span<const uint8_t> data, Nanos now);
  // As SendTo (or Send, to the peer), of the data of a datagram that came whole, in one packet: further
  // ones may be carried below (ip_layer.h), unless routers have told that the path is narrow.
  // `relayed.leaves` is this call's to fill in.
  IoResult SendRelayed(UdpSocket socket, const Endpoint& remote, std::span<const uint8_t> data,
                       Relayed relayed, Nanos now);
  void EndRelayed(RelayHandle& handle, Nanos now) { ip_.EndRelayed(handle, now); }
  // So many more have been received and sent, below.
  void CountCarried(uint64_t datagrams) {
    counters_.datagrams_received.Add(datagrams);
    counters_.datagrams_sent.Add(datagrams);
  }

  // One datagram, copied: cut to `out` if longer (the result says how much was copied).
  IoResult Receive(UdpSocket socket, std::span<uint8_t> out, Endpoint& from);
  // One datagram in its frames, which are the program's then: Release gives them back.
  SocketError ReceivePacket(UdpSocket socket, ReceivedData& out, Endpoint& from);
  void Release(const ReceivedData& data) { packet::FreePacket(frames_, data.packet); }

  // Null, or what the socket is bound to.
  const Endpoint* LocalOf(UdpSocket socket) const;
  const UdpCounters& counters() const { return counters_; }
  const UdpConfig& config() const { return config_; }
  uint32_t sockets() const { return sockets_.used(); }
  // For views: `visit(const Tuple&, connected, datagrams waiting, handler)` for each socket, of places
  // `from` to `to`.
  uint32_t places() const { return sockets_.capacity(); }
  template <class Visitor>
  void VisitSockets(uint32_t from, uint32_t to, Visitor&& visit) const {
    for (uint32_t i = from; i < to && i < sockets_.capacity(); ++i) {
      const Socket& s = sockets_[i];
      if (s.open) visit(s.tuple, s.connected, s.queued, s.handler);
    }
  }
  uint32_t frames_waiting() const { return config_.receive_frames - frames_left_; }

 private:
  struct Socket {
    Tuple tuple;  // the remote end is empty until Connect
    UdpHandler* handler = nullptr;
    uint32_t generation = 1;
    uint32_t queued = 0;
    packet::FrameIndex head = packet::kNoFrame;
    packet::FrameIndex tail = packet::kNoFrame;
    SocketError error = SocketError::kNone;
    bool open = false;
    bool connected = false;
    bool readable = false;  // to be told
    bool queued_for_events = false;
  };

  struct Membership {
    IpAddress group;
    uint32_t socket = 0;
    IfaceSet on;
  };

  Membership* FindMembership(uint32_t socket, const IpAddress& group);
  bool IsMember(const Membership& m, const Tuple& t, IfaceSlot in) const;
  bool ClaimsMulticast(const Tuple& t, IfaceSlot in) const;
  bool Queue(uint32_t index, const packet::Packet& p);
  bool QueueForMembers(const Tuple& tuple, const packet::Packet& p);
  bool Copy(const packet::Packet& p, packet::Packet& copy);
  IoResult TransmitLarge(const Tuple& tuple, std::span<const uint8_t> data, uint32_t mtu, Nanos now);
  // RFC 6864 section 4.3: datagrams that may be fragmented on their way must differ; RFC 7739: in a way
  // that nobody can guess.
  uint32_t NewId() { return static_cast<uint32_t>(TableHash(port_key_, {++ids_, 0x6964})); }
  Socket* Resolve(UdpSocket socket);
  uint32_t Find(const Tuple& t) const;
  uint32_t FindExact(const Tuple& t) const {
    return table_.Find(t, [&](uint32_t i) -> const Tuple& { return sockets_[i].tuple; });
  }
  uint16_t RandomPort();
  std::optional<uint16_t> ChoosePort(Endpoint local);
  std::optional<uint16_t> ChoosePortFor(Tuple tuple);
  SocketError Add(const Tuple& tuple, UdpHandler* handler, UdpSocket& socket);
  IoResult Transmit(Socket& s, const Endpoint& remote, std::span<const uint8_t> data,
                    Relayed* relayed, Nanos now);
  void Raise(uint32_t index);
  void Dispatch(Nanos now);
  bool Pop(Socket& s, ReceivedData& out, Endpoint& from);

  const UdpConfig config_;
  packet::FramePool& frames_;
  IpLayer& ip_;
  PathMtuCache& path_mtus_;
  const HashKey port_key_;
  uint64_t ports_chosen_ = 0;
  uint64_t ids_ = 0;  // identifications given
  Slab<Socket> sockets_;
  TupleTable table_;
  std::vector<uint32_t> ready_;
  std::vector<Membership> members_;  // few: looked through
  uint32_t frames_left_;
  UdpCounters counters_;
};

}  // namespace sluice::transport

#endif  // SLUICE_TRANSPORT_UDP_UDP_H_
