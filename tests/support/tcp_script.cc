#include "support/tcp_script.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <sstream>

#include "base/byte_order.h"
#include "support/packet_builder.h"

namespace sluice::test {

namespace {

constexpr char kFlagLetters[] = "FSRP.UEW";

uint32_t Number(const std::string& text) {
  return static_cast<uint32_t>(std::strtoll(text.c_str(), nullptr, 10));
}

void Put32(Bytes& out, uint32_t v) {
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<uint8_t>(v >> shift));
}

}  // namespace

TcpScript::TcpScript(const Options& options) : options_(options) {
  TransportHost::Options host;
  host.address = *ParseIpAddress("10.0.0.1");
  host.address6 = *ParseIpAddress("2001:db8::1");
  host.mtu = options.mtu;
  host.config = options.config;
  host.config.start = now_;
  host_ = std::make_unique<TransportHost>(host);
  host_->on_output = [this](Bytes bytes, Nanos now) {
    sent_.push_back(std::move(bytes));
    sent_at_.push_back(now);
  };
}

TcpScript::~TcpScript() { EXPECT_TRUE(host_->FramesBalance()); }

void TcpScript::In(const std::string& segment) {
  std::istringstream words(segment);
  std::string word;
  words >> word;
  uint8_t ecn = 0;
  if (word == "[ce]") {
    ecn = 3;
    words >> word;
  }
  uint8_t flags = 0;
  for (const char c : word) {
    const char* at = std::find(std::begin(kFlagLetters), std::end(kFlagLetters), c);
    ASSERT_NE(at, std::end(kFlagLetters)) << segment;
    flags |= static_cast<uint8_t>(1 << (at - kFlagLetters));
  }
  words >> word;  // 1:101(100)
  const uint32_t seq = Number(word);
  const uint32_t length = Number(word.substr(word.find('(') + 1));
  uint32_t ack = 0;
  uint32_t window = 64000;
  Bytes options;
  while (words >> word) {
    if (word == "ack") {
      words >> word;
      ack = Number(word) + iss_.value_or(0);
    } else if (word == "win") {
      words >> word;
      window = Number(word);
    } else if (word[0] == '<') {
      std::string text = word.substr(1);
      std::getline(words, word);
      text += word;
      text.pop_back();  // >
      std::istringstream list(text);
      for (std::string option; std::getline(list, option, ',');) {
        std::istringstream parts(option);
        std::string name;
        parts >> name;
        if (name == "mss") {
          parts >> word;
          options.insert(options.end(), {2, 4, static_cast<uint8_t>(Number(word) >> 8),
                                         static_cast<uint8_t>(Number(word))});
        } else if (name == "wscale") {
          parts >> word;
          options.insert(options.end(), {3, 3, static_cast<uint8_t>(Number(word))});
        } else if (name == "sackOK") {
          options.insert(options.end(), {4, 2});
        } else if (name == "nop") {
          options.push_back(1);
        } else if (name == "TS") {
          std::string val, ecr;
          parts >> word >> val >> word >> ecr;
          options.insert(options.end(), {8, 10});
          Put32(options, Number(val));
          Put32(options, ecr == "0" && !ts_base_ ? 0 : Number(ecr) + ts_base_.value_or(0));
        } else if (name == "sack") {
          const size_t at = options.size();
          options.insert(options.end(), {5, 2});
          while (parts >> word) {
            Put32(options, Number(word) + iss_.value_or(0));
            Put32(options, Number(word.substr(word.find(':') + 1)) + iss_.value_or(0));
            options[at + 1] = static_cast<uint8_t>(options[at + 1] + 8);
          }
        } else {
          FAIL() << option;
        }
      }
    }
  }
  PacketBuilder b;
  if (options_.v6) {
    b.Ipv6("2001:db8::2", "2001:db8::1");
  } else {
    b.Ipv4("10.0.0.2", "10.0.0.1");
  }
  b.Tos(ecn).Tcp(peer_port, local_port_, flags)
      .Sequence(options_.peer_iss + seq, ack)
      .Window(static_cast<uint16_t>(window));
  if (!options.empty()) b.Options(options);
  if (corrupt_) b.BadChecksum();
  corrupt_ = false;
  Bytes payload(length);
  for (uint32_t i = 0; i < length; ++i) payload[i] = static_cast<uint8_t>('a' + (seq + i) % 26);
  if (length > 0) b.Payload(payload);
  host_->Deliver(b.Build(), now_);
}

std::string TcpScript::Format(const Bytes& packet) {
  const bool v6 = packet[0] >> 4 == 6;
  const size_t ip = v6 ? 40 : 20;
  const uint8_t* p = packet.data() + ip;
  const uint8_t ecn = v6 ? packet[1] >> 4 & 3 : packet[1] & 3;
  const size_t header = (p[12] >> 4) * size_t{4};
  const size_t length = packet.size() - ip - header;
  std::ostringstream out;
  if (ecn == 2) out << "[ect0] ";
  for (int bit : {1, 0, 2, 3, 4, 5, 6, 7}) {
    if (p[13] >> bit & 1) out << kFlagLetters[bit];
  }
  if ((p[13] & 2) != 0 && (!iss_ || iss_port_ != LoadBe16(p + 2))) {
    iss_ = LoadBe32(p + 4);
    iss_port_ = LoadBe16(p + 2);
  }
  const auto seq = static_cast<int32_t>(LoadBe32(p + 4) - iss_.value_or(0));
  out << " " << seq << ":" << seq + static_cast<int32_t>(length) << "(" << length << ")";
  if (p[13] & 16) {
    out << " ack " << static_cast<int32_t>(LoadBe32(p + 8) - options_.peer_iss);
  }
  out << " win " << LoadBe16(p + 14);
  if (header > 20) out << " <";
  for (size_t at = 20; at < header;) {
    if (at > 20) out << ",";
    const uint8_t kind = p[at];
    if (kind == 1) {
      out << "nop";
      ++at;
      continue;
    }
    switch (kind) {
      case 2: out << "mss " << LoadBe16(p + at + 2); break;
      case 3: out << "wscale " << int{p[at + 2]}; break;
      case 4: out << "sackOK"; break;
      case 8: {
        const uint32_t val = LoadBe32(p + at + 2);
        if (!ts_base_) ts_base_ = val;
        out << "TS val " << val - *ts_base_ << " ecr " << LoadBe32(p + at + 6);
        break;
      }
      case 5:
        out << "sack";
        for (size_t i = 2; i < p[at + 1]; i += 8) {
          out << " " << LoadBe32(p + at + i) - options_.peer_iss << ":"
              << LoadBe32(p + at + i + 4) - options_.peer_iss;
        }
        break;
      default: out << "?" << int{kind};
    }
    at += p[at + 1];
  }
  if (header > 20) out << ">";
  return out.str();
}

std::string TcpScript::Next() {
  if (sent_.empty()) return "";
  const Bytes packet = sent_.front();
  sent_.pop_front();
  // Checksums are looked at by somebody who does not share the stack's code.
  const bool v6 = packet[0] >> 4 == 6;
  const size_t ip = v6 ? 40 : 20;
  Bytes l4(packet.begin() + static_cast<long>(ip), packet.end());
  Bytes summed = v6 ? PseudoHeader(Ipv6::FromWire(&packet[8]), Ipv6::FromWire(&packet[24]), 6,
                                   l4.size())
                    : PseudoHeader(Ipv4::FromWire(&packet[12]), Ipv4::FromWire(&packet[16]), 6,
                                   l4.size());
  summed.insert(summed.end(), l4.begin(), l4.end());
  EXPECT_EQ(NaiveSum(summed), 0xffff);
  if (!v6) { EXPECT_EQ(NaiveSum(std::span(packet).first(20)), 0xffff); }
  return Format(packet);
}

void TcpScript::Out(const std::string& expected) {
  std::string got = Next();
  const size_t options = got.find(" <");
  if (expected.find('<') == std::string::npos && options != std::string::npos) {
    got.erase(options);
  }
  const size_t window = got.find(" win ");
  if (expected.find(" win ") == std::string::npos && window != std::string::npos) {
    const size_t end = got.find(' ', window + 5);
    got.erase(window, end == std::string::npos ? end : end - window);
  }
  EXPECT_EQ(got, expected);
}

void TcpScript::Nothing() {
  while (!sent_.empty()) ADD_FAILURE() << "sent: " << Next();
}

void TcpScript::Icmp(uint8_t type, uint8_t code, uint32_t rest, uint32_t sequence) {
  PacketBuilder quoted;
  if (options_.v6) {
    quoted.Ipv6("2001:db8::1", "2001:db8::2");
  } else {
    quoted.Ipv4("10.0.0.1", "10.0.0.2");
  }
  quoted.Tcp(local_port_, peer_port).Sequence(iss_.value_or(0) + sequence).Payload(8);
  PacketBuilder b;
  if (options_.v6) {
    b.Ipv6("2001:db8::9", "2001:db8::1").Icmpv6(type, code, rest);
  } else {
    b.Ipv4("10.0.0.9", "10.0.0.1").Icmp(type, code, rest);
  }
  host_->Deliver(b.Payload(quoted.Build()).Build(), now_);
}

void TcpScript::Wait(Nanos time) {
  const Nanos end = now_ + time;
  for (;;) {
    const Nanos next = host_->stack().NextDeadline();
    if (next > end) break;
    now_ = std::max(now_, next);
    host_->stack().OnTimer(now_);
  }
  now_ = end;
}

void TcpScript::Listen(const transport::TcpSocketOptions& options, uint32_t backlog) {
  local_port_ = 8080;
  const IpAddress any = options_.v6 ? IpAddress(Ipv6()) : IpAddress(Ipv4());
  ASSERT_EQ(tcp().Listen({any, local_port_}, options, backlog, this, listener),
            transport::SocketError::kNone);
}

void TcpScript::Connect(const transport::TcpSocketOptions& options) {
  peer_port = 80;
  const IpAddress peer = *ParseIpAddress(options_.v6 ? "2001:db8::2" : "10.0.0.2");
  ASSERT_EQ(tcp().Connect({}, {peer, peer_port}, options, this, now_, socket),
            transport::SocketError::kNone);
  const transport::Tcb* const t = tcp().Find(socket);
  local_port_ = t->tuple.local.port;
}

void TcpScript::Accept() {
  ASSERT_EQ(tcp().Accept(listener, this, socket), transport::SocketError::kNone);
}

void TcpScript::Establish(const std::string& syn_options, uint32_t window) {
  if (!listener.valid()) Listen();
  In("S 0:0(0) win " + std::to_string(window) + " " + syn_options);
  EXPECT_EQ(Next().substr(0, 2), "S.");
  const size_t ts = syn_options.find("TS val ");
  In(". 1:1(0) ack 1 win " + std::to_string(window) +
     (ts == std::string::npos
          ? std::string()
          : " <nop,nop,TS val " +
                std::to_string(std::strtol(&syn_options[ts + 7], nullptr, 10) + 1) + " ecr 0>"));
  Accept();
}

uint32_t TcpScript::Send(uint32_t bytes) {
  Bytes data(bytes);
  for (uint32_t i = 0; i < bytes; ++i) data[i] = static_cast<uint8_t>('a' + (written_ + i) % 26);
  const transport::IoResult result = tcp().Send(socket, data, now_);
  written_ += result.bytes;
  return result.bytes;
}

std::string TcpScript::Read(uint32_t most) {
  std::string out(most, '\0');
  const transport::IoResult result =
      tcp().Receive(socket, {reinterpret_cast<uint8_t*>(out.data()), most}, now_);
  out.resize(result.bytes);
  return out;
}

transport::SocketError TcpScript::ReadError() {
  uint8_t byte;
  return tcp().Receive(socket, {&byte, 1}, now_).error;
}

transport::TcpState TcpScript::state() const {
  const transport::Tcb* const t = host_->tcp().Find(socket);
  return t == nullptr ? transport::TcpState::kClosed : t->state;
}

}  // namespace sluice::test
