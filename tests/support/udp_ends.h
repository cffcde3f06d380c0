// Clients and servers over UDP on host 0 of a ServiceRig.
#ifndef SLUICE_TESTS_SUPPORT_UDP_ENDS_H_
#define SLUICE_TESTS_SUPPORT_UDP_ENDS_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "support/service_rig.h"

namespace sluice::test {

struct UdpClient : transport::UdpHandler {
  explicit UdpClient(ServiceRig& r, uint16_t port = 0, bool v6 = false) : rig(r) {
    const IpAddress any = v6 ? IpAddress(Ipv6()) : IpAddress(Ipv4());
    EXPECT_EQ(rig.udp().Bind({any, port}, this, socket), transport::SocketError::kNone);
  }
  ~UdpClient() override { rig.udp().Close(socket); }
  void Say(uint16_t port, const std::string& text) { SayTo(ServiceRig::Proxy(port), text); }
  void SayTo(const tables::ServiceAddress& to, const std::string& text) {
    EXPECT_TRUE(rig.udp().SendTo(socket, EndpointOf(to), BytesOf(text), rig.now()).ok());
  }
  void OnReadable(transport::UdpSocket s, Nanos) override {
    uint8_t buffer[2000];
    for (;;) {
      const auto r = rig.udp().Receive(s, buffer, from);
      if (!r.ok()) return;
      got.emplace_back(buffer, buffer + r.bytes);
    }
  }
  ServiceRig& rig;
  transport::UdpSocket socket;
  transport::Endpoint from;  // the last one's sender
  std::vector<std::string> got;
};

// Answers `answers` times with its name and what it was asked.
struct UdpServer : transport::UdpHandler {
  UdpServer(ServiceRig& r, const tables::ServiceAddress& at, std::string n)
      : rig(r), name(std::move(n)) {
    EXPECT_EQ(rig.udp().Bind(EndpointOf(at), this, socket), transport::SocketError::kNone);
  }
  ~UdpServer() override { rig.udp().Close(socket); }
  void OnReadable(transport::UdpSocket s, Nanos now) override {
    uint8_t buffer[2000];
    for (;;) {
      const auto r = rig.udp().Receive(s, buffer, last);
      if (!r.ok()) return;
      ++asked;
      const std::string answer = name + ":" + std::string(buffer, buffer + r.bytes);
      for (int i = 0; i < answers; ++i) rig.udp().SendTo(s, last, BytesOf(answer), now);
    }
  }
  ServiceRig& rig;
  const std::string name;
  transport::UdpSocket socket;
  transport::Endpoint last;
  int asked = 0;
  int answers = 1;
};

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_UDP_ENDS_H_
