// A live TCP connection (or a listener with several) under arbitrary segments, times and calls of its
// program: the input is a list of events, each a byte that says what happens and bytes that say how.
//
//   first byte   bit 0: IPv6; bit 1: connect instead of listen; bit 2: no SACK; bit 3: no timestamps;
//                bit 4: few frames and segments; bit 5: ECN; bit 6: a backlog of one; bit 7: pacing
//   event & 15   0-6  a segment       FLAGS SEQUENCE ACK WINDOW LENGTH OPTIONS, near what is expected
//                7    the expected segment   LENGTH: acknowledges everything
//                8    time passes     units of 1 ms
//                9    time passes     units of 5 s
//                10   the program sends      units of 100 bytes (bit 7: SendMore)
//                11   it reads               units of 100 bytes; 0: by packets
//                12   it accepts, shuts down, closes or aborts
//                13   it changes options
//                14   an ICMP error   KIND MTU SEQUENCE
//                15   a burst begins or ends
//   event >> 4   the peer's port
//
// Invariants after each event: sequence numbers are in order, the scoreboard covers what is in flight and
// nothing else, the window that was offered is not taken back, no frame is lost. In the end, everything is
// let go by time alone, or by Abort.
#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "base/byte_order.h"
#include "support/fuzz_input.h"
#include "support/packet_builder.h"
#include "support/transport_host.h"

namespace sluice::test {
namespace {

using transport::Tcb;
using transport::TcpSocket;
using transport::TcpState;

constexpr uint16_t kPort = 80;
constexpr uint32_t kPeerIss = 0xffff'fc00;  // wraps soon

class Machine : public transport::TcpHandler {
 public:
  explicit Machine(FuzzInput input) : input_(input), how_(input_.Byte()) {
    TransportHost::Options o;
    o.address = *ParseIpAddress("10.0.0.1");
    o.address6 = *ParseIpAddress("2001:db8::1");
    o.frames = Few() ? 24 : 256;
    transport::TcpConfig& tcp = o.config.tcp;
    tcp.limits = {.connections = 8, .listeners = 2, .time_wait = 4, .orphans = 3,
                  .segments = Few() ? 16u : 256u, .send_buffers = Few() ? 8u : 64u,
                  .send_frames = Few() ? 8u : 64u, .receive_frames = Few() ? 12u : 128u,
                  .out_of_order_ranges = Few() ? 4u : 64u, .ranges_per_connection = Few() ? 3u : 16u,
                  .challenge_acks_per_second = 10};
    tcp.sack = (how_ & 4) == 0;
    tcp.timestamps = (how_ & 8) == 0;
    tcp.ecn = (how_ & 32) != 0 ? transport::EcnMode::kActive : transport::EcnMode::kPassive;
    tcp.receive_buffer_initial = 16 * 1024;
    tcp.receive_buffer_max = 128 * 1024;
    options_.pacing = (how_ & 128) != 0;
    o.config.start = now_;
    host_ = std::make_unique<TransportHost>(o);
    host_->on_output = [this](Bytes packet, Nanos when) { Sent(packet, when); };
    if ((how_ & 2) != 0) {
      host_->tcp().Connect({local().address, kPort}, {remote(), 5000}, options_, this, now_, socket_);
    } else {
      host_->tcp().Listen({local().address, kPort}, options_, (how_ & 64) != 0 ? 1 : 4, this,
                          listener_);
    }
  }

  void Run() {
    for (int events = 0; events < 300 && !input_.empty(); ++events) {
      Event(input_.Byte());
      Check();
    }
    host_->stack().EndBurst(now_);
    if (socket_.valid()) host_->tcp().Abort(socket_, now_);
    if (listener_.valid()) host_->tcp().CloseListener(listener_, now_);
    // What programs have left behind ends by its timers.
    for (int i = 0; i < 100'000 && host_->tcp().usage().connections > 0; ++i) {
      now_ = std::max(now_ + Millis(1), std::min(host_->stack().NextDeadline(), now_ + Seconds(600)));
      host_->stack().OnTimer(now_);
      Check();
    }
    const transport::TcpUsage usage = host_->tcp().usage();
    Require(usage.connections == 0, "a connection outlived all timeouts");
    Require(usage.segments + usage.send_pieces + usage.send_frames + usage.receive_frames +
                usage.ranges + usage.orphans + usage.time_wait == 0, "something was not let go");
  }

  void OnAcceptable(transport::TcpListenerId, Nanos) override { ++acceptable_; }

 private:
  bool Few() const { return (how_ & 16) != 0; }
  transport::Endpoint local() const {
    return {*ParseIpAddress((how_ & 1) != 0 ? "2001:db8::1" : "10.0.0.1"), kPort};
  }
  IpAddress remote() const {
    return *ParseIpAddress((how_ & 1) != 0 ? "2001:db8::2" : "10.0.0.2");
  }

  void Sent(const Bytes& packet, Nanos when) {
    Require(when == now_, "a packet is sent at another time");
    const size_t ip = (how_ & 1) != 0 ? 40 : 20;
    Require(packet.size() >= ip + 20, "a packet without a header");
    Bytes l4(packet.begin() + static_cast<long>(ip), packet.end());
    Bytes sum = (how_ & 1) != 0
                    ? PseudoHeader(Ipv6::FromWire(&packet[8]), Ipv6::FromWire(&packet[24]), 6, l4.size())
                    : PseudoHeader(Ipv4::FromWire(&packet[12]), Ipv4::FromWire(&packet[16]), 6, l4.size());
    sum.insert(sum.end(), l4.begin(), l4.end());
    Require(NaiveSum(sum) == 0xffff, "a checksum is wrong");
    Require(packet.size() <= 1500, "a packet is too large");
    if ((l4[13] & 2) != 0) iss_[LoadBe16(&l4[2])] = LoadBe32(&l4[4]);
  }

  const Tcb* Find(uint16_t port) const {
    const Tcb* found = nullptr;
    host_->tcp().ForEachConnection([&](const Tcb& t) {
      if (t.tuple.remote.port == port && t.state != TcpState::kClosed) found = &t;
    });
    return found;
  }

  // Small steps around what is right, and far jumps.
  static uint32_t Near(uint32_t base, uint8_t step) {
    if (step < 64) return base + step * 100u;
    if (step < 128) return base - (step - 64u) * 50;
    if (step < 192) return base + (step - 128u);
    return base + (step - 191u) * 0x0400'0000;
  }

  void Segment(uint16_t port, bool expected) {
    const Tcb* const t = Find(port);
    const uint32_t next = t != nullptr && t->irs != wire::TcpSeq() ? t->rcv_nxt.value() : kPeerIss;
    const uint32_t known = t != nullptr ? t->snd_nxt.value() : iss_[port] + 1;
    uint8_t flags = 16, seq = 0, ack = 0, window = 255, options = 0;
    size_t length = 0;
    if (expected) {
      length = input_.Byte() * size_t{6};
      if (t != nullptr && t->state == TcpState::kSynSent) flags = 18;
    } else {
      flags = input_.Byte();
      seq = input_.Byte();
      ack = input_.Byte();
      window = input_.Byte();
      length = input_.Byte() * size_t{6};
      options = input_.Byte();
    }
    PacketBuilder b;
    if ((how_ & 1) != 0) {
      b.Ipv6("2001:db8::2", "2001:db8::1");
    } else {
      b.Ipv4("10.0.0.2", "10.0.0.1");
    }
    b.Tos(options >> 6);
    b.Tcp(port, kPort, flags).Sequence(Near(next, seq), Near(known, ack)).Window(
        static_cast<uint16_t>(window << 8 | window));
    const Bytes list = OptionBytes(options, flags, t, Near(next, seq), known);
    if (!list.empty()) b.Options(list);
    if (length > 0) b.Payload(length);
    const Bytes packet = b.Build();
    if (packet.size() <= 1700) host_->Deliver(packet, now_);
  }

  Bytes OptionBytes(uint8_t which, uint8_t flags, const Tcb* t, uint32_t, uint32_t known) {
    Bytes out;
    const auto put = [&](uint32_t v) {
      for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<uint8_t>(v >> shift));
    };
    if ((flags & 2) != 0) {
      out = {2, 4, static_cast<uint8_t>(which & 7), 0xb4, 4, 2, 3, 3, static_cast<uint8_t>(which & 15), 1};
    }
    if ((which & 1) != 0 || (t != nullptr && t->ts_enabled && (which & 2) == 0)) {
      out.insert(out.end(), {1, 1, 8, 10});
      const auto ms = static_cast<uint32_t>(now_ / Millis(1));
      put(ms - (which & 4) * 1000u);
      put(t != nullptr ? ms + t->ts_offset : 0);
    }
    if ((which & 8) != 0 && (flags & 2) == 0) {
      const uint8_t from = input_.Byte();
      out.insert(out.end(), {1, 1, 5, 18});
      for (int i = 0; i < 2; ++i) {
        const uint32_t left = known - (from >> 4) * 500u - static_cast<uint32_t>(i) * 3000;
        put(left);
        put(left + (from & 15) * 300u);
      }
    }
    out.resize(std::min<size_t>(out.size(), 40));
    return out;
  }

  void Icmp() {
    const uint8_t kind = input_.Byte();
    const uint32_t mtu = input_.Byte() * 8u;
    const uint16_t port = 5000;
    const Tcb* const t = Find(port);
    const uint32_t seq = (t != nullptr ? t->snd_una.value() : 0) + input_.Byte() * 100u;
    transport::TcpIcmpError e;
    e.tuple = {local(), {remote(), port}};
    e.sequence = wire::TcpSeq(seq);
    e.kind = static_cast<transport::TcpIcmpError::Kind>(kind % 3);
    e.mtu = mtu;
    host_->tcp().OnIcmpError(e, now_);
  }

  void Call(uint8_t what) {
    transport::Tcp& tcp = host_->tcp();
    switch (what % 6) {
      case 0:
      case 1:
        if (listener_.valid() && !tcp.Find(socket_)) tcp.Accept(listener_, this, socket_);
        return;
      case 2: tcp.Shutdown(socket_, now_); return;
      case 3: tcp.Close(socket_, now_); return;
      case 4: tcp.Abort(socket_, now_); return;
      case 5:
        if (!tcp.Find(socket_)) {
          tcp.Connect({local().address, kPort}, {remote(), 5000}, options_, this, now_, socket_);
        }
        return;
    }
  }

  void Event(uint8_t event) {
    transport::Tcp& tcp = host_->tcp();
    const auto port = static_cast<uint16_t>(5000 + (event >> 4));
    const uint8_t kind = event & 15;
    switch (kind) {
      case 7: Segment(port, true); return;
      case 8:
      case 9: {
        host_->stack().EndBurst(now_);
        now_ += (kind == 8 ? Millis(1) : Seconds(5)) * input_.Byte() + Micros(100);
        host_->stack().OnTimer(now_);
        return;
      }
      case 10: {
        const uint8_t n = input_.Byte();
        const std::vector<uint8_t> data(100u * (n & 127));
        (n & 128) != 0 ? tcp.SendMore(socket_, data, now_) : tcp.Send(socket_, data, now_);
        if (records_) tcp.EndRecord(socket_);
        return;
      }
      case 11: {
        std::vector<uint8_t> out(100u * input_.Byte());
        transport::ReceivedData data;
        if (!out.empty()) {
          tcp.Receive(socket_, out, now_);
        } else if (tcp.ReceivePacket(socket_, data, now_) == transport::SocketError::kNone) {
          Require(data.length > 0, "an empty packet is handed out");
          if (!tcp.SendReceived(socket_, data, now_).ok()) tcp.Release(data);
        }
        return;
      }
      case 12: Call(input_.Byte()); return;
      case 13: {
        const uint8_t o = input_.Byte();
        options_.no_delay = (o & 1) != 0;
        options_.cork = (o & 2) != 0;
        options_.keepalive = (o & 4) != 0;
        options_.pacing = (o & 8) != 0;
        options_.user_timeout = (o & 16) != 0 ? Seconds(3) : Nanos();
        options_.max_segment = (o & 32) != 0 ? 600 : 0;
        options_.not_sent_low_water = (o & 64) != 0 ? 2000 : 0;
        records_ = (o & 128) != 0;
        tcp.SetOptions(socket_, options_, now_);
        return;
      }
      case 14: Icmp(); return;
      case 15:
        burst_ = !burst_;
        if (burst_) {
          host_->stack().BeginBurst();
        } else {
          host_->stack().EndBurst(now_);
        }
        return;
      default: Segment(port, false); return;
    }
  }

  void Check() {
    uint32_t segments = 0;
    uint32_t connections = 0;
    host_->tcp().ForEachConnection([&](const Tcb& t) {
      ++connections;
      segments += t.scoreboard.count();
      if (t.state == TcpState::kClosed) return;
      Require(t.snd_una.AtOrBefore(t.snd_nxt), "SND.UNA is behind SND.NXT");
      Require(t.state == TcpState::kTimeWait || t.snd_nxt.AtOrBefore(t.write_end() + 1),
              "SND.NXT is beyond what was written");
      Require(t.scoreboard.Pipe() <= 2 * t.Flight(), "more in the pipe than was sent");
      Require(t.scoreboard.lost_bytes() <= t.Flight(), "more is lost than in flight");
      Require(t.scoreboard.sacked_bytes() <= t.Flight(), "more is SACKed than in flight");
      Require(t.scoreboard.empty() == t.EverythingAcked() || t.state == TcpState::kTimeWait,
              "the scoreboard is not what is in flight");
      Require(!t.was_established || t.congestion.cwnd() > 0, "no window");
      Require(t.mss > 0, "no segment size");
      const std::pair<const Tcb*, uint32_t> id(&t, t.generation);
      if (t.state != TcpState::kSynSent && edges_.contains(id)) {
        Require(t.rcv_adv.AtOrAfter(wire::TcpSeq(edges_[id])), "the offered window shrank");
      }
      if (t.state != TcpState::kSynSent) edges_[id] = t.rcv_adv.value();
      Require(t.dsack.left == t.dsack.right || t.sack_enabled, "D-SACK without SACK");
    });
    const transport::TcpUsage usage = host_->tcp().usage();
    Require(usage.segments == segments, "a segment belongs to nobody");
    Require(usage.connections == connections, "a connection is not seen");
    Require(host_->FramesBalance(), "a frame was lost");
  }

  FuzzInput input_;
  const uint8_t how_;
  std::unique_ptr<TransportHost> host_;
  transport::TcpSocketOptions options_;
  TcpSocket socket_;
  transport::TcpListenerId listener_;
  std::map<uint16_t, uint32_t> iss_;
  std::map<std::pair<const Tcb*, uint32_t>, uint32_t> edges_;  // what was offered
  int acceptable_ = 0;
  bool burst_ = false;
  bool records_ = false;
  Nanos now_ = Seconds(1000);
};

}  // namespace
}  // namespace sluice::test

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  sluice::test::Machine(sluice::test::FuzzInput({data, size})).Run();
  return 0;
}
