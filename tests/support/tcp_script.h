// The stack against a peer whose segments a test writes down one by one, in packetdrill's words:
//
//   TcpScript t;
//   t.Listen();
//   t.In("S 0:0(0) win 1000 <mss 1460>");          // from the peer
//   t.Out("S. 0:0(0) ack 1 <mss 1460>");           // what the stack must send next
//   t.In(". 1:1(0) ack 1 win 257");
//   t.Accept();
//   t.Wait(Millis(200));  t.Nothing();             // and nothing else
//
// Flags: S F R P . (ACK) E W U. Sequence numbers count from each side's own initial one. Of what the
// stack sends, "win" and "<options>" are compared when the expectation names them, "TS val" counts
// from the stack's first, and a marked IP header (ECN) shows as "[ect0]" in front. In("...") may say
// "[ce]". The peer's bytes are made by PacketBuilder, which shares no code with the stack.
#ifndef SLUICE_TESTS_SUPPORT_TCP_SCRIPT_H_
#define SLUICE_TESTS_SUPPORT_TCP_SCRIPT_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "support/transport_host.h"

namespace sluice::test {

class TcpScript : public transport::TcpHandler {
 public:
  using Bytes = std::vector<uint8_t>;

  struct Options {
    bool v6 = false;
    uint32_t mtu = 1500;
    uint32_t peer_iss = 5000;
    transport::TransportConfig config;
  };
  TcpScript() : TcpScript(Options()) {}
  explicit TcpScript(const Options& options);
  ~TcpScript() override;

  // The peer.
  void In(const std::string& segment);
  void Out(const std::string& expected);
  // What is sent next, as text; "" when nothing is.
  std::string Next();
  void Nothing();
  void Discard() { sent_.clear(); }
  size_t pending() const { return sent_.size(); }
  // Breaks the checksum of the next segment that goes in.
  void CorruptNext() { corrupt_ = true; }
  // An ICMP error about a segment of the stack's with this sequence number.
  void Icmp(uint8_t type, uint8_t code, uint32_t rest, uint32_t sequence);

  // Time; timers fire in their order.
  void Wait(Nanos time);
  Nanos now() const { return now_; }

  // The program.
  void Listen(const transport::TcpSocketOptions& options = {}, uint32_t backlog = 8);
  void Connect(const transport::TcpSocketOptions& options = {});
  void Accept();
  // The handshake in one step: peer MSS 1000, window 64000 unscaled, no options but those given.
  void Establish(const std::string& syn_options = "<mss 1000>", uint32_t window = 64000);
  uint32_t Send(uint32_t bytes);
  std::string Read(uint32_t most = 65536);
  transport::SocketError ReadError();
  transport::SocketError Shutdown() { return tcp().Shutdown(socket, now_); }
  transport::SocketError Close() { return tcp().Close(socket, now_); }
  transport::SocketError Abort() { return tcp().Abort(socket, now_); }
  transport::TcpState state() const;

  transport::Tcp& tcp() { return host_->tcp(); }
  TransportHost& host() { return *host_; }
  uint64_t dropped(DropReason r) const { return host_->dropped(r); }

  // transport::TcpHandler: what happened.
  void OnConnected(transport::TcpSocket, Nanos) override { ++connected; }
  void OnReadable(transport::TcpSocket, Nanos) override { ++readable; }
  void OnWritable(transport::TcpSocket, Nanos) override { ++writable; }
  void OnError(transport::TcpSocket, transport::SocketError e, Nanos) override { error = e; }
  void OnAcceptable(transport::TcpListenerId, Nanos) override { ++acceptable; }

  transport::TcpSocket socket;
  transport::TcpListenerId listener;
  int connected = 0;
  int readable = 0;
  int writable = 0;
  int acceptable = 0;
  transport::SocketError error = transport::SocketError::kNone;
  uint16_t peer_port = 40000;

 private:
  std::string Format(const Bytes& packet);

  Options options_;
  std::unique_ptr<TransportHost> host_;
  std::deque<Bytes> sent_;
  std::deque<Nanos> sent_at_;
  Nanos now_ = Seconds(1000);
  std::optional<uint32_t> iss_;
  uint16_t iss_port_ = 0;  // the peer's, of the connection that iss_ belongs to
  std::optional<uint32_t> ts_base_;
  uint16_t local_port_ = 8080;
  uint32_t written_ = 0;
  bool corrupt_ = false;
};

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_TCP_SCRIPT_H_
