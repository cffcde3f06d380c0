"""Established connections that XDP carries (flow_offload): whatever comes in their middle, comes out
as it does of the kernel, and what needs no worker does not go to one.

Free to differ from the kernel, and so not here: XDP does not verify checksums and does not look at
TCP's window (bpf/include/offload.h).
"""

import struct

import pytest

import wire
from flows import BACK, FORTH
from normalise import fold
from tier import Tier
from traffic import MSS
from translate_test import host, load, own
from wire import ACK, FIN, PSH, RST, SYN, URG

CONFIG = "flow_offload: on\n"
NAPI = True
FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])


class Way:
    """How connections go: rules, ends, and the direction in which a wide link leads to a narrow one."""

    def __init__(self, client, server, narrow, prerouting="", postrouting=""):
        self.client, self.server, self.narrow = client, server, narrow
        self.mtu = 1500 if narrow is None else 1400
        self.prerouting, self.postrouting = prerouting, postrouting

    def ends(self, hosts, family):
        def address(text):
            link, number = text.split(".")
            return own(link, family) if number == "own" else getattr(hosts, link)(int(number))
        return address(self.client), address(self.server)


WAYS = {
    "no NAT": Way("left.1", "wan.9", FORTH),
    "masquerade": Way("left.1", "wan.9", FORTH, "", "oifname wan counter masquerade"),
    "snat": Way("left.1", "wan.9", FORTH, "", "oifname wan counter snat to <wan.200>"),
    "dnat": Way("left.1", "wan.50", FORTH,
                "iifname left meta l4proto {{ tcp, udp }} IP daddr <wan.50> counter dnat to {wan.9}"),
    "both": Way("left.1", "wan.50", FORTH,
                "iifname left meta l4proto {{ tcp, udp }} IP daddr <wan.50> counter dnat to {wan.9}",
                "oifname wan counter snat to <wan.200>"),
    "inwards": Way("wan.1", "wan.own", BACK,
                   "iifname wan meta l4proto {{ tcp, udp }} counter dnat to {left.9}"),
    "hairpin": Way("left.1", "wan.own", None,
                   "iifname left meta l4proto {{ tcp, udp }} counter dnat to {left.9}",
                   "oifname left counter masquerade"),
}


class Scene:
    """A way's rules in force, and its flows, which XDP carries."""

    def __init__(self, twins, way, family, enabled=True):
        self.twins, self.way, self.family = twins, way, family
        prerouting = way.prerouting
        for name in ("wan.9", "left.9"):
            prerouting = prerouting.replace(f"{{{name}}}", host(name, family, 8080))
        prerouting = prerouting.replace("{{", "{").replace("}}", "}")
        self.hosts, self.flows = load(twins, family, prerouting, way.postrouting)
        self.ends = way.ends(self.hosts, family)
        self.tier = Tier(twins, self.flows, enabled)

    def add(self, protocol, sport):
        flow = self.flows.add(protocol, *self.ends, sport, 80)
        if protocol == "tcp":
            flow.handshake()
        return flow

    def header(self, extra=0):
        return (20 if self.family == 4 else 40) + extra

    def run(self, steps):
        for what, packets, action in steps:
            self.tier.step(what, packets, action)


@pytest.mark.parametrize("way", WAYS)
@FAMILIES
def test_in_the_middle(twins, way, family):
    # Back to where it came from: with IPv6 each packet may make a redirect, which is the worker's.
    conversation(Scene(twins, WAYS[way], family, enabled=(way, family) != ("hairpin", 6)))


@pytest.mark.parametrize("way, family", [("both", 4), ("no NAT", 6), ("masquerade", 6),
                                         ("hairpin", 4), ("inwards", 4)])
def test_choice(chosen, way, family):
    twins, enabled = chosen
    conversation(Scene(twins, WAYS[way], family, enabled))


def conversation(scene):
    udp = scene.add("udp", 4000)
    web, broken, reused, full = (scene.add("tcp", sport) for sport in (4001, 4002, 4003, 4004))
    scene.tier.promote(udp, web, broken, reused, full)
    scene.run(plain_packets(scene, udp))
    scene.run(plain_packets(scene, web))
    scene.run(datagrams(scene, udp))
    scene.run(segments(web))
    scene.run(errors(scene, udp))
    scene.run(errors(scene, web))
    # Nothing of this has ended a connection.
    scene.tier.promote(udp, web, broken, reused, full)
    scene.run(resets(broken))
    scene.run(ends_while_full(full))
    scene.run(ends(reused))
    scene.run(ends(web))
    scene.run(malformed(scene, udp))
    scene.tier.step("all counts", 1, udp.send, counters=True)


def say(flow, direction, size, **ip):
    if flow.protocol == wire.TCP:
        flow.segment(ACK, direction, size, **ip)
    else:
        flow.send(direction, size=size, **ip)


def changed(flow, direction, change, **ip):
    """A packet, changed by a function of its bytes before it is sent."""
    flow._send(direction, lambda source, destination: change(flow._data(  # pylint: disable=W0212
        source, destination, direction, 40, True, ip)))


def plain_packets(scene, flow):
    """What every protocol has, each way."""
    header = scene.header(20 if flow.protocol == wire.TCP else 8)
    for direction, name in ((FORTH, "forth"), (BACK, "back")):
        mtu = scene.way.mtu
        def send(size=40, direction=direction, **ip):
            return lambda: say(flow, direction, size, **ip)
        yield f"{name}", 1, send()
        yield f"{name}, as large as can be", 1, send(mtu - header)
        yield f"{name}, DSCP and ECN", 1, send(tos=0xbb)
        yield f"{name}, ECN alone", 1, send(tos=1)
        yield f"{name}, last hop but one", 1, send(ttl=2)
        yield f"{name}, hops expire", 0, send(ttl=1)
        yield f"{name}, no hop left", 0, send(ttl=0)
        yield f"{name}, 255 hops", 1, send(ttl=255)
        yield f"{name}, padded", 1, lambda d=direction: changed(flow, d, lambda p: p + b"\xa5" * 7)
        yield f"{name}, unfinished checksum", 1, lambda d=direction: flow.send_unfinished(d, 300)
        yield f"{name}, one fragment", 0, lambda d=direction: changed(flow, d, lone_fragment)
        yield f"{name}, fragments", 0, lambda d=direction: changed(
            flow, d, lambda p: wire.fragments(p, 24, ident=0x71 + d))
        yield f"{name}, fragments turned round", 0, lambda d=direction: changed(
            flow, d, lambda p: wire.fragments(p, 24, ident=0x73 + d)[::-1])
        if scene.family == 4:
            yield f"{name}, id and DF", 1, lambda d=direction: changed(
                flow, d, lambda p: p, ident=0xfedc, flags=2)
            yield f"{name}, options", 0, lambda d=direction: changed(flow, d, with_options)
        else:
            yield f"{name}, flow label", 1, send(flow_label=0xabcde)
            yield f"{name}, a header between", 0, send(chain=((60, b"\0\x01\x04\0\0\0\0"),))
        if direction == scene.way.narrow:
            if scene.family == 4:
                yield f"{name}, too large, cut", 0, send(mtu - header + 4)
            yield f"{name}, too large", 0, send(mtu - header + 1,
                                                **({"flags": 2} if scene.family == 4 else {}))
        yield f"{name} again", 1, send()


def lone_fragment(packet):
    """A first fragment that is the last one too: whole, but for IPv6's header."""
    if packet[0] >> 4 == 6:
        return wire.fragments(packet)[0]
    return wire.fragments(packet, 24)[1]  # the rest of a packet that never comes


def with_options(packet):
    """Three times nothing, and the end."""
    header = struct.pack("!BBH", 0x46, packet[1], len(packet) + 4) + packet[4:10] + bytes(2) + (
        packet[12:20] + b"\x01\x01\x01\0")
    return with_bytes(header, 10, struct.pack("!H", ~fold(header) & 0xffff)) + packet[20:]


def datagrams(scene, flow):
    for direction, name in ((FORTH, "forth"), (BACK, "back")):
        def send(direction=direction, **how):
            return lambda: flow.send(direction, **how)
        yield f"{name}, without a checksum", 1, send(size=100, checksum=False)
        yield f"{name}, next to nothing in it", 1, send(size=0)


def malformed(scene, flow):
    """No connection's packets; who answers to them answers nobody."""
    for direction, name in ((BACK, "back"), (FORTH, "forth")):
        yield f"{name}, without length", 0, lambda d=direction: changed(
            flow, d, lambda p: with_bytes(p, scene.header(4), b"\0\0"))
        yield f"{name}, shorter than its packet", 0, lambda d=direction: changed(
            flow, d, lambda p: shortened(p, 9))


def with_bytes(packet, at, data):
    return packet[:at] + data + packet[at + len(data):]


def shortened(packet, less):
    """UDP that ends before its packet does."""
    parts = wire.layout(packet)
    segment = packet[parts.transport:]
    size = len(segment) - less
    segment = segment[:4] + struct.pack("!H", size) + segment[6:]
    addresses = [wire.ipaddress.ip_address(a).compressed for a in (parts.source, parts.destination)]
    return packet[:parts.transport] + wire.with_checksum(*addresses, wire.UDP, segment[:size]) + (
        segment[size:])


def segments(flow):
    timestamps = b"\x01\x01\x08\x0a" + bytes(8)
    for direction, name in ((FORTH, "forth"), (BACK, "back")):
        def send(flags, size=0, direction=direction, **how):
            return lambda: flow.segment(flags, direction, size, **how)
        yield f"{name}, nothing but ACK", 1, send(ACK)
        yield f"{name}, PSH", 1, send(ACK | PSH, 100)
        yield f"{name}, options", 1, send(ACK | PSH, 100, options=timestamps)
        yield f"{name}, once more", 1, send(ACK, 50, offset=-50)
        yield f"{name}, window closed", 1, send(ACK, window=0)
        yield f"{name}, window open", 1, send(ACK)
        yield f"{name}, urgent", 0, send(ACK | PSH | URG, 10)
        yield f"{name}, ECE", 0, send(ACK | 0x40)
        yield f"{name}, CWR", 0, send(ACK | PSH | 0x80, 10)
        yield f"{name}, AccECN", 0, lambda d=direction: changed(flow, d, with_accecn)
        yield f"{name} again", 1, send(ACK | PSH, 30)


def with_accecn(packet):
    """TCP's flag in front of CWR."""
    at = wire.layout(packet).transport
    changed_by = struct.unpack_from("!H", packet, at + 16)[0]
    total = fold(struct.pack("!HH", ~changed_by & 0xffff, 0x0100))
    packet = with_bytes(packet, at + 12, bytes([packet[at + 12] | 1]))
    return with_bytes(packet, at + 16, struct.pack("!H", ~total & 0xffff))


def errors(scene, flow):
    """About packets that XDP has carried, from their destination and from a router before it."""
    hosts = scene.hosts
    router = {True: hosts.wan(77), False: hosts.left(77)}
    kinds = {4: (((3, 3), bytes(4)), ((11, 0), bytes(4)), ((3, 4), b"\0\0\x05\0")),
             6: (((1, 4), bytes(4)), ((3, 0), bytes(4)), ((2, 0), b"\0\0\x05\0"))}[scene.family]
    for direction, name in ((FORTH, "forth"), (BACK, "back")):
        sender = router[(direction == FORTH) == scene.way.server.startswith("wan")]
        yield f"{name}, to be complained about", 1, lambda d=direction: say(flow, d, 100)
        for (kind, code), rest in kinds:
            def complain(kind=kind, code=code, rest=rest, direction=direction, **more):
                return lambda: flow.error(kind, code, direction, rest=rest, **more)
            yield f"error {kind}/{code} about one {name}", 0, complain()
            yield f"error {kind}/{code} on the way {name}", 0, complain(sender=sender)
        yield f"{name} after it", 1, lambda d=direction: say(flow, d, 100)


def resets(flow):
    yield "back, reset", 0, lambda: flow.segment(RST | ACK, BACK)
    yield "forth after the reset", 0, lambda: flow.segment(ACK, FORTH, 10)
    yield "back after the reset", 0, lambda: flow.segment(ACK, BACK, 10)


def ends_while_full(flow):
    """A server finishes, and sends old data again, while what XDP has carried is on its way."""
    def segment(flags, direction, size=0, **how):
        return lambda: flow.segment(flags, direction, size, **how)
    for n in range(4):
        yield f"back, data {n}", 1, segment(ACK, BACK, 1000)
    yield "back, FIN with data on its way", 0, segment(FIN | ACK, BACK)
    for left in (3001, 2001):
        yield f"forth, ACK of all but {left}", 0, segment(ACK, FORTH, ack_offset=-left)
    yield "back, old data again", 0, segment(ACK, BACK, 1000, offset=-4001)
    for left in (1001, 0):
        yield f"forth, ACK of all but {left}", 0, segment(ACK, FORTH, ack_offset=-left)
    yield "forth, FIN", 0, segment(FIN | ACK, FORTH)
    yield "back, last ACK", 0, segment(ACK, BACK)


def ends(flow):
    """A SYN that means nothing, the end, and the next connection of the same ports."""
    yield "SYN in the middle", 0, lambda: flow.segment(SYN, options=MSS, offset=-5)
    yield "forth, FIN", 0, lambda: flow.segment(FIN | ACK)
    yield "back, data after FIN", 0, lambda: flow.segment(ACK | PSH, BACK, 100)
    yield "forth, ACK", 0, lambda: flow.segment(ACK)
    yield "back, FIN", 0, lambda: flow.segment(FIN | ACK, BACK)
    yield "forth, last ACK", 0, lambda: flow.segment(ACK)
