// Datagrams that are sent, whole or in fragments.
#include <algorithm>

#include "transport/common/datagram.h"
#include "transport/udp/udp.h"
#include "wire/udp.h"

namespace sluice::transport {

namespace {

constexpr uint32_t kFragmentHeaderSize = 8;  // RFC 8200 section 4.5
constexpr uint32_t kMostPieces = 255;        // Packet::segment_count

}  // namespace

IoResult Udp::Transmit(Socket& s, const Endpoint& remote, std::span<const uint8_t> data,
                       Relayed* relayed, Nanos now) {
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
  const uint32_t told = path_mtus_.LeastTold(remote.address, now);
  const uint32_t mtu = std::min({path.mtu, room, told});
  if (size + ip_size > mtu) return TransmitLarge(tuple, data, mtu, now);
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
  if (relayed != nullptr && told >= path.mtu) {
    relayed->leaves = tuple;
    ip_.OutputRelayed(p, *relayed, now);
  } else {
    ip_.Output(p, now);
  }
  return {SocketError::kNone, static_cast<uint32_t>(data.size())};
}

// Larger than `mtu`: a whole datagram in as many frames as it needs, which the layer below judges and then
// sends in fragments. All of them or none: so many frames, and for the fragments as many again.
IoResult Udp::TransmitLarge(const Tuple& tuple, std::span<const uint8_t> data, uint32_t mtu,
                            Nanos now) {
  const bool v4 = tuple.is_v4();
  const uint32_t headers = IpHeaderSize(v4) + (v4 ? 0 : kFragmentHeaderSize);
  if (mtu < headers + 64) return {SocketError::kTooLong};
  const uint32_t most = (mtu - headers) & ~7u;
  const auto size = static_cast<uint32_t>(wire::UdpView::kSize + data.size());
  const uint32_t fragments = (size + most - 1) / most;
  const uint32_t room = frames_.arena().chunk_size() - packet::kHeadroom;
  const uint32_t pieces = (wire::kEthernetHeaderSize + IpHeaderSize(v4) + size + room - 1) / room;
  if (pieces > kMostPieces) return {SocketError::kTooLong};
  if (frames_.size() < fragments + pieces) {
    counters_.no_frame.Add();
    return {SocketError::kWouldBlock};
  }
  const uint32_t id = NewId();
  packet::Packet p;
  if (!BeginDatagram(frames_, tuple, wire::kProtocolUdp, size,
                     {.ttl = config_.ttl, .dont_fragment = false, .id = static_cast<uint16_t>(id)}, p)) {
    counters_.no_frame.Add();
    return {SocketError::kWouldBlock};
  }
  p.segment_length = static_cast<uint16_t>(std::min(p.length, room));
  p.fragment_size = static_cast<uint16_t>(headers + most);
  packet::FragmentNoteOf(frames_.arena(), p.frame) = {.identification = id};

  uint8_t* const header = p.l4();
  StoreBe16(header, tuple.local.port);
  StoreBe16(header + 2, tuple.remote.port);
  StoreBe16(header + 4, static_cast<uint16_t>(size));
  StoreBe16(header + 6, 0);
  wire::SumChain sum(
      PseudoSumOf(tuple.local.address, tuple.remote.address, wire::kProtocolUdp, size));
  sum.Add({header, wire::UdpView::kSize});
  sum.Add(data);
  StoreBe16(header + 6, wire::NonZeroChecksum(sum.sum()));
  std::span<const uint8_t> left = data;
  const auto take = [&](uint8_t* out, size_t n) {
    std::copy_n(left.data(), n, out);
    left = left.subspan(n);
  };
  take(header + wire::UdpView::kSize, p.segment_length - p.l4_offset - wire::UdpView::kSize);
  for (packet::FrameIndex last = p.frame; !left.empty(); ++p.segment_count) {
    const packet::FrameIndex next = frames_.Alloc();
    const auto n = static_cast<uint16_t>(std::min<size_t>(left.size(), room));
    packet::LinkOf(frames_.arena(), last) = {
        .next = next, .data_offset = packet::kHeadroom, .length = n};
    take(frames_.arena().Chunk(next) + packet::kHeadroom, n);
    last = next;
  }
  counters_.fragments_sent.Add(fragments);
  counters_.datagrams_sent.Add();
  ip_.Output(p, now);
  return {SocketError::kNone, static_cast<uint32_t>(data.size())};
}

IoResult Udp::Send(UdpSocket socket, std::span<const uint8_t> data, Nanos now) {
  Socket* const s = Resolve(socket);
  if (s == nullptr) return {SocketError::kBadSocket};
  if (!s->connected) return {SocketError::kNotConnected};
  return Transmit(*s, s->tuple.remote, data, nullptr, now);
}

IoResult Udp::SendTo(UdpSocket socket, const Endpoint& remote, std::span<const uint8_t> data,
                     Nanos now) {
  Socket* const s = Resolve(socket);
  if (s == nullptr) return {SocketError::kBadSocket};
  return Transmit(*s, remote, data, nullptr, now);
}

IoResult Udp::SendRelayed(UdpSocket socket, const Endpoint& remote, std::span<const uint8_t> data,
                          Relayed relayed, Nanos now) {
  Socket* const s = Resolve(socket);
  if (s == nullptr) return {SocketError::kBadSocket};
  return Transmit(*s, remote, data, &relayed, now);
}

}  // namespace sluice::transport
