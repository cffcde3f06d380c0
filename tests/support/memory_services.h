// Services on one end of a MemoryLink; the other end has the clients and the backends: an echo server
// over TCP on port 7, and over UDP on port 53.
#ifndef SLUICE_TESTS_SUPPORT_MEMORY_SERVICES_H_
#define SLUICE_TESTS_SUPPORT_MEMORY_SERVICES_H_

#include <array>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

#include "examples/echo_server.h"
#include "services/service_set.h"
#include "support/memory_link.h"

namespace sluice::test {

class MemoryServices : public services::PageSource {
 public:
  explicit MemoryServices(const transport::TransportConfig& config = {},
                          const services::ServiceLimits& limits = {})
      : link_(config),
        set_(link_.stack(1), limits, *this, {}, link_.now()),
        echo_(link_.tcp(0)),
        udp_echo_(link_.stack(0).udp()) {
    if (echo_.Listen({Ipv4(), 7}) != transport::SocketError::kNone) std::abort();
  }

  MemoryLink& link() { return link_; }
  services::ServiceSet& set() { return set_; }
  transport::Tcp& tcp() { return link_.tcp(0); }  // of clients
  transport::Udp& udp() { return link_.stack(0).udp(); }

  // A proxy of this kind on this port, to the echo server.
  void Proxy(tables::ServiceKind kind, uint16_t port, uint32_t replies = 0) {
    tables::ServiceConfig c;
    c.name = Name(kind);
    c.kind = kind;
    c.listen = {{link_.address(1), port}};
    const auto backend = static_cast<uint16_t>(kind == tables::ServiceKind::kUdpProxy ? 53 : 7);
    c.backends = {{{link_.address(0), backend}}};
    c.replies = replies;
    config_.services.push_back(c);
    slots_.Assign(config_);
    set_.Apply(std::make_shared<const tables::ServicesConfig>(config_), link_.now());
  }

  void Settle() {
    link_.Settle();
    if (set_.NextDeadline() <= link_.now()) set_.OnTimer(link_.now());
  }
  void Wait(Nanos time) {
    link_.Wait(time);
    Settle();
  }

  bool Request(uint64_t token) override {
    token_ = token;
    return true;
  }
  uint64_t token() const { return token_; }

 private:
  class UdpEcho : public transport::UdpHandler {
   public:
    explicit UdpEcho(transport::Udp& udp) : udp_(udp) {
      transport::UdpSocket s;
      if (udp.Bind({Ipv4(), 53}, this, s) != transport::SocketError::kNone) std::abort();
    }
    void OnReadable(transport::UdpSocket s, Nanos now) override {
      std::array<uint8_t, 2048> buffer;
      transport::Endpoint from;
      for (;;) {
        const auto r = udp_.Receive(s, buffer, from);
        if (!r.ok()) return;
        udp_.SendTo(s, from, std::span(buffer).first(r.bytes), now);
      }
    }

   private:
    transport::Udp& udp_;
  };

  uint64_t token_ = 0;
  MemoryLink link_;
  services::ServiceSet set_;
  examples::EchoServer echo_;
  UdpEcho udp_echo_;
  tables::ServiceSlots slots_;
  tables::ServicesConfig config_;
};

// Counts what comes.
class UdpCounter : public transport::UdpHandler {
 public:
  explicit UdpCounter(transport::Udp& udp) : udp_(udp) {}
  void OnReadable(transport::UdpSocket s, Nanos) override {
    std::array<uint8_t, 2048> buffer;
    transport::Endpoint from;
    while (udp_.Receive(s, buffer, from).ok()) ++received;
  }
  int received = 0;

 private:
  transport::Udp& udp_;
};

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_MEMORY_SERVICES_H_
