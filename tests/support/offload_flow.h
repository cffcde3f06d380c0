// Flows for tests of the flow tier: their key and entry, packets, and what the library's own stages
// make of a packet.
#ifndef SLUICE_TESTS_SUPPORT_OFFLOAD_FLOW_H_
#define SLUICE_TESTS_SUPPORT_OFFLOAD_FLOW_H_

#include <cstdint>
#include <cstring>

#include "base/address.h"
#include "stages/nat/translate.h"
#include "stages/neighbor/link_header.h"
#include "stages/parse/parse.h"
#include "stages/rewrite/rewrite.h"
#include "support/packet_builder.h"
#include "support/router_world.h"
#include "tables/flow.h"
#include "tables/offload.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

namespace sluice::test {

inline tables::FlowTuple TupleOf(const char* source, uint16_t source_port, const char* destination,
                                 uint16_t destination_port, uint8_t protocol) {
  tables::FlowTuple t;
  const IpAddress from = *ParseIpAddress(source);
  t.family = from.family;
  t.source = from.bits;
  t.destination = ParseIpAddress(destination)->bits;
  t.source_port = source_port;
  t.destination_port = destination_port;
  t.protocol = protocol;
  return t;
}

inline tables::FlowTuple Turned(tables::FlowTuple t) {
  std::swap(t.source, t.destination);
  std::swap(t.source_port, t.destination_port);
  return t;
}

// One direction of a connection, or (in the modes of routes) what is sent to a destination.
struct OffloadFlow {
  tables::FlowTuple in;   // as its packets arrive
  tables::FlowTuple out;  // as they leave
  uint32_t id = 0;
  uint32_t epoch = 1;

  // The connection whose original (or reply) direction this is.
  tables::Flow Connection(tables::FlowDirection direction) const {
    tables::Flow flow{};
    flow.tuples[static_cast<size_t>(direction)] = in;
    flow.tuples[static_cast<size_t>(tables::Opposite(direction))] = Turned(out);
    const bool source = in.source != out.source || in.source_port != out.source_port;
    const bool destination =
        in.destination != out.destination || in.destination_port != out.destination_port;
    const bool original = direction == tables::FlowDirection::kOriginal;
    if (original ? source : destination) flow.status |= tables::kFlowSourceNat;
    if (original ? destination : source) flow.status |= tables::kFlowDestinationNat;
    return flow;
  }
};

// The one's-complement sum of what changes, as words in memory.
class OffloadDelta {
 public:
  void Change(const void* before, const void* after, size_t bytes) {
    if (std::memcmp(before, after, bytes) == 0) return;
    for (size_t i = 0; i < bytes; i += 2) {
      uint16_t a, b;
      std::memcpy(&a, static_cast<const char*>(before) + i, 2);
      std::memcpy(&b, static_cast<const char*>(after) + i, 2);
      sum_ += uint64_t{static_cast<uint16_t>(~a)} + b;
    }
  }
  uint16_t value() const {
    uint64_t sum = sum_;
    while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<uint16_t>(sum);
  }

 private:
  uint64_t sum_ = 0;
};

inline void AddressBytes(const tables::FlowTuple& t, const Ipv6& address, void* out) {
  uint8_t bytes[16];
  if (t.family == Family::kIpv4) {
    Ipv4(static_cast<uint32_t>(address.lo)).ToWire(bytes);
    std::memcpy(out, bytes, 4);
  } else {
    address.ToWire(bytes);
    std::memcpy(out, bytes, 16);
  }
}

template <class Key>
void FillKey(const tables::FlowTuple& t, sluice_offload_mode mode, uint8_t slot, Key& key) {
  std::memset(&key, 0, sizeof key);
  key.slot = slot;
  AddressBytes(t, t.destination, &key.destination);
  if (mode != SLUICE_OFFLOAD_DESTINATION) AddressBytes(t, t.source, &key.source);
  if (mode != SLUICE_OFFLOAD_FLOW) return;
  key.source_port = __builtin_bswap16(t.source_port);
  key.destination_port = __builtin_bswap16(t.destination_port);
  key.protocol = t.protocol;
}

template <class Entry>
void FillEntry(const OffloadFlow& flow, const tables::OffloadMemory& memory, Entry& entry) {
  std::memset(&entry, 0, sizeof entry);
  sluice_offload_action& a = entry.action;
  a.id = flow.id;
  a.epoch = flow.epoch;
  a.world = tables::WorldGeneration(memory);
  const bool v4 = flow.in.family == Family::kIpv4;
  const auto bucket = [&](const Ipv6& address) {
    return v4 ? tables::OffloadBucket(Ipv4(static_cast<uint32_t>(address.lo)))
              : tables::OffloadBucket(address);
  };
  a.bucket[0] = bucket(flow.out.destination);
  a.bucket[1] = bucket(flow.in.source);
  for (int i = 0; i < 2; ++i) a.routes[i] = tables::RouteGeneration(memory, a.bucket[i]);
  a.mtu = 1500;
  a.out = 1;
  kPeerMac.ToWire(a.link);
  kWanMac.ToWire(a.link + 6);
  if (flow.in == flow.out) return;
  a.flags = SLUICE_OFFLOAD_REWRITE;
  AddressBytes(flow.out, flow.out.source, &entry.source);
  AddressBytes(flow.out, flow.out.destination, &entry.destination);
  a.source_port = __builtin_bswap16(flow.out.source_port);
  a.destination_port = __builtin_bswap16(flow.out.destination_port);
  OffloadDelta l3, l4;
  const size_t size = v4 ? 4 : 16;
  uint8_t before[16], after[16];
  const auto address = [&](const Ipv6& from, const Ipv6& to) {
    AddressBytes(flow.in, from, before);
    AddressBytes(flow.in, to, after);
    if (v4) l3.Change(before, after, size);
    l4.Change(before, after, size);
  };
  address(flow.in.source, flow.out.source);
  address(flow.in.destination, flow.out.destination);
  const auto port = [&](uint16_t from, uint16_t to) {
    from = __builtin_bswap16(from);
    to = __builtin_bswap16(to);
    l4.Change(&from, &to, 2);
  };
  port(flow.in.source_port, flow.out.source_port);
  port(flow.in.destination_port, flow.out.destination_port);
  a.l3_delta = l3.value();
  a.l4_delta = l4.value();
}

inline tables::OffloadChange MakeChange(const OffloadFlow& flow,
                                        const tables::OffloadMemory& memory,
                                        sluice_offload_mode mode = SLUICE_OFFLOAD_FLOW,
                                        uint8_t slot = 0) {
  tables::OffloadChange change;
  change.family = flow.in.family;
  if (flow.in.family == Family::kIpv4) {
    FillKey(flow.in, mode, slot, change.key4);
    FillEntry(flow, memory, change.entry4);
  } else {
    change.key6 = {};
    change.entry6 = {};
    FillKey(flow.in, mode, slot, change.key6);
    FillEntry(flow, memory, change.entry6);
  }
  return change;
}
inline tables::OffloadChange Removal(tables::OffloadChange change) {
  change.kind = tables::OffloadChange::Kind::kRemove;
  return change;
}

// The worker's way with a packet that it forwards: parse, complete, translate, count the hop,
// translate, link header. `completed`: its checksum was partial.
inline Bytes Forwarded(RouterWorld& world, const Bytes& frame, const OffloadFlow& flow,
                       bool complete, tables::FlowDirection direction, bool& completed) {
  packet::Packet p = world.Receive(frame);
  const stages::ParseResult parsed = stages::Parse(p, world.lan(), world.pool);
  EXPECT_TRUE(parsed.verdict.is_continue());
  const bool v4 = parsed.protocol == stages::Protocol::kIpv4;
  completed = complete && (v4 ? stages::CompletePartialChecksum4(*world.arena, p)
                              : stages::CompletePartialChecksum6(*world.arena, p));
  const tables::Flow connection = flow.Connection(direction);
  const auto translate = [&](stages::NatManip manip) {
    const packet::Verdict v = stages::Translate(*world.arena, p, connection, direction, manip);
    EXPECT_TRUE(v.is_continue());
  };
  translate(stages::NatManip::kDestination);
  if (v4) {
    wire::Ipv4Mutable(p.l3()).DecrementTtl();
  } else {
    wire::Ipv6Mutable(p.l3()).DecrementHopLimit();
  }
  translate(stages::NatManip::kSource);
  stages::WriteLinkHeader(p, kPeerMac, kWanMac);
  Bytes out = world.BytesOf(p);
  world.Free(p);
  return out;
}

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_OFFLOAD_FLOW_H_
