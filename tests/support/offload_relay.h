// Relays for tests of the flow tier: their entries, and what becomes of their packets: every field
// by itself, and checksums summed up again. Shares no code with bpf/include/offload.h.
#ifndef SLUICE_TESTS_SUPPORT_OFFLOAD_RELAY_H_
#define SLUICE_TESTS_SUPPORT_OFFLOAD_RELAY_H_

#include <algorithm>
#include <cstdint>
#include <optional>

#include "base/byte_order.h"
#include "support/offload_flow.h"
#include "support/packet_builder.h"
#include "tables/offload.h"

namespace sluice::test {

// One direction. Not `ours`: a connection of others, with an entry in the same map.
struct Relay {
  OffloadFlow flow;
  std::optional<sluice_splice> splice = {};
  bool ours = true;
};

// Its entry, by its connection; its splice is written.
inline tables::OffloadChange MakeRelay(const Relay& relay, const tables::OffloadMemory& memory,
                                       uint8_t slot = 0) {
  tables::OffloadChange change = MakeChange(relay.flow, memory, SLUICE_OFFLOAD_FLOW, slot);
  if (relay.ours) change.action().flags |= SLUICE_OFFLOAD_RELAY;
  if (!relay.splice) return change;
  change.action().flags |= SLUICE_OFFLOAD_SPLICE;
  memory.splices[relay.flow.id] = *relay.splice;
  return change;
}

// Of an IP packet without anything between its headers.
inline size_t L4Of(const Bytes& frame) { return LoadBe16(&frame[12]) == 0x0800 ? 34 : 54; }
inline size_t IpBytes(const Bytes& frame) {
  return L4Of(frame) == 34 ? LoadBe16(&frame[16]) : LoadBe16(&frame[18]) + size_t{40};
}
inline Bytes PseudoHeaderOf(const Bytes& frame) {
  const size_t l4 = L4Of(frame);
  const size_t length = 14 + IpBytes(frame) - l4;
  return l4 == 34 ? PseudoHeader(Ipv4::FromWire(&frame[26]), Ipv4::FromWire(&frame[30]), frame[23],
                                 length)
                  : PseudoHeader(Ipv6::FromWire(&frame[22]), Ipv6::FromWire(&frame[38]), frame[20],
                                 length);
}
// What the TCP or UDP checksum must be, before UDP's rule for 0.
inline uint16_t RightChecksum(const Bytes& frame, size_t field) {
  Bytes all = PseudoHeaderOf(frame);
  const size_t at = all.size() + field - L4Of(frame);
  all.insert(all.end(), frame.begin() + static_cast<long>(L4Of(frame)),
             frame.begin() + static_cast<long>(14 + IpBytes(frame)));
  StoreBe16(&all[at], 0);
  return NaiveChecksum(all);
}

// Whether the segment has the timestamps that its splice wants, and nothing else.
inline bool HasOptionsOf(const sluice_splice& splice, const Bytes& frame) {
  const uint8_t* const tcp = &frame[L4Of(frame)];
  if (splice.timestamps == 0) return tcp[12] >> 4 == 5;
  const uint8_t expected[] = {1, 1, 8, 10};
  return tcp[12] >> 4 == 8 && std::equal(expected, expected + 4, tcp + 20);
}

inline void SpliceTcp(const sluice_splice& splice, uint8_t* tcp) {
  const auto grow = [tcp](size_t at, uint32_t difference) {
    StoreBe32(tcp + at, LoadBe32(tcp + at) + difference);
  };
  grow(4, splice.seq);
  grow(8, splice.ack);
  if (splice.timestamps != 0) {
    grow(24, splice.tsval);
    grow(28, splice.tsecr);
  }
  uint64_t window = LoadBe16(tcp + 14);
  for (int i = 0; i < splice.window_left; ++i) window *= 2;
  for (int i = 0; i < splice.window_right; ++i) window /= 2;
  StoreBe16(tcp + 14, static_cast<uint16_t>(std::min<uint64_t>(window, 0xffff)));
}

// What leaves when the frame is the relay's and XDP takes it. `completed`: its checksum was
// partial, in a mode where they are. What was wrong with a checksum remains wrong by as much.
inline Bytes Relayed(const Bytes& frame, const Relay& relay, bool complete, bool& completed) {
  const tables::FlowTuple& to = relay.flow.out;
  const bool v4 = L4Of(frame) == 34;
  const bool udp = to.protocol == 17;
  const size_t field = L4Of(frame) + (udp ? 6 : 16);
  Bytes out(frame.begin(), frame.begin() + static_cast<long>(14 + IpBytes(frame)));
  const uint16_t came = LoadBe16(&frame[field]);
  const uint32_t wrong_by = came + 65535u - RightChecksum(out, field);
  completed = complete && came == NaiveSum(PseudoHeaderOf(out));
  kPeerMac.ToWire(&out[0]);
  kWanMac.ToWire(&out[6]);
  uint8_t& hops = out[v4 ? 22 : 21];
  hops = relay.ours ? 64 : static_cast<uint8_t>(hops - 1);
  AddressBytes(to, to.source, &out[v4 ? 26 : 22]);
  AddressBytes(to, to.destination, &out[v4 ? 30 : 38]);
  uint8_t* const l4 = &out[L4Of(out)];
  StoreBe16(l4, to.source_port);
  StoreBe16(l4 + 2, to.destination_port);
  if (relay.splice) SpliceTcp(*relay.splice, l4);
  if (v4) {
    StoreBe16(&out[24], 0);
    StoreBe16(&out[24], NaiveChecksum({&out[14], 20}));
  }
  if (udp && came == 0 && !completed) return out;  // none was made
  uint16_t check = RightChecksum(out, field);
  if (!completed) check = static_cast<uint16_t>((check + wrong_by) % 65535);
  StoreBe16(&out[field], udp && check == 0 ? 0xffff : check);
  return out;
}

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_OFFLOAD_RELAY_H_
