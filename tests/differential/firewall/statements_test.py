"""Every statement, and what chains, tables and priorities decide, in tables of each kind."""

import re
import socket
import time

import pytest

from addresses import LINKS, ip4, mac
from flows import Flows
from traffic import addressed, mixed
from twins import far
from wire import SYN

KINDS = pytest.mark.parametrize("family, version", [("ip", 4), ("ip6", 6), ("inet", 4),
                                                    ("inet", 6)])
FORWARD = "type filter hook forward priority 0; policy accept;"
# Name: a table's content. IP stands for ip or ip6, TTL for its field's name, <left.1> for an address.
STATEMENTS = {
    "accept": f"""chain c {{ {FORWARD}
        tcp dport 80 counter accept
        counter }}
      chain later {{ type filter hook forward priority 10; policy accept;
        counter }}""",
    "drop": f"""chain c {{ {FORWARD}
        tcp dport 80 counter drop
        udp sport 53 counter drop
        counter }}
      chain later {{ type filter hook forward priority 10; policy accept;
        counter }}""",
    "policy drop": """chain c { type filter hook forward priority 0; policy drop;
        ct state established counter accept
        udp dport 53 counter accept
        counter }""",
    "policy drop in prerouting": """chain c { type filter hook prerouting priority 0; policy drop;
        tcp dport 80 counter accept
        counter }""",
    "policy drop in postrouting": """chain c { type filter hook postrouting priority 0; policy drop;
        tcp dport 80 counter accept
        tcp sport 80 counter accept
        counter }""",
    "drop before tracking": """chain c { type filter hook prerouting priority -350; policy accept;
        udp dport 53 counter drop
        tcp dport 22 counter accept }
      chain f { type filter hook forward priority 0; policy accept;
        ct state new counter
        ct state invalid counter drop }""",
    "jump and return": f"""chain a {{
        tcp dport 80 counter return
        counter mark set 0x1
        jump b
        counter mark set 0x3 }}
      chain b {{
        udp dport 53 counter accept
        meta l4proto udp counter mark set 0x2 }}
      chain c {{ {FORWARD}
        IP saddr <left.0>/{{BITS}} counter jump a
        meta mark 0x1 counter
        meta mark 0x2 counter
        meta mark 0x3 counter drop
        counter }}""",
    "goto": f"""chain a {{
        meta l4proto tcp counter
        udp dport 53 counter goto b
        counter mark set 0x1 }}
      chain b {{
        counter mark set 0x2 }}
      chain c {{ {FORWARD}
        meta l4proto {{{{ tcp, udp }}}} counter goto a
        counter }}
      chain later {{ type filter hook forward priority 20; policy accept;
        meta mark 0x1 counter
        meta mark 0x2 counter drop }}""",
    "goto ends in the policy": """chain a {
        tcp dport 80 counter accept
        counter }
      chain c { type filter hook forward priority 0; policy drop;
        meta l4proto tcp counter goto a
        counter accept }""",
    "return from a base chain": """chain c { type filter hook forward priority 0; policy drop;
        tcp dport 80 counter accept
        meta l4proto udp counter return
        counter accept }""",
    "deep jumps": "\n".join(
        f"chain a{n} {{ counter\n tcp dport {80 if n % 2 else 22} counter return\n "
        f"{'counter drop' if n == 0 else f'jump a{n - 1}'}\n counter }}" for n in range(15)) +
        f"""
      chain c {{ {FORWARD}
        meta l4proto {{{{ tcp, udp }}}} jump a14
        counter }}""",
    "continue": f"""chain c {{ {FORWARD}
        tcp dport 80 counter continue
        counter }}""",
    "priorities": "\n".join(
        f"chain {hook}{n} {{ type filter hook {hook} priority {priority}; policy accept;\n"
        f"  meta mark set meta mark xor {n + 1:#x} counter\n  meta mark {n + 1:#x} counter }}"
        for hook in ("prerouting", "forward", "postrouting")
        for n, priority in enumerate((10, -5, 300, -300, -150, 0, 101))),
    "verdict map": f"""chain a {{ counter mark set 0x1 }}
      chain c {{ {FORWARD}
        meta l4proto vmap {{{{ tcp : jump a, udp : continue, icmp : accept, 58 : drop }}}}
        tcp dport vmap {{{{ 80 : accept, 22 : drop, 400-500 : goto a }}}}
        counter }}""",
    "named verdict map": f"""chain a {{ counter mark set 0x1 }}
      map v {{ type inet_service : verdict; flags interval;
        elements = {{ 53 : jump a, 22-52 : drop, 80 : accept }} }}
      chain c {{ {FORWARD}
        th dport vmap @v
        counter }}""",
    "concatenated verdict map": f"""map v {{ type {{ADDR}} . inet_service : verdict; flags interval;
        elements = {{ <left.0>/{{BITS}} . 80 : accept, <wan.0>-<wan.100> . 1-10000 : drop }} }}
      chain c {{ {FORWARD}
        meta l4proto {{{{ tcp, udp }}}} IP saddr . th dport vmap @v
        counter }}""",
    "default of a verdict map": f"""map v {{ type inet_service : verdict;
        elements = {{ 80 : accept, * : drop }} }}
      chain c {{ {FORWARD}
        tcp dport vmap @v
        counter }}""",
    "maps to marks": f"""map m {{ type {{ADDR}} : mark; elements = {{ <left.1> : 0x1, <left.2> : 0x2 }} }}
      map p {{ type inet_service : mark; flags interval; elements = {{ 1-60 : 0x10, 61-90 : 0x20 }} }}
      chain c {{ {FORWARD}
        mark set IP saddr map @m counter
        meta mark 0x1 counter
        mark set th dport map @p counter
        meta mark 0x10 counter
        meta mark 0x20 counter drop }}""",
    "map to an address": f"""chain c {{ {FORWARD}
        IP saddr set tcp dport map {{{{ 80 : <left.97>, 22 : <left.98> }}}} counter }}""",
    "counters by name": f"""counter total {{{{ }}}}
      counter web {{{{ }}}}
      map m {{ type inet_service : counter; elements = {{ 53 : "total", 80 : "web" }} }}
      chain c {{ {FORWARD}
        counter name total
        tcp dport 80 counter name web
        counter name th dport map @m counter }}""",
    "two counters": f"""chain c {{ {FORWARD}
        counter tcp dport 80 counter accept
        tcp dport 22 counter }}""",
    "quota by name": f"""quota q {{{{ over 500 bytes }}}}
      quota r {{{{ 900 bytes }}}}
      chain c {{ {FORWARD}
        udp dport 53 quota name q counter drop
        tcp dport 80 quota name r counter mark set 0x1
        counter }}""",
    "limit by name": f"""limit l {{{{ rate 2/day burst 3 packets }}}}
      limit m {{{{ rate over 5 bytes/day burst 200 bytes }}}}
      chain c {{ {FORWARD}
        meta l4proto udp limit name l counter accept
        meta l4proto tcp limit name m counter drop
        counter }}""",
    "mark": f"""chain p {{ type filter hook prerouting priority 0; policy accept;
        mark set 0x12345678 counter
        tcp dport 80 mark set mark and 0xffff0000 counter
        udp dport 53 mark set mark or 0xff counter
        meta l4proto sctp mark set mark xor 0xffffffff counter }}
      chain c {{ {FORWARD}
        mark 0x12340000 counter drop
        mark 0x123456ff counter drop
        mark 0xedcba987 counter drop
        counter }}""",
    "ct mark": f"""chain p {{ type filter hook prerouting priority 0; policy accept;
        ct state new tcp dport 80 ct mark set 0x7 counter
        ct state new udp dport 53 mark set 0x10 ct mark set mark or 0x1 counter
        mark set ct mark counter }}
      chain c {{ {FORWARD}
        mark 0x7 ct direction reply counter drop
        ct mark 0x11 counter IP dscp set cs2
        counter }}""",
    "dscp": f"""chain c {{ {FORWARD}
        tcp dport 80 IP dscp set ef counter
        udp dport 53 IP dscp set 0x3f counter
        IP ecn set ce counter }}""",
    "ttl": f"""chain c {{ type filter hook prerouting priority 0; policy accept;
        tcp dport 80 IP TTL set 1 counter
        udp dport 53 IP TTL set 200 counter }}
      chain p {{ type filter hook postrouting priority 0; policy accept;
        meta l4proto sctp IP TTL set 5 counter }}""",
    "maxseg": f"""chain c {{ {FORWARD}
        tcp flags syn tcp option maxseg size set 1000 counter }}""",
    "maxseg to the route's": """chain c { type filter hook postrouting priority 0; policy accept;
        tcp flags syn / syn,rst tcp option maxseg size set rt mtu counter }""",
    "option deleted": f"""chain c {{ {FORWARD}
        reset tcp option sack-perm counter
        tcp flags syn reset tcp option timestamp counter }}""",
    "ports written": f"""chain c {{ {FORWARD}
        tcp dport 80 tcp dport set 8080 counter
        udp dport 53 udp dport set 5300 counter
        udp dport 9999 udp sport set 1 counter }}""",
    "addresses written": f"""chain c {{ {FORWARD}
        udp dport 53 IP saddr set <left.99> counter
        tcp dport 80 IP saddr set <left.98> counter
        icmp type echo-request IP daddr set <right.97> counter
        meta l4proto sctp IP saddr set <left.96> counter }}""",
    "raw bytes written": f"""chain c {{ {FORWARD}
        udp dport 53 @th,0,16 set 7777 counter
        tcp dport 80 @th,16,16 set 81 counter }}""",
    "notrack": """chain raw { type filter hook prerouting priority -300; policy accept;
        tcp dport 80 counter notrack
        tcp sport 80 counter notrack }
      chain c { type filter hook forward priority 0; policy accept;
        ct state untracked counter
        ct state new counter
        ct state established counter
        ct state invalid counter }""",
    "sets from the packet path": f"""set seen {{ type {{ADDR}}; size 1000; flags dynamic; }}
      set pairs {{ type {{ADDR}} . inet_service; size 1000; flags dynamic,timeout; timeout 1h; }}
      chain c {{ {FORWARD}
        IP saddr @seen counter
        IP saddr . th dport @pairs counter mark set 0x1
        meta l4proto tcp add @seen {{{{ IP saddr }}}} counter
        update @pairs {{{{ IP saddr . th dport timeout 30m }}}} counter }}""",
    "sets that forget": f"""set seen {{ type {{ADDR}}; size 1000; flags dynamic; }}
      chain c {{ {FORWARD}
        udp dport 53 delete @seen {{{{ IP saddr }}}} counter
        IP saddr @seen counter drop
        tcp dport 80 add @seen {{{{ IP saddr }}}} counter }}""",
    "a full set": f"""set seen {{ type {{ADDR}}; size 2; flags dynamic; }}
      chain c {{ {FORWARD}
        add @seen {{{{ IP saddr }}}} counter accept
        counter drop }}""",
    "flood meter": f"""set flood {{ type {{ADDR}}; size 1000; flags dynamic,timeout; timeout 1h; }}
      chain c {{ {FORWARD}
        update @flood {{{{ IP saddr limit rate over 1/day burst 5 packets }}}} counter drop
        counter }}""",
    "meter": f"""chain c {{ {FORWARD}
        meter m size 1000 {{{{ IP saddr . th dport limit rate 1/day burst 3 packets }}}} counter accept
        counter drop }}""",
    "elements that count": f"""set seen {{ type {{ADDR}}; size 1000; flags dynamic; counter; }}
      set quotas {{ type {{ADDR}}; size 1000; flags dynamic; }}
      chain c {{ {FORWARD}
        add @seen {{{{ IP saddr counter }}}} counter
        add @quotas {{{{ IP saddr quota over 300 bytes }}}} counter drop }}""",
    "map from the packet path": f"""map m {{ type {{ADDR}} : mark; size 1000; flags dynamic; }}
      chain c {{ {FORWARD}
        mark set IP saddr map @m counter
        mark 0x5 counter drop
        tcp dport 80 add @m {{{{ IP saddr : 0x5 }}}} counter }}""",
    "connections counted": f"""set conns {{ type {{ADDR}}; size 1000; flags dynamic; }}
      chain c {{ {FORWARD}
        meta l4proto udp ct state new add @conns {{{{ IP daddr ct count over 2 }}}} counter drop
        counter }}""",
    "log": f"""chain c {{ {FORWARD}
        tcp dport 80 log prefix "web " level info counter
        udp dport 53 log flags all counter drop
        log counter }}""",
    "numbers in turn": f"""chain c {{ {FORWARD}
        mark set numgen inc mod 4 counter
        mark 0x2 counter drop
        mark set numgen inc mod 3 offset 8 map {{{{ 8 : 1, 9 : 2, 10 : 3 }}}} counter
        mark 0x3 counter drop }}""",
    "hashes": f"""chain c {{ {FORWARD}
        mark set jhash IP saddr . IP daddr mod 4 seed 0xbeef counter
        mark 0x2 counter drop
        mark 0x1 counter }}""",
    "comments": f"""chain c {{ {FORWARD} comment "a chain";
        tcp dport 80 counter comment "web"
        counter }}""",
    "a dormant table": f"""flags dormant;
      chain c {{ {FORWARD}
        counter drop }}""",
}
# What remembers the packets it has seen.
STATEFUL = r"\b(limit|quota|numgen|ct count|add @|update @|delete @|meter)"
REJECTS = {
    "plain": "reject", "reset": "meta l4proto tcp reject with tcp reset",
    **{f"icmpx {kind}": f"reject with icmpx type {kind}" for kind in (
        "port-unreachable", "admin-prohibited", "no-route", "host-unreachable")},
    **{f"icmp {kind}": f"reject with icmp type {kind}" for kind in (
        "net-unreachable", "host-unreachable", "prot-unreachable", "port-unreachable",
        "net-prohibited", "host-prohibited", "admin-prohibited")},
    **{f"icmpv6 {kind}": f"reject with icmpv6 type {kind}" for kind in (
        "no-route", "admin-prohibited", "addr-unreachable", "port-unreachable", "policy-fail",
        "reject-route")},
}
TRACKED = """
table inet tracking {
  chain every {
    type filter hook prerouting priority 250; policy accept;
    ct state new counter
  }
}
"""


def table(family, version, content):
    """The table as nft's text, one statement a line."""
    words = {"IP": "ip" if version == 4 else "ip6", "TTL": "ttl" if version == 4 else "hoplimit",
             "{ADDR}": f"ipv{version}_addr", "{BITS}": "24" if version == 4 else "120"}
    for name, word in words.items():
        content = content.replace(name, word)
    content = content.replace("{{", "{").replace("}}", "}")
    if version == 6:
        content = content.replace("icmp type echo", "icmpv6 type echo")
    return f"table {family} t {{\n{blocks(content)}\n}}\n"


def blocks(text):
    """The text with the end of each chain, set ... on a line of its own, as nft wants it."""
    result, opened, at = [], [], 0
    for brace in re.finditer(r"(\b(?:chain|set|map|quota|limit|counter|table \w+) \w+ )?\{|\}", text):
        if brace[0] == "}":
            before = "\n" if opened.pop() else ""
            result.append(text[at:brace.start()] + before + "}")
        else:
            opened.append(bool(brace[1]))
            result.append(text[at:brace.end()])
        at = brace.end()
    return "".join(result) + text[at:]


def load(twins, text, version):
    twins.load(addressed(text, twins.round + 1, version))


@KINDS
@pytest.mark.parametrize("name", STATEMENTS)
def test_statement(twins, name, family, version):
    load(twins, table(family, version, STATEMENTS[name]) + TRACKED, version)
    mixed(twins, version, odd=not re.search(STATEFUL, STATEMENTS[name]))
    twins.check(name)
    counted = [count[0] for key, count in twins.kernel.counts().items() if key[1] == "t"]
    assert any(counted) or "dormant" in name, counted


@KINDS
@pytest.mark.parametrize("name", REJECTS)
@pytest.mark.parametrize("hook", ["forward", "input", "prerouting"])
def test_reject(twins, name, family, version, hook):
    if family != "inet" and name.startswith("icmpx") or (
            name.startswith("icmp ") and version == 6) or (
            name.startswith("icmpv6") and version == 4):
        return  # not a rule
    rule = REJECTS[name].replace("reject", "counter reject", 1)
    load(twins, f"""
table {family} t {{
  chain c {{
    type filter hook {hook} priority 10; policy accept;
    {rule}
  }}
}}
{TRACKED}""", version)
    mixed(twins, version)
    twins.check(name)
    assert any(twins.kernel.frames)


def test_reject_of_replies_and_of_what_has_no_way_back(twins):
    load(twins, f"""
table inet t {{
  chain c {{
    type filter hook forward priority 10; policy accept;
    ct direction reply counter reject
    udp dport 7 counter reject with icmpx type admin-prohibited
  }}
}}
{TRACKED}""", 4)
    for version in (4, 6):
        mixed(twins, version)
    twins.check("replies")


def test_several_tables(twins):
    """Tables of several families at one hook, by priority: a drop ends it, an accept does not."""
    load(twins, blocks("""
table ip a { chain f { type filter hook forward priority 5; policy accept;
    tcp dport 80 counter accept
    counter mark set 0x1
} }
table inet b { chain f { type filter hook forward priority 0; policy accept;
    udp dport 53 counter accept
    meta mark 0x1 counter
    counter
} }
table ip6 a { chain f { type filter hook forward priority -5; policy drop;
    counter accept
} }
table ip c { chain f { type filter hook forward priority 6; policy drop;
    meta mark 0x1 counter accept
    counter
} }
""") + TRACKED, 4)
    for version in (4, 6):
        mixed(twins, version)
    twins.check("several tables")


WRITTEN = """
  set seen { type ipv4_addr; size 1000; flags dynamic; }
  set pairs { type ipv4_addr . inet_service; size 1000; flags dynamic,timeout; timeout 1h; }
  set flood { type ipv4_addr; size 1000; flags dynamic; }
  set gone { type ipv4_addr; size 1000; flags dynamic; }
  set full { type ipv4_addr; size 2; flags dynamic; }
  map marks { type ipv4_addr : mark; size 1000; flags dynamic; }
  chain c { type filter hook forward priority 0; policy accept;
    ip saddr @seen counter
    meta l4proto tcp add @seen { ip saddr } counter
    meta l4proto { tcp, udp } update @pairs { ip daddr . th dport timeout 30m } counter
    add @flood { ip saddr limit rate over 1/day burst 500 packets } counter
    add @gone { ip daddr } counter
    icmp type echo-reply delete @gone { ip daddr } counter
    add @full { ip saddr } counter
    tcp dport 80 add @marks { ip saddr : 0x5 } counter
  }
"""


def elements(side, name):
    """Those of a set as nft prints them, without the time that is left to them."""
    listed = side.nft.run(f"list set inet t {name}" if name != "marks" else "list map inet t marks")
    found = re.search(r"elements = \{(.*?)\}", listed, re.DOTALL)
    return {re.sub(r" expires \w+", "", " ".join(one.split()))
            for one in found[1].split(",")} if found else set()


def test_what_packets_add_is_in_the_kernels_sets(twins):
    """With timeouts, statements and data; and what an administrator takes out again is gone."""
    load(twins, f"table inet t {{{WRITTEN}}}\n" + TRACKED, 4)
    mixed(twins, 4, odd=False)
    twins.check("elements")
    for name in ("seen", "pairs", "flood", "gone", "full", "marks"):
        wanted = elements(twins.kernel, name)
        assert wanted, f"nothing in {name}"
        deadline = time.monotonic() + 10
        while elements(twins.other, name) != wanted and time.monotonic() < deadline:
            time.sleep(0.02)
        assert elements(twins.other, name) == wanted, name
    assert any("limit rate over 1/day burst 500 packets" in e for e in elements(twins.other, "flood"))
    # What Sluice writes into the kernel's sets comes back to it, which must not make it write again.
    # Each table comes after it, and is in force only when all before has been taken in.
    generation = twins.other.nft.generation()
    for i in range(1, 6):
        twins.nft(f"add table inet later{i}")
        assert twins.other.nft.generation() == generation + i
    load(twins, f"table inet t {{{WRITTEN}}}\n" + TRACKED, 4)
    flow = Flows(twins).add("tcp", far("left", twins.round, 1), far("wan", twins.round, 9), 4000, 80)
    for _ in range(2):
        flow.segment(SYN)
    twins.finish()
    deadline = time.monotonic() + 10
    while not elements(twins.other, "seen") and time.monotonic() < deadline:
        time.sleep(0.02)
    twins.nft(f"delete element inet t seen {{ {far('left', twins.round, 1)} }}")
    flow.segment(SYN)
    twins.check("an element taken out")


NETDEV = """
set bad { type ipv4_addr; flags interval; elements = { <left.2/4>, <wan.0/4>/28 } }
set bad6 { type ipv6_addr; flags interval; elements = { <left.2/6>, <wan.0/6>/124 } }
set ports { type inet_service; elements = { 53, 8080 } }
set meter4 { type ipv4_addr; size 1000; flags dynamic; }
"""
INGRESS = ["ip saddr @bad counter drop", "ip6 saddr @bad6 counter drop",
           "udp dport @ports counter drop", "tcp dport 80 counter drop",
           "meta l4proto { gre, sctp } counter drop", "ip protocol icmp counter drop",
           "ip saddr . udp dport { <left.1/4> . 53 } counter drop",
           "tcp flags & (fin|syn) == fin|syn counter drop", "ip frag-off & 0x1fff != 0 counter drop",
           "meta protocol ip6 counter drop", "ether saddr 02:00:00:00:01:03 counter drop",
           "ip ttl < 3 counter drop", "meta length > 500 counter drop",
           "update @meter4 { ip saddr limit rate over 1/day burst 4 packets } counter drop",
           "ip dscp set cs1 counter", "meta mark set 0x1 counter", "meta pkttype != host counter drop",
           "udp checksum 0 counter drop", "icmp type echo-request counter drop",
           "icmpv6 type echo-request counter accept", "tcp dport vmap { 22 : drop, 80 : accept }",
           "meta l4proto tcp counter goto other"]


@pytest.mark.parametrize("kind", ["netdev", "inet"])
@pytest.mark.parametrize("rule", INGRESS)
def test_ingress(twins, kind, rule):
    """What is dropped early, and what else an ingress chain may do."""
    sets = "\n".join(NETDEV.strip().splitlines())
    chains = "\n".join(f"chain {link} {{\n type filter hook ingress device {link} priority 0;\n "
                       f"policy accept;\n counter\n {rule}\n counter\n}}"
                       for link in LINKS if link != "other")
    other = "chain other {\n tcp dport 80 counter drop\n counter\n}\n"
    load(twins, f"table {kind} t {{\n{sets}\n{other}{chains}\n}}\n" + TRACKED, 4)
    for version in (4, 6):
        mixed(twins, version, odd="limit" not in rule)
    twins.check(rule)
    assert any(count[0] for key, count in twins.kernel.counts().items() if key[1] == "t")


def arp_request(host):
    sender = bytes.fromhex(mac("left", host).replace(":", ""))
    return (b"\xff" * 6 + sender + b"\x08\x06\0\x01\x08\0\x06\x04\0\x01" + sender +
            socket.inet_aton(ip4("left", host)) + bytes(6) + socket.inet_aton(ip4("left")))


@pytest.mark.parametrize("rule, answered", [
    ("arp operation request arp saddr ip 10.1.0.3 counter drop", {2, 4}),
    ("arp operation reply counter drop", {2, 3, 4}),
    ("arp daddr ip 10.1.0.1 ether saddr 02:00:00:00:01:02 counter drop", {3, 4})])
def test_arp_at_ingress(twins, rule, answered):
    """All but the twins' own requests, by which they see that all before has been decided."""
    twins.load(f"""
table netdev t {{
  chain left {{
    type filter hook ingress device left priority 0; policy accept;
    ether saddr & ff:ff:00:00:00:00 == 02:5e:00:00:00:00 accept
    arp htype 1 counter
    {rule}
  }}
}}
""")
    for host in (2, 3, 4):
        twins.send_frame("left", arp_request(host))
    twins.check(rule)
    for side in twins.sides:
        replies = {frame[5] for link, frame in side.frames
                   if link == "left" and frame[12:14] == b"\x08\x06" and frame[21] == 2}
        assert replies == answered, side.name
