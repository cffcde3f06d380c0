// Two stacks back to back in memory: what one sends the other receives in the very frame, as when
// frames go from NIC to NIC. No delay, no loss, and nothing is allocated after the start, so that
// costs can be measured and allocations counted.
#ifndef SLUICE_TESTS_SUPPORT_MEMORY_LINK_H_
#define SLUICE_TESTS_SUPPORT_MEMORY_LINK_H_

#include <array>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "packet/frame_arena.h"
#include "packet/frame_pool.h"
#include "transport/transport.h"

namespace sluice::test {

class MemoryLink {
 public:
  static constexpr uint32_t kFrames = 32768;

  explicit MemoryLink(transport::TransportConfig config = {})
      : arena_(packet::FrameArena::Create(kFrames, 2048)), pool_(*arena_) {
    for (uint32_t i = 0; i < kFrames; ++i) pool_.Free(i);
    for (uint8_t i = 0; i < 2; ++i) {
      config.key = {i + 1u, 7};
      config.start = now_;
      ends_[i].address = Ipv4(10, 0, 0, static_cast<uint8_t>(i + 1));
      ends_[i].queue.reserve(kFrames);
      ends_[i].stack = std::make_unique<transport::Transport>(config, pool_, ends_[i]);
    }
  }

  transport::Tcp& tcp(int i) { return ends_[static_cast<size_t>(i)].stack->tcp(); }
  transport::Transport& stack(int i) { return *ends_[static_cast<size_t>(i)].stack; }
  Ipv4 address(int i) const { return ends_[static_cast<size_t>(i)].address; }
  Nanos now() const { return now_; }
  uint64_t packets() const { return packets_; }
  bool FramesAreBack() const { return pool_.size() == kFrames; }

  // Delivers until nobody has anything to say; each round is 10 microseconds.
  void Settle() {
    while (!ends_[0].queue.empty() || !ends_[1].queue.empty()) Round();
  }
  // One exchange of what both have sent, and the timers.
  void Round() {
    now_ += Micros(10);
    for (size_t i = 0; i < 2; ++i) {
      working_.swap(ends_[i].queue);
      if (bursts) ends_[1 - i].stack->BeginBurst();
      for (packet::Packet& p : working_) {
        ++packets_;
        const auto verdict = ends_[1 - i].stack->Receive(p, now_);
        if (verdict.kind() != packet::Verdict::Kind::kLocal) packet::FreePacket(pool_, p);
      }
      if (bursts) ends_[1 - i].stack->EndBurst(now_);
      working_.clear();
    }
    for (End& end : ends_) {
      if (end.stack->NextDeadline() <= now_) end.stack->OnTimer(now_);
    }
  }
  bool bursts = false;  // what arrives in a round arrives together
  void Wait(Nanos time) {
    now_ += time;
    Round();
  }

 private:
  struct End : transport::IpLayer {
    void Output(packet::Packet& p, Nanos) override {
      if (queue.size() == queue.capacity()) std::abort();
      queue.push_back(p);
    }
    bool FindPath(const IpAddress&, Path& path) override {
      path.source = address;
      return true;
    }
    Ipv4 address;
    std::vector<packet::Packet> queue;
    std::unique_ptr<transport::Transport> stack;
  };

  std::unique_ptr<packet::FrameArena> arena_;
  packet::FramePool pool_;
  std::array<End, 2> ends_;
  std::vector<packet::Packet> working_ = [] {
    std::vector<packet::Packet> v;
    v.reserve(kFrames);
    return v;
  }();
  Nanos now_ = Seconds(1000);
  uint64_t packets_ = 0;
};

// A server that takes everything and gives nothing back but acknowledgments.
class Discard : public transport::TcpHandler {
 public:
  explicit Discard(transport::Tcp& tcp) : tcp_(tcp) {}
  void OnAcceptable(transport::TcpListenerId id, Nanos) override {
    transport::TcpSocket s;
    while (tcp_.Accept(id, this, s) == transport::SocketError::kNone) {
    }
  }
  void OnReadable(transport::TcpSocket s, Nanos now) override {
    transport::ReceivedData data;
    transport::SocketError e;
    while ((e = tcp_.ReceivePacket(s, data, now)) == transport::SocketError::kNone) {
      bytes += data.length;
      tcp_.Release(data);
    }
    if (e == transport::SocketError::kEndOfData) tcp_.Close(s, now);
  }
  void OnError(transport::TcpSocket s, transport::SocketError, Nanos now) override {
    tcp_.Close(s, now);
  }
  uint64_t bytes = 0;

 private:
  transport::Tcp& tcp_;
};

// Sends as much as goes, of the same bytes again and again, lent and not copied.
class Source : public transport::TcpHandler {
 public:
  explicit Source(transport::Tcp& tcp) : tcp_(tcp), data_(64 * 1024, 'x') {}
  void OnConnected(transport::TcpSocket s, Nanos now) override { OnWritable(s, now); }
  void OnWritable(transport::TcpSocket s, Nanos now) override {
    const transport::OwnedBuffer buffer{data_.data(), static_cast<uint32_t>(data_.size())};
    while (tcp_.SendRoom(s) > 0 && tcp_.SendOwned(s, buffer, now).ok()) {
    }
  }

 private:
  transport::Tcp& tcp_;
  std::vector<uint8_t> data_;
};

// A connection for one request of `size` bytes to an echo server; closes when the answer is there.
class OneRequest : public transport::TcpHandler {
 public:
  OneRequest(transport::Tcp& tcp, uint32_t size) : tcp_(tcp), request_(size, 'r') {}
  void OnConnected(transport::TcpSocket s, Nanos now) override { tcp_.Send(s, request_, now); }
  void OnReadable(transport::TcpSocket s, Nanos now) override {
    while (tcp_.Receive(s, answer_, now).ok()) {
    }
    ++answers;
    if (close_after_answer) tcp_.Close(s, now);
  }
  int answers = 0;
  bool close_after_answer = true;

 private:
  transport::Tcp& tcp_;
  std::vector<uint8_t> request_;
  std::array<uint8_t, 2048> answer_;
};

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_MEMORY_LINK_H_
