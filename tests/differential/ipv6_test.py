"""IPv6 through the router: forwarding, errors, extension headers, odd addresses."""

import itertools
import struct

import pytest
from scapy.layers.inet import UDP
from scapy.layers.inet6 import (ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6EchoRequest,
                                ICMPv6PacketTooBig, ICMPv6ParamProblem, ICMPv6TimeExceeded)
from scapy.packet import Padding, Raw

from addresses import far6, ip6, link_local
from frames import data, ether, raw_ether, tcp, udp, v6
from normalise import is_redirect6

SETUP = [
    "route add blackhole fd00:b1::/64",
    "route add unreachable fd00:b2::/64",
    "route add prohibit fd00:b3::/64",
    "route add throw fd00:b4::/64",
    f"route add fd00:b5::/64 via {ip6('right', 2)} mtu 1300",
    f"route add fd00:b6::/64 via {ip6('right', 2)} mtu 1280",
    f"route add fd00:b7::/64 via {link_local('right', 2)} dev right",
    f"nexthop add id 7 via {ip6('wan', 2)} dev wan",
    "route add fd00:b8::/64 nhid 7",
    f"route add fd00:bb::/64 via {ip6('right', 2)} mtu lock 1300",
    f"route add fd00:bc::/64 via {ip6('right', 2)} mtu 9000",
    f"route add fd00:b9::/64 via {ip6('other', 2)}",
    f"route add fd00:ba::/64 via {ip6('right', 3)} src {ip6('wan')}",
]

_SENDERS = itertools.count(0x1000)


def sender():
    return far6("left", next(_SENDERS))


ECHO = ICMPv6EchoRequest(id=7, seq=8) / data(20)
FORWARDED = {
    **{f"udp-{n}": ether(v6() / udp(n)) for n in (0, 1, 2, 17, 511, 1280 - 48, 1452)},
    **{f"tcp-{flags}": ether(v6() / tcp(20, flags=flags)) for flags in ("S", "A", "PA", "R")},
    "echo": ether(v6() / ECHO),
    "echo-reply": ether(v6() / ICMPv6EchoReply(id=1)),
    **{f"protocol-{n}": ether(v6(nh=n) / data(24)) for n in (1, 2, 4, 41, 47, 50, 59, 88, 112, 132,
                                                             253, 255)},
    "no-payload": ether(v6(nh=59)),
    "no-payload-udp": ether(v6(nh=17)),
    "no-payload-icmp": ether(v6(nh=58)),
    "traffic-class": ether(v6(tc=0xff) / udp()),
    "flow-label": ether(v6(fl=0xabcde) / udp()),
    "udp-checksum-0": ether(v6() / UDP(sport=1, dport=2, chksum=0) / data(8)),
    "udp-checksum-wrong": ether(v6() / UDP(sport=1, dport=2, chksum=0x1111) / data(8)),
    "tcp-checksum-wrong": ether(v6() / tcp(5, chksum=0x2222)),
    **{f"padded-{n}": ether(v6() / udp(2) / Padding(b"\xaa" * n)) for n in (1, 16, 100)},
    "to-a-gateway": ether(v6(dst=far6("right", 9)) / udp()),
    "through-a-link-local-gateway": ether(v6(dst="fd00:b7::1") / udp()),
    "through-a-nexthop-object": ether(v6(dst="fd00:b8::1") / udp()),
    "to-wan": ether(v6(dst=ip6("wan", 2)) / udp()),
    "out-by-an-unserved-interface": ether(v6(dst=ip6("other", 2)) / udp()),
    "route-by-an-unserved-interface": ether(v6(dst="fd00:b9::1") / tcp()),
    "mac-of-a-neighbor-on-the-link": ether(v6(src=ip6("left", 5)) / udp(), host=6),
}


@pytest.mark.parametrize("name", FORWARDED)
def test_forwarded(rig, name):
    rig.compare(name, "left", FORWARDED[name], expect_output=True)


@pytest.mark.parametrize("size", [0, 1, 9, 1400])
@pytest.mark.parametrize("kind", ["udp", "tcp"])
def test_checksum_left_to_the_network_card(rig, kind, size):
    frame = bytearray(ether(v6() / (udp(size) if kind == "udp" else tcp(size))))
    place = 6 if kind == "udp" else 16
    total = sum(struct.unpack("!16H", bytes(frame[22:54]))) + frame[20] + len(frame) - 54
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    frame[54 + place:56 + place] = struct.pack("!H", total)
    rig.compare(f"partial {kind} {size}", "left", bytes(frame), partial=(54, place),
                expect_output=True)


# --- Hop limit, routes that refuse, MTU -----------------------------------------------------------

PAYLOADS = {
    "udp": udp(20),
    "udp-1400": udp(1400),
    "tcp": tcp(),
    "echo": ECHO,
    "echo-reply": ICMPv6EchoReply(id=1),
    "unreachable": ICMPv6DestUnreach() / v6(src=ip6("right", 2), dst=ip6("left", 2)) / udp(0),
    "too-big": ICMPv6PacketTooBig(mtu=1280) / v6() / udp(0),
    "time-exceeded": ICMPv6TimeExceeded() / v6() / udp(0),
    "parameter-problem": ICMPv6ParamProblem() / v6() / udp(0),
    "icmp-type-100": Raw(b"\x64\0\0\0\0\0\0\0"),
    "icmp-type-137-redirect": Raw(b"\x89\0\0\0" + bytes(36)),
    "icmp-type-200": Raw(b"\xc8\0\0\0\0\0\0\0"),
    "icmp-1-byte": Raw(b"\x80"),
    "icmp-empty": Raw(b""),
    "fragment-first": Raw(b"\x11\0\0\x01\0\0\0\x09") / udp(16),
    "fragment-later": Raw(b"\x11\0\x00\x09\0\0\0\x09") / data(16),
    "fragment-later-icmp": Raw(b"\x3a\0\x00\x09\0\0\0\x09\x01\0\0\0") / data(16),
    "fragment-first-icmp-error": Raw(b"\x3a\0\x00\x01\0\0\0\x09\x01\0\0\0") / data(20),
}
NEXT_HEADER = {"icmp-type-100": 58, "icmp-type-200": 58, "icmp-1-byte": 58, "icmp-empty": 58,
               "icmp-type-137-redirect": 58, "fragment-first": 44, "fragment-later": 44,
               "fragment-later-icmp": 44, "fragment-first-icmp-error": 44}
REFUSING = {"no-route": "2001:db8::1", "blackhole": "fd00:b1::1", "unreachable": "fd00:b2::1",
            "prohibit": "fd00:b3::1", "throw": "fd00:b4::1"}


def packet(payload, **fields):
    if payload in NEXT_HEADER:
        fields["nh"] = NEXT_HEADER[payload]
    return v6(**fields) / PAYLOADS[payload]


@pytest.mark.parametrize("limit", [0, 1, 2, 255])
@pytest.mark.parametrize("payload", PAYLOADS)
def test_hop_limit(rig, payload, limit):
    rig.compare(f"hop limit {limit}, {payload}", "left",
                ether(packet(payload, src=sender(), hlim=limit)))


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("route", REFUSING)
def test_route_that_refuses(rig, route, payload):
    rig.compare(f"{route}, {payload}", "left",
                ether(packet(payload, src=sender(), dst=REFUSING[route])))


@pytest.mark.parametrize("size", [0, 1, 1183, 1184, 1185, 1231, 1232, 1233, 1452])
def test_how_much_an_error_quotes(rig, size):
    rig.compare(f"quote {size}", "left", ether(v6(src=sender(), hlim=1) / udp(size)),
                expect_output=True)


@pytest.mark.parametrize("tc", [0, 3, 0xb8, 0xff])
def test_traffic_class_of_an_error(rig, tc):
    rig.compare(f"class {tc}", "left", ether(v6(src=sender(), hlim=1, tc=tc, fl=5) / udp(4)),
                expect_output=True)


MTU_ROUTES = {"wan": (ip6("wan", 2), 1400), "route-mtu": ("fd00:b5::1", 1300),
              "route-mtu-1280": ("fd00:b6::1", 1280), "route-mtu-lock": ("fd00:bb::1", 1300),
              "route-mtu-9000": ("fd00:bc::1", 1500)}


@pytest.mark.parametrize("over", [-1, 0, 1, 2, 8, 100])
@pytest.mark.parametrize("route", MTU_ROUTES)
def test_mtu(rig, route, over):
    destination, mtu = MTU_ROUTES[route]
    size = min(mtu + over, 1500)
    rig.compare(f"{route}, {over:+}", "left",
                ether(v6(src=sender(), dst=destination) / udp(size - 48)), expect_output=True)
    rig.compare(f"{route}, {over:+}, hop limit 1", "left",
                ether(v6(src=sender(), dst=destination, hlim=1) / udp(size - 48)),
                expect_output=True)
    rig.compare(f"{route}, {over:+}, fragment", "left",
                ether(v6(src=sender(), dst=destination, nh=44) / Raw(b"\x11\0\0\x01\0\0\0\x09") /
                      data(size - 48)), expect_output=True)
    rig.compare(f"{route}, {over:+}, an error", "left",
                ether(v6(src=sender(), dst=destination) / ICMPv6DestUnreach() / data(size - 48)))


@pytest.mark.parametrize("link", ["right", "wan", "other"])
def test_error_leaves_where_the_sender_is(rig, link):
    for source in (ip6("left", 5), far6("wan", 5), ip6("other", 5), "2001:db8::77", "fd00:b1::5",
                   "fd00:b3::5", ip6("right", 5), "fd00:ba::1", "fd00:b7::5", link_local(link, 5)):
        frame = ether(v6(src=source, dst=ip6("left", 9), hlim=1) / udp(30), link=link)
        rig.compare(f"error to {source}, in by {link}", link, frame)


# --- Extension headers ----------------------------------------------------------------------------


def extension(next_header, body):
    """A header in the common form, its options filled up with PadN."""
    missing = -(len(body) + 2) % 8
    pad = b"" if missing == 0 else b"\0" if missing == 1 else \
        bytes([1, missing - 2]) + bytes(missing - 2)
    whole = body + pad
    return bytes([next_header, (len(whole) + 2) // 8 - 1]) + whole


def chain(*headers, payload=None):
    """(kind, body) pairs before a UDP packet; returns the first kind and the bytes."""
    payload = bytes(UDP(sport=1, dport=2, chksum=0x1234) / data(12)) if payload is None else payload
    kinds = [kind for kind, _ in headers] + [17]
    out = b""
    for i, (_, body) in enumerate(headers):
        following = kinds[i + 1]
        out += body(following) if callable(body) else extension(following, body)
    return kinds[0], out + payload


def fragment_header(offset, more, identification=0x77):
    return lambda following: struct.pack("!BBHI", following, 0, offset << 3 | more, identification)


def authentication(following):
    return bytes([following, 4, 0, 0]) + bytes(20)


def routing(kind, left, *hops):
    return lambda following: bytes([following, 2 * len(hops), kind, left]) + bytes(4) + b"".join(
        bytes(map(lambda n: n, _packed(hop))) for hop in hops)


def _packed(address):
    import socket
    return socket.inet_pton(socket.AF_INET6, address)


HBH, ROUTING, FRAGMENT, AUTH, DEST = 0, 43, 44, 51, 60
CHAINS = {
    "hbh-padn": chain((HBH, b"")),
    "hbh-pad1": chain((HBH, bytes(6))),
    "hbh-pad1-14": chain((HBH, bytes(14))),
    "hbh-padn-not-zero": chain((HBH, b"\x01\x04\x01\x02\x03\x04")),
    "hbh-padn-too-long": chain((HBH, b"\x01\x09" + bytes(9))),
    "hbh-pads-too-many": chain((HBH, b"\x01\x05" + bytes(5) + b"\x01\x05" + bytes(5))),
    "hbh-long-pad": chain((HBH, b"\x01\xfa" + bytes(250))),
    **{f"hbh-unknown-{action}": chain((HBH, bytes([action << 6 | 0x1e, 2, 1, 2])))
       for action in range(4)},
    **{f"hbh-unknown-mutable-{action}": chain((HBH, bytes([action << 6 | 0x3e, 2, 1, 2])))
       for action in range(4)},
    "hbh-router-alert": chain((HBH, b"\x05\x02\x00\x00")),
    "hbh-router-alert-length-3": chain((HBH, b"\x05\x03\x00\x00\x00")),
    "hbh-jumbo": chain((HBH, b"\xc2\x04\x00\x01\x00\x00")),
    "hbh-jumbo-small": chain((HBH, b"\xc2\x04\x00\x00\x00\x20")),
    "hbh-ioam": chain((HBH, b"\x31\x02\x00\x00")),
    "hbh-calipso": chain((HBH, b"\x07\x08" + bytes(8))),
    "hbh-option-beyond": chain((HBH, lambda n: bytes([n, 0, 0x1e, 9, 0, 0, 0, 0]))),
    "hbh-beyond-the-packet": chain((HBH, lambda n: bytes([n, 200]) + bytes(6))),
    "hbh-twice": chain((HBH, b""), (HBH, b"")),
    "hbh-after-destination": chain((DEST, b""), (HBH, b"")),
    "destination": chain((DEST, b"")),
    **{f"destination-unknown-{action}": chain((DEST, bytes([action << 6 | 0x1e, 2, 1, 2])))
       for action in range(4)},
    **{f"routing-{kind}-left-{left}": chain((ROUTING, routing(kind, left, far6("right", 3))))
       for kind in (0, 2, 3, 4, 99) for left in (0, 1, 2)},
    "fragment-atomic": chain((FRAGMENT, fragment_header(0, 0))),
    "fragment-first": chain((FRAGMENT, fragment_header(0, 1))),
    "fragment-later": chain((FRAGMENT, fragment_header(5, 1))),
    "fragment-last": chain((FRAGMENT, fragment_header(8191, 0))),
    "fragment-then-destination": chain((FRAGMENT, fragment_header(0, 1)), (DEST, b"")),
    "ah": chain((AUTH, authentication)),
    "ah-short": chain((AUTH, lambda n: bytes([n, 0, 0, 0]) + bytes(4))),
    "esp": (50, bytes(40)),
    "all-in-order": chain((HBH, b""), (DEST, b""), (ROUTING, routing(0, 0, far6("right", 3))),
                          (FRAGMENT, fragment_header(0, 1)), (AUTH, authentication), (DEST, b"")),
    "destination-20-times": chain(*[(DEST, b"")] * 20),
    "mobility": (135, b"\x3b\x00\x01\x00" + bytes(4)),
    "hip": (139, b"\x3b\x04\x01\x11" + bytes(36)),
    "next-header-253-in-hbh": chain((HBH, lambda n: bytes([253, 0, 1, 4, 0, 0, 0, 0]))),
    "none-after-hbh": chain((HBH, lambda n: bytes([59, 0, 1, 4, 0, 0, 0, 0]))),
}


@pytest.mark.parametrize("name", CHAINS)
def test_extension_headers(rig, name):
    kind, body = CHAINS[name]
    for what, fields in (("", {}), (", hop limit 1", {"hlim": 1}),
                         (", no route", {"dst": "2001:db8::1"}),
                         (", to the router", {"dst": ip6("left")}),
                         (", to its other side", {"dst": ip6("right")})):
        rig.compare(name + what, "left", ether(v6(src=sender(), nh=kind, **fields) / Raw(body)))


def test_jumbo_option_with_length_0(rig):
    kind, body = CHAINS["hbh-jumbo-small"]
    rig.compare("jumbo, length 0", "left", ether(v6(nh=kind, plen=0) / Raw(body)))
    kind, body = CHAINS["hbh-padn"]
    rig.compare("hbh, length 0", "left", ether(v6(nh=kind, plen=0) / Raw(body)))


# --- Malformed ------------------------------------------------------------------------------------

_WHOLE = bytes(v6() / tcp(30))
MALFORMED = {
    **{f"version-{n}": raw_ether(bytes([n << 4]) + _WHOLE[1:], 0x86dd) for n in (0, 4, 5, 7, 15)},
    **{f"payload-length-{n}": ether(v6(plen=n) / tcp(30)) for n in (0, 1, 19, 20, 49, 51, 1460,
                                                                    65535)},
    **{f"cut-to-{n}": raw_ether(_WHOLE[:n], 0x86dd) for n in (0, 1, 20, 39, 40, 41, 59, 60, 89)},
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(rig, name):
    rig.compare(name, "left", MALFORMED[name])


# --- Addresses that do not belong on a link -------------------------------------------------------

ODD = ["::", "::1", "::10.1.0.2", "::ffff:10.1.0.2", "64:ff9b::1", "fe80::1:2", "fe80::2:2",
       "fe80::1:1", "fe80::2:1", "febf::1", "fec0::1", "ff01::1", "ff02::1", "ff02::2", "ff05::2",
       "ff0e::1", "2001:db8::5", ip6("left"), ip6("right"), ip6("other"), "fd00:1::", "fd00:2::",
       "fd00:b1::9", "fd00:b3::9", "ff02::1:ff00:1"]


@pytest.mark.parametrize("dst", [ip6("right", 2), ip6("left"), ip6("right"), "2001:db8::1"])
@pytest.mark.parametrize("src", ODD)
@pytest.mark.parametrize("limit", [1, 64])
def test_odd_source(rig, src, dst, limit):
    for layer in (udp(8), ECHO):
        rig.compare(f"{src} > {dst}, hop limit {limit}", "left",
                    ether(v6(src=src, dst=dst, hlim=limit) / layer))


@pytest.mark.parametrize("dst", ODD)
@pytest.mark.parametrize("link", ["left", "wan"])
def test_odd_destination(rig, dst, link):
    for src in (sender(), ip6(link, 4), link_local(link, 4), "::"):
        for layer in (udp(8), tcp(), ECHO):
            rig.compare(f"{src} > {dst}", link, ether(v6(src=src, dst=dst) / layer, link=link),
                        leave_out=is_redirect6)
