"""NAT: what comes out, what comes back, and the errors in between, for IPv4 and IPv6."""

import pytest

import compare
import wire
from addresses import ip4, ip6
from flows import BACK, FORTH, Flows
from statements_test import blocks
from traffic import MSS, Hosts, addressed
from wire import ACK, SYN

FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
# Ports that NAT may choose where it has to: when two want the same one, or from a range of the rule.
CHOICES = compare.Choices(ports=((1, 65535),))
# What is rejected where an echo request has no right identifier, and so on.
WATCH = """
table inet watch {
  chain forward {
    type filter hook forward priority 0; policy accept;
    ct state established counter
    ct state related counter
    ct state new counter
    ct state invalid counter
    ct direction reply counter
  }
  chain post {
    type filter hook postrouting priority 300; policy accept;
    ct status snat counter
    ct status dnat counter
  }
}
"""


def own(link, family):
    return (ip4 if family == 4 else ip6)(link)


def rules(family, prerouting="", postrouting="", more=""):
    """A NAT table. IP is ip or ip6, HOST(x) an address as it stands before a port."""
    text = f"""
table {'ip' if family == 4 else 'ip6'} nat {{
  {more}
  chain pre {{
    type nat hook prerouting priority -100; policy accept;
    {prerouting}
  }}
  chain post {{
    type nat hook postrouting priority 100; policy accept;
    {postrouting}
  }}
}}
"""
    text = text.replace("IP ", "ip " if family == 4 else "ip6 ")
    return blocks(text) + WATCH


def load(twins, family, *parts, **more):
    """The rules, in force; returns (hosts, flows) of the round."""
    twins.load(addressed(rules(family, *parts, **more), twins.round + 1, family))
    return Hosts(twins, family), Flows(twins)


def host(name, family, port):
    """An address with a port, as nft wants it."""
    return f"<{name}>:{port}" if family == 4 else f"[<{name}>]:{port}"


def translated(twins, kind):
    """Packets that left with `ct status KIND`, by the kernel's count."""
    position = {"snat": 0, "dnat": 1}[kind]
    counts = sorted((key, count) for key, count in twins.kernel.counts().items()
                    if key[1:3] == ("watch", "post"))
    return counts[position][1][0]


def talk(flow):
    """A conversation of some packets, each way."""
    if flow.protocol == wire.TCP:
        flow.handshake()
        flow.exchange(200)
        flow.exchange(1200)
        flow.finish()
        return
    for _ in range(2):
        flow.send(size=100)
        flow.reply(size=300)


PROTOCOLS = pytest.mark.parametrize("protocol", ["tcp", "udp", "icmp", "sctp", "gre"])
SOURCE_NAT = {
    "masquerade": "oifname wan counter masquerade",
    "masquerade to ports": "meta l4proto { tcp, udp } oifname wan counter masquerade to :2000-2999",
    "masquerade random": "oifname wan counter masquerade random",
    "masquerade fully random": "oifname wan counter masquerade fully-random",
    "masquerade persistent": "oifname wan counter masquerade persistent",
    "snat": "oifname wan counter snat to <wan.200>",
    "snat to ports": "meta l4proto {{ tcp, udp }} oifname wan counter snat to {ports}",
    "snat to a range": "oifname wan counter snat to <wan.200>-<wan.203>",
    "snat to a range, persistent": "oifname wan counter snat to <wan.200>-<wan.203> persistent",
    "snat random": "oifname wan counter snat to <wan.200> random",
    "snat fully random": "oifname wan counter snat to <wan.200> fully-random",
    "snat by a map": "counter snat to IP saddr map { <left.1> : <wan.201>, <left.2> : <wan.202> }",
    "snat to a network": "counter snat IP prefix to IP saddr map { <left.0>/BITS : <wan.0>/BITS }",
}


@FAMILIES
@PROTOCOLS
@pytest.mark.parametrize("name", SOURCE_NAT)
def test_source(twins, name, protocol, family):
    text = SOURCE_NAT[name].replace("{ports}", host("wan.200", family, "3000-3999"))
    text = text.replace("{{", "{").replace("}}", "}").replace("BITS", "24" if family == 4 else "120")
    hosts, flows = load(twins, family, "", text)
    # Two clients with one port between them, and one with several targets.
    for client, server, sport in ((1, 1, 4000), (2, 1, 4000), (1, 2, 4000), (1, 1, 4001), (2, 3, 600)):
        talk(flows.add(protocol, getattr(hosts, "left")(client), hosts.wan(server), sport, 53))
    number = twins.round
    addresses = tuple((wire_address, wire_address_to) for wire_address, wire_address_to in (
        (addressed("<wan.200>", number, family), addressed("<wan.203>", number, family)),))
    twins.check(name, compare.Choices(addresses, ((1, 65535),)))
    if "ports" not in name or protocol in ("tcp", "udp"):
        assert translated(twins, "snat") > 5


DESTINATION_NAT = {
    "dnat": "iifname wan counter dnat to <left.1>",
    "dnat to a port": "meta l4proto { tcp, udp } iifname wan counter dnat to {port}",
    "dnat to ports": "meta l4proto { tcp, udp } iifname wan counter dnat to {ports}",
    "dnat to a range": "iifname wan counter dnat to <left.1>-<left.4>",
    "dnat to a range, persistent": "iifname wan counter dnat to <left.1>-<left.4> persistent",
    "dnat random": "meta l4proto { tcp, udp } iifname wan counter dnat to {ports} random",
    "dnat by port": "counter dnat to tcp dport map { 53 : <left.1>, 80 : <left.2> }",
    "dnat to address and port by port":
        "counter dnat IP addr . port to udp dport map { 53 : <left.1> . 5300, 80 : <left.2> . 81 }",
    "dnat by address": "counter dnat to IP daddr map { <right.1> : <left.1>, <right.2> : <left.2> }",
    "dnat to a network":
        "counter dnat IP prefix to IP daddr map { <right.0>/BITS : <left.0>/BITS }",
    "dnat for one port only": "tcp dport 53 counter dnat to {port}",
    "redirect": "iifname wan udp dport 53 counter redirect",
    "redirect to a port": "meta l4proto { tcp, udp } iifname wan counter redirect to :81",
    "redirect to ports": "meta l4proto { tcp, udp } iifname wan counter redirect to :8000-8100",
}


@FAMILIES
@PROTOCOLS
@pytest.mark.parametrize("name", DESTINATION_NAT)
def test_destination(twins, name, protocol, family):
    text = DESTINATION_NAT[name].replace("{ports}", host("left.1", family, "6000-6100"))
    text = text.replace("{port}", host("left.1", family, "8080"))
    text = text.replace("BITS", "24" if family == 4 else "120")
    hosts, flows = load(twins, family, text)
    for client, server, sport, dport in ((1, 1, 4000, 53), (2, 1, 4000, 53), (1, 2, 4000, 80),
                                         (1, 1, 4001, 53), (3, 2, 4000, 443)):
        talk(flows.add(protocol, hosts.wan(client), hosts.right(server), sport, dport))
    first = addressed("<left.1>", twins.round, family), addressed("<left.4>", twins.round, family)
    outputs = twins.check(name, compare.Choices((first,), ((1, 65535),)))
    if name in ("dnat to ports", "dnat random") and protocol in ("tcp", "udp"):
        forth = [wire.port(frame[14:], wire.layout(frame[14:]).destination_port)
                 for side in twins.sides for frame in compare.by_link(side.frames)["left"][0]]
        assert forth and all(6000 <= port <= 6100 for port in forth), forth
    assert outputs


@FAMILIES
@PROTOCOLS
def test_both_at_once(twins, family, protocol):
    hosts, flows = load(twins, family, "counter dnat to <right.7>", "counter snat to <right.200>")
    for sport in (4000, 4001):
        talk(flows.add(protocol, hosts.left(1), hosts.wan(1), sport, 53))
    twins.check("dnat and snat", CHOICES)
    assert translated(twins, "snat") and translated(twins, "dnat")


@FAMILIES
@PROTOCOLS
def test_hairpin(twins, family, protocol):
    """A client on the left reaches a server on the left by the router's outer address."""
    hosts, flows = load(
        twins, family, f"IP daddr {own('wan', family)} counter dnat to <left.9>",
        "oifname wan counter masquerade\n iifname left oifname left counter masquerade")
    talk(flows.add(protocol, hosts.left(1), own("wan", family), 4000, 80))
    talk(flows.add(protocol, hosts.wan(1), own("wan", family), 4000, 80))
    twins.check("hairpin", CHOICES)
    assert translated(twins, "dnat") > 2


# --- Errors ---------------------------------------------------------------------------------------

UNREACHABLE = {4: [(3, 0), (3, 1), (3, 3), (3, 10), (3, 13), (11, 0), (11, 1), (12, 0), (4, 0)],
               6: [(1, 0), (1, 1), (1, 3), (1, 4), (3, 0), (3, 1), (4, 0), (4, 1)]}
NAT_OF_ERRORS = {
    "masquerade": ("", "oifname wan counter masquerade"),
    "dnat": ("iifname left counter dnat to <wan.9>", ""),
    "both": ("iifname left meta l4proto != 1 meta l4proto != 58 counter dnat to <wan.9>",
             "oifname wan counter snat to <wan.200>"),
}


@FAMILIES
@pytest.mark.parametrize("protocol", ["tcp", "udp", "icmp", "sctp"])
@pytest.mark.parametrize("name", NAT_OF_ERRORS)
def test_errors_from_both_ends(twins, name, protocol, family):
    hosts, flows = load(twins, family, *NAT_OF_ERRORS[name])
    flow = flows.add(protocol, hosts.left(1), hosts.wan(1), 4000, 53)
    if protocol == "tcp":
        flow.segment(SYN, options=MSS)
    else:
        flow.send(size=200)
    for kind, code in UNREACHABLE[family]:
        flow.error(kind, code)
        flow.error(kind, code, sender=hosts.wan(77))
    for quote in (28, 36, 40, 48, 56, 1000):
        flow.error(*UNREACHABLE[family][0], quote=quote)
    if protocol == "tcp":
        flow.segment(SYN | ACK, BACK, options=MSS)
    else:
        flow.reply(size=200)
    for kind, code in UNREACHABLE[family]:
        flow.error(kind, code, about=BACK)
        flow.error(kind, code, about=BACK, sender=hosts.left(77))
    twins.check(name, CHOICES)
    counts = sorted((key, count[0]) for key, count in twins.kernel.counts().items()
                    if key[1:3] == ("watch", "forward"))
    assert counts[1][1] > 10, "hardly an error was related"


@FAMILIES
def test_errors_about_nothing(twins, family):
    """Errors about connections that are not there, or that quote what they should not."""
    hosts, flows = load(twins, family, "", "oifname wan counter masquerade")
    flow = flows.add("udp", hosts.left(1), hosts.wan(1), 4000, 53)
    flow.send()
    twins.settle_sent()
    kind, code = UNREACHABLE[family][0]
    router = own("wan", family)
    for quoted in (wire.udp(router, hosts.wan(2), 4000, 53, bytes(20)),
                   wire.udp(router, hosts.wan(1), 4001, 53, bytes(20)),
                   wire.udp(hosts.left(1), hosts.wan(1), 4000, 53, bytes(20)),
                   wire.udp(hosts.wan(1), router, 53, 4000, bytes(20)),
                   wire.udp(router, hosts.wan(1), 4000, 53, bytes(20), checksum=False),
                   wire.ip_packet(router, hosts.wan(1), 17, b"\x0f\xa0"),
                   wire.icmp(router, hosts.wan(1), kind, code, data=bytes(28))):
        for to in (router, hosts.left(1)):
            twins.send("wan", wire.icmp_error(hosts.wan(1), quoted, kind, code, to=to))
    twins.check("errors about nothing", CHOICES)


@FAMILIES
@pytest.mark.parametrize("name", NAT_OF_ERRORS)
def test_errors_of_the_router_itself(twins, name, family):
    """TTL and MTU end at the router: the sender must know its own packet again."""
    hosts, flows = load(twins, family, *NAT_OF_ERRORS[name])
    flow = flows.add("udp", hosts.left(1), hosts.wan(1), 4000, 53)
    dont_fragment = {"flags": 2} if family == 4 else {}
    for size in (100, 1400):
        for ttl in (1, 64):
            flow.send(size=size, ttl=ttl, **dont_fragment)
    flow.send(size=100)
    flow.reply(size=100, ttl=1)
    flow.reply(size=100)
    answer = flows.add("udp", hosts.wan(3), hosts.left(3), 4000, 53)
    answer.send(size=100, ttl=1)
    twins.check(name, CHOICES)


@FAMILIES
def test_path_mtu_of_both_ways(twins, family):
    """The narrow link is the outer one: who sends too much there is told, through NAT as well."""
    hosts, flows = load(twins, family, "iifname wan counter dnat to <left.5>",
                        "oifname wan counter masquerade")
    big = {"flags": 2} if family == 4 else {}
    client = flows.add("udp", hosts.left(1), hosts.wan(1), 4000, 53)
    client.send(size=1440, **big)      # too long for the outer link
    client.send(size=1300, **big)
    kind = (3, 4) if family == 4 else (2, 0)
    client.error(*kind, rest=b"\0\0\x05\0")
    server = flows.add("udp", hosts.wan(2), hosts.right(1), 4000, 53)
    server.send(size=100)
    server.reply(size=1440, **big)     # the server's answer is too long
    server.reply(size=100)
    server.error(*kind, about=BACK, rest=b"\0\0\x05\0")
    connection = flows.add("tcp", hosts.left(1), hosts.wan(1), 4001, 80)
    connection.handshake()
    connection.segment(ACK, size=1440, **big)
    connection.exchange(1000)
    twins.check("path MTU", CHOICES)


# --- Fragments, checksums -------------------------------------------------------------------------

ORDERS = {"in order": (), "shuffled": (2, 0, 1), "backwards": (2, 1, 0), "one twice": (0, 1, 1, 2)}


@FAMILIES
@pytest.mark.parametrize("protocol", ["udp", "icmp", "gre"])
@pytest.mark.parametrize("order", ORDERS)
def test_fragments(twins, order, protocol, family):
    hosts, flows = load(twins, family, "iifname wan counter dnat to <left.5>",
                        "oifname wan counter masquerade")
    flow = flows.add(protocol, hosts.left(1), hosts.wan(1), 4000, 53)
    inner = flows.add(protocol, hosts.wan(2), hosts.right(1), 4000, 53)
    for ident, sizes in enumerate(((8, 800), (800, 8), (1200, 1200), (1352, 1352))):
        split = {"size": sum(sizes) + 100, "split": sizes, "shuffle": ORDERS[order]}
        flow.send(ident=ident, **split)
        flow.reply(ident=ident + 100, **split)
        inner.send(ident=ident + 200, **split)
        inner.reply(ident=ident + 300, **split)
    flow.send(size=100)
    twins.check(f"fragments {order}", CHOICES)
    assert translated(twins, "snat") >= 4


@FAMILIES
def test_many_fragments_of_one_packet(twins, family):
    hosts, flows = load(twins, family, "", "oifname wan counter masquerade")
    flow = flows.add("udp", hosts.left(1), hosts.wan(1), 4000, 53)
    sizes = (1200,) * 12
    for ident, order in enumerate(((), tuple(range(12, -1, -1)), (6, 12, *range(6), *range(7, 12)))):
        flow.send(size=15000, split=sizes, shuffle=order, ident=ident)
        flow.reply(size=15000, split=sizes, shuffle=order, ident=ident + 10)
    twins.check("many fragments", CHOICES)


@FAMILIES
def test_fragments_that_stay_incomplete(twins, family):
    """The rest never comes: nothing comes out, and what follows is not harmed."""
    hosts, flows = load(twins, family, "", "oifname wan counter masquerade")
    flow = flows.add("udp", hosts.left(1), hosts.wan(1), 4000, 53)
    for ident, order in enumerate(((0, 1), (1, 2), (0, 2), (2,))):
        flow.send(size=2000, split=(800, 800), shuffle=order, ident=ident)
    flow.send(size=100)
    flow.reply(size=100)
    twins.check("incomplete", CHOICES)


@FAMILIES
@pytest.mark.parametrize("protocol", ["tcp", "udp", "icmp"])
def test_checksums_left_to_the_card(twins, family, protocol):
    if protocol == "icmp":
        protocol = "udp"  # nobody leaves those to the card
    hosts, flows = load(twins, family, "iifname wan counter dnat to <left.5>",
                        "oifname wan counter masquerade")
    for source, destination in ((hosts.left(1), hosts.wan(1)), (hosts.wan(2), hosts.right(1))):
        flow = flows.add(protocol, source, destination, 4000, 53)
        if protocol == "tcp":
            flow.handshake()
        for _ in range(2):
            flow.send_unfinished(size=333)
            flow.send_unfinished(BACK, size=500)
    twins.check("unfinished checksums", CHOICES)


@FAMILIES
def test_udp_without_checksum_and_with_a_wrong_one(twins, family):
    hosts, flows = load(twins, family, "", "oifname wan counter masquerade")
    flow = flows.add("udp", hosts.left(1), hosts.wan(1), 4000, 53)
    flow.send(checksum=False)
    flow.reply(checksum=False)
    flow.send()
    good = wire.udp(hosts.left(1), hosts.wan(1), 4000, 53, b"some data")
    at = wire.layout(good).transport + 6
    # Checksums that a translation brings to the edge: 0 must become 0xffff.
    for wrong in (b"\xff\xff", b"\0\1", b"\xff\xfe", b"\x12\x34"):
        twins.send("left", good[:at] + wrong + good[at + 2:])
    for last in range(0, 65536, 997):
        twins.send("left", wire.udp(hosts.left(1), hosts.wan(1), 4000, 53,
                                    last.to_bytes(2, "big")))
    twins.check("UDP checksums", CHOICES)


# --- Life of a translation ------------------------------------------------------------------------


@FAMILIES
def test_rules_decide_about_the_first_packet_only(twins, family):
    hosts, flows = load(twins, family, "", "oifname wan counter masquerade")
    old = flows.add("udp", hosts.left(1), hosts.wan(1), 4000, 53)
    tcp = flows.add("tcp", hosts.left(1), hosts.wan(1), 4000, 80)
    old.send()
    tcp.handshake()
    table = "ip nat" if family == 4 else "ip6 nat"
    twins.finish()
    twins.nft(f"flush chain {table} post\n"
              + addressed(f"add rule {table} post counter snat to <wan.200>", twins.round, family))
    new = flows.add("udp", hosts.left(1), hosts.wan(1), 4001, 53)
    for flow in (old, new):
        flow.send()
        flow.reply()
    tcp.exchange()
    twins.check("changed rules", CHOICES)


@FAMILIES
def test_a_drop_rule_for_what_was_translated(twins, family):
    """The forward hook sees the translated destination and the source before it is."""
    ip = "ip" if family == 4 else "ip6"
    text = rules(family, "counter dnat to <right.7>", "counter snat to <right.200>") + f"""
table {ip} filter {{
  chain forward {{
    type filter hook forward priority 0; policy drop;
    ct state established,related counter accept
    {ip} daddr <right.7> {ip} saddr <left.1> ct status dnat counter accept
    ct original {ip} daddr <wan.1> counter
    counter
  }}
}}
"""
    twins.load(addressed(text, twins.round + 1, family))
    hosts, flows = Hosts(twins, family), Flows(twins)
    for client in (1, 2):
        talk(flows.add("udp", hosts.left(client), hosts.wan(1), 4000, 53))
        talk(flows.add("tcp", hosts.left(client), hosts.wan(1), 4000, 80))
    twins.check("filtered", CHOICES)


@FAMILIES
def test_masquerade_follows_the_address(twins, family):
    """A flow whose address is gone begins anew with the new one."""
    old, new, server = (("10.33.0.1/24", "10.33.0.77/24", "10.33.0.9") if family == 4 else
                        ("fd00:33::1/64", "fd00:33::77/64", "fd00:33::9"))
    flags = "nodad" if family == 6 else "brd +"

    def readdress(gone, come):
        for side in twins.sides:
            side.topology.router.ip([
                *([f"addr del {gone} dev wan"] if gone else []),
                f"addr add {come} dev wan {flags}",
                f"neigh replace {server} dev wan lladdr 02:00:00:00:03:02 nud permanent"])
        twins.wait_for_address(come.split("/")[0], server)

    readdress(None, old)
    try:
        hosts, flows = load(twins, family, "", "oifname wan counter masquerade")
        flow = flows.add("udp", hosts.left(1), server, 4000, 53)
        flow.send()
        flow.reply()
        twins.finish()
        readdress(old, new)
        later = flows.add("udp", hosts.left(1), server, 4001, 53)
        for one in (later, flow):
            one.send()
            one.reply()
        outputs = twins.check("a new address", CHOICES)
    finally:
        for side in twins.sides:
            side.topology.router.ip([f"addr del {new} dev wan"])
    sources = [frame[26:30] if family == 4 else frame[22:38] for frame in outputs["wan"][0]]
    assert sources == [wire.packed(address.split("/")[0]) for address in (old, new, new)]


@FAMILIES
def test_traceroute(twins, family):
    """UDP with growing TTL, and what each hop says."""
    hosts, flows = load(twins, family, "", "oifname wan counter masquerade")
    for ttl in range(1, 6):
        flow = flows.add("udp", hosts.left(1), hosts.wan(1), 40000, 33434 + ttl)
        flow.send(ttl=ttl, size=32)
        if ttl in (2, 3, 4):
            flow.error(*((11, 0) if family == 4 else (3, 0)), sender=hosts.wan(100 + ttl))
        else:
            flow.error(*((3, 3) if family == 4 else (1, 4)))
    twins.check("traceroute", CHOICES)


@FAMILIES
def test_bytes_come_unharmed_in_both_directions(twins, family):
    """Every payload byte value and odd lengths, checked by the checksums of the outputs."""
    hosts, flows = load(twins, family, "iifname wan counter dnat to <left.5>",
                        "oifname wan counter masquerade")
    flow = flows.add("udp", hosts.left(1), hosts.wan(1), 4000, 53)
    back = flows.add("udp", hosts.wan(1), hosts.right(1), 4000, 53)
    for size in (8, 9, 15, 255, 256, 1001):
        for one in (flow, back):
            one.send(FORTH, size=size)
            one.send(BACK, size=size)
    outputs = twins.check("sizes", CHOICES)
    for ordered, _ in outputs.values():
        for frame in ordered:
            assert sound(frame[14:]), frame.hex()


def sound(packet):
    """Whether a UDP packet's checksum is right."""
    parts = wire.layout(packet)
    segment = packet[parts.transport:]
    at = wire.CHECKSUM_AT[parts.protocol]
    zero = segment[:at] + b"\0\0" + segment[at + 2:]
    address = lambda data: str(wire.ipaddress.ip_address(data))  # noqa: E731
    return wire.with_checksum(address(parts.source), address(parts.destination), parts.protocol,
                              zero) == segment
