"""Packets to the router itself: Sluice answers echo requests, the kernel the rest."""

import pytest
from scapy.layers.inet import ICMP, TCP, UDP, fragment
from scapy.layers.inet6 import (ICMPv6EchoReply, ICMPv6EchoRequest, IPv6ExtHdrFragment,
                                fragment6)
from scapy.layers.l2 import GRE
from scapy.layers.sctp import SCTP, SCTPChunkInit
from scapy.packet import Padding, Raw

from addresses import far4, far6, ip4, ip6, link_local
from frames import data, echo, ether, fresh_sender4, tcp, udp, v4, v6

SIZES = (0, 1, 2, 7, 8, 56, 57, 100, 999, 1000, 1472)
OWN4 = {"its-own-side": ip4("left"), "another-side": ip4("right"), "unserved-side": ip4("other")}
OWN6 = {"its-own-side": ip6("left"), "another-side": ip6("right"), "unserved-side": ip6("other")}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("to", OWN4)
def test_echo4(rig, to, size):
    for source in (ip4("left", 2), far4("left", 9), ip4("wan", 3), ip4("other", 3)):
        rig.compare(f"echo {size} from {source}", "left",
                    ether(v4(src=source, dst=OWN4[to]) / echo(size)), expect_output=True)


ECHO4 = {
    "ttl-1": v4(dst=ip4("left"), ttl=1) / echo(),
    "ttl-0": v4(dst=ip4("left"), ttl=0) / echo(),
    "df": v4(dst=ip4("left"), flags="DF") / echo(),
    "id-0-df": v4(dst=ip4("left"), flags="DF", id=0) / echo(),
    "reserved-bit": v4(dst=ip4("left"), flags=4) / echo(),
    **{f"tos-{tos:#x}": v4(dst=ip4("left"), tos=tos) / echo()
       for tos in (1, 2, 3, 0x10, 0xb8, 0xff)},
    "code-1": v4(dst=ip4("left")) / ICMP(type=8, code=1) / data(8),
    "code-255": v4(dst=ip4("left")) / ICMP(type=8, code=255) / data(8),
    "checksum-wrong": v4(dst=ip4("left")) / ICMP(type=8, chksum=0x1234) / data(8),
    "checksum-0": v4(dst=ip4("left")) / ICMP(type=8, chksum=0) / data(8),
    **{f"cut-to-{n}": v4(dst=ip4("left"), proto=1) / Raw(bytes(echo(0))[:n]) for n in range(0, 8)},
    "padded": v4(dst=ip4("left")) / echo(1) / Padding(b"\xee" * 20),
    "first-fragment": v4(dst=ip4("left"), flags="MF") / echo(16),
    "from-the-sender-itself": v4(src=ip4("left"), dst=ip4("left")) / echo(),
    "from-another-address-of-the-router": v4(src=ip4("right"), dst=ip4("left")) / echo(),
    "from-nowhere": v4(src="203.0.113.9", dst=ip4("left")) / echo(),
    "too-large-for-the-way-back": v4(src=ip4("wan", 3), dst=ip4("left")) / echo(1400),
    "too-large-for-the-way-back-df": v4(src=ip4("wan", 3), dst=ip4("left"), flags="DF") /
    echo(1400),
    "of-zeros": v4(dst=ip4("left")) / ICMP(type=8, id=0, seq=0) / Raw(bytes(32)),
    "of-ones": v4(dst=ip4("left")) / ICMP(type=8, id=0xffff, seq=0xffff) / Raw(b"\xff" * 32),
    **{f"icmp-type-{n}": v4(dst=ip4("left")) / ICMP(type=n) / data(28)
       for n in (0, 1, 3, 4, 5, 9, 10, 11, 12, 15, 17, 18, 19, 42, 255)},
}


@pytest.mark.parametrize("name", ECHO4)
def test_icmp4(rig, name):
    rig.compare(name, "left", ether(ECHO4[name]))


@pytest.mark.parametrize("size", [1473, 3000, 9000])
def test_fragmented_echo4(rig, size):
    for i, piece in enumerate(fragment(v4(dst=ip4("left"), id=size) / echo(size), fragsize=1480)):
        rig.compare(f"piece {i} of {size}", "left", ether(piece))


@pytest.mark.parametrize("link", ["right", "wan", "other"])
def test_echo_by_every_link(rig, link):
    for to in (ip4(link), ip4("left")):
        for host in (2, 4):
            rig.compare(f"echo to {to}", link,
                        ether(v4(src=ip4(link, host), dst=to) / echo(), link=link, host=host),
                        expect_output=True)
    for to in (ip6(link), ip6("left"), link_local(link)):
        rig.compare(f"echo to {to}", link,
                    ether(v6(src=ip6(link, 4), dst=to) / ICMPv6EchoRequest(data=b"abc"), link=link),
                    expect_output=True)


TRANSPORT = {
    "udp-closed": lambda: udp(20),
    "udp-closed-1400": lambda: udp(1400),
    "udp-checksum-wrong": lambda: UDP(sport=1, dport=2, chksum=0x1111) / data(8),
    "udp-checksum-0": lambda: UDP(sport=1, dport=2, chksum=0) / data(8),
    "udp-length-lies": lambda: UDP(sport=1, dport=2, len=99) / data(8),
    **{f"tcp-{flags}": lambda flags=flags: tcp(0, flags=flags)
       for flags in ("S", "A", "SA", "R", "F", "PA")},
    "tcp-data": lambda: tcp(100, flags="PA"),
    "tcp-checksum-wrong": lambda: tcp(0, chksum=0x1111),
    "sctp": lambda: SCTP(sport=1, dport=2) / SCTPChunkInit(),
    "gre": lambda: GRE() / data(20),
    "nothing": lambda: Raw(b""),
}


@pytest.mark.parametrize("to", OWN4)
@pytest.mark.parametrize("name", TRANSPORT)
def test_closed_port(rig, name, to):
    fields = {"proto": 253} if name == "nothing" else {}
    packet = v4(src=fresh_sender4(), dst=OWN4[to], **fields) / TRANSPORT[name]()
    rig.compare(f"{name} v4", "left", ether(packet))
    fields = {"nh": 253} if name == "nothing" else {}
    packet = v6(dst=OWN6[to], **fields) / TRANSPORT[name]()
    rig.compare(f"{name} v6", "left", ether(packet))


def test_checksum_left_to_the_network_card(rig):
    """The kernel gets the segment completed. (Were it UDP, an error would quote the checksum, which
    is right then, where the kernel alone quotes the unfinished one.)"""
    frame = bytearray(ether(v4(dst=ip4("left")) / tcp(0)))
    total = sum(int.from_bytes(frame[i:i + 2], "big") for i in range(26, 34, 2))
    total += frame[23] + len(frame) - 34
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    frame[50:52] = total.to_bytes(2, "big")
    rig.compare("partial checksum", "left", bytes(frame), partial=(34, 16), expect_output=True)


# --- IPv6 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES[:-1] + (1452,))
@pytest.mark.parametrize("to", OWN6)
def test_echo6(rig, to, size):
    for source in (ip6("left", 2), far6("left", 9), ip6("wan", 3), ip6("other", 3)):
        if source == ip6("wan", 3) and size > 1352:
            continue  # the reply is fragmented, with an id of the kernel's: test_echo6_too_large
        rig.compare(f"echo {size} from {source}", "left",
                    ether(v6(src=source, dst=OWN6[to]) / ICMPv6EchoRequest(id=1) / data(size)),
                    expect_output=True)


ECHO6 = {
    "hop-limit-1": v6(dst=ip6("left"), hlim=1) / ICMPv6EchoRequest(id=1),
    "hop-limit-0": v6(dst=ip6("left"), hlim=0) / ICMPv6EchoRequest(id=1),
    "flow-label": v6(dst=ip6("left"), fl=0x12345) / ICMPv6EchoRequest(id=1),
    **{f"class-{tc:#x}": v6(dst=ip6("left"), tc=tc) / ICMPv6EchoRequest(id=1) for tc in (1, 3, 0xb8,
                                                                                     0xff)},
    "code-1": v6(dst=ip6("left")) / ICMPv6EchoRequest(id=1, code=1),
    "checksum-wrong": v6(dst=ip6("left")) / ICMPv6EchoRequest(id=1, cksum=0x1234),
    **{f"cut-to-{n}": v6(dst=ip6("left"), nh=58) / Raw(b"\x80\0\0\0\0\0\0\0"[:n])
       for n in range(0, 8)},
    "reply": v6(dst=ip6("left")) / ICMPv6EchoReply(id=1),
    "first-fragment": v6(dst=ip6("left")) / IPv6ExtHdrFragment(m=1, id=9) / ICMPv6EchoRequest(id=1),
    "atomic-fragment": v6(dst=ip6("left")) / IPv6ExtHdrFragment(id=9) / ICMPv6EchoRequest(id=1),
    "link-local-to-link-local": v6(src=link_local("left", 2), dst=link_local("left")) /
    ICMPv6EchoRequest(id=1),
    "link-local-to-global": v6(src=link_local("left", 2), dst=ip6("left")) /
    ICMPv6EchoRequest(id=1),
    "global-to-link-local": v6(dst=link_local("left")) / ICMPv6EchoRequest(id=1),
    "to-link-local-of-another-link": v6(dst=link_local("right")) / ICMPv6EchoRequest(id=1),
    "from-the-router": v6(src=ip6("right"), dst=ip6("left")) / ICMPv6EchoRequest(id=1),
    "from-nowhere": v6(src="2001:db8::9", dst=ip6("left")) / ICMPv6EchoRequest(id=1),
    "subnet-router-anycast": v6(dst="fd00:1::") / ICMPv6EchoRequest(id=1),
    "subnet-router-anycast-of-another-link": v6(dst="fd00:2::") / ICMPv6EchoRequest(id=1),
    "subnet-router-anycast-udp": v6(dst="fd00:1::") / udp(4),
    "all-nodes": v6(dst="ff02::1") / ICMPv6EchoRequest(id=1),
    "all-routers": v6(dst="ff02::2") / ICMPv6EchoRequest(id=1),
}


@pytest.mark.parametrize("name", ECHO6)
def test_icmp6(rig, name):
    multicast = {"all-nodes": "33:33:00:00:00:01", "all-routers": "33:33:00:00:00:02"}
    rig.compare(name, "left", ether(ECHO6[name], dst=multicast.get(name)))


def test_echo6_too_large_for_the_way_back(rig):
    packet = v6(src=ip6("wan", 3), dst=ip6("left")) / ICMPv6EchoRequest(id=1) / data(1400)
    rig.compare("fragmented reply", "left", ether(packet), expect_output=True)


@pytest.mark.parametrize("size", [1500, 4000])
def test_fragmented_echo6(rig, size):
    whole = v6(dst=ip6("left")) / IPv6ExtHdrFragment(id=size) / ICMPv6EchoRequest(id=1) / data(size)
    for i, piece in enumerate(fragment6(whole, 1280)):
        rig.compare(f"piece {i} of {size}", "left", ether(piece))


# --- Broadcast and multicast ----------------------------------------------------------------------

GROUPS = {
    "subnet-broadcast": ("10.1.0.255", "ff:ff:ff:ff:ff:ff"),
    "subnet-broadcast-of-another-link": ("10.2.0.255", None),
    "subnet-broadcast-by-unicast-mac": ("10.1.0.255", None),
    "network-address": ("10.1.0.0", None),
    "limited-broadcast": ("255.255.255.255", "ff:ff:ff:ff:ff:ff"),
    "limited-broadcast-by-unicast-mac": ("255.255.255.255", None),
    "all-hosts": ("224.0.0.1", "01:00:5e:00:00:01"),
    "all-hosts-by-unicast-mac": ("224.0.0.1", None),
    "group": ("239.1.2.3", "01:00:5e:01:02:03"),
}


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("ignore", [0, 1])
def test_groups(rig, name, ignore):
    for side in rig.sides:
        side.topology.router.sysctl({"ipv4/icmp_echo_ignore_broadcasts": ignore})
    destination, mac_address = GROUPS[name]
    for layer in (udp(4), tcp(), echo(), ICMP(type=3, code=3) / data(28)):
        rig.compare(f"{name}, {layer.name}", "left", ether(v4(dst=destination) / layer,
                                                           dst=mac_address))
