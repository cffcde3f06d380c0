// A host of a simulated network with sockets: a SimHost, whose IP packets are those of the shipped
// transport stack.
#ifndef SLUICE_TESTS_SUPPORT_SOCKET_HOST_H_
#define SLUICE_TESTS_SUPPORT_SOCKET_HOST_H_

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "support/sim_host.h"
#include "support/transport_host.h"

namespace sluice::test {

class SocketHost final : public SimNode {
 public:
  // `v4` and `v6` with their prefix lengths; the gateways bare.
  SocketHost(std::string name, MacArg mac, const std::string& v4, const std::string& v6,
             const std::string& gateway4, const std::string& gateway6, Nanos start)
      : SimNode(name), link_(name, mac, {v4, v6}, {gateway4, gateway6}) {
    TransportHost::Options options;
    options.address = *ParseIpv4(v4.substr(0, v4.find('/')));
    options.address6 = *ParseIpv6(v6.substr(0, v6.find('/')));
    options.config.start = start;
    sockets_ = std::make_unique<TransportHost>(options);
    sockets_->on_output = [this](Bytes packet, Nanos) { link_.Send(std::move(packet)); };
    link_.set_transmit([this](size_t port, Bytes frame) { Send(port, std::move(frame)); });
  }

  TransportHost& sockets() { return *sockets_; }
  // Raw packets of the test's go out beside those of the sockets.
  SimHost& link() { return link_; }
  // All that has come and was no socket's.
  std::vector<Bytes> unclaimed;

  void Deliver(size_t port, Bytes frame) override { link_.Deliver(port, std::move(frame)); }
  void Step(Nanos now) override {
    link_.Step(now);
    for (const SimHost::Received& r : link_.received) {
      if (!sockets_->Deliver(r.packet, now)) unclaimed.push_back(r.packet);
    }
    link_.received.clear();
    if (sockets_->stack().NextDeadline() <= now) sockets_->stack().OnTimer(now);
    link_.Step(now);
  }
  Nanos NextDeadline() const override {
    return std::min(link_.NextDeadline(), sockets_->stack().NextDeadline());
  }
  std::string CheckInvariants() const override {
    return sockets_->FramesBalance() ? "" : name() + ": frames do not balance";
  }

 private:
  SimHost link_;
  std::unique_ptr<TransportHost> sockets_;
};

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_SOCKET_HOST_H_
