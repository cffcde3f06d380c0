#include "support/service_rig.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "support/packet_builder.h"
#include "wire/protocol.h"
#include "wire/tcp.h"

namespace sluice::test {

namespace {

// Source and destination of a TCP or UDP packet.
std::pair<uint16_t, uint16_t> Ports(const std::vector<uint8_t>& packet) {
  const uint8_t* const l4 = packet.data() + (packet[0] >> 4 == 4 ? 20 : 40);
  return {LoadBe16(l4), LoadBe16(l4 + 2)};
}

}  // namespace

using transport::SocketError;
using transport::TcpSocket;

ServiceRig::ServiceRig(const Options& options) : link_(options.link) {
  const services::Randomness random{.seed = options.seed, .key = {}};
  set_ = std::make_unique<services::ServiceSet>(link_.host(1).stack(), options.limits, *this, random,
                                                link_.now());
  link_.AddClockwork([this] { return set_->NextDeadline(); },
                     [this](Nanos now) { set_->OnTimer(now); });
  // Nobody else lives on these hosts: what no socket there wants is refused.
  link_.on_unclaimed = [this](int at, const Bytes& packet) { Refuse(at, packet); };
  link_.filter = [this](int from, const Bytes& packet) {
    const auto ports = Ports(packet);
    return std::find(vanished_.begin(), vanished_.end(), from == 0 ? ports.first : ports.second) ==
           vanished_.end();
  };
}

// RFC 9293 section 3.10.7.1.
void ServiceRig::Refuse(int at, const Bytes& packet) {
  const bool v4 = packet[0] >> 4 == 4;
  const uint8_t* const tcp = packet.data() + (v4 ? 20 : 40);
  if (packet[v4 ? 9 : 6] != wire::kProtocolTcp || (tcp[13] & wire::kTcpRst) != 0) return;
  const uint8_t* const addresses = packet.data() + (v4 ? 12 : 8);
  PacketBuilder b;
  if (v4) {
    b.Ipv4(Ipv4::FromWire(addresses + 4), Ipv4::FromWire(addresses));
  } else {
    b.Ipv6(Ipv6::FromWire(addresses + 16), Ipv6::FromWire(addresses));
  }
  const auto [source, destination] = Ports(packet);
  const bool ack = (tcp[13] & wire::kTcpAck) != 0;
  b.Tcp(destination, source, ack ? wire::kTcpRst : wire::kTcpRst | wire::kTcpAck)
      .Sequence(ack ? LoadBe32(tcp + 8) : 0, ack ? 0 : LoadBe32(tcp + 4) + 1);
  link_.Inject(1 - at, b.Build());
}

void ServiceRig::Apply(std::vector<tables::ServiceConfig> services) {
  auto config = std::make_shared<tables::ServicesConfig>();
  config->services = std::move(services);
  EXPECT_TRUE(slots_.Assign(*config));
  set_->Apply(config, now());
}

const services::ServiceStats& ServiceRig::stats(std::string_view service) const {
  const auto& slots = slots_.services();
  for (uint32_t i = 0; i < slots.size(); ++i) {
    if (slots[i].service == service) return set_->counters().service(i);
  }
  ADD_FAILURE() << "no service " << service;
  return set_->counters().service(tables::kNoServiceSlot);
}

const services::BackendStats& ServiceRig::backend(std::string_view service, uint16_t port) const {
  const auto& slots = slots_.backends();
  for (uint32_t i = 0; i < slots.size(); ++i) {
    if (slots[i].service == service && slots[i].address.port == port) {
      return set_->counters().backend(i);
    }
  }
  ADD_FAILURE() << "no backend " << service << " " << port;
  return set_->counters().backend(tables::kNoServiceSlot);
}

const services::Service* ServiceRig::Find(std::string_view name) const {
  const services::Service* found = nullptr;
  set_->ForEachService([&](const services::Service& s) {
    if (found == nullptr && s.config().name == name) found = &s;
  });
  return found;
}

tables::ServiceAddress ServiceRig::Proxy(uint16_t port, bool v6) {
  return {*ParseIpAddress(v6 ? "2001:db8::2" : "10.0.0.2"), port};
}
tables::ServiceAddress ServiceRig::Backend(uint16_t port, bool v6) {
  return {*ParseIpAddress(v6 ? "2001:db8::1" : "10.0.0.1"), port};
}

std::string ServiceRig::Leftovers() {
  link_.Run(Seconds(130));  // TIME-WAIT, and a FIN-WAIT-2 before it
  std::string out;
  const auto add = [&out](std::string_view what, uint64_t n) {
    if (n != 0) out += std::string(what) + "=" + std::to_string(n) + " ";
  };
  const auto u = set_->usage();
  add("relays", u.relays);
  add("udp_sessions", u.udp_sessions);
  add("http_connections", u.http_connections);
  add("endpoint_connections", u.endpoint_connections);
  for (int i = 0; i < 2; ++i) {
    const transport::TcpUsage t = link_.host(i).tcp().usage();
    const std::string host = "host" + std::to_string(i) + ".";
    add(host + "connections", t.connections);
    add(host + "segments", t.segments);
    add(host + "send_pieces", t.send_pieces);
    add(host + "send_frames", t.send_frames);
    add(host + "receive_frames", t.receive_frames);
    add(host + "timers", t.timers);
    if (!link_.host(i).FramesBalance()) out += host + "frames ";
  }
  return out;
}

TextClient::TextClient(ServiceRig& rig, const tables::ServiceAddress& to, std::string text,
                       bool finish, const transport::TcpSocketOptions& options)
    : rig_(rig), to_send_(std::move(text)), finish_(finish) {
  EXPECT_EQ(rig.tcp().Connect({}, EndpointOf(to), options, this, rig.now(), socket),
            SocketError::kNone);
}

TextClient::~TextClient() {
  if (!closed) rig_.tcp().Abort(socket, rig_.now());
}

void TextClient::OnConnected(TcpSocket s, Nanos now) {
  connected = true;
  Push(s, now);
}

void TextClient::Push(TcpSocket s, Nanos now) {
  if (!connected) return;
  while (!to_send_.empty()) {
    const auto result = rig_.tcp().Send(s, BytesOf(to_send_), now);
    if (!result.ok()) return;
    to_send_.erase(0, result.bytes);
  }
  if (finish_) rig_.tcp().Shutdown(s, now);
}

void TextClient::OnReadable(TcpSocket s, Nanos now) {
  if (!reading) return;
  std::array<uint8_t, 4096> buffer;
  for (;;) {
    const auto result = rig_.tcp().Receive(s, buffer, now);
    if (!result.ok()) {
      if (result.error == SocketError::kEndOfData) ended = true;
      break;
    }
    got.append(reinterpret_cast<const char*>(buffer.data()), result.bytes);
  }
  if (ended && finish_ && to_send_.empty()) Close();
}

void TextClient::OnError(TcpSocket s, SocketError e, Nanos now) {
  OnReadable(s, now);
  error = e;
  Close();
}

void TextClient::Say(std::string_view text) {
  to_send_ += text;
  Push(socket, rig_.now());
}

void TextClient::Finish() {
  finish_ = true;
  Push(socket, rig_.now());
}

void TextClient::Close() {
  if (closed) return;
  closed = true;
  rig_.tcp().Close(socket, rig_.now());
}

void TextClient::Abort() {
  closed = true;
  rig_.tcp().Abort(socket, rig_.now());
}

NamedServer::NamedServer(ServiceRig& rig, const tables::ServiceAddress& at, std::string name)
    : rig_(rig), name_(std::move(name)) {
  EXPECT_EQ(rig.tcp().Listen(EndpointOf(at), {}, 1024, this, listener_), SocketError::kNone);
}

void NamedServer::Stop() {
  rig_.tcp().CloseListener(listener_, rig_.now());
}

void NamedServer::AbortAll() {
  for (const TcpSocket& s : open) rig_.tcp().Abort(s, rig_.now());
  open.clear();
}

void NamedServer::OnAcceptable(transport::TcpListenerId id, Nanos) {
  TcpSocket s;
  while (rig_.tcp().Accept(id, this, s) == SocketError::kNone) {
    ++accepted;
    open.push_back(s);
  }
}

void NamedServer::OnReadable(TcpSocket s, Nanos now) {
  std::array<uint8_t, 4096> buffer;
  for (;;) {
    const auto result = rig_.tcp().Receive(s, buffer, now);
    if (result.ok()) {
      received.append(reinterpret_cast<const char*>(buffer.data()), result.bytes);
      if (std::find(named_.begin(), named_.end(), s) == named_.end()) {
        named_.push_back(s);
        rig_.tcp().Send(s, BytesOf(name_ + ":"), now);
      }
      rig_.tcp().Send(s, std::span(buffer).first(result.bytes), now);
      continue;
    }
    if (result.error == SocketError::kEndOfData) {
      std::erase(open, s);
      rig_.tcp().Close(s, now);
    }
    return;
  }
}

void NamedServer::OnError(TcpSocket s, SocketError, Nanos now) {
  ++errors;
  std::erase(open, s);
  rig_.tcp().Close(s, now);
}

}  // namespace sluice::test
