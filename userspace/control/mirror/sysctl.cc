#include "control/mirror/sysctl.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>

#include "absl/strings/str_cat.h"

namespace sluice::control {
namespace {

uint32_t Unsigned(int64_t value) {
  return static_cast<uint32_t>(std::clamp<int64_t>(value, 0, UINT32_MAX));
}

uint8_t Byte(int64_t value) { return static_cast<uint8_t>(std::clamp<int64_t>(value, 0, 255)); }

}  // namespace

std::optional<int64_t> SysctlReader::Number(const std::string& path) const {
  const std::string file = absl::StrCat(root_, "/net/", path);
  const int fd = open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return std::nullopt;
  char text[32];
  const ssize_t n = read(fd, text, sizeof text);
  close(fd);
  int64_t value = 0;
  if (n <= 0 || std::from_chars(text, text + n, value).ec != std::errc()) return std::nullopt;
  return value;
}

int64_t SysctlReader::Number(const std::string& path, int64_t otherwise) const {
  return Number(path).value_or(otherwise);
}

tables::NeighborSettings SysctlReader::ReadNeighbor(const std::string& family,
                                                    const std::string& name) const {
  tables::NeighborSettings s;
  const std::string base = absl::StrCat(family, "/neigh/", name, "/");
  const auto millis = [&](const char* file, Nanos otherwise) {
    return Millis(Number(base + file, otherwise / Millis(1)));
  };
  s.base_reachable_time = millis("base_reachable_time_ms", s.base_reachable_time);
  s.retrans_time = millis("retrans_time_ms", s.retrans_time);
  s.delay_first_probe_time =
      Seconds(Number(base + "delay_first_probe_time", s.delay_first_probe_time / Seconds(1)));
  s.mcast_solicit = Unsigned(Number(base + "mcast_solicit", s.mcast_solicit));
  s.ucast_solicit = Unsigned(Number(base + "ucast_solicit", s.ucast_solicit));
  s.unres_qlen_packets = Unsigned(Number(base + "unres_qlen", s.unres_qlen_packets));
  return s;
}

InterfaceSysctls SysctlReader::ReadInterface(const std::string& name) const {
  InterfaceSysctls s;
  // The value of the interface; of `all`; and their combinations.
  const auto own = [&](const char* key, int64_t otherwise) {
    return Number(absl::StrCat("ipv4/conf/", name, "/", key), otherwise);
  };
  const auto all = [&](const char* key, int64_t otherwise) {
    return Number(absl::StrCat("ipv4/conf/all/", key), otherwise);
  };
  const auto either = [&](const char* key, bool otherwise) {
    return own(key, otherwise) != 0 || all(key, otherwise) != 0;
  };
  const auto both = [&](const char* key) { return own(key, 0) != 0 && all(key, 0) != 0; };
  const auto larger = [&](const char* key) { return Byte(std::max(own(key, 0), all(key, 0))); };

  s.forwarding4 = own("forwarding", 0) != 0;
  s.rp_filter = larger("rp_filter");
  s.accept_local = either("accept_local", false);
  s.accept_source_route = both("accept_source_route");
  s.send_redirects = either("send_redirects", true);
  s.shared_media = either("shared_media", true);
  s.secure_redirects = either("secure_redirects", true);
  s.bc_forwarding = both("bc_forwarding");
  s.route_localnet = either("route_localnet", false);
  s.proxy_arp = either("proxy_arp", false);
  s.drop_unicast_in_l2_multicast = either("drop_unicast_in_l2_multicast", false);
  s.arp_ignore = larger("arp_ignore");
  s.arp_accept = either("arp_accept", false);
  s.drop_gratuitous_arp = either("drop_gratuitous_arp", false);
  s.neighbor4 = ReadNeighbor("ipv4", name);

  const auto own6 = [&](const char* key) {
    return Number(absl::StrCat("ipv6/conf/", name, "/", key));
  };
  const auto all6 = [&](const char* key) { return Number(absl::StrCat("ipv6/conf/all/", key), 0); };
  s.mtu6 = Unsigned(own6("mtu").value_or(0));
  s.ipv6_enabled = own6("disable_ipv6").value_or(1) == 0;
  s.forwarding6 = all6("forwarding") != 0 || own6("force_forwarding").value_or(0) != 0;
  s.proxy_ndp = all6("proxy_ndp") != 0 || own6("proxy_ndp").value_or(0) != 0;
  s.hop_limit6 = Byte(own6("hop_limit").value_or(64));
  s.neighbor6 = ReadNeighbor("ipv6", name);
  return s;
}

void SysctlReader::ReadIcmp(tables::IcmpSettings& icmp) const {
  const auto millis = [&](const char* path, Nanos otherwise) {
    return Millis(Number(path, otherwise / Millis(1)));
  };
  icmp.ratelimit4 = millis("ipv4/icmp_ratelimit", icmp.ratelimit4);
  icmp.ratemask4 = Unsigned(Number("ipv4/icmp_ratemask", icmp.ratemask4));
  icmp.ratelimit6 = millis("ipv6/icmp/ratelimit", icmp.ratelimit6);
  icmp.msgs_per_sec = Unsigned(Number("ipv4/icmp_msgs_per_sec", icmp.msgs_per_sec));
  icmp.msgs_burst = Unsigned(Number("ipv4/icmp_msgs_burst", icmp.msgs_burst));
  icmp.echo_ignore_all4 = Number("ipv4/icmp_echo_ignore_all", 0) != 0;
  icmp.echo_ignore_all6 = Number("ipv6/icmp/echo_ignore_all", 0) != 0;
  icmp.errors_use_inbound_address = Number("ipv4/icmp_errors_use_inbound_ifaddr", 0) != 0;
}

void SysctlReader::ReadConntrack(tables::ConntrackSettings& conntrack) const {
  const std::string prefix = "netfilter/nf_conntrack_";
  tables::ForEachTimeout(conntrack, [&](std::string_view name, Nanos& timeout) {
    timeout = Seconds(Unsigned(Number(prefix + std::string(name), timeout / Seconds(1))));
  });
  const auto enabled = [&](const char* name, bool& value) {
    value = Number(prefix + name, value ? 1 : 0) != 0;
  };
  enabled("checksum", conntrack.checksum);
  enabled("tcp_loose", conntrack.tcp_loose);
  enabled("tcp_be_liberal", conntrack.tcp_be_liberal);
  enabled("tcp_ignore_invalid_rst", conntrack.tcp_ignore_invalid_rst);
  conntrack.tcp_max_retrans = Byte(Number(prefix + "tcp_max_retrans", conntrack.tcp_max_retrans));
  conntrack.max = Unsigned(Number(prefix + "max", conntrack.max));
}

void SysctlReader::ReadDefrag(tables::DefragSettings& defrag) const {
  // Those of IPv6 exist once nf_defrag_ipv6 is loaded. The files count whole seconds.
  const auto seconds = [&](const char* path, Nanos otherwise) {
    return Seconds(std::clamp<int64_t>(Number(path, otherwise / Seconds(1)), 0, INT32_MAX));
  };
  const auto bytes = [&](const char* path, uint64_t otherwise) {
    return static_cast<uint64_t>(
        std::max<int64_t>(Number(path, static_cast<int64_t>(otherwise)), 0));
  };
  defrag.timeout4 = seconds("ipv4/ipfrag_time", defrag.timeout4);
  defrag.timeout6 = seconds("netfilter/nf_conntrack_frag6_timeout", defrag.timeout6);
  defrag.high_thresh4 = bytes("ipv4/ipfrag_high_thresh", defrag.high_thresh4);
  defrag.high_thresh6 = bytes("netfilter/nf_conntrack_frag6_high_thresh", defrag.high_thresh6);
}

Sysctls SysctlReader::Read(absl::Span<const std::string> interfaces) const {
  Sysctls s;
  for (const std::string& name : interfaces) s.interfaces[name] = ReadInterface(name);
  ReadIcmp(s.icmp);
  ReadConntrack(s.conntrack);
  ReadDefrag(s.defrag);
  s.default_ttl = Byte(Number("ipv4/ip_default_ttl", s.default_ttl));
  s.ip_forward_use_pmtu = Number("ipv4/ip_forward_use_pmtu", 0) != 0;
  s.nexthop_compat_mode = Number("ipv4/nexthop_compat_mode", 1) != 0;
  s.multipath_hash_policy4 = Byte(Number("ipv4/fib_multipath_hash_policy", 0));
  s.multipath_hash_policy6 = Byte(Number("ipv6/fib_multipath_hash_policy", 0));
  return s;
}

}  // namespace sluice::control
