// Flows by hand, for the tests of conntrack_sync.
#ifndef SLUICE_TESTS_UNIT_CONTROL_CONNTRACK_SYNC_FLOWS_H_
#define SLUICE_TESTS_UNIT_CONTROL_CONNTRACK_SYNC_FLOWS_H_

#include <string>

#include "base/address.h"
#include "base/time.h"
#include "tables/flow.h"
#include "tables/flow_owner.h"
#include "wire/protocol.h"

namespace sluice::control {

inline constexpr uint32_t kAlive =
    tables::kFlowConfirmed | tables::kFlowSeenReply | tables::kFlowAssured;

inline tables::FlowTuple Tuple(const std::string& source, uint16_t source_port,
                               const std::string& destination, uint16_t destination_port,
                               uint8_t protocol = wire::kProtocolTcp) {
  tables::FlowTuple t;
  t.family = ParseIpAddress(source)->family;
  t.source = ParseIpAddress(source)->bits;
  t.destination = ParseIpAddress(destination)->bits;
  t.source_port = source_port;
  t.destination_port = destination_port;
  t.protocol = protocol;
  return t;
}

inline tables::FlowTuple Inverse(const tables::FlowTuple& t) {
  tables::FlowTuple r = t;
  r.source = t.destination;
  r.destination = t.source;
  if (tables::HasPorts(t.protocol)) {
    r.source_port = t.destination_port;
    r.destination_port = t.source_port;
  } else if (t.protocol == wire::kProtocolIcmp) {
    r.destination_port = 0;  // echo reply
  } else if (t.protocol == wire::kProtocolIcmpv6) {
    r.destination_port = 0x8100;
  }
  return r;
}

// A flow that leaves as `outside`.
inline tables::Flow Made(const tables::FlowTuple& original, const tables::FlowTuple& outside,
                         Nanos expires) {
  tables::Flow flow{};
  flow.tuples = {original, Inverse(outside)};
  flow.status = kAlive;
  if (original.source != outside.source || original.source_port != outside.source_port) {
    flow.status |= tables::kFlowSourceNat;
  }
  if (original.destination != outside.destination ||
      original.destination_port != outside.destination_port) {
    flow.status |= tables::kFlowDestinationNat;
  }
  flow.expires = expires;
  if (original.protocol == wire::kProtocolTcp) {
    flow.tcp.state = static_cast<uint8_t>(tables::TcpState::kEstablished);
    flow.tcp.scales = {7, 9};
    flow.tcp.flags = {tables::kTcpWindowScale | tables::kTcpSackPermitted,
                      tables::kTcpWindowScale | tables::kTcpSackPermitted};
  } else if (original.protocol == wire::kProtocolSctp) {
    flow.sctp = tables::SctpTracking{};
    flow.sctp.state = static_cast<uint8_t>(tables::SctpState::kEstablished);
    flow.sctp.tags = {0x11223344, 0x55667788};
  }
  return flow;
}

}  // namespace sluice::control

#endif  // SLUICE_TESTS_UNIT_CONTROL_CONNTRACK_SYNC_FLOWS_H_
