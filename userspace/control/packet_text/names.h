// Words that nft has for numbers, as far as packets are described with them: both ways.
//
// Thread: any; no state.
#ifndef SLUICE_CONTROL_PACKET_TEXT_NAMES_H_
#define SLUICE_CONTROL_PACKET_TEXT_NAMES_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace sluice::control {

struct NumberName {
  std::string_view name;
  uint16_t number;
};

std::span<const NumberName> ProtocolNames();    // tcp udp icmp ...
std::span<const NumberName> IcmpTypeNames();    // echo-request ...
std::span<const NumberName> Icmpv6TypeNames();  // nd-neighbor-solicit ...
std::span<const NumberName> DscpNames();        // cs0 af11 ef ...
std::span<const NumberName> TcpFlagNames();     // fin syn ...

std::optional<uint16_t> NumberOf(std::span<const NumberName> names, std::string_view name);
// The name, or the number when it has none.
std::string NameOf(std::span<const NumberName> names, uint16_t number);

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_PACKET_TEXT_NAMES_H_
