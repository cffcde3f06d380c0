#include "control/packet_text/names.h"

namespace sluice::control {
namespace {

constexpr NumberName kProtocols[] = {
    {"icmp", 1},  {"igmp", 2},   {"tcp", 6},      {"udp", 17},   {"ipv6", 41},
    {"gre", 47},  {"esp", 50},   {"ah", 51},      {"icmpv6", 58}, {"ipv6-icmp", 58},
    {"ospf", 89}, {"dccp", 33},  {"sctp", 132},   {"udplite", 136}};

constexpr NumberName kIcmpTypes[] = {{"echo-reply", 0},
                                     {"destination-unreachable", 3},
                                     {"source-quench", 4},
                                     {"redirect", 5},
                                     {"echo-request", 8},
                                     {"router-advertisement", 9},
                                     {"router-solicitation", 10},
                                     {"time-exceeded", 11},
                                     {"parameter-problem", 12},
                                     {"timestamp-request", 13},
                                     {"timestamp-reply", 14},
                                     {"info-request", 15},
                                     {"info-reply", 16},
                                     {"address-mask-request", 17},
                                     {"address-mask-reply", 18}};

constexpr NumberName kIcmpv6Types[] = {{"destination-unreachable", 1},
                                       {"packet-too-big", 2},
                                       {"time-exceeded", 3},
                                       {"parameter-problem", 4},
                                       {"echo-request", 128},
                                       {"echo-reply", 129},
                                       {"mld-listener-query", 130},
                                       {"mld-listener-report", 131},
                                       {"mld-listener-done", 132},
                                       {"nd-router-solicit", 133},
                                       {"nd-router-advert", 134},
                                       {"nd-neighbor-solicit", 135},
                                       {"nd-neighbor-advert", 136},
                                       {"nd-redirect", 137},
                                       {"mld2-listener-report", 143}};

constexpr NumberName kDscps[] = {
    {"cs0", 0},   {"cs1", 8},   {"cs2", 16},  {"cs3", 24},  {"cs4", 32},  {"cs5", 40},
    {"cs6", 48},  {"cs7", 56},  {"af11", 10}, {"af12", 12}, {"af13", 14}, {"af21", 18},
    {"af22", 20}, {"af23", 22}, {"af31", 26}, {"af32", 28}, {"af33", 30}, {"af41", 34},
    {"af42", 36}, {"af43", 38}, {"ef", 46},   {"be", 0},    {"lephb", 1}};

constexpr NumberName kTcpFlags[] = {{"fin", 0x01}, {"syn", 0x02}, {"rst", 0x04}, {"psh", 0x08},
                                    {"ack", 0x10}, {"urg", 0x20}, {"ecn", 0x40}, {"cwr", 0x80}};

}  // namespace

std::span<const NumberName> ProtocolNames() { return kProtocols; }
std::span<const NumberName> IcmpTypeNames() { return kIcmpTypes; }
std::span<const NumberName> Icmpv6TypeNames() { return kIcmpv6Types; }
std::span<const NumberName> DscpNames() { return kDscps; }
std::span<const NumberName> TcpFlagNames() { return kTcpFlags; }

std::optional<uint16_t> NumberOf(std::span<const NumberName> names, std::string_view name) {
  for (const NumberName& n : names) {
    if (n.name == name) return n.number;
  }
  return {};
}

std::string NameOf(std::span<const NumberName> names, uint16_t number) {
  for (const NumberName& n : names) {
    if (n.number == number) return std::string(n.name);
  }
  return std::to_string(number);
}

}  // namespace sluice::control
