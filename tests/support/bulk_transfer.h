// A program on each end of a TransportLink: one sends so many bytes of a known pattern and finishes,
// the other checks every byte. Both ways at once if wanted; a reader may be slow.
#ifndef SLUICE_TESTS_SUPPORT_BULK_TRANSFER_H_
#define SLUICE_TESTS_SUPPORT_BULK_TRANSFER_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "support/transport_link.h"

namespace sluice::test {

// One end of one connection.
class BulkEnd : public transport::TcpHandler {
 public:
  BulkEnd(transport::Tcp& tcp, uint64_t to_send, uint64_t to_receive)
      : tcp_(tcp), to_send_(to_send), to_receive_(to_receive) {}

  void OnAcceptable(transport::TcpListenerId id, Nanos now) override {
    if (tcp_.Accept(id, this, socket) != transport::SocketError::kNone) return;
    Push(now);
  }
  void OnConnected(transport::TcpSocket, Nanos now) override { Push(now); }
  void OnWritable(transport::TcpSocket, Nanos now) override { Push(now); }
  void OnReadable(transport::TcpSocket, Nanos now) override {
    if (!slow) Pull(now, SIZE_MAX);
  }
  void OnError(transport::TcpSocket s, transport::SocketError e, Nanos now) override {
    error = e;
    Pull(now, SIZE_MAX);
    tcp_.Close(s, now);
    closed = true;
  }

  void Push(Nanos now) {
    while (sent_ < to_send_) {
      std::array<uint8_t, 4000> data;
      const size_t n = std::min<uint64_t>(data.size(), to_send_ - sent_);
      for (size_t i = 0; i < n; ++i) data[i] = Pattern(sent_ + i);
      const auto result = tcp_.Send(socket, std::span(data).first(n), now);
      if (!result.ok()) return;
      sent_ += result.bytes;
      if (on_sent) on_sent(sent_);
    }
    if (!finished_) finished_ = tcp_.Shutdown(socket, now) == transport::SocketError::kNone;
    MaybeClose(now);
  }

  void Pull(Nanos now, size_t most) {
    std::array<uint8_t, 4000> data;
    while (most > 0) {
      const auto result =
          tcp_.Receive(socket, std::span(data).first(std::min(most, data.size())), now);
      if (!result.ok()) {
        if (result.error == transport::SocketError::kEndOfData) end_seen_ = true;
        break;
      }
      for (uint32_t i = 0; i < result.bytes; ++i) {
        if (data[i] != Pattern(received_ + i)) wrong = true;
      }
      received_ += result.bytes;
      most -= result.bytes;
    }
    MaybeClose(now);
  }

  bool done() const { return closed; }
  bool right() const {
    return closed && !wrong && error == transport::SocketError::kNone && received_ == to_receive_;
  }
  uint64_t received() const { return received_; }

  transport::TcpSocket socket;
  transport::SocketError error = transport::SocketError::kNone;
  bool wrong = false;
  bool closed = false;
  bool slow = false;
  std::function<void(uint64_t)> on_sent;  // so many bytes, by now

 private:
  static uint8_t Pattern(uint64_t at) { return static_cast<uint8_t>(at * 31 + (at >> 8) * 7); }
  void MaybeClose(Nanos now) {
    if (!finished_ || !end_seen_ || closed) return;
    closed = true;
    tcp_.Close(socket, now);
  }

  transport::Tcp& tcp_;
  const uint64_t to_send_;
  const uint64_t to_receive_;
  uint64_t sent_ = 0;
  uint64_t received_ = 0;
  bool finished_ = false;
  bool end_seen_ = false;
};

// One transfer from host 0, which connects, to host 1 (and back).
struct BulkTransfer {
  BulkTransfer(TransportLink& l, uint64_t forward, uint64_t backward = 0,
               const transport::TcpSocketOptions& options = {}, uint16_t port = 80)
      : link(l),
        client(l.host(0).tcp(), forward, backward),
        server(l.host(1).tcp(), backward, forward) {
    listened = l.host(1).tcp().Listen({l.address(1), port}, options, 16, &server, listener);
    connected = l.host(0).tcp().Connect({}, {l.address(1), port}, options, &client, l.now(),
                                        client.socket);
  }
  // Whether everything arrived, and right.
  bool Run(Nanos time) {
    started = link.now();
    link.RunUntil([&] { return client.done() && server.done(); }, time);
    took = link.now() - started;
    return client.right() && server.right();
  }
  const transport::Tcb* tcb() { return link.host(0).tcp().Find(client.socket); }

  TransportLink& link;
  BulkEnd client;
  BulkEnd server;
  transport::TcpListenerId listener;
  transport::SocketError listened;
  transport::SocketError connected;
  Nanos started;
  Nanos took;
};

// After TIME-WAIT nothing may be left: connections, segments, frames, timers.
inline bool NothingIsLeft(TransportLink& link) {
  link.Run(Seconds(130));
  for (int i = 0; i < 2; ++i) {
    const transport::TcpUsage u = link.host(i).tcp().usage();
    if (u.connections + u.time_wait + u.orphans + u.segments + u.send_pieces + u.send_frames +
            u.receive_frames + u.ranges + u.timers != 0) {
      return false;
    }
    if (!link.host(i).FramesBalance()) return false;
  }
  return true;
}

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_BULK_TRANSFER_H_
