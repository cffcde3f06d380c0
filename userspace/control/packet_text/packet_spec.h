// What a description of a packet has said, between reading the words and writing the frame.
//
// Only for the .cc files of this folder. Thread: any; a value.
#ifndef SLUICE_CONTROL_PACKET_TEXT_PACKET_SPEC_H_
#define SLUICE_CONTROL_PACKET_TEXT_PACKET_SPEC_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "base/address.h"

namespace sluice::control {

inline constexpr uint16_t kDefaultSourcePort = 49'152;

struct PacketSpec {
  using Number = std::optional<uint32_t>;

  std::optional<Mac> ether_source, ether_destination;
  std::optional<Family> family;
  std::optional<IpAddress> source, destination;
  Number ttl, id, dscp, ecn, fragment, length, flow_label, protocol;
  Number source_port, destination_port;
  Number flags, sequence, acknowledgment, window, urgent, maxseg;
  Number udp_checksum;
  Number tag;
  Number type, code, icmp_id, icmp_sequence, mtu;
  Number payload;
};

// Fails when what is needed has not been said, or lengths do not fit.
absl::StatusOr<std::vector<uint8_t>> BuildFrame(const PacketSpec& spec);

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_PACKET_TEXT_PACKET_SPEC_H_
