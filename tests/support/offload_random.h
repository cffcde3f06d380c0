// Random flows and frames for the flow tier, with all that must send a frame to a worker; and a
// plain statement of which frames those are, independent of bpf/include/offload.h.
#ifndef SLUICE_TESTS_SUPPORT_OFFLOAD_RANDOM_H_
#define SLUICE_TESTS_SUPPORT_OFFLOAD_RANDOM_H_

#include <algorithm>
#include <cstdint>

#include "base/byte_order.h"
#include "base/rng.h"
#include "support/offload_flow.h"
#include "support/packet_builder.h"
#include "wire/checksum.h"

namespace sluice::test {

inline Ipv6 RandomAddress(Rng& rng, Family family) {
  if (family == Family::kIpv4) return Ipv6(0, (10u << 24) + 2 + rng.Below(1u << 20));
  return Ipv6(0x20010db8'00000000 + rng.Below(1u << 20), rng.Next());
}

// With and without NAT of either end or both; ports and addresses that differ in few bits as well.
inline OffloadFlow RandomFlow(Rng& rng, Family family, bool nat) {
  OffloadFlow flow;
  flow.in.family = family;
  flow.in.protocol = rng.Chance(1, 2) ? 6 : 17;
  flow.in.source = RandomAddress(rng, family);
  flow.in.destination = RandomAddress(rng, family);
  flow.in.source_port = static_cast<uint16_t>(rng.Next());
  flow.in.destination_port = static_cast<uint16_t>(rng.Next());
  flow.out = flow.in;
  if (!nat) return flow;
  const uint64_t what = rng.Next();
  if (what & 1) flow.out.source = RandomAddress(rng, family);
  if (what & 2) flow.out.destination = RandomAddress(rng, family);
  if (what & 4) flow.out.source_port = static_cast<uint16_t>(rng.Next());
  if (what & 8) flow.out.destination_port = static_cast<uint16_t>(rng.Next() & 0x00ff);
  if (what & 16) std::swap(flow.out.source_port, flow.out.destination_port);  // a change of zero
  return flow;
}

struct FrameOf {
  Bytes bytes;
  size_t l4 = 0;
};

// A frame that the flow tier takes in any mode.
inline FrameOf RandomFrame(Rng& rng, const tables::FlowTuple& t, size_t payload) {
  const bool v4 = t.family == Family::kIpv4;
  const bool tcp = t.protocol == 6;
  const size_t options = tcp ? 4 * rng.Below(11) : 0;
  const size_t l4_size = (tcp ? 20 + options : t.protocol == 17 ? 8 : 0) + payload;
  FrameOf f;
  f.l4 = v4 ? 34 : 54;
  Bytes& b = f.bytes;
  b.resize(f.l4 + l4_size);
  for (size_t i = f.l4; i < b.size(); ++i) b[i] = static_cast<uint8_t>(rng.Next());
  kLanMac.ToWire(&b[0]);
  kHostMac.ToWire(&b[6]);
  StoreBe16(&b[12], v4 ? 0x0800 : 0x86dd);
  uint8_t* const ip = &b[14];
  if (v4) {
    ip[0] = 0x45;
    ip[1] = static_cast<uint8_t>(rng.Next());
    StoreBe16(ip + 2, static_cast<uint16_t>(20 + l4_size));
    StoreBe16(ip + 4, static_cast<uint16_t>(rng.Next()));
    StoreBe16(ip + 6, rng.Chance(1, 2) ? 0x4000 : 0);
    ip[8] = static_cast<uint8_t>(2 + rng.Below(254));
    ip[9] = t.protocol;
    AddressBytes(t, t.source, ip + 12);
    AddressBytes(t, t.destination, ip + 16);
    StoreBe16(ip + 10, NaiveChecksum({ip, 20}));
  } else {
    StoreBe32(ip, 0x60000000 | static_cast<uint32_t>(rng.Below(1 << 28)));
    StoreBe16(ip + 4, static_cast<uint16_t>(l4_size));
    ip[6] = t.protocol;
    ip[7] = static_cast<uint8_t>(2 + rng.Below(254));
    AddressBytes(t, t.source, ip + 8);
    AddressBytes(t, t.destination, ip + 24);
  }
  if (!tcp && t.protocol != 17) return f;
  uint8_t* const l4 = &b[f.l4];
  StoreBe16(l4, t.source_port);
  StoreBe16(l4 + 2, t.destination_port);
  if (tcp) {
    l4[12] = static_cast<uint8_t>((20 + options) / 4 << 4);
    l4[13] = rng.Chance(1, 2) ? 0x10 : 0x18;
  } else {
    StoreBe16(l4 + 4, static_cast<uint16_t>(l4_size));
  }
  uint8_t* const field = l4 + (tcp ? 16 : 6);
  const uint32_t length = static_cast<uint32_t>(l4_size);
  const uint32_t pseudo =
      v4 ? wire::PseudoHeaderSum(Ipv4(static_cast<uint32_t>(t.source.lo)),
                                 Ipv4(static_cast<uint32_t>(t.destination.lo)), t.protocol, length)
         : wire::PseudoHeaderSum(t.source, t.destination, t.protocol, length);
  StoreBe16(field, 0);
  switch (rng.Below(8)) {
    case 0:
    case 1:
    case 2:
      StoreBe16(field, wire::Fold(pseudo));  // partial
      break;
    case 3:
      StoreBe16(field, static_cast<uint16_t>(rng.Next()));
      break;
    case 4:
      StoreBe16(field, rng.Chance(1, 2) ? 0 : 0xffff);
      break;
    default:
      StoreBe16(field, wire::NonZeroChecksum(uint64_t{pseudo} + wire::Sum({l4, l4_size})));
  }
  return f;
}

// Something that is wrong with it, or only rare.
inline void Spoil(Rng& rng, FrameOf& f) {
  Bytes& b = f.bytes;
  uint8_t* const ip = &b[14];
  const bool v4 = f.l4 == 34;
  switch (rng.Below(12)) {
    case 0:
      ip[v4 ? 8 : 7] = static_cast<uint8_t>(rng.Below(3));
      break;
    case 1:
      if (b.size() > f.l4 + 14) b[f.l4 + 13] = static_cast<uint8_t>(rng.Next());
      break;
    case 2:
      if (b.size() > f.l4 + 14) b[f.l4 + 12] = static_cast<uint8_t>(rng.Next());
      break;
    case 3:
      if (v4) StoreBe16(ip + 6, static_cast<uint16_t>(1u << rng.Below(16)));
      break;
    case 4:
      if (v4) ip[0] = static_cast<uint8_t>(rng.Chance(1, 2) ? 0x46 : rng.Next());
      break;
    case 5: {  // another length
      uint8_t* const length = ip + (v4 ? 2 : 4);
      StoreBe16(length, static_cast<uint16_t>(LoadBe16(length) + rng.Below(5) - 2));
      break;
    }
    case 6:
      if (b.size() > f.l4 + 8) StoreBe16(&b[f.l4 + 4], static_cast<uint16_t>(rng.Below(40)));
      break;
    case 7:
      b.resize(14 + rng.Below(b.size() - 14));
      return;
    case 8:
      ip[v4 ? 9 : 6] = static_cast<uint8_t>(rng.Below(64));
      break;
    case 9:
      for (uint64_t n = 1 + rng.Below(3); n > 0; --n) {
        b[14 + rng.Below(std::min<size_t>(b.size() - 14, 60))] ^=
            static_cast<uint8_t>(1u << rng.Below(8));
      }
      break;
    case 10:
      if (v4) ip[rng.Chance(1, 2) ? 12 : 13] = static_cast<uint8_t>(rng.Next());
      break;
    default:
      if (!v4) StoreBe16(ip + (rng.Chance(1, 2) ? 8 : 24), rng.Chance(1, 2) ? 0xfe80 : 0);
      break;
  }
  if (v4 && b.size() >= 34 && !rng.Chance(1, 4)) {
    StoreBe16(ip + 10, 0);
    StoreBe16(ip + 10, NaiveChecksum({ip, 20}));
  }
}

// Whether a frame from its IP header on is one that the tier may take, and what it is looked up by.
// `own`: sources that are ours.
inline bool TierTakes(const Bytes& b, uint32_t mode, Ipv4 own, tables::FlowTuple& t) {
  t = {};
  const uint8_t* const ip = &b[14];
  const size_t have = b.size() - 14;
  const bool v4 = LoadBe16(&b[12]) == 0x0800;
  size_t l4_size = 0;
  size_t header = 40;
  if (have < (v4 ? 20 : 40)) return false;
  if (v4) {
    t.family = Family::kIpv4;
    header = 20;
    const size_t total = LoadBe16(ip + 2);
    if (ip[0] != 0x45 || NaiveSum({ip, 20}) != 0xffff || total > have || total < 20) return false;
    if ((LoadBe16(ip + 6) & 0x3fff) != 0 || ip[8] < 2) return false;
    l4_size = total - 20;
    t.protocol = ip[9];
    t.source = Ipv6(0, LoadBe32(ip + 12));
    t.destination = Ipv6(0, LoadBe32(ip + 16));
    if (ip[16] >= 224 && (ip[16] < 240 || t.destination.lo == 0xffffffff)) return false;
  } else {
    t.family = Family::kIpv6;
    l4_size = LoadBe16(ip + 4);
    if (ip[0] >> 4 != 6 || l4_size == 0 || l4_size + 40 > have || ip[7] < 2) return false;
    t.protocol = ip[6];
    t.source = Ipv6::FromWire(ip + 8);
    t.destination = Ipv6::FromWire(ip + 24);
    if (ip[24] == 0xff) return false;
  }
  const uint8_t* const l4 = ip + header;
  if (mode == SLUICE_OFFLOAD_FLOW) {
    if (t.protocol == 6) {
      if (l4_size < 20 || l4[12] >> 4 < 5 || (l4[12] >> 4) * 4u > l4_size) return false;
      if ((l4[12] & 15) != 0 || (l4[13] != 0x10 && l4[13] != 0x18)) return false;
    } else if (t.protocol == 17) {
      if (l4_size < 8 || LoadBe16(l4 + 4) < 8 || LoadBe16(l4 + 4) > l4_size) return false;
    } else {
      return false;
    }
    t.source_port = LoadBe16(l4);
    t.destination_port = LoadBe16(l4 + 2);
    return true;
  }
  if (v4) {
    const Ipv4 source(static_cast<uint32_t>(t.source.lo));
    if (ip[12] == 0 || ip[12] == 127 || ip[12] >= 224) return false;
    return SLUICE_OFFLOAD_OWN_BIT(source.value) != SLUICE_OFFLOAD_OWN_BIT(own.value);
  }
  for (const uint8_t extension : {0, 43, 44, 51, 60}) {
    if (t.protocol == extension) return false;
  }
  for (const Ipv6& address : {t.source, t.destination}) {
    if (address.IsMulticast() || address.IsLinkLocal() || address.IsUnspecified()) return false;
    if (address == Ipv6(0, 1)) return false;
  }
  return true;
}

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_OFFLOAD_RANDOM_H_
