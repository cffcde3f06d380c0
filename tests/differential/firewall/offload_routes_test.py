"""Plain forwarding that XDP carries: without a ruleset by destination, with a reverse path filter by
source and destination. And what ends it: routes, MTUs, sources that must not be; the latter also for
connections.
"""

import contextlib
import time

import pytest

import wire
from addresses import ip4, ip6
from flows import BACK, FORTH
from offload_test import WAYS, Scene, say, with_options
from tier import Tier
from traffic import Hosts
from twins import SluiceTwin
from wire import ACK, FIN, PSH, RST, SYN, URG

CONFIG = "flow_offload: on\n"
NAPI = True
FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])


class Scene0:
    """No rules, and XDP carries what host 1 on the left and host 9 behind wan say to each other."""

    def __init__(self, twins, family):
        twins.load("")
        self.twins, self.family = twins, family
        self.hosts = Hosts(twins, family)
        self.left, self.wan = self.hosts.left(1), self.hosts.wan(9)
        self.tier = Tier(twins)
        self.promote()

    def packet(self, link="left", source=None, **ip):
        ends = (self.left, self.wan) if link == "left" else (self.wan, self.left)
        return wire.udp(source or ends[0], ends[1], 4000, 53, b"some data", **ip)

    def promote(self, *links, **packet):
        def speak_once():
            for link in links or ("left", "wan"):
                self.twins.send(link, self.packet(link, **packet))
        self.tier.promote_routes(speak_once, len(links) or 2)

    def step(self, what, carried, link="left", packet=None, partial=None, **ip):
        packet = packet or self.packet(link, **ip)
        self.tier.step(what, carried, lambda: self.twins.send(link, packet, partial=partial))

    def ends(self, link):
        return (self.left, self.wan) if link == "left" else (self.wan, self.left)


@FAMILIES
def test_every_protocol_by_destination(twins, family):
    scene = Scene0(twins, family)
    for link in ("left", "wan"):
        ends = scene.ends(link)
        packets = {
            "UDP": scene.packet(link),
            "UDP without a checksum": wire.udp(*ends, 1, 2, b"x", checksum=False),
            "UDP cut short": wire.ip_packet(*ends, 17, b"\0\1\0\2\0\0"),
            "UDP without a length": wire.ip_packet(*ends, 17, bytes(8)),
            "UDP from port 0": wire.udp(*ends, 0, 0, b""),
            "TCP cut short": wire.ip_packet(*ends, 6, bytes(12)),
            "echo": wire.echo(*ends, 7, data=b"ping"),
            "echo reply": wire.echo(*ends, 7, reply=True),
            "an error": wire.icmp_error(ends[0], scene.packet("wan" if link == "left" else "left"),
                                        *((3, 3) if family == 4 else (1, 4))),
            "GRE": wire.gre(*ends, b"x"),
            "SCTP": wire.sctp(*ends, 1, 2),
            "protocol 99": wire.ip_packet(*ends, 99, bytes(40)),
            "ESP": wire.ip_packet(*ends, 50, bytes(40)),
            "one byte": wire.ip_packet(*ends, 99, b"\1"),
        }
        for flags in (0, SYN, SYN | ACK, ACK, ACK | PSH, FIN | ACK, RST, URG | ACK, 0xff):
            packets[f"TCP {flags:#x}"] = wire.tcp(*ends, 4000, 80, flags, data=b"data")
        for what, packet in packets.items():
            scene.step(f"{what} on {link}", 1, link, packet)
            scene.step(f"{what} on {link}, padded", 1, link, packet + b"\x5a" * 9)
        for name in ("UDP", "TCP 0x12"):
            packet, where = wire.unfinished(packets[name])
            scene.step(f"{name} on {link}, unfinished", 1, link, packet, where)
        scene.step("no payload", 1 if family == 4 else 0, link, wire.ip_packet(*ends, 59, b""))


@FAMILIES
def test_what_is_not_plain(twins, family):
    scene = Scene0(twins, family)
    for link in ("left", "wan"):
        scene.step("DSCP and ECN", 1, link, tos=0xb9)
        scene.step("last hop but one", 1, link, ttl=2)
        scene.step("hops expire", 0, link, ttl=1)
        scene.step("no hop left", 0, link, ttl=0)
        for piece in wire.fragments(scene.packet(link), 8):
            scene.step("a fragment", 0, link, piece)
        if family == 4:
            scene.step("options", 0, link, with_options(scene.packet(link)))
            scene.step("DF", 1, link, flags=2)
            wrong = bytearray(scene.packet(link))
            wrong[10] ^= 1
            scene.step("wrong header checksum", 0, link, bytes(wrong))
        else:
            scene.step("flow label", 1, link, flow_label=0x12345)
            for kind, header in ((0, b"\0\x01\x04\0\0\0\0"), (43, b"\0\0\0\0\0\0\0"),
                                 (60, b"\0\x01\x04\0\0\0\0")):
                scene.step(f"extension header {kind}", 0, link, chain=((kind, header),))
    size = 1401 - (28 if family == 4 else 48)
    big = wire.udp(*scene.ends("left"), 1, 2, bytes(size - 1), flags=2 if family == 4 else 0)
    scene.step("as large as can be", 1, packet=big)
    for flags in (0, 2) if family == 4 else (0,):
        scene.step("too large", 0, packet=wire.udp(*scene.ends("left"), 1, 2, bytes(size),
                                                   flags=flags))
    scene.step("after all that", 1)


SOURCES = {
    4: {"another": ("left.2", 1), "from nowhere": ("203.0.113.7", 1), "of the other link": ("wan.3", 1),
        "the router's own": (ip4("right"), 0), "loopback": ("127.0.0.1", 0), "zero": ("0.0.0.0", 0),
        "multicast": ("224.0.0.5", 0), "broadcast": ("255.255.255.255", 0), "class E": ("240.1.1.1", 0)},
    6: {"another": ("left.2", 1), "from nowhere": ("2001:db8::7", 1), "of the other link": ("wan.3", 1),
        "link-local": ("fe80::1:2", 0), "loopback": ("::1", 0), "unspecified": ("::", 0),
        "multicast": ("ff0e::5", 0), "the router's own": (ip6("right"), 1)},
}


@FAMILIES
def test_sources(twins, family):
    scene = Scene0(twins, family)
    for what, (source, carried) in SOURCES[family].items():
        if source[:4] in ("left", "wan."):
            link, number = source.split(".")
            source = getattr(scene.hosts, link)(int(number))
        scene.step(f"source: {what}", carried, source=source)
    scene.step("the usual one", 1)


@contextlib.contextmanager
def changed(twins, address, wanted, *lines, back):
    """ip(8) lines for both routers, in force in the block; `back`: lines that undo it. `wanted`: of
    Sluice's route to the address."""
    before = route(twins, address)
    ip(twins, lines)
    until(twins, address, wanted)
    try:
        yield
    finally:
        ip(twins, back)
        until(twins, address, lambda now: now == before)


def ip(twins, lines):
    for side in twins.sides:
        side.topology.router.ip(lines)


def route(twins, address):
    if not isinstance(twins.other, SluiceTwin):
        return None
    return next(iter(twins.other.show(f"routes?destination={address}")["routes"]), None)


def until(twins, address, wanted):
    deadline = time.monotonic() + 10
    while isinstance(twins.other, SluiceTwin) and not wanted(route(twins, address)):
        assert time.monotonic() < deadline, route(twins, address)
        time.sleep(0.002)


def neighbour(scene, link):
    return (ip4 if scene.family == 4 else ip6)(link, 3)


@FAMILIES
def test_a_route_that_refuses(twins, family):
    """From the packet on that comes after the change, not one goes by the old route."""
    scene = Scene0(twins, family)
    bits = 32 if family == 4 else 128
    for kind in ("blackhole", "unreachable", "prohibit"):
        line = f"route {{}} {kind} {scene.wan}/{bits}"
        with changed(twins, scene.wan, lambda now, kind=kind: now and now["type"] == kind,
                     line.format("add"), back=(line.format("del"),)):
            scene.step(kind, 0)
            scene.step(f"{kind}, the way back", 1, "wan")
        scene.step(f"{kind} is gone", 0)
        scene.promote()


@FAMILIES
def test_another_next_hop(twins, family):
    scene = Scene0(twins, family)
    bits = 32 if family == 4 else 128
    for link in ("wan", "right"):
        where = f"{scene.wan}/{bits} via {neighbour(scene, link)}"
        with changed(twins, scene.wan, lambda now: now and f"/{bits}" in now["prefix"],
                     f"route add {where}", back=(f"route del {where}",)):
            scene.step(f"another way by {link}", 0)
            scene.promote("left")
        scene.step("the first again", 0)
        scene.promote("left")


@FAMILIES
def test_neighbour_with_another_address(twins, family):
    scene = Scene0(twins, family)
    gateway = (ip4 if family == 4 else ip6)("wan", 2)
    for mac in ("02:00:00:00:03:77", "02:00:00:00:03:02"):
        ip(twins, [f"neigh replace {gateway} dev wan lladdr {mac} nud permanent"])
        if isinstance(twins.other, SluiceTwin):
            deadline = time.monotonic() + 10
            while not any(n["address"] == gateway and n["mac"] == mac
                          for n in twins.other.show("neighbors")):
                assert time.monotonic() < deadline, twins.other.show("neighbors")
                time.sleep(0.002)
        scene.step(f"to {mac}", 0)
        scene.promote()


@FAMILIES
@pytest.mark.parametrize("way", ["no NAT", "masquerade"])
def test_route_mtu_under_connections(twins, way, family):
    lower_route_mtu(Scene(twins, WAYS[way], family))


@FAMILIES
def test_link_mtu_under_connections(twins, family):
    lower_link_mtu(Scene(twins, WAYS["masquerade"], family))


def test_mtus_by_choice(chosen):
    twins, enabled = chosen
    lower_route_mtu(Scene(twins, WAYS["masquerade"], 4, enabled))
    lower_link_mtu(Scene(twins, WAYS["masquerade"], 6, enabled))


def lower_route_mtu(scene):
    udp = scene.flows.add("udp", *scene.ends, 4000, 80)
    web = scene.add("tcp", 4001)
    scene.tier.promote(udp, web)
    header = scene.header()
    fragment = {"flags": 2} if scene.family == 4 else {}
    gateway = (ip4 if scene.family == 4 else ip6)("wan", 2)
    bits = 32 if scene.family == 4 else 128
    where = f"{scene.ends[1]}/{bits} via {gateway} mtu lock 1300"
    large = {udp: 1301 - header - 8, web: 1301 - header - 20}
    with changed(scene.twins, scene.ends[1], lambda now: now and now["mtu"] == 1300,
                 f"route add {where}", back=(f"route del {where}",)):
        for flow, size in large.items():
            scene.tier.step("small, after the change", 0, lambda: say(flow, FORTH, 100))
            scene.tier.step("too large now", 0, lambda: say(flow, FORTH, size, **fragment))
        scene.tier.promote(udp, web)
        for flow, size in large.items():
            scene.tier.step("too large", 0, lambda: say(flow, FORTH, size, **fragment))
            scene.tier.step("just small enough", 1, lambda: say(flow, FORTH, size - 1, **fragment))
            scene.tier.step("back", 1, lambda: say(flow, BACK, size, **fragment))
    scene.tier.promote(udp, web)
    for flow, size in large.items():
        scene.tier.step("not too large any more", 1, lambda: say(flow, FORTH, size, **fragment))
    scene.tier.step("counts", 1, lambda: say(udp, FORTH, 10), counters=True)


def lower_link_mtu(scene):
    udp = scene.flows.add("udp", *scene.ends, 4000, 80)
    web = scene.add("tcp", 4001)
    scene.tier.promote(udp, web)
    header = scene.header()
    fragment = {"flags": 2} if scene.family == 4 else {}
    for mtu in (1300, 1400):
        set_mtu(scene.twins, mtu)
        sizes = {udp: mtu + 1 - header - 8, web: mtu + 1 - header - 20}
        for flow, size in sizes.items():
            scene.tier.step("too large now", 0, lambda: say(flow, FORTH, size, **fragment))
        scene.tier.promote(udp, web)
        for flow, size in sizes.items():
            scene.tier.step("too large", 0, lambda: say(flow, FORTH, size, **fragment))
            scene.tier.step("just small enough", 1, lambda: say(flow, FORTH, size - 1, **fragment))
    scene.tier.step("counts", 1, lambda: say(udp, FORTH, 10), counters=True)


def set_mtu(twins, mtu):
    ip(twins, [f"link set wan mtu {mtu}"])
    deadline = time.monotonic() + 10
    while isinstance(twins.other, SluiceTwin) and not any(
            i["name"] == "wan" and i["mtu"] == mtu for i in twins.other.show("interfaces")):
        assert time.monotonic() < deadline, twins.other.show("interfaces")
        time.sleep(0.002)


@pytest.fixture(scope="module")
def strict():
    """Two routers that look at the way back to the source."""
    from conftest import finish  # pylint: disable=import-outside-toplevel
    from twins import Twins  # pylint: disable=import-outside-toplevel
    made = Twins({"ipv4/conf/all/rp_filter": 1}, config=CONFIG, napi=True)
    yield made
    finish(made)


def test_by_pair_with_a_reverse_path_filter(strict):
    scene = Scene0(strict, 4)
    other = scene.hosts.left(2)
    scene.step("another source", 0, source=other)
    scene.promote("left", source=other)
    scene.step("the first source", 1)
    scene.step("a source of the other link", 0, source=scene.hosts.wan(3))
    scene.step("a source from nowhere", 0, source="203.0.113.7")
    for what, (source, carried) in SOURCES[4].items():
        if not carried:
            scene.step(f"source: {what}", 0, source=source)
    scene.step("the other source", 1, source=other)


def test_the_way_back_to_a_source_changes(strict):
    scene = Scene0(strict, 4)
    where = f"{scene.left}/32 via {ip4('wan', 3)}"
    with changed(strict, scene.left, lambda now: now and "/32" in now["prefix"],
                 f"route add {where}", back=(f"route del {where}",)):
        scene.step("the way back is another", 0)
        scene.step("and stays so", 0)
    scene.step("as before", 0)
    scene.promote()
