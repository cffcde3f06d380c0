#include "support/random_packets.h"

#include <algorithm>

namespace sluice::test {
namespace {

uint16_t Any16(Rng& rng) { return static_cast<uint16_t>(rng.Next()); }
uint8_t Any8(Rng& rng) { return static_cast<uint8_t>(rng.Next()); }

Bytes Noise(Rng& rng, size_t size) {
  Bytes bytes(size);
  for (uint8_t& b : bytes) b = Any8(rng);
  return bytes;
}

void AddIpv4(Rng& rng, PacketBuilder& b, const std::string& from, const std::string& to) {
  b.Ipv4(from, to).Id(Any16(rng)).Tos(Any8(rng));
  if (rng.Chance(1, 3)) b.DontFragment();
  if (rng.Chance(1, 10)) b.MoreFragments();
  if (rng.Chance(1, 10)) b.FragmentOffset(static_cast<uint16_t>(rng.Below(8191) * 8));
  if (rng.Chance(1, 10)) b.Options(Noise(rng, rng.Below(10) * 4));
  if (rng.Chance(1, 12)) b.Options({7, 15, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0});
  if (rng.Chance(1, 30)) b.BadIpChecksum();
  if (rng.Chance(1, 30)) b.Ihl(static_cast<uint8_t>(rng.Below(16)));
  if (rng.Chance(1, 30)) b.TotalLength(Any16(rng));
}

void AddIpv6(Rng& rng, PacketBuilder& b, const std::string& from, const std::string& to) {
  b.Ipv6(from, to).FlowLabel(static_cast<uint32_t>(rng.Below(1 << 20)));
  if (rng.Chance(1, 30)) b.PayloadLength(Any16(rng));
  if (rng.Chance(1, 12)) b.HopByHop(Noise(rng, rng.Below(20)));
  if (rng.Chance(1, 12)) b.DestinationOptions(Noise(rng, rng.Below(20)));
  if (rng.Chance(1, 15)) b.Routing(Any8(rng), static_cast<uint8_t>(rng.Below(3)), Noise(rng, 16));
  if (rng.Chance(1, 10)) {
    b.Fragment(static_cast<uint16_t>(rng.Below(100) * 8), rng.Chance(1, 2), 42);
  }
}

void AddL4(Rng& rng, PacketBuilder& b, bool v4) {
  switch (rng.Below(6)) {
    case 0:
      b.Tcp(Any16(rng), Any16(rng), Any8(rng));
      break;
    case 1:
      v4 ? b.IcmpEcho(Any16(rng), Any16(rng)) : b.Icmpv6Echo(Any16(rng), Any16(rng));
      break;
    case 2:
      v4 ? b.Icmp(Any8(rng), Any8(rng)) : b.Icmpv6(Any8(rng), Any8(rng));
      break;
    case 3:
      return;  // no header at all
    default:
      b.Udp(Any16(rng), Any16(rng));
      if (rng.Chance(1, 6)) b.PartialChecksum();
      break;
  }
  if (rng.Chance(1, 20)) b.BadChecksum();
}

}  // namespace

Bytes RandomPacket(Rng& rng, const std::string& source, const std::string& destination,
                   size_t most) {
  const bool v4 = ParseIpv4(source).has_value();
  PacketBuilder b;
  if (v4) {
    AddIpv4(rng, b, source, destination);
  } else {
    AddIpv6(rng, b, source, destination);
  }
  static constexpr uint8_t kTtls[] = {0, 1, 2, 3, 64, 64, 64, 64, 255};
  b.Ttl(kTtls[rng.Below(sizeof kTtls)]);
  if (rng.Chance(1, 40)) b.Version(static_cast<uint8_t>(rng.Below(16)));
  AddL4(rng, b, v4);
  const size_t size = rng.Chance(1, 2) ? rng.Below(200) : rng.Below(most);
  b.Payload(size);
  Bytes packet = b.Build();
  if (packet.size() > most) packet.resize(most);
  if (rng.Chance(1, 20)) packet.resize(1 + rng.Below(packet.size()));
  if (rng.Chance(1, 20)) packet[rng.Below(packet.size())] ^= Any8(rng);
  if (rng.Chance(1, 20)) packet.resize(std::max<size_t>(packet.size(), 46));  // padding
  return packet;
}

Bytes RandomNeighborFrame(Rng& rng, const Mac& source, const Mac& destination,
                          const std::vector<std::string>& addresses) {
  const auto any = [&](bool v4) {
    for (;;) {
      const std::string& a = addresses[rng.Below(addresses.size())];
      if (ParseIpv4(a).has_value() == v4) return a;
    }
  };
  PacketBuilder b;
  b.Ethernet(source, rng.Chance(1, 3) ? Mac::Broadcast() : destination);
  switch (rng.Below(6)) {
    case 0:
      b.ArpRequest(source, any(true), any(true));
      break;
    case 1:
      b.ArpReply(source, any(true), destination, any(true));
      break;
    case 2:
      b.GratuitousArp(source, any(true));
      break;
    case 3:
      b.Ipv6(any(false), any(false)).NeighborSolicitation(any(false)).SourceLinkLayer(source);
      break;
    case 4:
      b.Ipv6(any(false), any(false))
          .NeighborAdvertisement(any(false), rng.Chance(1, 2), rng.Chance(1, 2), rng.Chance(1, 2))
          .TargetLinkLayer(source);
      break;
    default:
      b.EtherType(rng.Chance(1, 2) ? 0x0806 : Any16(rng)).Payload(Noise(rng, rng.Below(80)));
      break;
  }
  Bytes frame = b.Build();
  if (rng.Chance(1, 5)) frame[rng.Below(frame.size())] ^= Any8(rng);
  if (rng.Chance(1, 10)) frame.resize(1 + rng.Below(frame.size()));
  return frame;
}

}  // namespace sluice::test
