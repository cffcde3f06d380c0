#include "stages/nat/header_end.h"

#include <algorithm>

#include "base/byte_order.h"
#include "tables/flow_owner.h"
#include "wire/checksum.h"
#include "wire/icmp.h"
#include "wire/icmpv6.h"
#include "wire/protocol.h"

namespace sluice::stages {

namespace {

constexpr size_t kMinL4 = 8;  // what an ICMP error quotes at least (RFC 792)

// RFC 792 and 950: the messages with an identifier.
bool HasIcmpId(uint8_t type) {
  switch (type) {
    case wire::kIcmpEchoReply:
    case wire::kIcmpEchoRequest:
    case wire::kIcmpTimestamp:
    case wire::kIcmpTimestampReply:
    case 15:  // information request and reply
    case 16:
    case 17:  // address mask request and reply
    case 18:
      return true;
    default:
      return false;
  }
}

bool HasId(const Headers& h) {
  if (h.protocol == wire::kProtocolIcmp) return HasIcmpId(h.l4[0]);
  return h.l4[0] == wire::kIcmpv6EchoRequest || h.l4[0] == wire::kIcmpv6EchoReply;
}

uint8_t* AddressAt(const Headers& h, NatManip end) {
  const bool source = end == NatManip::kSource;
  if (h.family == Family::kIpv4) return h.ip + (source ? 12 : 16);
  return h.ip + (source ? 8 : 24);
}

// Null when the header has no such field.
uint8_t* NumberAt(const Headers& h, NatManip end) {
  if (h.l4 == nullptr) return nullptr;
  if (tables::HasPorts(h.protocol)) return h.l4 + (end == NatManip::kSource ? 0 : 2);
  if (tables::IsIcmp(h.protocol) && HasId(h)) return h.l4 + 4;
  return nullptr;
}

Ipv6 ReadAddress(const Headers& h, const uint8_t* at) {
  return h.family == Family::kIpv4 ? Ipv6(0, Ipv4::FromWire(at).value) : Ipv6::FromWire(at);
}

// The one's-complement sum that an update adds to the complement of a checksum (RFC 1624).
uint64_t Difference(const Ipv6& before, const Ipv6& after) {
  uint64_t sum = 0;
  for (const uint64_t half : {~before.hi, ~before.lo, after.hi, after.lo}) {
    sum += (half >> 32) + (half & 0xffff'ffff);
  }
  return sum;
}
uint64_t Difference(uint16_t before, uint16_t after) {
  return uint64_t{static_cast<uint16_t>(~before)} + after;
}

// Where the L4 checksum stands, and whether the pseudo header is in it. -1: none in reach.
int ChecksumOffset(const Headers& h) {
  switch (h.protocol) {
    case wire::kProtocolTcp:
      return h.l4_size >= HeaderSize(h.protocol) ? 16 : -1;
    case wire::kProtocolUdp:
    case wire::kProtocolUdpLite:
      return 6;
    case wire::kProtocolIcmp:
    case wire::kProtocolIcmpv6:
      return 2;
    default:
      return -1;
  }
}

void UpdateL4Checksum(const Headers& h, uint64_t addresses, uint64_t numbers) {
  const int offset = ChecksumOffset(h);
  if (offset < 0) return;
  uint8_t* field = h.l4 + offset;
  const uint16_t check = LoadBe16(field);
  if (h.partial_checksum) {
    // The field is the folded sum itself, of the pseudo header alone.
    StoreBe16(field, wire::Fold(check + addresses));
    return;
  }
  const bool udp = h.protocol == wire::kProtocolUdp;
  if (udp && check == 0) return;
  if (h.protocol == wire::kProtocolIcmp) addresses = 0;
  if (addresses + numbers == 0) return;
  uint16_t updated = wire::Checksum(static_cast<uint16_t>(~check) + addresses + numbers);
  if (updated == 0 && (udp || h.protocol == wire::kProtocolUdpLite)) updated = 0xffff;
  StoreBe16(field, updated);
}

}  // namespace

size_t HeaderSize(uint8_t protocol) {
  if (protocol == wire::kProtocolTcp) return 20;
  return protocol == wire::kProtocolSctp ? 12 : kMinL4;
}

End ReadEnd(const Headers& h, NatManip end, const End& like) {
  End read{ReadAddress(h, AddressAt(h, end)), like.number};
  if (const uint8_t* number = NumberAt(h, end)) read.number = LoadBe16(number);
  return read;
}

bool HasRoom(const Headers& h) {
  if (h.l4 == nullptr) return true;
  if (!tables::HasPorts(h.protocol) && !tables::IsIcmp(h.protocol)) return true;
  return h.l4_size >= kMinL4 && h.l4_size >= std::min(HeaderSize(h.protocol), h.l4_total);
}

void WriteEnd(const Headers& h, NatManip end, const End& to) {
  uint8_t* const address = AddressAt(h, end);
  const Ipv6 before = ReadAddress(h, address);
  uint64_t addresses = 0;
  if (before != to.address) {
    addresses = Difference(before, to.address);
    if (h.family == Family::kIpv4) {
      const auto now = static_cast<uint32_t>(to.address.lo);
      StoreBe16(h.ip + 10,
                wire::UpdateChecksum32(LoadBe16(h.ip + 10), static_cast<uint32_t>(before.lo), now));
      StoreBe32(address, now);
    } else {
      to.address.ToWire(address);
    }
  }
  uint64_t numbers = 0;
  if (uint8_t* number = NumberAt(h, end)) {
    const uint16_t old = LoadBe16(number);
    if (old != to.number) {
      numbers = Difference(old, to.number);
      StoreBe16(number, to.number);
    }
  }
  if (h.l4 != nullptr) UpdateL4Checksum(h, addresses, numbers);
}

}  // namespace sluice::stages
