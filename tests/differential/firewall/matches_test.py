"""Every match that Sluice has, one by one, in each family of tables that takes it.

A match sets a mark and a second rule makes the mark visible; both count. The packets are those of
traffic.mixed, of which every match must take some and leave some.
"""

import re

import pytest

import wire
from traffic import Hosts, addressed, mixed
from twins import SluiceTwin

# What the objects are that a match may refer to, with <4> and <6> for addresses of the round.
OBJECTS = """
  set ports { type inet_service; elements = { 22, 53 }; }
  set portranges { type inet_service; flags interval; elements = { 20-30, 8000-9000 }; }
  set protocols { type inet_proto; elements = { tcp, icmp }; }
  set marks { type mark; elements = { 0x1, 0x5 }; }
  set interfaces { type ifname; elements = { "left", "lo" }; }
"""
ANY = [
    'iifname "left"', "iifname != left", 'iifname "le*"', "iifname { left, wan }",
    'iifname { "w*", lo }', "iif left", "iif { left, wan }", 'oifname "wan"', 'oifname != "wan"',
    'oifname "w*"', "oif right", "oif != right", "iifname @interfaces",
    "meta iifname . meta oifname { left . wan, wan . left }", "meta iiftype ether",
    "meta oiftype ether",
    "meta l4proto tcp", "meta l4proto != udp", "meta l4proto { tcp, sctp }", "meta l4proto 99",
    "meta l4proto 40-60", "meta l4proto @protocols", "meta length { 68, 88 }", "meta length > 500",
    "meta length 60-100", "meta length { 40, 60 }", "meta mark 0x0", "meta mark and 0x1 == 0",
    "meta mark 0x5", "meta mark { 0x5, 0x7 }", "meta mark @marks", "meta mark 0x4-0x6",
    "meta protocol { ip, ip6 }",
    "tcp sport 4001", "tcp dport 80", "tcp dport != 80", "tcp dport { 22, 80 }", "tcp dport 1-100",
    "tcp dport { 1-50, 400-500 }", "tcp dport < 80", "tcp dport >= 443", "tcp dport @ports",
    "tcp dport != @ports", "tcp dport @portranges", "tcp dport . tcp sport { 80 . 4001 }",
    "tcp flags syn", "tcp flags != syn", "tcp flags & (fin|syn|rst|ack) == syn",
    "tcp flags & (syn|ack) == syn|ack", "tcp flags fin,psh,urg", "tcp flags ! syn",
    "tcp flags == 0x0", "tcp flags { syn, syn|ack }", "tcp flags & syn != 0",
    "tcp flags syn / syn,ack", "tcp window > 1000", "tcp doff > 5", "tcp sequence 1-1000000",
    "tcp ackseq > 0", "tcp urgptr 0", "tcp reserved 0",
    "tcp option maxseg exists", "tcp option maxseg missing", "tcp option maxseg size 1460",
    "tcp option maxseg size < 1000", "tcp option sack-perm exists", "tcp option window exists",
    "tcp option window count 7", "tcp option timestamp exists", "tcp option timestamp tsval 1",
    "tcp option sack exists", "tcp option 34 exists", "tcp option eol missing",
    "udp sport 5353", "udp dport 53", "udp dport { 53, 9999 }", "udp dport vmap { 53 : continue }",
    "udp length > 100", "udp length 16-50", "udp checksum 0", "udp checksum != 0",
    "sctp dport 2905", "sctp sport 2905", "sctp vtag 0", "sctp chunk init exists",
    "th dport 53", "th sport { 4001, 5353 }", "meta l4proto . th dport { tcp . 80, udp . 53 }",
    "udplite dport 0-65535", "@th,0,16 4001", "@th,16,16 { 22, 53 }", "@nh,0,4 { 4, 6 }",
    "@th,64,8 0xf1", "@ih,0,8 0xf1",
    "ct state new", "ct state established", "ct state related", "ct state invalid",
    "ct state { new, related }", "ct state established,related", "ct state != established",
    "ct state untracked", "ct state vmap { new : continue, invalid : continue }",
    "ct direction original", "ct direction reply", "ct status seen-reply", "ct status assured",
    "ct status confirmed", "ct status expected", "ct status & (snat|dnat) == 0", "ct mark 0x0",
    "ct mark != 0x0", "ct mark and 0x8 == 0x8", "ct mark { 0x9, 0xa }", "ct protocol tcp", "ct protocol { udp, icmp, 58 }",
    "ct zone 0", "ct expiration > 1s", "ct expiration < 60s",
    "meta l4proto tcp ct original proto-dst 80", "meta l4proto udp ct reply proto-src 53",
    "meta l4proto tcp ct original proto-src 4001", "meta l4proto udp ct reply proto-dst 1-6000",
    "ct packets > 1", "ct original packets 1", "ct reply packets > 0", "ct bytes > 500",
    "ct original bytes < 100", "ct avgpkt > 100", "meta l4proto udp ct count 2",
    "meta l4proto udp ct count over 1",
    "rt mtu < 1400", "rt mtu 1400-1500", "limit rate 3/day burst 4 packets",
    "limit rate over 3/day burst 4 packets", "limit rate 10 bytes/day burst 400 bytes",
    "limit rate over 10 bytes/day burst 400 bytes", "quota 500 bytes", "quota over 500 bytes",
    "numgen inc mod 3 1", "numgen inc mod 4 offset 2 < 4",
]
# With packets of both families.
INET = ["meta nfproto ipv4", "meta nfproto ipv6", "meta nfproto { ipv4, 7 }", "meta priority 0:4",
        "meta priority none"]
IP4 = [
    "ip saddr <left.1>", "ip saddr != <left.1>", "ip daddr <wan.53>", "ip saddr <left.0>/24",
    "ip saddr <left.0>/29", "ip saddr <left.1>-<left.5>", "ip saddr { <left.1>, <wan.3> }",
    "ip saddr { <left.0>/29, <wan.50>-<wan.60> }", "ip saddr != { <left.1>, <wan.3> }",
    "ip saddr & 255.0.0.255 == <left.1> & 255.0.0.255", "ip saddr . ip daddr { <left.1> . <right.9> }",
    "ip saddr . tcp dport { <left.1> . 80, <left.2> . 1-100 }",
    "ip saddr . ip daddr . meta l4proto { <left.1> . <wan.53> . udp }",
    "ip daddr . udp dport { <wan.0>/25 . 50-60 }", "iifname . ip saddr { left . <left.1> }",
    "ip protocol tcp", "ip protocol { tcp, udp }", "ip protocol != icmp", "ip version 4",
    "ip hdrlength 5", "ip hdrlength > 5", "ip dscp ef", "ip dscp { 0x0a, ef }", "ip dscp != 0",
    "ip ecn ce", "ip ecn != not-ect", "ip length 68", "ip length > 500", "ip length 40-60", "ip id 0x1234",
    "ip id { 0x4242, 0x77 }", "ip frag-off 0x4000",
    "ip ttl 63", "ip ttl < 64", "ip ttl { 1, 63 }", "ip ttl 2-10",
    "ip checksum != 0", "ip option rr exists", "ip option ra exists", "ip option lsrr missing",
    "icmp type echo-request", "icmp type { echo-request, echo-reply }",
    "icmp type destination-unreachable", "icmp code 3", "icmp code { 0, 4 }", "icmp id 77",
    "icmp sequence 1", "icmp mtu 1300", "icmp type timestamp-request", "icmp type redirect",
    "icmp type . icmp code { 3 . 3 }", "icmp checksum != 0",
    "ct original ip saddr <left.1>", "ct original ip daddr <wan.0>/24",
    "ct reply ip saddr <right.9>", "ct reply ip daddr { <left.1>, <left.2> }",
    "rt ip nexthop 10.3.0.2", "@nh,96,8 11", "ah spi 0x04050607",
    "ip daddr . ct mark { <wan.53> . 0x0 }", "jhash ip saddr mod 7 seed 0x1234 < 3",
    "jhash ip saddr . ip daddr mod 16 seed 0xdeadbeef < 8",
]
IP6 = [
    "ip6 saddr <left.1>", "ip6 saddr != <left.1>", "ip6 daddr <wan.53>", "ip6 saddr <left.0>/120",
    "ip6 saddr <left.1>-<left.5>", "ip6 saddr { <left.1>, <wan.3> }",
    "ip6 saddr { <left.0>/125, <wan.50>-<wan.60> }", "ip6 saddr & ffff::ff == <left.1> & ffff::ff",
    "ip6 saddr . ip6 daddr { <left.1> . <right.9> }",
    "ip6 saddr . tcp dport { <left.1> . 80, <left.2> . 1-100 }",
    "ip6 daddr . udp dport { <wan.0>/121 . 50-60 }", "ip6 nexthdr tcp",
    "ip6 nexthdr { udp, 44 }", "ip6 version 6", "ip6 dscp ef", "ip6 dscp != 0", "ip6 ecn ce",
    "ip6 flowlabel 0x12345", "ip6 flowlabel 0", "ip6 length > 500", "ip6 length 20-60",
    "ip6 hoplimit 63", "ip6 hoplimit < 64", "ip6 hoplimit { 1, 63 }", "ip6 hoplimit 2-10",
    "exthdr hbh exists", "exthdr hbh missing", "exthdr rt exists", "exthdr dst exists",
    "hbh nexthdr udp", "rt type 0", "rt nexthdr tcp", "dst nexthdr udp",
    "rt seg-left 0", "dst hdrlength 0",
    "icmpv6 type echo-request", "icmpv6 type { echo-request, echo-reply }",
    "icmpv6 type destination-unreachable", "icmpv6 code 4", "icmpv6 id 77", "icmpv6 sequence 1",
    "icmpv6 mtu 1300", "icmpv6 type packet-too-big", "icmpv6 type . icmpv6 code { 1 . 4 }",
    "ct original ip6 saddr <left.1>", "ct reply ip6 saddr <right.9>",
    "ct original ip6 daddr <wan.0>/112", "rt ip6 nexthop fd00:3::2",
    "jhash ip6 saddr mod 7 seed 0x1234 < 3",
]
PREROUTING = [
    "ether saddr 02:00:00:00:01:03", "ether saddr != 02:00:00:00:01:02",
    "ether daddr 02:00:00:00:01:01", "ether type { ip, ip6 }",
    "ether saddr { 02:00:00:00:01:02, 02:00:00:00:03:02 }", "meta pkttype host",
    "meta pkttype { host, multicast }", "fib daddr type local", "fib daddr type unicast",
    "fib daddr . iif type local", "fib saddr . iif oif missing", "fib saddr . iif oif exists",
    "fib saddr . iif oif != 0", "fib saddr oifname left", "fib daddr oif wan",
    "fib daddr oifname { wan, right }", "fib saddr type local", "fib saddr . mark . iif oif exists",
    "fib daddr . mark type local", "@ll,48,48 0x020000000103",
]
# Before packets are reassembled (priority -400), and before they are tracked.
EARLY = ["ip frag-off & 0x1fff != 0", "ip frag-off & 0x2000 == 0x2000", "ip6 nexthdr 44",
         "exthdr frag exists", "frag more-fragments 1", "frag frag-off != 0", "frag id 0x77",
         "frag nexthdr udp", "ct state untracked", "ip saddr <left.1>", "udp dport 9999",
         "tcp flags syn", "meta l4proto udp"]
POSTROUTING = ['oifname "wan"', "oif right", "meta length > 500", "ct state new", "tcp dport 80",
               'iifname "left"', "ip saddr <left.1>", "ip6 saddr <left.1>", "ct direction reply"]
INPUT = ['iifname "left"', "iif wan", "ct state new", "icmp type echo-request", "tcp dport 81",
         "icmpv6 type echo-request", "udp dport 82", "fib saddr . iif oif exists",
         "ip daddr 10.1.0.1", "ct state established", "meta mark 0x5"]
CASES = ([("forward", 0, match) for match in ANY + INET + IP4 + IP6] +
         [("prerouting", -50, match) for match in PREROUTING] +
         [("prerouting", -450, match) for match in EARLY] +
         [("postrouting", 0, match) for match in POSTROUTING] +
         [("input", 0, match) for match in INPUT])
# What this traffic does not tell apart: true of every packet, or of none.
# What remembers the packets it has seen.
STATEFUL = "limit|quota|numgen|ct count"
UNIFORM = {
    "meta iiftype ether", "meta oiftype ether", "meta protocol { ip, ip6 }", "ip version 4",
    "ip6 version 6", "@nh,0,4 { 4, 6 }", "tcp option eol missing", "ct status expected",
    "ct zone 0", "ct status & (snat|dnat) == 0", "ip checksum != 0", "ip option lsrr missing",
    "ether type { ip, ip6 }", "numgen inc mod 4 offset 2 < 4"}


def families_of(match):
    """The families of tables in which the match makes sense."""
    if match in INET:
        return ("inet",)
    if match in IP4 or match.startswith(("ip ", "icmp ")):
        return ("ip", "inet")
    if match in IP6 or match.startswith(("ip6 ", "icmpv6 ", "frag ", "exthdr ", "rt ", "hbh ")):
        return ("ip6", "inet")
    return ("ip", "ip6", "inet")


def ruleset(family, hook, priority, match):
    marks = {"ip": ["ip dscp set ef"], "ip6": ["ip6 dscp set ef"],
             "inet": ["ip dscp set ef", "ip6 dscp set ef"]}[family]
    shown = "\n".join(f"    meta mark and 0x70000 == 0x70000 counter {mark}" for mark in marks)
    return f"""
table {family} t {{{OBJECTS}
  chain c {{
    type filter hook {hook} priority {priority}; policy accept;
    counter
    {match} counter meta mark set meta mark or 0x70000
{shown}
  }}
}}
table inet tracking {{
  chain raw {{
    type filter hook prerouting priority -500; policy accept;
    udp sport 4009 counter notrack
  }}
  chain every {{
    type filter hook prerouting priority -60; policy accept;
    udp dport {{ 53, 82 }} counter meta mark set 0x5
    tcp dport 22 counter ct mark set 0x9
    ct state new counter
  }}
}}
"""


@pytest.mark.parametrize("hook, priority, match, family", [
    (hook, priority, match, family) for hook, priority, match in CASES
    for family in families_of(match)])
def test_match(twins, hook, priority, match, family):
    version = 4 if family == "ip" or match in IP4 or match.startswith("icmp ") else 6
    text = addressed(ruleset(family, hook, priority, match), twins.round + 1, version)
    twins.load(text)
    for version in {"ip": (4,), "ip6": (6,), "inet": (4, 6)}[family]:
        mixed(twins, version, odd=not re.search(STATEFUL, match))
    twins.check(match)
    counts = sorted((key[3], count[0]) for key, count in twins.kernel.counts().items()
                    if key[1] == "t")
    every, matched = counts[0][1], counts[1][1]
    assert every > 0
    if match not in UNIFORM:
        assert 0 < matched < every, f"{match} says nothing: {matched} of {every} packets"


@pytest.mark.parametrize("match, family", [
    ("meta iifgroup default", "inet"), ("meta iifgroup 5", "inet"), ('meta oifkind "veth"', "ip"),
    ("ct label 1", "ip6"), ('osf name "Linux"', "ip"), ("tcp dport 80 meta iifgroup default", "inet"),
    ("udp dport 53 meta iifgroup 5", "ip6")])
def test_a_match_of_the_kernels(twins, match, family):
    """What Sluice cannot judge it leaves to its kernel, which forwards it as the other one does."""
    versions = {"ip": (4,), "ip6": (6,), "inet": (4, 6)}[family]
    twins.load(addressed(ruleset(family, "forward", 0, match), twins.round + 1, versions[0]))
    sluice = isinstance(twins.other, SluiceTwin)
    before = sluice and twins.other.metric("sluice_punts_total", reason="unsupported_rule")
    for version in versions:
        mixed(twins, version)
    # Rules before that one count such packets twice (README, How it differs from the kernel).
    twins.check(match, counters=False)
    assert not sluice or twins.other.metric("sluice_punts_total",
                                            reason="unsupported_rule") > before


@pytest.mark.parametrize("state, twice", [("", 4), ("ct state new,established ", 1)],
                         ids=["each packet", "a connection's first"])
def test_rules_before_one_of_the_kernels_apply_twice(twins, state, twice):
    """README, How it differs from the kernel."""
    twins.load(f"""
table inet t {{
  set seen {{ type ipv4_addr; size 100; flags dynamic; }}
  chain c {{
    type filter hook forward priority 0; policy accept;
    {state}counter
    limit rate 1/day burst 3 packets counter
    quota 150 bytes counter
    add @seen {{ ip saddr }} counter
    meta iifgroup 5 counter
    counter
  }}
}}
""")
    hosts = Hosts(twins, 4)
    for _ in range(4):
        twins.send("left", wire.udp(hosts.left(1), hosts.wan(1), 4000, 53, bytes(22)))
    twins.finish()
    once = [4, 3, 3, 4, 0, 4]  # what each rule counts
    again = [min(count, twice) for count in once[:4]] + [0, 0]
    if not isinstance(twins.other, SluiceTwin):
        again = [0] * 6
    for side, more in zip(twins.sides, ([0] * 6, again)):
        counts = sorted((key[3], count[0]) for key, count in side.counts().items())
        assert [count for _, count in counts] == [a + b for a, b in zip(once, more)], side.name
    twins.check("frames", counters=False)
