// Flows, a table and a NAT stage for tests.
#ifndef SLUICE_TESTS_UNIT_STAGES_NAT_NAT_FIXTURE_H_
#define SLUICE_TESTS_UNIT_STAGES_NAT_NAT_FIXTURE_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "base/address.h"
#include "stages/nat/nat.h"
#include "tables/flow.h"
#include "tables/flow_table.h"
#include "tables/nat_request.h"
#include "wire/protocol.h"

namespace sluice::stages {

inline IpAddress A(const std::string& text) { return *ParseIpAddress(text); }

// "10.0.0.2", 1000 -> "1.1.1.1", 80.
inline tables::FlowTuple Tuple(const std::string& source, uint16_t source_port,
                               const std::string& destination, uint16_t destination_port,
                               uint8_t protocol = wire::kProtocolTcp) {
  tables::FlowTuple t;
  t.family = A(source).family;
  t.source = A(source).bits;
  t.destination = A(destination).bits;
  t.source_port = source_port;
  t.destination_port = destination_port;
  t.protocol = protocol;
  return t;
}

inline tables::FlowTuple Inverse(const tables::FlowTuple& t) {
  tables::FlowTuple r = t;
  r.source = t.destination;
  r.destination = t.source;
  if (t.protocol == wire::kProtocolIcmp || t.protocol == wire::kProtocolIcmpv6) {
    // Echo and its reply.
    const bool v4 = t.protocol == wire::kProtocolIcmp;
    r.destination_port =
        t.destination_port == (v4 ? 0x0800 : 0x8000) ? (v4 ? 0 : 0x8100) : (v4 ? 0x0800 : 0x8000);
  } else {
    r.source_port = t.destination_port;
    r.destination_port = t.source_port;
  }
  return r;
}

inline tables::FlowTuple Echo(const std::string& source, const std::string& destination,
                              uint16_t id) {
  const bool v4 = A(source).is_v4();
  return Tuple(source, id, destination, v4 ? 0x0800 : 0x8000,
               v4 ? wire::kProtocolIcmp : wire::kProtocolIcmpv6);
}

// What a packet of the original direction looks like when it leaves.
inline tables::FlowTuple Outside(const tables::Flow& flow) {
  return Inverse(flow.tuple(tables::FlowDirection::kReply));
}

inline std::string Show(const tables::FlowTuple& t) {
  IpAddress source, destination;
  source.family = destination.family = t.family;
  source.bits = t.source;
  destination.bits = t.destination;
  return ToString(source) + ":" + std::to_string(t.source_port) + ">" + ToString(destination) +
         ":" + std::to_string(t.destination_port);
}

inline tables::NatRequest Snat(const std::string& min, const std::string& max, uint32_t flags = 0,
                               uint16_t min_port = 0, uint16_t max_port = 0) {
  tables::NatRequest r;
  r.kind = tables::NatKind::kSource;
  r.flags = flags;
  if (!min.empty()) {
    r.flags |= tables::kNatMapAddresses;
    r.min_address = A(min);
    r.max_address = A(max);
  }
  if (min_port != 0) r.flags |= tables::kNatPortsGiven;
  r.min_port = min_port;
  r.max_port = max_port;
  return r;
}
inline tables::NatRequest Snat(const std::string& address) { return Snat(address, address); }

inline tables::NatRequest Dnat(const std::string& min, const std::string& max, uint32_t flags = 0,
                               uint16_t min_port = 0, uint16_t max_port = 0) {
  tables::NatRequest r = Snat(min, max, flags, min_port, max_port);
  r.kind = tables::NatKind::kDestination;
  return r;
}
inline tables::NatRequest Dnat(const std::string& address, uint16_t port = 0) {
  return Dnat(address, address, 0, port, port);
}
inline tables::NatRequest Masquerade(uint32_t flags = 0, uint16_t min_port = 0,
                                     uint16_t max_port = 0) {
  tables::NatRequest r = Snat("", "", flags, min_port, max_port);
  r.kind = tables::NatKind::kMasquerade;
  return r;
}
inline tables::NatRequest Redirect(uint16_t port = 0) {
  tables::NatRequest r = Snat("", "", 0, port, port);
  r.kind = tables::NatKind::kRedirect;
  return r;
}

class NatFixture : public testing::Test {
 protected:
  static constexpr IfaceSlot kLan{0};
  static constexpr IfaceSlot kWan{1};

  explicit NatFixture(uint32_t capacity = 200'000)
      : table({.capacity = capacity, .hash_seed = 7}), nat({.seed = 3}, table) {
    snapshot.interfaces[0].slot = kLan;
    snapshot.interfaces[0].addresses4 = {{.address = A("10.0.0.1").v4(), .prefix_length = 24}};
    snapshot.interfaces[0].addresses6 = {{.address = A("2001:db8::1").v6(), .prefix_length = 64},
                                         {.address = A("fe80::1").v6(), .prefix_length = 64}};
    snapshot.interfaces[1].slot = kWan;
    snapshot.interfaces[1].addresses4 = {{.address = A("192.0.2.1").v4(), .prefix_length = 24}};
    snapshot.interfaces[1].addresses6 = {{.address = A("2001:db8:1::1").v6(), .prefix_length = 64},
                                         {.address = A("fe80::2").v6(), .prefix_length = 64}};
  }

  Nat::Context Context(const std::string& next_hop = "192.0.2.254") const {
    return {.snapshot = snapshot, .in = kLan, .out = kWan, .next_hop = A(next_hop)};
  }
  tables::FlowIndex New(const tables::FlowTuple& original) {
    const tables::FlowIndex index = table.Allocate(now, [](tables::FlowIndex) { FAIL(); });
    EXPECT_NE(index, tables::kNoFlow);
    tables::Flow& flow = table.at(index);
    flow.tuples = {original, Inverse(original)};
    flow.expires = now + Seconds(100);
    if (original.protocol == wire::kProtocolTcp) {
      flow.tcp.state = static_cast<uint8_t>(tables::TcpState::kSynSent);
    }
    return index;
  }
  // Confirms a flow as it is: what other flows must not clash with.
  tables::FlowIndex Confirm(tables::FlowIndex index) {
    EXPECT_TRUE(table.Insert(index)) << Show(table.at(index).tuples[0]);
    nat.Remember(index);
    return index;
  }
  // A new flow with the request, and null bindings besides; confirmed.
  const tables::Flow& Connect(const tables::FlowTuple& original,
                              const tables::NatRequest& request) {
    const tables::FlowIndex index = New(original);
    tables::Flow& flow = table.at(index);
    for (const NatManip manip : {NatManip::kDestination, NatManip::kSource}) {
      const auto result = manip == Nat::ManipOf(request.kind) ? nat.Setup(flow, request, Context())
                                                              : nat.SetupNull(flow, manip);
      EXPECT_TRUE(result.verdict.is_continue()) << Show(original);
      EXPECT_TRUE(Nat::IsSetUp(flow, manip));
    }
    Confirm(index);
    return flow;
  }
  std::string ConnectTo(const tables::FlowTuple& original, const tables::NatRequest& request) {
    return Show(Outside(Connect(original, request)));
  }

  Nanos now = Seconds(1000);
  tables::Snapshot snapshot;
  tables::FlowTable table;
  Nat nat;
};

}  // namespace sluice::stages

#endif  // SLUICE_TESTS_UNIT_STAGES_NAT_NAT_FIXTURE_H_
