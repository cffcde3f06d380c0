#include "support/kernel_conntrack.h"

#include <cerrno>

#include <libnetfilter_conntrack/libnetfilter_conntrack.h>
#include <libnetfilter_conntrack/libnetfilter_conntrack_tcp.h>

namespace sluice::test {
namespace {

constexpr uint8_t kOriginalTtl = 100;
constexpr uint8_t kReplyTtl = 101;

constexpr const char* kRuleset = R"(
table inet slct {
  chain forward {
    type filter hook forward priority 0;
    ct state invalid ip dscp set 1
    ct state new ip dscp set 2
    ct state established ip dscp set 3
    ct state related ip dscp set 4
    ct state untracked ip dscp set 5
    ct state invalid ip6 dscp set 1
    ct state new ip6 dscp set 2
    ct state established ip6 dscp set 3
    ct state related ip6 dscp set 4
    ct state untracked ip6 dscp set 5
    meta nfproto ipv4 ip ttl set 100
    meta nfproto ipv6 ip6 hoplimit set 100
    ct direction reply ip ttl set 101
    ct direction reply ip6 hoplimit set 101
  }
})";

void Setup() {
  for (const char* interface : {"slct-ra", "slct-rb"}) {
    const std::string base = std::string("/proc/sys/net/ipv6/conf/") + interface;
    WriteFile(base + "/disable_ipv6", "0");
    WriteFile(base + "/accept_dad", "0");
  }
  WriteFile("/proc/sys/net/ipv4/ip_forward", "1");
  WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", "1");
  // The hosts' MAC addresses are not those of the interfaces at their ends, so that the kernel does
  // not take what leaves the router for something that it receives.
  Shell(R"(ip -batch - <<END
addr add 10.0.0.1/24 dev slct-ra
addr add 192.0.2.1/24 dev slct-rb
addr add 2001:db8::1/64 dev slct-ra nodad
addr add 2001:db8:1::1/64 dev slct-rb nodad
neigh add 10.0.0.2 lladdr 02:00:00:00:00:aa dev slct-ra
neigh add 192.0.2.9 lladdr 02:00:00:00:00:bb dev slct-rb
neigh add 2001:db8::2 lladdr 02:00:00:00:00:aa dev slct-ra
neigh add 2001:db8:1::9 lladdr 02:00:00:00:00:bb dev slct-rb
END)");
  Shell(std::string("nft -f - <<END") + kRuleset + "\nEND");
}

int Keep(enum nf_conntrack_msg_type, struct nf_conntrack* ct, void* data) {
  auto& entry = *static_cast<std::optional<KernelConntrack::Entry>*>(data);
  entry.emplace();
  entry->source_port = ntohs(nfct_get_attr_u16(ct, ATTR_ORIG_PORT_SRC));
  entry->status = nfct_get_attr_u32(ct, ATTR_STATUS);
  entry->timeout = nfct_get_attr_u32(ct, ATTR_TIMEOUT);
  if (nfct_attr_is_set(ct, ATTR_TCP_STATE)) {
    entry->tcp_state = nfct_get_attr_u8(ct, ATTR_TCP_STATE);
    entry->flags[0] = nfct_get_attr_u8(ct, ATTR_TCP_FLAGS_ORIG);
    entry->flags[1] = nfct_get_attr_u8(ct, ATTR_TCP_FLAGS_REPL);
    entry->scales[0] = nfct_get_attr_u8(ct, ATTR_TCP_WSCALE_ORIG);
    entry->scales[1] = nfct_get_attr_u8(ct, ATTR_TCP_WSCALE_REPL);
  }
  if (nfct_attr_is_set(ct, ATTR_SCTP_STATE)) {
    entry->sctp_state = nfct_get_attr_u8(ct, ATTR_SCTP_STATE);
  }
  return NFCT_CB_CONTINUE;
}

}  // namespace

KernelConntrack::KernelConntrack() : a_("slct-ra", "slct-ha"), b_("slct-rb", "slct-hb") {
  Setup();
  sockets_[0] = std::make_unique<RawSocket>("slct-ha");
  sockets_[1] = std::make_unique<RawSocket>("slct-hb");
  handle_ = nfct_open(CONNTRACK, 0);
  Require(handle_ != nullptr, "nfct_open");
  for (const uint8_t family : {AF_INET, AF_INET6}) {
    const uint32_t all = family;
    Require(nfct_query(handle_, NFCT_Q_FLUSH, &all) == 0, "flush");
  }
}

KernelConntrack::~KernelConntrack() {
  nfct_close(handle_);
  Shell("nft delete table inet slct");
}

void KernelConntrack::Sysctl(const std::string& name, const std::string& value) {
  WriteFile("/proc/sys/net/netfilter/nf_conntrack_" + name, value);
}

std::optional<KernelConntrack::Said> KernelConntrack::Pass(const Bytes& frame, bool from_a) {
  RawSocket& in = *sockets_[from_a ? 0 : 1];
  RawSocket& out = *sockets_[from_a ? 1 : 0];
  Require(in.Send(frame), "send");
  // Neighbour discovery of the router's own may come as well.
  for (auto got = out.Receive(); got; got = out.Receive()) {
    const Bytes& f = *got;
    if (f.size() < 34) continue;
    const bool v4 = f[12] == 8 && f[13] == 0;
    const uint8_t ttl = v4 ? f[22] : f[21];
    if (ttl != kOriginalTtl && ttl != kReplyTtl) continue;
    const uint8_t traffic_class = v4 ? f[15] : static_cast<uint8_t>(f[14] << 4 | f[15] >> 4);
    Said said;
    said.state = static_cast<tables::CtState>(traffic_class >> 2);
    said.direction = static_cast<tables::FlowDirection>(ttl - kOriginalTtl);
    return said;
  }
  return {};
}

std::optional<KernelConntrack::Entry> KernelConntrack::Find(const tables::FlowTuple& t) {
  struct nf_conntrack* ct = nfct_new();
  Require(ct != nullptr, "nfct_new");
  if (t.family == Family::kIpv4) {
    nfct_set_attr_u8(ct, ATTR_L3PROTO, AF_INET);
    nfct_set_attr_u32(ct, ATTR_IPV4_SRC, htonl(static_cast<uint32_t>(t.source.lo)));
    nfct_set_attr_u32(ct, ATTR_IPV4_DST, htonl(static_cast<uint32_t>(t.destination.lo)));
  } else {
    uint8_t address[16];
    nfct_set_attr_u8(ct, ATTR_L3PROTO, AF_INET6);
    t.source.ToWire(address);
    nfct_set_attr(ct, ATTR_IPV6_SRC, address);
    t.destination.ToWire(address);
    nfct_set_attr(ct, ATTR_IPV6_DST, address);
  }
  nfct_set_attr_u8(ct, ATTR_L4PROTO, t.protocol);
  if (t.protocol == 1 || t.protocol == 58) {
    nfct_set_attr_u16(ct, ATTR_ICMP_ID, htons(t.source_port));
    nfct_set_attr_u8(ct, ATTR_ICMP_TYPE, static_cast<uint8_t>(t.destination_port >> 8));
    nfct_set_attr_u8(ct, ATTR_ICMP_CODE, static_cast<uint8_t>(t.destination_port));
  } else {
    nfct_set_attr_u16(ct, ATTR_PORT_SRC, htons(t.source_port));
    nfct_set_attr_u16(ct, ATTR_PORT_DST, htons(t.destination_port));
  }
  std::optional<Entry> entry;
  nfct_callback_register(handle_, NFCT_T_ALL, Keep, &entry);
  const int result = nfct_query(handle_, NFCT_Q_GET, ct);
  Require(result == 0 || errno == ENOENT, "nfct_query");
  nfct_callback_unregister(handle_);
  nfct_destroy(ct);
  return entry;
}

}  // namespace sluice::test
