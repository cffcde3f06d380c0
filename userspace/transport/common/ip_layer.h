// What the transport stack wants of the layer below: the only way in which it reaches the world.
//
// On a worker the pipeline implements it (routing, OUTPUT rules, neighbours); in tests a simulated
// link does. Output may be called from within any call into the stack, and must not call back into
// it. Thread: the stack's.
#ifndef SLUICE_TRANSPORT_COMMON_IP_LAYER_H_
#define SLUICE_TRANSPORT_COMMON_IP_LAYER_H_

#include <cstdint>

#include "base/address.h"
#include "base/time.h"
#include "packet/packet.h"
#include "transport/common/endpoint.h"
#include "transport/common/relayed.h"

namespace sluice::transport {

class IpLayer {
 public:
  // What is known about the way to an address.
  struct Path {
    IpAddress source;     // the address of ours that is used towards it
    uint32_t mtu = 1500;  // of the route and its interface; the path's is the stack's to know
  };

  virtual ~IpLayer() = default;

  // Takes the packet in every case. It has an IP header with its checksum, l3_offset and l4_offset
  // are set, and before the IP header there is room for a link header, which `data` points to.
  //
  // With a fragment_size it is a whole UDP datagram, in several pieces if need be, that is to leave in
  // fragments of at most so many bytes (IPv4: RFC 791; IPv6: RFC 8200 section 4.5, with the
  // identification that its FragmentNote has; RFC 7739 wants one that cannot be guessed).
  virtual void Output(packet::Packet& p, Nanos now) = 0;

  // As Output, of a packet that goes out as it has come in but for its headers: its size is not the stack's
  // choice, and further ones of its kind may be carried below, without coming up. The default: they are not.
  virtual void OutputRelayed(packet::Packet& p, const Relayed&, Nanos now) { Output(p, now); }
  // What has been carried so far is told before this returns.
  virtual void TellRelayed(RelayHandle&, Nanos) {}
  // ... and nothing more will be.
  virtual void EndRelayed(RelayHandle&, Nanos) {}

  // The way to `remote`; false when there is none.
  virtual bool FindPath(const IpAddress& remote, Path& path) = 0;

  // Whether answers to a connection with these ports would arrive on this worker (it is asked while
  // a port is chosen for a connection from here).
  virtual bool ArrivesHere(const Tuple&) { return true; }
};

}  // namespace sluice::transport

#endif  // SLUICE_TRANSPORT_COMMON_IP_LAYER_H_
