#include "io/af_xdp/port.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>
#include <chrono>
#include <thread>

#include "io/af_xdp/uapi.h"

namespace sluice::io::af_xdp {
namespace {

constexpr uint32_t kRefillLot = 64;  // fewer free places are not worth a store to the shared line
constexpr uint32_t kTxBatch = 32;    // what the kernel sends per sendto() at least (TX_BATCH_SIZE)
constexpr int kBusyPollMicros = 20;
constexpr int kBusyPollBudget = 64;
constexpr auto kTransmitWait = std::chrono::milliseconds(100);

uint32_t Waiting(const xsk_ring_prod& ring) {
  return *ring.producer - __atomic_load_n(ring.consumer, __ATOMIC_ACQUIRE);
}

}  // namespace

AfXdpPort::AfXdpPort(const Options& options, const packet::FrameArena& arena)
    : arena_(arena),
      slot_(options.slot),
      queue_(options.socket.queue),
      interface_(options.socket.interface),
      fill_target_(options.fill_target == 0
                       ? options.socket.rings.fill
                       : std::min(options.fill_target, options.socket.rings.fill)),
      multi_buffer_(options.socket.multi_buffer),
      place_(std::make_unique<uint8_t[]>(arena.frame_count())) {}

absl::StatusOr<std::unique_ptr<AfXdpPort>> AfXdpPort::Open(
    const Options& options, const packet::FrameArena& arena,
    std::span<const packet::FrameIndex> frames) {
  std::unique_ptr<AfXdpPort> port(new AfXdpPort(options, arena));
  absl::StatusOr<std::unique_ptr<Socket>> socket = Socket::Open(options.socket, arena, frames);
  if (!socket.ok()) return socket.status();
  port->socket_ = *std::move(socket);
  port->fd_ = port->socket_->fd();
  port->zero_copy_ = port->socket_->zero_copy();
  for (const packet::FrameIndex frame : frames) port->place_[frame] = kInFill;
  port->frames_in_fill_.Set(frames.size());
  if (options.busy_poll) port->SetUpBusyPoll();
  return port;
}

AfXdpPort::~AfXdpPort() = default;

void AfXdpPort::Close(std::vector<packet::FrameIndex>& frames) {
  if (socket_ == nullptr) return;
  if (!dead()) WaitForTransmits();
  socket_.reset();
  fd_ = -1;
  dead_.Set(1);
  // In copy mode the kernel has let go of the frames when the socket is closed. In zero-copy mode
  // the NIC may write into them until the driver has taken the queue down.
  const bool released = !zero_copy_ || WaitUntilReleased(interface_, queue_);
  for (packet::FrameIndex frame = 0; frame < arena_.frame_count(); ++frame) {
    if (place_[frame] == kElsewhere) continue;
    if (released) {
      frames.push_back(frame);
    } else {
      ++frames_lost_;
    }
    place_[frame] = kElsewhere;
  }
  frames_in_fill_.Set(0);
  frames_in_tx_.Set(0);
  partial_tail_ = packet::kNoFrame;
}

// What was sent may still be read by the kernel (devices that take our pages as they are), until
// the packet has been consumed: let that happen before the frames are used for something else.
void AfXdpPort::WaitForTransmits() {
  const auto deadline = std::chrono::steady_clock::now() + kTransmitWait;
  while (frames_in_tx() > 0 && std::chrono::steady_clock::now() < deadline) {
    if (Waiting(socket_->transmit) > 0) {
      static_cast<void>(sendto(fd_, nullptr, 0, MSG_DONTWAIT, nullptr, 0));
    }
    uint32_t index = 0;
    const uint32_t done = xsk_ring_cons__peek(&socket_->completion, UINT32_MAX, &index);
    if (done == 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      continue;
    }
    // They are only not waited for any more: Close returns them.
    xsk_ring_cons__release(&socket_->completion, done);
    frames_in_tx_.Sub(done);
  }
}

size_t AfXdpPort::RxBurst(std::span<packet::Packet> packets, packet::FramePool& pool,
                          InterfaceCounters& counters) {
  if (dead()) return 0;
  uint32_t index = 0;
  const uint32_t count =
      xsk_ring_cons__peek(&socket_->receive, static_cast<uint32_t>(packets.size()), &index);
  if (count == 0) {
    if (busy_poll_state_.Read() == kBusyPollOn) DriveReceive();
    return 0;
  }
  if (busy_poll_state_.Read() == kBusyPollAsked) [[unlikely]]
    ConfirmBusyPoll();
  size_t received = 0;
  uint32_t whole_frames = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const xdp_desc desc = *xsk_ring_cons__rx_desc(&socket_->receive, index + i);
    const packet::FrameIndex frame = arena_.FrameAt(desc.addr);
    assert(frame < arena_.frame_count() && place_[frame] == kInFill);
    uint8_t* const data = arena_.base() + desc.addr;
    __builtin_prefetch(data);
    const bool whole =
        (desc.options & kDescContinues) == 0 && partial_tail_ == packet::kNoFrame && !skipping_;
    packet::Packet& p = packets[received];
    if (whole) {
      place_[frame] = kElsewhere;
      ++whole_frames;
      p = packet::Packet{};
      p.data = data;
      p.frame = frame;
      p.length = desc.len;
      p.segment_length = static_cast<uint16_t>(desc.len);
      p.in = slot_;
      ++received;
    } else if (AddPiece(frame, desc, pool, counters)) {
      p = partial_;
      ++received;
    }
  }
  xsk_ring_cons__release(&socket_->receive, count);
  frames_in_fill_.Sub(whole_frames);
  return received;
}

// The pieces of partial_ stop being ours.
void AfXdpPort::ReleasePartial() {
  packet::FrameIndex frame = partial_.frame;
  for (uint8_t i = 0; i < partial_.segment_count; ++i) {
    place_[frame] = kElsewhere;
    frame = packet::LinkOf(arena_, frame).next;
  }
  frames_in_fill_.Sub(partial_.segment_count);
  partial_tail_ = packet::kNoFrame;
}

// A piece of a packet in several buffers. True when partial_ is now a whole packet, the caller's.
bool AfXdpPort::AddPiece(packet::FrameIndex frame, const xdp_desc& desc, packet::FramePool& pool,
                         InterfaceCounters& counters) {
  const bool last = (desc.options & kDescContinues) == 0;
  const bool first = partial_tail_ == packet::kNoFrame && !skipping_;
  if (first) {
    partial_ = packet::Packet{};
    partial_.data = arena_.base() + desc.addr;
    partial_.frame = frame;
    partial_.length = desc.len;
    partial_.segment_length = static_cast<uint16_t>(desc.len);
    partial_.in = slot_;
    partial_tail_ = frame;
    return false;
  }
  partial_.length += desc.len;
  if (!skipping_ && partial_.segment_count < packet::kMaxSegments) {
    packet::LinkOf(arena_, partial_tail_) = {
        .next = frame,
        .data_offset = static_cast<uint16_t>(desc.addr & (arena_.chunk_size() - 1)),
        .length = static_cast<uint16_t>(desc.len)};
    partial_tail_ = frame;
    ++partial_.segment_count;
  } else {
    if (!skipping_) {  // one piece too many: what was kept goes as well
      ReleasePartial();
      packet::FreePacket(pool, partial_);
      skipping_ = true;
    }
    place_[frame] = kElsewhere;
    frames_in_fill_.Sub();
    pool.Free(frame);
  }
  if (!last) return false;
  if (skipping_) {
    skipping_ = false;
    counters.received_packets.Add();
    counters.received_bytes.Add(partial_.length);
    counters.dropped_packets[static_cast<size_t>(DropReason::kTooManySegments)].Add();
    return false;
  }
  ReleasePartial();
  return true;
}

// The kernel throws away descriptors that are empty or leave their chunk, and never completes them:
// their frames would be lost.
bool AfXdpPort::Sendable(const packet::Packet& p) const {
  const uint32_t chunk = arena_.chunk_size();
  if (p.segment_count == 1) {
    const auto offset = static_cast<uint32_t>(arena_.OffsetOf(p.data)) & (chunk - 1);
    return p.segment_length > 0 && offset + p.segment_length <= chunk;
  }
  if (!multi_buffer_ || p.segment_count > packet::kMaxSegments) return false;
  bool sendable = true;
  packet::ForEachSegment(arena_, p, 0, [&](std::span<uint8_t> piece) {
    const auto offset = static_cast<uint32_t>(arena_.OffsetOf(piece.data())) & (chunk - 1);
    sendable = sendable && !piece.empty() && offset + piece.size() <= chunk;
  });
  return sendable;
}

// Fills the descriptors of the packet, which Sendable() has judged, from `index` on.
void AfXdpPort::PutOnRing(const packet::Packet& p, uint32_t index) {
  uint8_t left = p.segment_count;
  packet::ForEachSegment(arena_, p, 0, [&](std::span<uint8_t> piece) {
    const uint64_t offset = arena_.OffsetOf(piece.data());
    xdp_desc* const desc = xsk_ring_prod__tx_desc(&socket_->transmit, index++);
    desc->addr = offset;
    desc->len = static_cast<uint32_t>(piece.size());
    desc->options = --left > 0 ? kDescContinues : 0;
    place_[arena_.FrameAt(offset)] = kInTx;
  });
}

size_t AfXdpPort::TxBurst(std::span<packet::Packet> packets, packet::FramePool& pool) {
  if (dead() || packets.empty()) return 0;
  xsk_ring_prod& ring = socket_->transmit;
  uint32_t free = xsk_prod_nb_free(&ring, static_cast<uint32_t>(packets.size()));
  uint32_t used = 0;
  size_t accepted = 0;
  for (const packet::Packet& p : packets) {
    if (!Sendable(p)) [[unlikely]] {
      packet::FreePacket(pool, p);
      ++unsendable_;
      ++accepted;
      continue;
    }
    if (free < used + p.segment_count) {
      // The cached count only covers one piece per packet.
      free = xsk_prod_nb_free(&ring, used + p.segment_count);
      if (free < used + p.segment_count) break;
    }
    PutOnRing(p, ring.cached_prod + used);
    used += p.segment_count;
    ++accepted;
  }
  if (used > 0) {
    uint32_t index = 0;
    xsk_ring_prod__reserve(&ring, used, &index);
    xsk_ring_prod__submit(&ring, used);
    frames_in_tx_.Add(used);
  }
  return accepted;
}

void AfXdpPort::Flush(packet::FramePool& pool, InterfaceCounters& counters) {
  if (unsendable_ > 0) {
    counters.tx_errors[static_cast<size_t>(TxError::kOther)].Add(unsendable_);
    unsendable_ = 0;
  }
  if (dead()) return;
  if (frames_in_tx() > 0) {
    Kick(pool, counters);
    Reap(pool);
  }
  Refill(pool);
}

// Has the kernel send what is on the ring.
void AfXdpPort::Kick(packet::FramePool& pool, InterfaceCounters& counters) {
  xsk_ring_prod& ring = socket_->transmit;
  if (zero_copy_) {
    // The NIC takes what is there by itself while it is awake.
    if (xsk_ring_prod__needs_wakeup(&ring) &&
        sendto(fd_, nullptr, 0, MSG_DONTWAIT, nullptr, 0) != 0) {
      CountSendError(errno, counters);
    }
    return;
  }
  uint32_t waiting = Waiting(ring);
  // Enough rounds to send all of it, also if each frame is refused once (a full device drops one
  // frame per call).
  uint32_t rounds = 2 + waiting / kTxBatch;
  uint32_t refusals = waiting;
  while (waiting > 0 && rounds > 0) {
    const int error = sendto(fd_, nullptr, 0, MSG_DONTWAIT, nullptr, 0) == 0 ? 0 : errno;
    const uint32_t before = waiting;
    waiting = Waiting(ring);
    if (error != 0 && !CountSendError(error, counters)) return;
    // Also makes room on the completion ring, without which nothing is sent.
    if (waiting > 0) Reap(pool);
    if (error == EBUSY && refusals > 0) {
      --refusals;
    } else {
      --rounds;
    }
    if (error != EBUSY && waiting == before) return;  // the next tick tries again
  }
  down_.Set(0);
}

// Whether to go on sending.
bool AfXdpPort::CountSendError(int error, InterfaceCounters& counters) {
  TxError kind = TxError::kOther;
  bool go_on = false;
  switch (error) {
    case EAGAIN:  // the batch is sent, or the device or the completion ring is full
      return true;
    case EBUSY:  // the device dropped one frame, which is completed all the same
      kind = TxError::kBusy;
      go_on = true;
      break;
    case ENOBUFS:
    case ENOMEM:
      kind = TxError::kNoBuffers;
      break;
    case ENETDOWN:  // not up: what is on the ring leaves once it is
      kind = TxError::kDown;
      down_.Set(1);
      break;
    case ENXIO:  // no longer bound: the interface has gone
      kind = TxError::kDown;
      dead_.Set(1);
      break;
    default:
      break;
  }
  counters.tx_errors[static_cast<size_t>(kind)].Add();
  return go_on;
}

void AfXdpPort::Reap(packet::FramePool& pool) {
  uint32_t index = 0;
  const uint32_t done = xsk_ring_cons__peek(&socket_->completion, UINT32_MAX, &index);
  if (done == 0) return;
  for (uint32_t i = 0; i < done; ++i) {
    const packet::FrameIndex frame =
        arena_.FrameAt(*xsk_ring_cons__comp_addr(&socket_->completion, index + i));
    assert(frame < arena_.frame_count() && place_[frame] == kInTx);
    place_[frame] = kElsewhere;
    pool.Free(frame);
  }
  xsk_ring_cons__release(&socket_->completion, done);
  frames_in_tx_.Sub(done);
}

void AfXdpPort::Refill(packet::FramePool& pool) {
  const uint32_t present = frames_in_fill();
  if (present >= fill_target_) return;
  uint32_t wanted = fill_target_ - present;
  // A lot at a time, but at once when little is left to receive into.
  if (wanted < kRefillLot && present >= kRefillLot) return;
  xsk_ring_prod& ring = socket_->fill;
  wanted = std::min({wanted, pool.size(), xsk_prod_nb_free(&ring, wanted)});
  uint32_t index = 0;
  if (wanted > 0 && xsk_ring_prod__reserve(&ring, wanted, &index) == wanted) {
    for (uint32_t i = 0; i < wanted; ++i) {
      const packet::FrameIndex frame = pool.Alloc();
      place_[frame] = kInFill;
      *xsk_ring_prod__fill_addr(&ring, index + i) = uint64_t{frame} * arena_.chunk_size();
    }
    xsk_ring_prod__submit(&ring, wanted);
    frames_in_fill_.Add(wanted);
  }
  if (zero_copy_ && xsk_ring_prod__needs_wakeup(&ring)) DriveReceive();
}

bool AfXdpPort::HasUnsentTx() const { return !dead() && Waiting(socket_->transmit) > 0; }

bool AfXdpPort::WantsPollWakeup() const {
  return !dead() && xsk_ring_prod__needs_wakeup(&socket_->fill) != 0;
}

void AfXdpPort::CheckAlive() {
  if (dead()) return;
  const int error = socket_->TakeError();
  if (error == ENETDOWN || error == ENXIO || error == ENODEV) dead_.Set(1);
}

// Lets the NIC's receive processing run on this thread (busy polling), or wakes it (zero-copy).
void AfXdpPort::DriveReceive() {
  if (recvfrom(fd_, nullptr, 0, MSG_DONTWAIT, nullptr, nullptr) < 0 && errno == ENXIO) {
    dead_.Set(1);
  }
}

void AfXdpPort::SetUpBusyPoll() {
  const int prefer = 1;
  const int micros = kBusyPollMicros;
  const int budget = kBusyPollBudget;
  const bool ok = setsockopt(fd_, SOL_SOCKET, SO_PREFER_BUSY_POLL, &prefer, sizeof prefer) == 0 &&
                  setsockopt(fd_, SOL_SOCKET, SO_BUSY_POLL, &micros, sizeof micros) == 0 &&
                  setsockopt(fd_, SOL_SOCKET, SO_BUSY_POLL_BUDGET, &budget, sizeof budget) == 0;
  busy_poll_state_.Set(ok ? kBusyPollAsked : kBusyPollOff);
}

// After the first frame the kernel knows the NAPI that it came through, or it never will (veth):
// then there is nothing to poll, and interrupts do it as ever.
void AfXdpPort::ConfirmBusyPoll() {
  unsigned int napi = 0;
  socklen_t size = sizeof napi;
  if (getsockopt(fd_, SOL_SOCKET, SO_INCOMING_NAPI_ID, &napi, &size) == 0 && napi != 0) {
    busy_poll_state_.Set(kBusyPollOn);
    return;
  }
  const int prefer = 0;
  static_cast<void>(setsockopt(fd_, SOL_SOCKET, SO_PREFER_BUSY_POLL, &prefer, sizeof prefer));
  busy_poll_state_.Set(kBusyPollOff);
}

}  // namespace sluice::io::af_xdp
