// A ruleset with every family, hook and kind of set, and rules with every statement and match that
// nft 1.0.6 and kernel 6.18 know (but `queue`, which needs a module that not every kernel has): each of
// `kRules` is what follows "add rule".
#ifndef SLUICE_TESTS_UNIT_CONTROL_NFT_EVERY_STATEMENT_H_
#define SLUICE_TESTS_UNIT_CONTROL_NFT_EVERY_STATEMENT_H_

namespace sluice::control::nft::test {

inline constexpr char kBaseRuleset[] = R"(flush ruleset
table inet t {
  counter c1 { packets 5 bytes 7; }
  quota q1 { over 25 mbytes; }
  limit l1 { rate over 5 kbytes/second burst 100 bytes; }
  ct helper ftp { type "ftp" protocol tcp; l3proto ip; }
  ct timeout ctt { protocol tcp; l3proto ip; policy = { established : 100 }; }
  ct expectation cte { protocol tcp; dport 100; timeout 1h; size 12; l3proto ip; }
  synproxy sp { mss 1460; wscale 7; timestamp sack-perm; }
  set a4 { type ipv4_addr; elements = { 1.2.3.4, 5.6.7.8 }; }
  set i4 { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 11.0.0.0-11.0.0.9, 192.168.0.1 }; }
  set cc { type ipv4_addr . inet_service; flags interval; elements = { 10.0.0.0/8 . 80-90, 1.1.1.1 . 22 }; }
  set dyn { type ipv4_addr; flags dynamic,timeout; timeout 1m; size 1000; }
  set dynl { type ipv4_addr; flags dynamic; size 1000; }
  set el { type ipv4_addr; flags timeout; counter; elements = { 9.9.9.9 counter packets 3 bytes 4 timeout 1h }; }
  map dm { type inet_service : ipv4_addr . inet_service; elements = { 80 : 10.0.0.1 . 8080 }; }
  map om { type ipv4_addr : counter; elements = { 1.2.3.4 : "c1" }; }
  map mm { type ipv4_addr : mark; flags interval; elements = { 10.0.0.0/8 : 0x5, * : 0x7 }; }
  chain sub { return; }
  chain sub2 { continue; }
  map vm { type inet_service : verdict; elements = { 22 : accept, 23 : drop, 24 : jump sub }; }
  chain c { }
  chain fw { type filter hook forward priority filter + 5; policy drop; }
  chain pre { type filter hook prerouting priority raw; notrack; }
  chain post { type filter hook postrouting priority mangle; }
  chain inp { type filter hook input priority 0; }
  chain out { type filter hook output priority 0; }
  chain rout { type route hook output priority 0; }
  chain ing { type filter hook ingress device "lo" priority 0; drop; }
  chain nd { type nat hook prerouting priority dstnat; }
  chain ns { type nat hook postrouting priority srcnat; }
}
table netdev n {
  chain i { type filter hook ingress devices = { lo } priority -5; fwd to "lo"; ip saddr 1.2.3.4 drop; }
  chain e { type filter hook egress device lo priority 0; }
}
table arp a {
 chain i { type filter hook input priority 0; arp saddr ip 1.2.3.4 drop; }
}
table bridge b {
chain f { type filter hook forward priority 0; ether saddr 00:11:22:33:44:55 drop; }
}
table ip dorm { flags dormant; }
table ip6 t6 {
set s { type ipv6_addr; elements = { ::1 }; }
}
table ip old { chain p { type filter hook prerouting priority 0; }
}
)";

inline constexpr const char* kRules[] = {
    R"(inet t c ct state vmap { established : accept, related : accept, invalid : drop })",
    R"(inet t c iifname "eth*" oifname "lan0" accept)",
    R"(inet t c iif lo accept)",
    R"(inet t c meta mark 0x1 meta mark set 0x2)",
    R"(inet t c meta l4proto { tcp, udp } meta nfproto ipv4 meta pkttype multicast meta length 100-200)",
    R"(inet t c meta priority set 1:2)",
    R"(inet t c meta time > "2024-01-01 00:00:00" meta day "Monday" meta hour "10:00"-"12:00" meta cpu 0 meta iifgroup 1)",
    R"(inet t c meta random & 0xf == 1)",
    R"(inet t c meta protocol ip6 meta iiftype ether meta skuid 0)",
    R"(inet t c ether saddr 00:11:22:33:44:55 ether type ip)",
    R"(inet t c vlan id 5)",
    R"(inet t c ip saddr 10.0.0.0/8 ip daddr != 192.168.1.1-192.168.1.9 ip ttl 1 ip dscp cs1 ip frag-off & 0x1fff != 0 ip protocol icmp ip length 5 ip id 7)",
    R"(inet t c ip dscp set cs2 ip ttl set 5)",
    R"(inet t c ip6 saddr fe80::/10 ip6 hoplimit 255 ip6 dscp af11 ip6 flowlabel 5 ip6 nexthdr 6)",
    R"(inet t c ip6 dscp set cs3 ip6 hoplimit set 9)",
    R"(inet t c icmp type echo-request icmp code 0 icmp id 5)",
    R"(inet t c icmpv6 type { nd-neighbor-solicit, echo-request })",
    R"(inet t c tcp dport 22 tcp sport != 1024-65535 tcp flags & (syn|ack) == syn tcp window > 5)",
    R"(inet t c tcp flags syn / syn,ack)",
    R"(inet t c udp dport { 53, 67-68 } udp length 8)",
    R"(inet t c sctp dport 5 sctp chunk data exists)",
    R"(inet t c dccp dport 5)",
    R"(inet t c th dport 7 @th,16,16 9 @nh,8,8 1)",
    R"(inet t c exthdr frag exists exthdr hbh missing)",
    R"(inet t c frag id 5 rt type 0 hbh hdrlength 1 dst nexthdr 3 mh type 1)",
    R"(inet t c tcp option maxseg size 100 tcp option sack-permitted exists tcp option timestamp missing)",
    R"(inet t c tcp option maxseg size set rt mtu)",
    R"(inet t c tcp option maxseg size set 1400)",
    R"(inet t c reset tcp option timestamp)",
    R"(inet t c ip option lsrr exists)",
    R"(inet t c fib saddr . iif oif missing fib daddr type local fib saddr . mark oif lo)",
    R"(inet t pre fib daddr . iif type != local)",
    R"(inet t c ct state new ct direction original ct status snat ct mark 5 ct expiration 10s-20s)",
    R"(inet t c ct original ip saddr 1.2.3.4 tcp dport 5 ct reply proto-dst 5)",
    R"(inet t c ct reply ip6 daddr ::1)",
    R"(inet t c ct original protocol 6)",
    R"(inet t c ct bytes > 100 ct original packets > 5 ct avgpkt 3 ct zone 1 ct id 5)",
    R"(inet t c ct label 1)",
    R"(inet t c ct helper "ftp")",
    R"(inet t c ct mark set 0x5)",
    R"(inet t c ct mark set meta mark)",
    R"(inet t pre ct zone set 5)",
    R"(inet t pre ct original zone set 5)",
    R"(inet t c ct label set 5)",
    R"(inet t c ct event set new,destroy)",
    R"(inet t c meta mark set ct mark and 0xff or 0x10)",
    R"(inet t c ct count over 20 drop)",
    R"(inet t c ct helper set "ftp")",
    R"(inet t c ct timeout set "ctt")",
    R"(inet t c ct expectation set "cte")",
    R"(inet t c limit rate 5/second burst 3 packets)",
    R"(inet t c limit rate over 10 mbytes/minute)",
    R"(inet t c quota over 5 kbytes drop)",
    R"(inet t c quota 5 kbytes used 3 kbytes)",
    R"(inet t c counter name "c1" quota name "q1" limit name "l1")",
    R"(inet t c counter name ip saddr map @om)",
    R"(inet t c counter packets 3 bytes 4 log prefix "x: " level info flags all)",
    R"(inet t c log group 3 snaplen 20 queue-threshold 5 prefix "y")",
    R"(inet t c log level audit)",
    R"(inet t c reject)",
    R"(inet t c reject with tcp reset)",
    R"(inet t c reject with icmp type host-unreachable)",
    R"(inet t c reject with icmpv6 type admin-prohibited)",
    R"(inet t c reject with icmpx type admin-prohibited)",
    R"(inet t c ip saddr @a4 drop)",
    R"(inet t c ip saddr != @i4 drop)",
    R"(inet t c ip saddr . tcp dport @cc drop)",
    R"(inet t c ip saddr { 1.2.3.0/24, 5.0.0.0/8 } tcp dport != { 1, 2 } drop)",
    R"(inet t c ip saddr . tcp dport . iifname { 1.2.3.4 . 5 . "eth0" } drop)",
    R"(inet t c tcp dport vmap @vm)",
    R"(inet t c tcp dport vmap { 1 : goto sub, 2-5 : jump sub2 })",
    R"(inet t c meta mark set ip saddr map @mm)",
    R"(inet t c add @dyn { ip saddr })",
    R"(inet t c update @dyn { ip saddr timeout 30s limit rate over 5/second } drop)",
    R"(inet t c add @dynl { ip saddr ct count over 3 } drop)",
    R"(inet t c add @dyn { ip saddr limit rate 5/second counter })",
    R"(inet t c delete @dyn { ip saddr })",
    R"(inet t c jump { ip saddr 1.1.1.1 accept; })",
    R"(inet t c goto sub)",
    R"(inet t c numgen inc mod 2 vmap { 0 : accept, 1 : drop })",
    R"(inet t c meta mark set numgen random mod 4 offset 3)",
    R"(inet t c meta mark set jhash ip saddr . tcp sport mod 2 seed 0xabcd)",
    R"(inet t c meta mark set symhash mod 2)",
    R"(inet t c rt classid 5 rt ip nexthop 1.2.3.4)",
    R"(inet t c rt ip6 nexthop ::1)",
    R"(inet t c rt mtu 1200)",
    R"(ip old p dup to 1.2.3.4)",
    R"(inet t c socket transparent 1)",
    R"(inet t c meta l4proto tcp tproxy ip to :50)",
    R"(inet t c osf name "Linux")",
    R"(inet t pre ipsec in reqid 5)",
    R"(inet t c rt ipsec exists)",
    R"(inet t pre notrack)",
    R"(inet t c synproxy mss 1460 wscale 7 timestamp sack-perm)",
    R"(inet t c synproxy name "sp")",
    R"(inet t c ip saddr 1.2.3.4 comment "hello")",
    R"(inet t c meta mark set meta mark << 3)",
    R"(inet t c meta mark set meta mark >> 3)",
    R"(inet t c tcp dport { 1-1023 } meta nftrace set 1)",
    R"(inet t c ip saddr & 0.0.0.255 == 5)",
    R"(inet t c ip version 4 ip hdrlength 5)",
    R"(inet t c meta sdif 5 meta iifkind "vrf" meta secpath exists)",
    R"(inet t c @ih,0,8 1)",
    R"(inet t c @ih,0,8 set 1)",
    R"(inet t c udp checksum set 0)",
    R"(inet t c tcp dport set 80)",
    R"(inet t c ip saddr set 1.2.3.4)",
    R"(inet t c meta pkttype set host)",
    R"(inet t c meta cgroup 5 meta rtclassid 5)",
    R"(inet t c ip daddr 1.2.3.4 drop)",
    R"(inet t c icmp mtu 5)",
    R"(inet t c ah spi 5)",
    R"(inet t c srh tag 5)",
    R"(inet t c ether saddr set 00:11:22:33:44:55)",
    R"(inet t c meta l4proto 6 accept)",
    R"(inet t nd dnat ip to 10.0.0.1)",
    R"(inet t nd ip protocol tcp dnat ip to 10.0.0.1-10.0.0.9:80-90 persistent)",
    R"(inet t nd tcp dport 1 dnat ip6 to [fe80::1]:80)",
    R"(inet t nd tcp dport 80 redirect to :8080)",
    R"(inet t nd redirect)",
    R"(inet t nd dnat ip addr . port to tcp dport map @dm)",
    R"(inet t ns snat ip to 1.2.3.4)",
    R"(inet t ns snat ip to 1.2.3.4-1.2.3.8 random)",
    R"(inet t ns ip protocol tcp snat ip to 1.2.3.4:1000-2000 fully-random)",
    R"(inet t ns masquerade)",
    R"(inet t ns masquerade random,persistent)",
    R"(inet t ns meta l4proto tcp masquerade to :1024-65535)",
    R"(inet t ns snat ip prefix to ip saddr map { 10.0.0.0/24 : 1.2.3.0/24 })",
};

}  // namespace sluice::control::nft::test

#endif  // SLUICE_TESTS_UNIT_CONTROL_NFT_EVERY_STATEMENT_H_
