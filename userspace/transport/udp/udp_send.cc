// Datagrams that are sent, whole or in fragments.
#include <algorithm>
#include <array>

#include "transport/common/datagram.h"
#include "transport/udp/udp.h"
#include "wire/udp.h"

namespace sluice::transport {

namespace {

constexpr uint32_t kFragmentHeaderSize = 8;  // RFC 8200 section 4.5

}  // namespace

IoResult Udp::Transmit(Socket& s, const Endpoint& remote, std::span<const uint8_t> data,
                       Nanos now) {
  if (s.error != SocketError::kNone) {
    const SocketError error = s.error;
    s.error = SocketError::kNone;
    return {error};
  }
  if (remote.port == 0 || IsAny(remote.address)) return {SocketError::kInvalid};
  IpLayer::Path path;
  if (!ip_.FindPath(remote.address, path)) return {SocketError::kUnreachable};
  Tuple tuple{s.tuple.local, remote};
  if (IsAny(tuple.local.address) || IsMulticast(tuple.local.address)) {
    tuple.local.address = path.source;
  }
  if (tuple.local.address.family != remote.address.family) return {SocketError::kInvalid};
  const size_t size = wire::UdpView::kSize + data.size();
  const uint32_t ip_size = IpHeaderSize(tuple.is_v4());
  if (size > config_.max_datagram) return {SocketError::kTooLong};
  const uint32_t room = frames_.arena().chunk_size() - packet::kHeadroom -
                        wire::kEthernetHeaderSize;
  const uint32_t mtu = std::min(path.mtu, room);
  if (size + ip_size > mtu) return TransmitFragments(tuple, data, mtu, now);
  packet::Packet p;
  if (!BeginDatagram(frames_, tuple, wire::kProtocolUdp, static_cast<uint32_t>(size),
                     {.ttl = config_.ttl, .dont_fragment = false, .id = static_cast<uint16_t>(NewId())}, p)) {
    counters_.no_frame.Add();
    return {SocketError::kWouldBlock};
  }
  wire::EmitUdp({p.l4(), size}, tuple.local.port, remote.port, data,
                PseudoSumOf(tuple.local.address, remote.address, wire::kProtocolUdp,
                            static_cast<uint32_t>(size)));
  counters_.datagrams_sent.Add();
  ip_.Output(p, now);
  return {SocketError::kNone, static_cast<uint32_t>(data.size())};
}

// All of them or none. IPv4: RFC 791; IPv6: RFC 8200 section 4.5, with an identification that cannot be
// guessed (RFC 7739).
IoResult Udp::TransmitFragments(const Tuple& tuple, std::span<const uint8_t> data, uint32_t mtu,
                                Nanos now) {
  const bool v4 = tuple.is_v4();
  const uint32_t extra = v4 ? 0 : kFragmentHeaderSize;
  if (mtu < IpHeaderSize(v4) + extra + 64) return {SocketError::kTooLong};
  const uint32_t most = (mtu - IpHeaderSize(v4) - extra) & ~7u;
  const auto size = static_cast<uint32_t>(wire::UdpView::kSize + data.size());
  if (frames_.size() < (size + most - 1) / most) {
    counters_.no_frame.Add();
    return {SocketError::kWouldBlock};
  }
  std::array<uint8_t, wire::UdpView::kSize> header{};
  StoreBe16(header.data(), tuple.local.port);
  StoreBe16(header.data() + 2, tuple.remote.port);
  StoreBe16(header.data() + 4, static_cast<uint16_t>(size));
  wire::SumChain sum(
      PseudoSumOf(tuple.local.address, tuple.remote.address, wire::kProtocolUdp, size));
  sum.Add(header);
  sum.Add(data);
  StoreBe16(header.data() + 6, wire::NonZeroChecksum(sum.sum()));

  const uint32_t id = NewId();
  for (uint32_t at = 0; at < size; at += most) {
    const uint32_t n = std::min(most, size - at);
    const bool more = at + n < size;
    packet::Packet p;
    BeginDatagram(frames_, tuple, v4 ? wire::kProtocolUdp : wire::kProtocolFragment, n + extra,
                  {.ttl = config_.ttl, .dont_fragment = false, .id = static_cast<uint16_t>(id),
                   .fragment_field =
                       static_cast<uint16_t>(at / 8 | (more ? wire::kIpv4MoreFragments : 0))},
                  p);
    p.flags |= packet::kFlagFragment;
    if (at > 0) p.flags |= packet::kFlagLaterFragment;
    uint8_t* out = p.l4();
    if (!v4) {
      p.flags |= packet::kFlagFragmentHeader;
      out[0] = wire::kProtocolUdp;
      out[1] = 0;
      StoreBe16(out + 2, static_cast<uint16_t>(at | (more ? 1 : 0)));
      StoreBe32(out + 4, id);
      out += kFragmentHeaderSize;
      p.l4_offset = static_cast<uint16_t>(p.l4_offset + kFragmentHeaderSize);
      p.l4_protocol = wire::kProtocolUdp;
    }
    uint32_t from = at;  // in header and data together
    uint32_t left = n;
    if (from < header.size()) {
      std::copy(header.begin(), header.end(), out);
      out += header.size();
      from += static_cast<uint32_t>(header.size());
      left -= static_cast<uint32_t>(header.size());
    }
    std::copy_n(data.data() + (from - header.size()), left, out);
    counters_.fragments_sent.Add();
    ip_.Output(p, now);
  }
  counters_.datagrams_sent.Add();
  return {SocketError::kNone, static_cast<uint32_t>(data.size())};
}

IoResult Udp::Send(UdpSocket socket, std::span<const uint8_t> data, Nanos now) {
  Socket* const s = Resolve(socket);
  if (s == nullptr) return {SocketError::kBadSocket};
  if (!s->connected) return {SocketError::kNotConnected};
  return Transmit(*s, s->tuple.remote, data, now);
}

IoResult Udp::SendTo(UdpSocket socket, const Endpoint& remote, std::span<const uint8_t> data,
                     Nanos now) {
  Socket* const s = Resolve(socket);
  if (s == nullptr) return {SocketError::kBadSocket};
  return Transmit(*s, remote, data, now);
}

}  // namespace sluice::transport
