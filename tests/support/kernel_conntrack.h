// The kernel's connection tracking, to compare with: a router in a namespace of its own, whose
// ruleset writes what `ct` says about a packet into its TOS and TTL, and its table through
// ctnetlink.
//
//   a side: 10.0.0.0/24, 2001:db8::/64    b side: 192.0.2.0/24, 2001:db8:1::/64
//
// Frames go in by Send on the side their source is on and come out on the other. Needs root.
#ifndef SLUICE_TESTS_SUPPORT_KERNEL_CONNTRACK_H_
#define SLUICE_TESTS_SUPPORT_KERNEL_CONNTRACK_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "support/net_sandbox.h"
#include "support/packet_builder.h"
#include "tables/flow.h"

struct nfct_handle;

namespace sluice::test {

class KernelConntrack {
 public:
  // What the ruleset said about a packet.
  struct Said {
    tables::CtState state = tables::CtState::kNone;
    tables::FlowDirection direction = tables::FlowDirection::kOriginal;
  };
  // An entry of the table.
  struct Entry {
    uint16_t source_port = 0;  // of the original direction
    uint32_t status = 0;
    uint32_t timeout = 0;  // seconds left
    uint8_t tcp_state = 0;
    uint8_t sctp_state = 0;
    uint8_t flags[2] = {};
    uint8_t scales[2] = {};
  };

  KernelConntrack();
  ~KernelConntrack();

  void Sysctl(const std::string& name, const std::string& value);  // nf_conntrack_NAME
  // Empty when it did not come out.
  std::optional<Said> Pass(const Bytes& frame, bool from_a);
  // By the tuple of either direction; TCP, UDP and ICMP queries.
  std::optional<Entry> Find(const tables::FlowTuple& tuple);

 private:
  VethPair a_;
  VethPair b_;
  std::unique_ptr<RawSocket> sockets_[2];
  nfct_handle* handle_ = nullptr;
};

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_KERNEL_CONNTRACK_H_
