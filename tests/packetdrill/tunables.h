// The stack's configuration as Linux' settings would have it: packetdrill's scripts say what they want
// by sysctl (net.ipv4.tcp_*), in a network namespace of their own.
#ifndef SLUICE_TESTS_PACKETDRILL_TUNABLES_H_
#define SLUICE_TESTS_PACKETDRILL_TUNABLES_H_

#include "transport/transport.h"

namespace sluice::test {

struct Tunables {
  transport::TcpConfig tcp;
  transport::CongestionAlgorithm congestion = transport::CongestionAlgorithm::kCubic;
};

// Reads /proc/sys/net/ipv4; what is not there is as Linux has it by default.
Tunables ReadTunables();

// What tcp_ecn is now: scripts change it between connections.
transport::EcnMode ReadEcn();

}  // namespace sluice::test

#endif  // SLUICE_TESTS_PACKETDRILL_TUNABLES_H_
