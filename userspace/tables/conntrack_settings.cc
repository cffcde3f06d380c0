#include "tables/conntrack_settings.h"

namespace sluice::tables {
namespace {

template <class T>
void Set(const std::optional<T>& from, T& to) {
  if (from) to = *from;
}

}  // namespace

void ApplyOverrides(const ConntrackOverrides& o, ConntrackSettings& s) {
  const auto tcp = [&](TcpState state) -> Nanos& { return s.tcp[static_cast<size_t>(state)]; };
  Set(o.tcp_syn_sent, tcp(TcpState::kSynSent));
  Set(o.tcp_syn_recv, tcp(TcpState::kSynReceived));
  Set(o.tcp_established, tcp(TcpState::kEstablished));
  Set(o.tcp_fin_wait, tcp(TcpState::kFinWait));
  Set(o.tcp_close_wait, tcp(TcpState::kCloseWait));
  Set(o.tcp_last_ack, tcp(TcpState::kLastAck));
  Set(o.tcp_time_wait, tcp(TcpState::kTimeWait));
  Set(o.tcp_close, tcp(TcpState::kClose));
  Set(o.tcp_max_retrans, s.tcp_max_retrans_timeout);
  Set(o.tcp_unacknowledged, s.tcp_unacknowledged);
  Set(o.udp, s.udp);
  Set(o.udp_stream, s.udp_stream);
  Set(o.icmp, s.icmp);
  Set(o.icmpv6, s.icmpv6);
  Set(o.gre, s.gre);
  Set(o.gre_stream, s.gre_stream);
  Set(o.generic, s.generic);
  Set(o.max, s.max);
}

}  // namespace sluice::tables
