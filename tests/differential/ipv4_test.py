"""IPv4 through the router: what is forwarded unchanged, what is refused and how."""

import struct

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import GRE
from scapy.layers.sctp import SCTP, SCTPChunkInit
from scapy.packet import Padding, Raw

from addresses import far4, ip4
from frames import data, echo, ether, fresh_sender4, raw_ether, tcp, udp, v4

SETUP = [
    "route add blackhole 198.51.100.0/28",
    "route add unreachable 198.51.100.16/28",
    "route add prohibit 198.51.100.32/28",
    "route add throw 198.51.100.48/28",
    f"route add 198.51.100.64/28 via {ip4('right', 2)} mtu 1000",
    f"route add 198.51.100.80/28 via {ip4('right', 2)} mtu lock 1000",
    f"route add 198.51.100.96/28 via {ip4('right', 2)} mtu 9000",
    f"route add 198.51.100.112/28 via inet6 fe80::2:2 dev right",
    f"nexthop add id 7 via {ip4('wan', 2)} dev wan",
    "route add 198.51.100.128/28 nhid 7",
    "nexthop add id 8 blackhole",
    "route add 198.51.100.144/28 nhid 8",
    f"route add 198.51.100.160/28 via {ip4('other', 2)}",
    "route add 198.51.100.176/28 dev right scope link",
    f"neigh add 198.51.100.177 dev right lladdr 02:00:00:00:02:07 nud permanent",
    f"route add 198.51.100.192/28 via {ip4('right', 3)} src {ip4('wan')}",
    f"route add 198.51.100.208/28 via {ip4('right', 2)} mtu 68",
]


def malformed(**fields):
    """A sound UDP packet with bytes of its header replaced: offset names -> values."""
    packet = bytearray(bytes(v4() / udp(40)))
    for name, value in fields.items():
        at = int(name[1:])
        packet[at:at + len(value)] = value
    return packet


def with_checksum(packet):
    packet = bytearray(packet)
    packet[10:12] = b"\0\0"
    words = struct.unpack("!10H", bytes(packet[:20]))
    total = sum(words)
    total = (total & 0xffff) + (total >> 16)
    total = (total & 0xffff) + (total >> 16)
    packet[10:12] = struct.pack("!H", ~total & 0xffff)
    return bytes(packet)


def sound(**fields):
    return raw_ether(with_checksum(malformed(**fields)), 0x0800)


FORWARDED = {
    **{f"udp-{n}": ether(v4() / udp(n)) for n in (0, 1, 2, 17, 18, 19, 511, 1372, 1400, 1472)},
    **{f"tcp-{flags or 'none'}": ether(v4() / tcp(20, flags=flags))
       for flags in ("S", "SA", "A", "FA", "R", "PA", "", "FSRPAUEC")},
    "tcp-options": ether(v4() / TCP(sport=1, dport=2, options=[("MSS", 1460), ("WScale", 7),
                                                              ("Timestamp", (1, 2))])),
    "echo": ether(v4() / echo()),
    "echo-reply": ether(v4() / ICMP(type=0, id=3) / data(9)),
    "icmp-unreachable-in-transit": ether(v4() / ICMP(type=3, code=1) /
                                         IP(src=ip4("right", 2), dst=ip4("left", 2)) / udp(0)),
    "sctp": ether(v4() / SCTP(sport=1, dport=2) / SCTPChunkInit()),
    "gre": ether(v4() / GRE() / IP(src="192.0.2.1", dst="192.0.2.2") / udp(3)),
    "ipip": ether(v4() / IP(src="192.0.2.1", dst="192.0.2.2") / udp(3)),
    "sit": ether(v4(proto=41) / IPv6(src="fd00:1::2", dst="fd00:2::2")),
    **{f"protocol-{n}": ether(v4(proto=n) / data(24)) for n in (0, 2, 50, 51, 88, 103, 112, 255)},
    "no-payload": ether(v4(proto=17)),
    "payload-of-one-byte": ether(v4(proto=6) / data(1)),
    "tos-all-bits": ether(v4(tos=0xff) / udp()),
    "ecn-ce": ether(v4(tos=3) / udp()),
    "df": ether(v4(flags="DF") / udp()),
    "reserved-bit": ether(v4(flags=4) / udp()),
    "id-0": ether(v4(id=0) / udp()),
    "udp-checksum-0": ether(v4() / UDP(sport=1, dport=2, chksum=0) / data(8)),
    "udp-checksum-wrong": ether(v4() / UDP(sport=1, dport=2, chksum=0x1111) / data(8)),
    "udp-length-lies": ether(v4() / UDP(sport=1, dport=2, len=200) / data(8)),
    "tcp-checksum-wrong": ether(v4() / tcp(5, chksum=0x2222)),
    "icmp-checksum-wrong": ether(v4() / ICMP(type=8, chksum=0x3333) / data(8)),
    **{f"padded-{n}": ether(v4() / udp(2) / Padding(b"\xaa" * n)) for n in (1, 16, 100)},
    "trailer-looks-like-fcs": ether(v4() / tcp() / Padding(b"\x01\x02\x03\x04")),
    "to-a-gateway": ether(v4(dst=far4("right", 9)) / udp()),
    "to-wan": ether(v4(dst=ip4("wan", 2)) / udp()),
    "to-a-neighbor-on-link-route": ether(v4(dst="198.51.100.177") / udp()),
    "through-an-ipv6-gateway": ether(v4(dst="198.51.100.113") / udp()),
    "through-a-nexthop-object": ether(v4(dst="198.51.100.129") / udp()),
    "out-by-an-unserved-interface": ether(v4(dst=ip4("other", 2)) / udp()),
    "route-by-an-unserved-interface": ether(v4(dst="198.51.100.161") / tcp()),
    "from-0/8": ether(v4(src="0.1.2.3") / udp()),
    "from-240/4": ether(v4(src="240.1.2.3") / udp()),
    "from-the-other-side": ether(v4(src=ip4("wan", 9)) / udp()),
    "ip-checksum-becomes-0": None,
}


def _checksum_that_wraps():
    """Such that the checksum of what is forwarded (TTL 63) would be 0xffff in a careless update."""
    packet = bytearray(bytes(v4() / udp(4)))
    for identification in range(65536):
        packet[4:6] = struct.pack("!H", identification)
        frame = with_checksum(packet)
        if frame[10:12] == b"\xfe\xff":
            return raw_ether(frame, 0x0800)
    raise AssertionError("no such id")


FORWARDED["ip-checksum-becomes-0"] = _checksum_that_wraps()


@pytest.mark.parametrize("name", FORWARDED)
def test_forwarded(rig, name):
    rig.compare(name, "left", FORWARDED[name], expect_output=True)


@pytest.mark.parametrize("size", [0, 1, 8, 9, 500, 1400])
@pytest.mark.parametrize("kind", ["udp", "tcp"])
def test_checksum_left_to_the_network_card(rig, kind, size):
    """As every container sends it: the field holds the pseudo-header's sum only."""
    layer = udp(size) if kind == "udp" else tcp(size)
    packet = bytearray(ether(v4() / layer))
    place = 14 + 20 + (6 if kind == "udp" else 16)
    words = struct.unpack("!4H", bytes(packet[26:34]))
    total = sum(words) + packet[23] + len(packet) - 34
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    packet[place:place + 2] = struct.pack("!H", total)
    rig.compare(f"partial {kind} {size}", "left", bytes(packet), partial=(34, place - 34),
                expect_output=True)


# --- TTL, routes that refuse ----------------------------------------------------------------------


@pytest.mark.parametrize("ttl", [0, 1, 2, 3, 254, 255])
@pytest.mark.parametrize("dst", [ip4("right", 2), ip4("wan", 3), ip4("other", 2), far4("right", 1)])
@pytest.mark.parametrize("layer", ["udp", "tcp", "echo"])
def test_ttl(rig, ttl, dst, layer):
    payload = {"udp": udp(60), "tcp": tcp(10), "echo": echo()}[layer]
    rig.compare(f"ttl {ttl}", "left", ether(v4(dst=dst, ttl=ttl) / payload), expect_output=True)


REFUSING = {"no-route": "203.0.113.1", "blackhole": "198.51.100.1",
            "unreachable": "198.51.100.17", "prohibit": "198.51.100.33",
            "throw": "198.51.100.49", "nexthop-blackhole": "198.51.100.145"}
ERROR_PAYLOADS = {
    "udp": lambda: udp(20),
    "udp-1400": lambda: udp(1400),  # more than an error quotes
    "tcp": tcp,
    "echo": echo,
    "echo-reply": lambda: ICMP(type=0, id=1, seq=2),
    "icmp-unreachable": lambda: ICMP(type=3, code=3) / v4(src=ip4("right", 2), dst=ip4("left", 2)) /
    udp(0),
    "icmp-redirect": lambda: ICMP(type=5, code=1) / data(28),
    "icmp-time-exceeded": lambda: ICMP(type=11) / data(28),
    "icmp-parameter-problem": lambda: ICMP(type=12) / data(28),
    "icmp-timestamp": lambda: ICMP(type=13),
    "icmp-type-19": lambda: ICMP(type=19) / data(4),
    "icmp-type-200": lambda: ICMP(type=200) / data(4),
    "icmp-1-byte": lambda: Raw(b"\x08"),
    "icmp-empty": lambda: Raw(b""),
    "gre": lambda: GRE() / data(10),
}


@pytest.mark.parametrize("payload", ERROR_PAYLOADS)
@pytest.mark.parametrize("route", REFUSING)
def test_route_that_refuses(rig, route, payload):
    layer = ERROR_PAYLOADS[payload]()
    protocol = {"proto": 1} if payload in ("icmp-1-byte", "icmp-empty") else {}
    packet = v4(src=fresh_sender4(), dst=REFUSING[route], **protocol) / layer
    rig.compare(f"{route}, {payload}", "left", ether(packet))


@pytest.mark.parametrize("tos", [0, 2, 0x10, 0x1c, 0x1e, 0x28, 0xb8, 0xff])
def test_tos_of_an_error(rig, tos):
    packet = v4(ttl=1, tos=tos) / udp(5)
    rig.compare(f"tos {tos}", "left", ether(packet), expect_output=True)


@pytest.mark.parametrize("size", [0, 1, 40, 500, 519, 520, 521, 548, 549, 700, 1472])
def test_how_much_an_error_quotes(rig, size):
    rig.compare(f"quote {size}", "left", ether(v4(ttl=1) / udp(size)), expect_output=True)


@pytest.mark.parametrize("offset", [0, 1, 185])
@pytest.mark.parametrize("route", ["no-route", "unreachable", "prohibit"])
def test_error_for_a_fragment(rig, route, offset):
    """Only the first fragment is answered."""
    packet = v4(src=fresh_sender4(), dst=REFUSING[route], flags="MF", frag=offset) / udp(40)
    rig.compare(f"{route}, fragment at {offset}", "left", ether(packet),
                expect_output=offset == 0)


@pytest.mark.parametrize("link", ["right", "wan", "other"])
def test_error_leaves_where_the_sender_is(rig, link):
    """Whichever interface the packet came in by: spoofed senders, asymmetric routes."""
    for source in (ip4("left", 5), far4("wan", 5), ip4("other", 5), "203.0.113.77", "198.51.100.5",
                   "198.51.100.18", ip4("right", 5), "198.51.100.193", "198.51.100.114"):
        frame = ether(v4(src=source, dst=ip4("left", 9), ttl=1) / udp(30), link=link)
        rig.compare(f"error to {source}, in by {link}", link, frame)


# --- MTU and fragments ----------------------------------------------------------------------------

MTU_ROUTES = {"wan": (ip4("wan", 2), 1400), "route-mtu": ("198.51.100.65", 1000),
              "route-mtu-lock": ("198.51.100.81", 1000), "route-mtu-9000": ("198.51.100.97", 1500),
              "route-mtu-68": ("198.51.100.209", 68)}


@pytest.mark.parametrize("flags", ["", "DF"])
@pytest.mark.parametrize("over", [-1, 0, 1, 2, 7, 8, 9, 100])
@pytest.mark.parametrize("route", MTU_ROUTES)
def test_mtu(rig, route, over, flags):
    destination, mtu = MTU_ROUTES[route]
    size = min(mtu + over, 1500) - 28
    frame = ether(v4(dst=destination, flags=flags) / udp(size))
    rig.compare(f"{route}, {over:+}, {flags or 'no DF'}", "left", frame, expect_output=True)


FRAGMENTS = {
    "first": v4(dst=ip4("wan", 2), flags="MF") / udp(1464),
    "middle": v4(dst=ip4("wan", 2), flags="MF", frag=185, proto=17) / data(1480),
    "last": v4(dst=ip4("wan", 2), frag=370, proto=17) / data(1471),
    "last-with-df": v4(dst=ip4("wan", 2), frag=370, flags="DF", proto=17) / data(1471),
    "first-with-df": v4(dst=ip4("wan", 2), flags="MF+DF") / udp(1464),
    "tiny-first": v4(flags="MF") / udp(0),
    "8-bytes-at-the-end": v4(frag=8191, proto=17) / data(8),
    "beyond-65535": v4(frag=8191, proto=17) / data(100),
    "beyond-65535-and-large": v4(dst=ip4("wan", 2), frag=8180, proto=17) / data(1480),
    "not-a-multiple-of-8": v4(flags="MF") / udp(13),
    "not-a-multiple-of-8-large": v4(dst=ip4("wan", 2), flags="MF") / udp(1466),
    "reserved-bit-large": v4(dst=ip4("wan", 2), flags=4) / udp(1472),
    "route-mtu-68-to-pieces": v4(dst="198.51.100.209") / udp(1472),
}


@pytest.mark.parametrize("name", FRAGMENTS)
def test_fragments(rig, name):
    rig.compare(name, "left", ether(FRAGMENTS[name]))


def test_fragment_train(rig):
    for i, piece in enumerate(fragment(v4(dst=ip4("wan", 2)) / udp(4000), fragsize=1480)):
        rig.compare(f"piece {i}", "left", ether(piece), expect_output=True)


def test_large_partial_checksum_is_completed_before_fragmenting(rig):
    packet = bytearray(ether(v4(dst=ip4("wan", 2)) / udp(1472)))
    words = struct.unpack("!4H", bytes(packet[26:34]))
    total = sum(words) + 17 + len(packet) - 34
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    packet[40:42] = struct.pack("!H", total)
    rig.compare("partial and too large", "left", bytes(packet), partial=(34, 6),
                expect_output=True)


# --- Malformed headers ----------------------------------------------------------------------------

MALFORMED = {
    **{f"version-{n}": sound(_0=bytes([n << 4 | 5])) for n in (0, 3, 5, 6, 15)},
    **{f"ihl-{n}": sound(_0=bytes([0x40 | n])) for n in (0, 1, 4, 6, 15)},
    **{f"total-length-{n}": sound(_2=struct.pack("!H", n)) for n in (0, 19, 20, 21, 27, 28, 60, 67,
                                                                     68, 69, 1500, 65535)},
    "checksum-wrong": raw_ether(bytes(malformed(_10=b"\x12\x34")), 0x0800),
    "checksum-0": raw_ether(bytes(malformed(_10=b"\0\0")), 0x0800),
    "checksum-ffff": raw_ether(bytes(malformed(_10=b"\xff\xff")), 0x0800),
    "no-header-at-all": raw_ether(b"", 0x0800),
    "ipv6-in-an-ipv4-frame": raw_ether(
        bytes(IPv6(src="fd00:1::2", dst="fd00:2::2") / udp()), 0x0800),
    "ipv4-in-an-ipv6-frame": raw_ether(bytes(v4() / udp()), 0x86dd),
    "ihl-beyond-the-packet": raw_ether(with_checksum(malformed(_0=b"\x4f", _2=b"\0\x28"))[:40],
                                       0x0800),
}
_WHOLE = bytes(v4() / tcp(30))


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(rig, name):
    rig.compare(name, "left", MALFORMED[name])


@pytest.mark.parametrize("length", [*range(0, 24), 27, 28, 33, 39, 40, 41, 55, 69])
def test_truncated(rig, length):
    rig.compare(f"cut to {length} bytes", "left", raw_ether(_WHOLE[:length], 0x0800),
                expect_output=False)


# --- Addresses that do not belong on a link -------------------------------------------------------

ODD = ["0.0.0.0", "0.0.0.1", "127.0.0.1", "127.255.255.255", "224.0.0.1", "239.1.2.3",
       "240.0.0.1", "255.255.255.254", "255.255.255.255", ip4("left"), ip4("right"), ip4("other"),
       "10.1.0.255", "10.1.0.0", "10.2.0.255", "10.2.0.0", "169.254.1.1", "198.51.100.2",
       "198.51.100.20", "198.51.100.40"]
NOT_ROUTED = ["0.0.0.1", "240.0.0.1", "255.255.255.254", "169.254.1.1", "198.51.100.20",
              "198.51.100.40"]
PLAIN_DESTINATIONS = [ip4("right", 2), ip4("left"), ip4("right")]  # refusals: policy_test.py


@pytest.mark.parametrize("dst", PLAIN_DESTINATIONS)
@pytest.mark.parametrize("src", ODD)
@pytest.mark.parametrize("ttl", [1, 64])
def test_odd_source(rig, src, dst, ttl):
    for layer in (udp(8), echo(8)):
        rig.compare(f"{src} > {dst}, ttl {ttl}", "left",
                    ether(v4(src=src, dst=dst, ttl=ttl) / layer))


@pytest.mark.parametrize("dst", [d for d in ODD if d not in NOT_ROUTED])
@pytest.mark.parametrize("link", ["left", "wan"])
def test_odd_destination(rig, dst, link):
    for layer in (udp(8), tcp(), echo(8)):
        for src in (fresh_sender4(), ip4(link, 4), "0.0.0.0"):
            rig.compare(f"{src} > {dst}", link, ether(v4(src=src, dst=dst) / layer, link=link))


@pytest.mark.parametrize("dst", NOT_ROUTED)
@pytest.mark.parametrize("link", ["left", "wan"])
def test_odd_destination_without_a_route(rig, dst, link):
    for layer in (udp(8), tcp(), echo(8)):
        for src in (fresh_sender4(), "0.0.0.0"):
            rig.compare(f"{src} > {dst}", link, ether(v4(src=src, dst=dst) / layer, link=link))
