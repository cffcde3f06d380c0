#include "support/transport_host.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "base/rng.h"
#include "stages/fragment/refragment.h"
#include "transport/common/datagram.h"
#include "transport/tcp/splice.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"
#include "wire/protocol.h"
#include "wire/tcp.h"

namespace sluice::test {

TransportHost::TransportHost(const Options& options)
    : options_(options),
      arena_(packet::FrameArena::Create(options.frames, options.chunk_size)),
      pool_(*arena_),
      outbox_(std::make_unique<packet::Outbox>(pool_)) {
  for (uint32_t i = 0; i < options.frames; ++i) pool_.Free(i);
  Rng rng(options.seed);
  options_.config.key = {rng.Next(), rng.Next()};
  stack_ = std::make_unique<transport::Transport>(options_.config, pool_, *this);
}

bool TransportHost::Deliver(const Bytes& bytes, Nanos now) {
  if (bytes.size() > options_.chunk_size - packet::kHeadroom - 14) return true;  // the link's loss
  const packet::FrameIndex frame = pool_.Alloc();
  if (frame == packet::kNoFrame) return true;
  packet::Packet p;
  p.frame = frame;
  p.data = arena_->Chunk(frame) + packet::kHeadroom;
  p.l3_offset = 14;
  p.length = static_cast<uint32_t>(14 + bytes.size());
  p.segment_length = static_cast<uint16_t>(p.length);
  std::copy(bytes.begin(), bytes.end(), p.l3());
  const std::span<const uint8_t> ip(p.l3(), bytes.size());
  const bool v4 = !bytes.empty() && bytes[0] >> 4 == 4;
  const auto bad = v4 ? wire::CheckIpv4(ip) : wire::CheckIpv6(ip);
  if (bad) {
    ++dropped_[static_cast<size_t>(*bad)];
    pool_.Free(frame);
    return true;
  }
  if (v4) {
    const wire::Ipv4View header(p.l3());
    p.l4_offset = static_cast<uint16_t>(14 + header.header_length());
    p.l4_protocol = header.protocol();
    packet::TrimPacket(pool_, p, 14u + header.total_length());
  } else {
    const wire::Ipv6View header(p.l3());
    p.l4_offset = 14 + 40;
    p.l4_protocol = header.next_header();
    packet::TrimPacket(pool_, p, static_cast<uint32_t>(14 + header.packet_length()));
  }
  if (Carry(p, now)) return true;
  const bool claimed = stack_->Claims(p);
  const packet::Verdict verdict = stack_->Receive(p, now);
  for (const auto& [tuple, sequence] : std::exchange(too_large_, {})) {
    stack_->OnRefused(wire::kProtocolTcp, tuple, sequence, options_.mtu, now);
  }
  const bool ports = p.l4_protocol == wire::kProtocolTcp || p.l4_protocol == wire::kProtocolUdp;
  if (ports && claimed == (verdict.kind() == packet::Verdict::Kind::kContinue)) std::abort();
  switch (verdict.kind()) {
    case packet::Verdict::Kind::kLocal:
      return true;
    case packet::Verdict::Kind::kDrop:
      ++dropped_[static_cast<size_t>(verdict.drop_reason())];
      packet::FreePacket(pool_, p);
      return true;
    case packet::Verdict::Kind::kContinue:
      ++unclaimed_;
      packet::FreePacket(pool_, p);
      return false;
    default:
      std::abort();
  }
}

void TransportHost::Output(packet::Packet& p, Nanos now) {
  const auto send = [&](const packet::Packet& piece) {
    if (on_output) on_output(Bytes(piece.l3(), piece.l3() + piece.l3_length()), now);
  };
  if (p.fragment_size == 0) {
    send(p);
  } else {
    static_cast<void>(stages::Refragment(p, *outbox_, [&](packet::Packet& piece, bool) {
      send(piece);
      packet::FreePacket(pool_, piece);
    }));
  }
  packet::FreePacket(pool_, p);
}

void TransportHost::OutputRelayed(packet::Packet& p, const transport::Relayed& relayed, Nanos now) {
  if (p.l3_length() > options_.mtu) {  // told when the stack is not in the middle of sending
    const wire::TcpView tcp(p.l4());
    if (relayed.splice != nullptr) too_large_.push_back({relayed.leaves, tcp.sequence()});
    packet::FreePacket(pool_, p);
    return;
  }
  if (relayed.handle == nullptr) return Output(p, now);
  if (on_relayed) on_relayed(relayed);
  transport::RelayHandle& handle = *relayed.handle;
  const bool may_carry = options_.carry_after != 0 && relayed.splice != nullptr;
  if (may_carry && handle.entry == 0 && ++handle.packets >= options_.carry_after) {
    // Numbers begin where this segment ends, as it has arrived.
    const wire::TcpView tcp(p.l4());
    const uint32_t payload = p.length - p.l4_offset - static_cast<uint32_t>(tcp.header_length());
    carriers_.push_back({.relayed = relayed,
                         .carried = {.end = tcp.sequence() - relayed.splice->seq + payload,
                                     .ack = tcp.acknowledgment() - relayed.splice->ack}});
    handle.entry = 1;
  }
  Output(p, now);
}

void TransportHost::Tell(Carrier& c, Nanos now) {
  if (c.carried.packets == 0) return;
  c.relayed.user->OnCarried(c.relayed.token, c.carried, now);
  c.carried.packets = c.carried.bytes = 0;
  c.told = now;
}

void TransportHost::TellRelayed(transport::RelayHandle& handle, Nanos now) {
  for (Carrier& c : carriers_) {
    if (c.relayed.handle == &handle) Tell(c, now);
  }
}

void TransportHost::EndRelayed(transport::RelayHandle& handle, Nanos now) {
  if (on_end_relayed) return on_end_relayed(handle, now);
  for (auto c = carriers_.begin(); c != carriers_.end();) {
    if (c->relayed.handle != &handle) {
      ++c;
      continue;
    }
    Tell(*c, now);
    c = carriers_.erase(c);
  }
  handle = {};
}

// What bpf/include/offload.h carries: ACKs with or without data, whose only option timestamps are.
bool TransportHost::Carry(packet::Packet& p, Nanos now) {
  if (!carrying_ || carriers_.empty() || p.l4_protocol != wire::kProtocolTcp) return false;
  const auto tcp = wire::TcpView::Parse({p.l4(), p.segment_length - size_t{p.l4_offset}});
  if (!tcp || (tcp->flags() & ~wire::kTcpPsh) != wire::kTcpAck) return false;
  const transport::IpEnds ends = transport::EndsOf(p);
  const transport::Tuple tuple{{ends.destination, tcp->destination_port()},
                               {ends.source, tcp->source_port()}};
  for (Carrier& c : carriers_) {
    if (c.relayed.arrives != tuple) continue;
    constexpr std::array<uint8_t, 4> kTimestampsOnly = {1, 1, 8, 10};
    const auto options = tcp->options();
    const bool plain =
        c.relayed.splice->timestamps != 0
            ? options.size() == 12 &&
                  std::equal(kTimestampsOnly.begin(), kTimestampsOnly.end(), options.begin())
            : options.empty();
    if (!plain) return false;
    const auto payload = static_cast<uint32_t>(p.length - p.l4_offset - tcp->header_length());
    c.carried.end = tcp->sequence() + payload;
    c.carried.ack = tcp->acknowledgment();
    ++c.carried.packets;
    c.carried.bytes += p.l3_length();
    ++carried_;
    transport::TranslateSegment(p, c.relayed.leaves, *c.relayed.splice, 64);
    Output(p, now);
    if (now - c.told >= options_.tell_every) Tell(c, now);
    return true;
  }
  return false;
}

bool TransportHost::FindPath(const IpAddress& remote, Path& path) {
  if (!routes_) return false;
  path.source = remote.is_v4() ? options_.address : options_.address6;
  path.mtu = options_.mtu;
  return true;
}

bool TransportHost::FramesBalance() const {
  const transport::TcpUsage usage = stack_->tcp().usage();
  return pool_.size() + usage.receive_frames + usage.send_frames + stack_->udp().frames_waiting() ==
         options_.frames;
}

}  // namespace sluice::test
