// Loads: nft_payload.c, nft_meta.c, nft_ct.c.
#include <algorithm>

#include "stages/filter/evaluation.h"
#include "wire/ethernet.h"
#include "wire/protocol.h"

namespace sluice::stages {

using tables::Load;
using tables::Source;

namespace {

constexpr uint16_t kArphrdEther = 1;

void Put(uint8_t* out, uint32_t value) { std::memcpy(out, &value, sizeof value); }

// IFNAMSIZ bytes.
void PutName(uint8_t* out, const tables::Interface* interface) {
  std::memset(out, 0, 16);
  if (interface == nullptr) return;
  std::memcpy(out, interface->name.data(), std::min<size_t>(interface->name.size(), 15));
}

}  // namespace

bool Evaluation::Locate(Source base, uint32_t offset, uint32_t length, uint32_t& at) const {
  const packet::Packet& p = context_.p;
  uint32_t start = 0;
  switch (base) {
    case Source::kLink:
      if (context_.in == nullptr) return false;  // our own packets have no such header yet
      break;
    case Source::kNetwork:
      start = p.l3_offset;
      break;
    case Source::kTransport:
      if (!has_l4_ || later_fragment_) return false;
      start = p.l4_offset;
      break;
    case Source::kInner:
      if (!FindInner(start)) return false;
      break;
    default:
      return false;
  }
  at = start + offset;
  return at + length <= p.length;
}

// __nft_payload_inner_offset.
bool Evaluation::FindInner(uint32_t& at) const {
  const packet::Packet& p = context_.p;
  if (!has_l4_ || later_fragment_) return false;
  constexpr uint8_t kProtocolIpip = 4;
  uint8_t header[20];
  at = p.l4_offset;
  switch (p.l4_protocol) {
    case wire::kProtocolUdp:
      at += 8;
      return true;
    case wire::kProtocolTcp:
      if (at + 20 > p.length) return false;
      CopyOut(at, header, 20);
      at += (header[12] >> 4) * 4u;
      return true;
    case wire::kProtocolGre: {
      if (at + 4 > p.length) return false;
      CopyOut(at, header, 4);
      constexpr uint8_t kChecksum = 0x80, kKey = 0x20, kSequence = 0x10;
      if ((header[1] & 7) != 0) return false;  // another version
      at += 4;
      for (const uint8_t flag : {kChecksum, kKey, kSequence}) {
        if ((header[0] & flag) != 0) at += 4;
      }
      return true;
    }
    case kProtocolIpip:
      return true;
    default:
      return false;
  }
}

const uint8_t* Evaluation::Contiguous(uint32_t at, uint32_t length) const {
  return at + length <= context_.p.segment_length ? context_.p.data + at : nullptr;
}

void Evaluation::CopyOut(uint32_t at, uint8_t* out, uint32_t length) const {
  packet::CopyOut(context_.arena, context_.p, at, out, length);
}

void Evaluation::CopyIn(uint32_t at, const uint8_t* bytes, uint32_t length) {
  uint32_t start = 0;
  packet::ForEachSegment(context_.arena, context_.p, 0, [&](std::span<uint8_t> piece) {
    const auto end = start + static_cast<uint32_t>(piece.size());
    const uint32_t from = std::max(at, start);
    const uint32_t to = std::min(at + length, end);
    if (from < to) std::memcpy(piece.data() + (from - start), bytes + (from - at), to - from);
    start = end;
  });
}

bool Evaluation::Load32(const Load& load, uint32_t& value) {
  if (load.source > Source::kTransport) {
    uint8_t bytes[16];  // some keys are longer than what is asked for
    if (!LoadTo(load, bytes)) return false;
    std::memcpy(&value, bytes, sizeof value);
    return true;
  }
  uint32_t at;
  if (!Locate(load.source, load.offset, load.length, at)) return false;
  const uint8_t* p = Contiguous(at, load.length);
  value = 0;
  if (p == nullptr) {
    CopyOut(at, reinterpret_cast<uint8_t*>(&value), load.length);
    return true;
  }
  switch (load.length) {
    case 4:
      std::memcpy(&value, p, 4);
      break;
    case 2: {
      uint16_t half;
      std::memcpy(&half, p, 2);
      value = half;
      break;
    }
    case 1:
      value = *p;
      break;
    default:
      std::memcpy(&value, p, load.length);
  }
  return true;
}

bool Evaluation::LoadTo(const Load& load, uint8_t* out) {
  if (load.source == Source::kMeta) return LoadMeta(load, out);
  if (load.source == Source::kCt) return LoadCt(load, out);
  uint32_t at;
  if (!Locate(load.source, load.offset, load.length, at)) return false;
  if (load.length % 4 != 0) std::memset(out + load.length / 4 * 4, 0, 4);
  if (const uint8_t* p = Contiguous(at, load.length)) {
    std::memcpy(out, p, load.length);
  } else {
    CopyOut(at, out, load.length);
  }
  return true;
}

bool Evaluation::LoadMeta(const Load& load, uint8_t* out) {
  const packet::Packet& p = context_.p;
  const tables::Interface* in = context_.in;
  const tables::Interface* to = context_.out;
  switch (load.key) {
    case tables::kMetaLength:
      Put(out, p.l3_length());
      return true;
    case tables::kMetaProtocol: {  // network order, also without an Ethernet header
      uint16_t type = is_v4() ? wire::kEtherTypeIpv4 : wire::kEtherTypeIpv6;
      if (family_slot_ == 2) type = LoadBe16(p.data + 12);
      Put(out, __builtin_bswap16(type));
      return true;
    }
    case tables::kMetaPriority:
      Put(out, priority_);
      return true;
    case tables::kMetaMark:
      Put(out, mark_);
      return true;
    case tables::kMetaIif:
      Put(out, in == nullptr ? 0 : in->ifindex.value);
      return true;
    case tables::kMetaOif:
      Put(out, to == nullptr ? 0 : to->ifindex.value);
      return true;
    case tables::kMetaIifName:
      PutName(out, in);
      return true;
    case tables::kMetaOifName:
      PutName(out, to);
      return true;
    case tables::kMetaIifType:
    case tables::kMetaOifType:
      if ((load.key == tables::kMetaIifType ? in : to) == nullptr) return false;
      Put(out, kArphrdEther);  // all that Sluice serves
      return true;
    case tables::kMetaNfProto:
      // inet chains at ingress see the protocol's own family; netdev chains see netdev.
      Put(out, program_.chains[chain_].table_family == kProtoNetdev ? kProtoNetdev
                                                                     : protocol_family_);
      return true;
    case tables::kMetaL4Proto:
      if (!has_l4_) return false;
      Put(out, p.l4_protocol);
      return true;
    case tables::kMetaPktType:
      // PACKET_HOST 0, BROADCAST 1, MULTICAST 2
      Put(out, !p.Has(packet::kFlagLinkMulticast)                         ? 0
               : wire::EthernetView(p.data).destination() == Mac::Broadcast() ? 1
                                                                              : 2);
      return true;
    case tables::kMetaCpu:
      Put(out, worker_);
      return true;
    case tables::kMetaRandom:
      Put(out, static_cast<uint32_t>(filter_.rng_.Next() >> 32));
      return true;
    case tables::kMetaSecPath:
      Put(out, 0);  // packets with an IPsec policy are the kernel's
      return true;
    case tables::kMetaTime:
    case tables::kMetaDay:
    case tables::kMetaHour:
      return LoadMetaTime(load, out);
    default:  // socket owners: no socket, no match
      return false;
  }
}

bool Evaluation::LoadMetaTime(const Load& load, uint8_t* out) {
  if (context_.wall_offset == Nanos()) {
    kernel_ = true;
    return false;
  }
  const int64_t now = (context_.now + context_.wall_offset).count();
  const int64_t seconds = now / 1'000'000'000;
  constexpr int64_t kDay = 86400;
  if (load.key == tables::kMetaTime) {
    std::memcpy(out, &now, sizeof now);
  } else if (load.key == tables::kMetaDay) {
    Put(out, static_cast<uint32_t>((4 + seconds / kDay) % 7));  // 1 January 1970 was a Thursday
  } else {
    Put(out, static_cast<uint32_t>(seconds % kDay));
  }
  return true;
}

uint32_t Evaluation::CtStateBits() const {
  // NF_CT_STATE_*_BIT, by CtState; without an entry, and not untracked, a packet is invalid.
  constexpr uint32_t kBits[] = {1, 1, 8, 2, 4, 64};
  return kBits[ct_state_ % 6];
}

bool Evaluation::LoadCt(const Load& load, uint8_t* out) {
  if (load.key == tables::kCtState) {
    Put(out, CtStateBits());
    return true;
  }
  const tables::Flow* flow = context_.flow;
  if (flow == nullptr) return false;
  const tables::FlowTuple& original = flow->tuple(tables::FlowDirection::kOriginal);
  const auto add = [&](auto field) {
    if (load.direction <= 1) return flow->counts[load.direction].*field;
    return flow->counts[0].*field + flow->counts[1].*field;
  };
  switch (load.key) {
    case tables::kCtDirection:
      Put(out, context_.p.ct_direction);
      return true;
    case tables::kCtStatus:
      Put(out, flow->status & 0xffff);  // the rest is ours
      return true;
    case tables::kCtMark:
      Put(out, ct_mark_);
      return true;
    case tables::kCtExpiration:
      // nf_ct_expires: that of a connection that is not confirmed is counted from another point, and
      // taken for over.
      Put(out, flow->Has(tables::kFlowConfirmed)
                   ? static_cast<uint32_t>(
                         std::max<int64_t>((flow->expires - context_.now).count() / 1'000'000, 0))
                   : 0);
      return true;
    case tables::kCtL3Protocol:
      Put(out, original.family == Family::kIpv4 ? kProtoIpv4 : kProtoIpv6);
      return true;
    case tables::kCtProtocol:
      Put(out, original.protocol);
      return true;
    case tables::kCtPackets:
    case tables::kCtBytes:
    case tables::kCtAveragePacket: {
      const uint64_t packets = add(&tables::FlowCount::packets);
      const uint64_t bytes = add(&tables::FlowCount::bytes);
      const uint64_t average = packets == 0 ? 0 : bytes / packets;
      const uint64_t value = load.key == tables::kCtPackets ? packets
                             : load.key == tables::kCtBytes ? bytes
                                                            : average;
      std::memcpy(out, &value, sizeof value);
      return true;
    }
    case tables::kCtZone:
      Put(out, 0);
      return true;
    case tables::kCtId:
      Put(out, static_cast<uint32_t>(tables::TupleFingerprint(original)));
      return true;
    default:
      return LoadCtTuple(load, out);
  }
}

bool Evaluation::LoadCtTuple(const Load& load, uint8_t* out) {
  const tables::Flow& flow = *context_.flow;
  const tables::FlowTuple& tuple = flow.tuples[load.direction == 1 ? 1 : 0];
  const bool v4 = tuple.family == Family::kIpv4;
  const auto put = [&](const Ipv6& address) {
    if (v4) {
      StoreBe32(out, static_cast<uint32_t>(address.lo));
    } else {
      address.ToWire(out);
    }
    return true;
  };
  switch (load.key) {
    case tables::kCtSource:
      return put(tuple.source);
    case tables::kCtDestination:
      return put(tuple.destination);
    case tables::kCtSourceIp:
      return v4 && put(tuple.source);
    case tables::kCtDestinationIp:
      return v4 && put(tuple.destination);
    case tables::kCtSourceIp6:
      return !v4 && put(tuple.source);
    case tables::kCtDestinationIp6:
      return !v4 && put(tuple.destination);
    case tables::kCtProtoSource:
      Put(out, __builtin_bswap16(tuple.source_port));
      return true;
    case tables::kCtProtoDestination:
      Put(out, __builtin_bswap16(tuple.destination_port));
      return true;
    default:
      return false;
  }
}

}  // namespace sluice::stages
