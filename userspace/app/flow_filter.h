// Which connections `sluice show flows FILTER` shows: tests in nft's style, all of which must hold.
//
//   ip saddr PREFIX, ip daddr PREFIX, ip6 saddr|daddr PREFIX    of the packet that opened it
//   saddr|daddr PREFIX                                          of either family
//   addr PREFIX                                                 any of its four addresses
//   tcp|udp|sctp|dccp|udplite [sport|dport N[-M]]               the protocol, and its ports
//   sport|dport|port N[-M]                                      port: any of its four ports
//   icmp|icmpv6|gre|..., ip protocol P, meta l4proto P          the protocol
//   reply saddr|daddr|sport|dport ...                           of the answers (translated ones differ)
//   state STATE                                                 ESTABLISHED, SYN_SENT, ... (any case)
//   status WORD       assured unreplied kernel imported expected dying snat dnat masquerade nat
//   mark N[/MASK], worker N
//
// Thread: any; a value, no allocation when matching.
#ifndef SLUICE_APP_FLOW_FILTER_H_
#define SLUICE_APP_FLOW_FILTER_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/address.h"
#include "base/ids.h"
#include "tables/flow.h"

namespace sluice::app {

class FlowFilter {
 public:
  // InvalidArgument begins with "character N: ". Nothing but white space lets everything through.
  static absl::StatusOr<FlowFilter> Parse(std::string_view text);

  bool Matches(const tables::Flow& flow, WorkerId worker) const;

 private:
  enum class What : uint8_t {
    kSource, kDestination, kAnyAddress, kSourcePort, kDestinationPort, kAnyPort, kProtocol, kState,
    kStatus, kNotStatus, kMark, kWorker,
  };
  struct Test {
    What what = What::kProtocol;
    tables::FlowDirection direction = tables::FlowDirection::kOriginal;
    IpAddress address;
    uint8_t prefix_length = 0;
    uint32_t low = 0;   // of a range; a number; a mark
    uint32_t high = 0;  // of a range; a mark's mask
  };
  class Parser;

  static bool Holds(const Test& test, const tables::Flow& flow, WorkerId worker);

  std::vector<Test> tests_;
};

}  // namespace sluice::app

#endif  // SLUICE_APP_FLOW_FILTER_H_
