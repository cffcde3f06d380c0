#include "support/sim_host.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

namespace sluice::test {
namespace {

constexpr size_t kEthernet = 14;
constexpr uint16_t kTypeIpv4 = 0x0800;
constexpr uint16_t kTypeArp = 0x0806;
constexpr uint16_t kTypeIpv6 = 0x86dd;
constexpr Nanos kAskAgain = Seconds(1);

Mac MulticastMac(const Ipv6& group) {
  Mac mac{{0x33, 0x33}};
  StoreBe32(mac.bytes.data() + 2, static_cast<uint32_t>(group.lo));
  return mac;
}

}  // namespace

SimHost::SimHost(std::string name, MacArg mac, const std::vector<std::string>& addresses,
                 const std::vector<std::string>& gateways)
    : SimNode(std::move(name)), mac_(mac.value) {
  for (const std::string& address : addresses) AddAddress(address);
  for (const std::string& gateway : gateways) {
    const auto parsed = ParseIpAddress(gateway);
    if (!parsed) std::abort();
    gateways_.push_back(*parsed);
  }
}

void SimHost::AddAddress(const std::string& address) {
  const std::string bare = address.substr(0, address.find('/'));
  if (const auto p4 = ParseIpv4Prefix(address)) {
    own4_.push_back({*ParseIpv4(bare), p4->length});
  } else if (const auto p6 = ParseIpv6Prefix(address)) {
    own6_.push_back({*ParseIpv6(bare), p6->length});
  } else {
    std::abort();
  }
}

bool SimHost::IsOwn(const IpAddress& address) const {
  if (address.is_v4()) {
    return std::any_of(own4_.begin(), own4_.end(),
                       [&](const Ipv4Prefix& p) { return p.address == address.v4(); });
  }
  return std::any_of(own6_.begin(), own6_.end(),
                     [&](const Ipv6Prefix& p) { return p.address == address.v6(); });
}

IpAddress SimHost::NextHop(const IpAddress& destination) const {
  const bool on_link =
      destination.is_v4()
          ? std::any_of(own4_.begin(), own4_.end(),
                        [&](const Ipv4Prefix& p) { return p.Contains(destination.v4()); })
          : std::any_of(own6_.begin(), own6_.end(),
                        [&](const Ipv6Prefix& p) { return p.Contains(destination.v6()); });
  if (on_link) return destination;
  for (const IpAddress& gateway : gateways_) {
    if (gateway.family == destination.family) return gateway;
  }
  std::abort();  // the test has forgotten a gateway
}

void SimHost::Send(Bytes packet) { outgoing_.push_back(std::move(packet)); }

void SimHost::SendTo(const Mac& mac, const Bytes& packet) {
  Bytes frame(kEthernet);
  mac.ToWire(frame.data());
  mac_.ToWire(frame.data() + 6);
  StoreBe16(frame.data() + 12, packet[0] >> 4 == 4 ? kTypeIpv4 : kTypeIpv6);
  frame.insert(frame.end(), packet.begin(), packet.end());
  SimNode::Send(0, std::move(frame));
}

void SimHost::Ask(const IpAddress& address, Waiting& waiting) {
  waiting.ask_again = now_ + kAskAgain;
  PacketBuilder question;
  if (address.is_v4()) {
    question.Ethernet(mac_, Mac::Broadcast()).ArpRequest(mac_, own4_[0].address, address.v4());
  } else {
    const Ipv6 group = address.v6().SolicitedNode();
    question.Ethernet(mac_, MulticastMac(group))
        .Ipv6(own6_[0].address, group)
        .NeighborSolicitation(address.v6())
        .SourceLinkLayer(mac_);
  }
  SimNode::Send(0, question.Build());
}

void SimHost::Learn(const IpAddress& address, const Mac& mac) {
  neighbors_[address] = mac;
  const auto it = waiting_.find(address);
  if (it == waiting_.end()) return;
  for (const Bytes& packet : it->second.packets) SendTo(mac, packet);
  waiting_.erase(it);
}

bool SimHost::Ignores() {
  solicited.push_back(now_);
  if (ignore_ == 0) return false;
  --ignore_;
  return true;
}

void SimHost::ChangeMac(MacArg mac, bool announce) {
  mac_ = mac.value;
  if (!announce) return;
  for (const Ipv4Prefix& own : own4_) {
    SendFrame(
        PacketBuilder().Ethernet(mac_, Mac::Broadcast()).GratuitousArp(mac_, own.address).Build());
  }
  const Ipv6 all_nodes(0xff02'0000'0000'0000ull, 1);
  for (const Ipv6Prefix& own : own6_) {
    SendFrame(PacketBuilder()
                  .Ethernet(mac_, MulticastMac(all_nodes))
                  .Ipv6(own.address, all_nodes)
                  .NeighborAdvertisement(own.address, false, false, true)
                  .TargetLinkLayer(mac_)
                  .Build());
  }
}

void SimHost::HandleArp(const Bytes& frame) {
  if (frame.size() < kEthernet + 28) return;
  const uint8_t* const arp = frame.data() + kEthernet;
  const uint16_t operation = LoadBe16(arp + 6);
  const Mac sender_mac = Mac::FromWire(arp + 8);
  const Ipv4 sender = Ipv4::FromWire(arp + 14);
  const Ipv4 target = Ipv4::FromWire(arp + 24);
  if (operation == 2) return Learn(sender, sender_mac);
  if (!IsOwn(target) || Ignores()) return;
  Learn(sender, sender_mac);
  SendFrame(PacketBuilder()
                .Ethernet(mac_, sender_mac)
                .ArpReply(mac_, target, sender_mac, sender)
                .Build());
}

// False: not neighbour discovery.
bool SimHost::HandleNd(const Bytes& frame) {
  constexpr size_t kNd = kEthernet + 40;
  constexpr size_t kOption = kNd + 24;
  if (frame.size() < kOption || frame[kEthernet + 6] != 58 || frame[kEthernet + 7] != 255) {
    return false;
  }
  const uint8_t type = frame[kNd];
  if (type != 135 && type != 136) return false;
  const Ipv6 source = Ipv6::FromWire(frame.data() + kEthernet + 8);
  const Ipv6 target = Ipv6::FromWire(frame.data() + kNd + 8);
  const bool has_mac = frame.size() >= kOption + 8 && frame[kOption] == (type == 135 ? 1 : 2);
  const Mac from = Mac::FromWire(frame.data() + (has_mac ? kOption + 2 : 6));
  if (type == 136) {
    Learn(target, from);
    return true;
  }
  if (!IsOwn(target) || Ignores()) return true;
  Learn(source, from);
  SendFrame(PacketBuilder()
                .Ethernet(mac_, from)
                .Ipv6(target, source)
                .NeighborAdvertisement(target, false, true, true)
                .TargetLinkLayer(mac_)
                .Build());
  return true;
}

void SimHost::Handle(const Bytes& frame) {
  if (frame.size() < kEthernet + 20) return;
  const Mac destination = Mac::FromWire(frame.data());
  if (destination != mac_ && !destination.IsMulticast()) return;
  const uint16_t type = LoadBe16(frame.data() + 12);
  if (type == kTypeArp) return HandleArp(frame);
  if (type != kTypeIpv4 && type != kTypeIpv6) return;
  if (type == kTypeIpv6 && HandleNd(frame)) return;
  if (destination != mac_) return;
  received.push_back(
      {now_, Mac::FromWire(frame.data() + 6), Bytes(frame.begin() + kEthernet, frame.end())});
}

void SimHost::Deliver(size_t, Bytes frame) { arrived_.push_back(std::move(frame)); }

void SimHost::Step(Nanos now) {
  now_ = now;
  while (!arrived_.empty()) {
    const Bytes frame = std::move(arrived_.front());
    arrived_.pop_front();
    Handle(frame);
  }
  while (!outgoing_.empty()) {
    const Bytes packet = std::move(outgoing_.front());
    outgoing_.pop_front();
    const IpAddress destination = packet[0] >> 4 == 4
                                      ? IpAddress(Ipv4::FromWire(packet.data() + 16))
                                      : IpAddress(Ipv6::FromWire(packet.data() + 24));
    const IpAddress next_hop = NextHop(destination);
    const auto known = neighbors_.find(next_hop);
    if (known != neighbors_.end()) {
      SendTo(known->second, packet);
      continue;
    }
    const auto [it, is_new] = waiting_.try_emplace(next_hop);
    it->second.packets.push_back(packet);
    if (is_new) Ask(next_hop, it->second);
  }
  for (auto& [address, waiting] : waiting_) {
    if (waiting.ask_again <= now_) Ask(address, waiting);
  }
}

Nanos SimHost::NextDeadline() const {
  Nanos next = Nanos::Max();
  for (const auto& [address, waiting] : waiting_) next = std::min(next, waiting.ask_again);
  return next;
}

}  // namespace sluice::test
