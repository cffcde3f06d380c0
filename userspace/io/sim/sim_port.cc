#include "io/sim/sim_port.h"

#include <algorithm>
#include <cstring>

namespace sluice::io {

using packet::FrameIndex;
using packet::FramePool;
using packet::Packet;

namespace {

SimPort::Bytes BytesOf(const packet::FrameArena& arena, const Packet& p) {
  SimPort::Bytes bytes(p.length);
  packet::CopyOut(arena, p, 0, bytes.data(), p.length);
  return bytes;
}

}  // namespace

size_t SimPort::RxBurst(std::span<Packet> out, FramePool& pool, InterfaceCounters&) {
  size_t n = 0;
  while (n < out.size() && !arrived_.empty()) {
    if (TakeFrames(arrived_.front(), pool, out[n])) {
      ++n;
    } else {
      ++lost_;  // as the kernel does: no frame in the fill ring, no packet
    }
    arrived_.pop_front();
  }
  return n;
}

bool SimPort::TakeFrames(const Bytes& bytes, FramePool& pool, Packet& out) {
  const packet::FrameArena& arena = pool.arena();
  const uint32_t room = arena.chunk_size() - packet::kHeadroom;
  const uint32_t piece =
      options_.segment_bytes == 0 ? room : std::min(options_.segment_bytes, room);
  const auto length = static_cast<uint32_t>(bytes.size());
  const uint32_t pieces = std::max<uint32_t>(1, (length + piece - 1) / piece);
  if (pieces > fill_.size() || pieces > packet::kMaxSegments) return false;

  FrameIndex previous = packet::kNoFrame;
  uint32_t done = 0;
  for (uint32_t i = 0; i < pieces; ++i) {
    const FrameIndex frame = fill_.back();
    fill_.pop_back();
    const uint32_t n = std::min(piece, length - done);
    if (n > 0) std::memcpy(arena.Chunk(frame) + packet::kHeadroom, bytes.data() + done, n);
    done += n;
    if (i == 0) {
      out = Packet{};
      out.frame = frame;
      out.data = arena.Chunk(frame) + packet::kHeadroom;
      out.segment_length = static_cast<uint16_t>(n);
    } else {
      packet::LinkOf(arena, previous) = {frame, packet::kHeadroom, static_cast<uint16_t>(n)};
    }
    previous = frame;
  }
  out.length = length;
  out.segment_count = static_cast<uint8_t>(pieces);
  out.in = slot_;
  return true;
}

size_t SimPort::TxBurst(std::span<Packet> packets, FramePool&) {
  size_t n = 0;
  while (n < packets.size() && tx_frames_ + packets[n].segment_count <= options_.tx_depth) {
    tx_frames_ += packets[n].segment_count;
    tx_.push_back(packets[n++]);
  }
  return n;
}

void SimPort::Flush(FramePool& pool, InterfaceCounters& counters) {
  if (tx_blocked_) {
    if (!tx_.empty()) counters.tx_errors[static_cast<size_t>(TxError::kNoBuffers)].Add();
  } else {
    for (const Packet& p : tx_) {
      sent_.push_back(BytesOf(pool.arena(), p));
      packet::FreePacket(pool, p);
    }
    tx_.clear();
    tx_frames_ = 0;
  }
  while (fill_.size() < options_.fill_depth) {
    const FrameIndex frame = pool.Alloc();
    if (frame == packet::kNoFrame) break;
    fill_.push_back(frame);
  }
}

}  // namespace sluice::io
