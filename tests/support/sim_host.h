// A host with one port: answers ARP and neighbour solicitations for its addresses, sends IP packets
// to neighbours or through its gateways (asking for their MAC address first), and records what it
// receives. It can be told to be deaf to solicitations, or to have another MAC address.
#ifndef SLUICE_TESTS_SUPPORT_SIM_HOST_H_
#define SLUICE_TESTS_SUPPORT_SIM_HOST_H_

#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/address.h"
#include "base/time.h"
#include "support/packet_builder.h"
#include "support/sim_node.h"

namespace sluice::test {

class SimHost final : public SimNode {
 public:
  struct Received {
    Nanos at;
    Mac from;
    Bytes packet;  // from its IP header on

    bool operator==(const Received&) const = default;
  };

  SimHost(std::string name, MacArg mac, const std::vector<std::string>& addresses,
          const std::vector<std::string>& gateways);

  // An IP packet, without Ethernet header.
  void Send(Bytes packet);
  void Send(const PacketBuilder& packet) { Send(packet.Build()); }
  // Bytes as they are.
  void SendFrame(Bytes frame) { SimNode::Send(0, std::move(frame)); }

  // How many of the next questions for its addresses stay without answer.
  void IgnoreSolicitations(uint32_t n) { ignore_ = n; }
  // From now on; `announce` tells the link by gratuitous ARP and an unsolicited advertisement.
  void ChangeMac(MacArg mac, bool announce);
  // Another address it answers for.
  void AddAddress(const std::string& address);

  const Mac& mac() const { return mac_; }
  // IP packets for its MAC address but for neighbour discovery; the clock's time of each.
  std::vector<Received> received;
  // Times at which it was asked for one of its addresses, answered or not.
  std::vector<Nanos> solicited;

  void Deliver(size_t port, Bytes frame) override;
  void Step(Nanos now) override;
  Nanos NextDeadline() const override;

 private:
  struct Waiting {
    std::deque<Bytes> packets;
    Nanos ask_again;
  };
  void Handle(const Bytes& frame);
  void HandleArp(const Bytes& frame);
  bool HandleNd(const Bytes& frame);
  void Learn(const IpAddress& address, const Mac& mac);
  void Ask(const IpAddress& address, Waiting& waiting);
  void SendTo(const Mac& mac, const Bytes& packet);
  bool Ignores();
  bool IsOwn(const IpAddress& address) const;
  IpAddress NextHop(const IpAddress& destination) const;

  Mac mac_;
  std::vector<Ipv4Prefix> own4_;  // the address, with its subnet's length
  std::vector<Ipv6Prefix> own6_;
  std::vector<IpAddress> gateways_;
  std::map<IpAddress, Mac> neighbors_;
  std::map<IpAddress, Waiting> waiting_;
  std::deque<Bytes> outgoing_;
  std::deque<Bytes> arrived_;
  uint32_t ignore_ = 0;
  Nanos now_;
};

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_SIM_HOST_H_
