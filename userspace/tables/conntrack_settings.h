// How connections are tracked: the sysctls net.netfilter.nf_conntrack_*, with the kernel's defaults
// (the tables of timeouts in net/netfilter/nf_conntrack_proto_*.c), and overrides by configuration.
//
// Part of the Snapshot, so one tick judges by one state of it. A change holds from a flow's next
// packet on, as in the kernel.
#ifndef SLUICE_TABLES_CONNTRACK_SETTINGS_H_
#define SLUICE_TABLES_CONNTRACK_SETTINGS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/time.h"
#include "tables/flow.h"

namespace sluice::tables {

struct ConntrackSettings {
  // By TcpState; kNone is not used.
  std::array<Nanos, 10> tcp = {Nanos(),    Seconds(120), Seconds(60), Seconds(432'000),
                               Seconds(120), Seconds(60), Seconds(30), Seconds(120),
                               Seconds(10),  Seconds(120)};
  Nanos tcp_max_retrans_timeout = Seconds(300);
  Nanos tcp_unacknowledged = Seconds(300);
  Nanos udp = Seconds(30);
  Nanos udp_stream = Seconds(120);
  Nanos icmp = Seconds(30);
  Nanos icmpv6 = Seconds(30);
  Nanos gre = Seconds(30);
  Nanos gre_stream = Seconds(180);
  Nanos generic = Seconds(600);
  // By SctpState; kNone is not used.
  std::array<Nanos, 9> sctp = {Nanos(),    Seconds(10), Seconds(3), Seconds(3), Seconds(210),
                               Seconds(3), Seconds(3),  Seconds(3), Seconds(30)};

  bool checksum = true;                // nf_conntrack_checksum: a wrong one makes a packet invalid
  bool tcp_loose = true;               // pick up connections in their middle
  bool tcp_be_liberal = false;         // outside the window is not invalid
  bool tcp_ignore_invalid_rst = false;
  uint8_t tcp_max_retrans = 3;
  // New flows count for flows_per_source, and are bound by it (FlowTable::SourceHasRoom).
  bool limits_sources = true;
  uint32_t max = 262'144;  // nf_conntrack_max: of the whole machine; 0: no limit but the table's

  Nanos tcp_timeout(TcpState s) const { return tcp[static_cast<size_t>(s)]; }
  Nanos sctp_timeout(SctpState s) const { return sctp[static_cast<size_t>(s)]; }
  bool operator==(const ConntrackSettings&) const = default;
};

// The timeout that a sysctl nf_conntrack_NAME (without the prefix) sets: "tcp_timeout_syn_sent",
// "udp_timeout" and so on. Calls visit(name, Nanos&) for each.
template <class Visitor>
void ForEachTimeout(ConntrackSettings& s, Visitor&& visit) {
  static constexpr std::string_view kTcp[] = {
      "", "tcp_timeout_syn_sent", "tcp_timeout_syn_recv", "tcp_timeout_established",
      "tcp_timeout_fin_wait", "tcp_timeout_close_wait", "tcp_timeout_last_ack",
      "tcp_timeout_time_wait", "tcp_timeout_close"};
  for (size_t i = 1; i < std::size(kTcp); ++i) visit(kTcp[i], s.tcp[i]);
  visit("tcp_timeout_max_retrans", s.tcp_max_retrans_timeout);
  visit("tcp_timeout_unacknowledged", s.tcp_unacknowledged);
  visit("udp_timeout", s.udp);
  visit("udp_timeout_stream", s.udp_stream);
  visit("icmp_timeout", s.icmp);
  visit("icmpv6_timeout", s.icmpv6);
  visit("gre_timeout", s.gre);
  visit("gre_timeout_stream", s.gre_stream);
  visit("generic_timeout", s.generic);
  static constexpr std::string_view kSctp[] = {
      "", "sctp_timeout_closed", "sctp_timeout_cookie_wait", "sctp_timeout_cookie_echoed",
      "sctp_timeout_established", "sctp_timeout_shutdown_sent", "sctp_timeout_shutdown_recd",
      "sctp_timeout_shutdown_ack_sent", "sctp_timeout_heartbeat_sent"};
  for (size_t i = 1; i < std::size(kSctp); ++i) visit(kSctp[i], s.sctp[i]);
}

}  // namespace sluice::tables

#endif  // SLUICE_TABLES_CONNTRACK_SETTINGS_H_
