"""The link layer: MAC addresses, VLAN tags, other protocols; ARP and neighbour discovery."""

import struct

import pytest
from scapy.layers.inet6 import (ICMPv6EchoRequest, ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6ND_RA,
                                ICMPv6ND_RS, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, IPv6)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Raw

from addresses import ip4, ip6, link_local, mac
from frames import echo, ether, fresh_sender4, raw_ether, udp, v4, v6

BROADCAST = "ff:ff:ff:ff:ff:ff"
# Hosts without an entry in the router's neighbour table are from 100 on: each test has its own.

MACS = {"ours": mac("left"), "broadcast": BROADCAST, "group": "01:00:5e:00:00:05",
        "group-v6": "33:33:00:00:00:05", "another-host": mac("left", 9),
        "of-another-link": mac("right"), "zero": "00:00:00:00:00:00"}


@pytest.mark.parametrize("name", MACS)
@pytest.mark.parametrize("ttl", [1, 64])
def test_destination_mac(rig, name, ttl):
    for to in (ip4("right", 2), ip4("left"), "203.0.113.4"):
        for layer in (udp(8), echo(8)):
            rig.compare(f"IPv4 to {to}", "left",
                        ether(v4(src=fresh_sender4(), dst=to, ttl=ttl) / layer, dst=MACS[name]))
    for to in (ip6("right", 2), ip6("left"), "2001:db8::4"):
        for layer in (udp(8), ICMPv6EchoRequest(id=1)):
            rig.compare(f"IPv6 to {to}", "left",
                        ether(v6(dst=to, hlim=ttl) / layer, dst=MACS[name]))


@pytest.mark.parametrize("source", [BROADCAST, "01:00:5e:00:00:01", "00:00:00:00:00:00",
                                    mac("left"), "02:99:99:99:99:99"])
def test_source_mac(rig, source):
    for packet in (v4() / udp(8), v4(dst=ip4("left")) / echo(8), v6() / udp(8)):
        rig.compare(source, "left", bytes(Ether(src=source, dst=mac("left")) / packet))


IP_PACKET = v4() / udp(20)
OTHER = {
    "vlan": bytes(Ether(src=mac("left", 2), dst=mac("left")) / Dot1Q(vlan=5) / IP_PACKET),
    "priority-tag": bytes(Ether(src=mac("left", 2), dst=mac("left")) / Dot1Q(vlan=0, prio=3) /
                          IP_PACKET),
    "priority-tag-echo": bytes(Ether(src=mac("left", 2), dst=mac("left")) / Dot1Q(vlan=0) /
                               v4(dst=ip4("left")) / echo()),
    "qinq": bytes(Ether(src=mac("left", 2), dst=mac("left")) / Dot1AD(vlan=5) / Dot1Q(vlan=6) /
                  IP_PACKET),
    "tag-and-nothing": raw_ether(b"\0\x05", 0x8100),
    "lldp": raw_ether(b"\x02\x07\x04" + bytes(40), 0x88cc, dst="01:80:c2:00:00:0e"),
    "stp": raw_ether(b"\x42\x42\x03" + bytes(40), 38, dst="01:80:c2:00:00:00"),
    "pause": raw_ether(b"\0\x01" + bytes(44), 0x8808, dst="01:80:c2:00:00:01"),
    "mpls": raw_ether(bytes(40), 0x8847),
    "pppoe": raw_ether(bytes(40), 0x8864),
    "unknown": raw_ether(bytes(IP_PACKET), 0x1234),
    "punt-ethertype": raw_ether(bytes(60), 0x88b5),
    "llc-length": raw_ether(bytes(IP_PACKET), 48),
    "empty": raw_ether(b"", 0x9000),
    "empty-arp": raw_ether(b"", 0x0806),
}


@pytest.mark.parametrize("name", OTHER)
@pytest.mark.parametrize("link", ["left", "other"])
def test_other_protocols(rig, name, link):
    frame = OTHER[name]
    if link == "other":
        frame = frame.replace(_raw(mac("left")), _raw(mac("other")))
    rig.compare(name, link, frame)


def _raw(text):
    return bytes.fromhex(text.replace(":", ""))


# --- ARP ------------------------------------------------------------------------------------------


def arp(op=1, psrc=None, pdst=None, hwsrc=None, hwdst="00:00:00:00:00:00", dst=BROADCAST, src=None,
        link="left", **fields):
    hwsrc = hwsrc or mac(link, 2)
    packet = ARP(op=op, psrc=psrc or ip4(link, 2), pdst=pdst or ip4(link), hwsrc=hwsrc, hwdst=hwdst,
                 **fields)
    return bytes(Ether(src=src or hwsrc, dst=dst, type=0x0806) / packet)


US, THEM = mac("left"), mac("left", 2)
ARPS = {
    "request": arp(),
    "request-unicast": arp(dst=US),
    "request-to-a-wrong-mac": arp(dst=mac("left", 9)),
    "request-padded": arp() + bytes(18),
    "request-by-multicast": arp(dst="01:00:5e:00:00:01"),
    "request-for-another-of-our-addresses": arp(pdst=ip4("right")),
    "request-for-an-unserved-address": arp(pdst=ip4("other")),
    "request-for-a-host": arp(pdst=ip4("left", 3)),
    "request-for-a-host-elsewhere": arp(pdst=ip4("right", 3)),
    "request-for-the-broadcast": arp(pdst="10.1.0.255"),
    "request-for-loopback": arp(pdst="127.0.0.1"),
    "request-for-multicast": arp(pdst="224.0.0.1"),
    "request-for-0": arp(pdst="0.0.0.0"),
    "request-from-off-link": arp(psrc=ip4("right", 2)),
    "request-from-an-unrouted-address": arp(psrc="203.0.113.3"),
    "request-from-loopback": arp(psrc="127.0.0.1"),
    "request-from-multicast": arp(psrc="224.0.0.1"),
    "request-from-us": arp(psrc=ip4("left"), hwsrc=US),
    "request-from-our-address": arp(psrc=ip4("left")),
    "request-from-another-of-our-addresses": arp(psrc=ip4("right")),
    "request-from-broadcast-mac": arp(hwsrc=BROADCAST, src=THEM),
    "request-sender-macs-differ": arp(src=mac("left", 3)),
    "request-target-mac-ours": arp(hwdst=US),
    "probe": arp(psrc="0.0.0.0"),
    "probe-for-a-host": arp(psrc="0.0.0.0", pdst=ip4("left", 3)),
    "gratuitous-request": arp(pdst=ip4("left", 2)),
    "gratuitous-reply": arp(op=2, pdst=ip4("left", 2), hwdst=THEM),
    "gratuitous-for-our-address": arp(psrc=ip4("left"), pdst=ip4("left")),
    "reply-unsolicited": arp(op=2, hwdst=US, dst=US),
    "reply-broadcast": arp(op=2, hwdst=US),
    "op-0": arp(op=0),
    "rarp-request": arp(op=3),
    "op-9": arp(op=9),
    "hardware-type-0": arp(hwtype=0),
    "hardware-type-6-ieee802": arp(hwtype=6),
    "hardware-type-15": arp(hwtype=15),
    "protocol-type-ipv6": arp(ptype=0x86dd),
    "hardware-length-8": arp(hwlen=8),
    "hardware-length-0": raw_ether(struct.pack("!HHBBH", 1, 0x800, 0, 4, 1) + bytes(20), 0x0806),
    "protocol-length-16": arp(plen=16),
    **{f"cut-to-{n}": arp()[:14 + n] for n in (1, 7, 8, 14, 20, 24, 27)},
}


@pytest.mark.parametrize("name", ARPS)
def test_arp(rig, name):
    rig.compare(name, "left", ARPS[name])


@pytest.mark.parametrize("teach", ["request", "request-unicast"])
def test_arp_request_teaches(rig, teach):
    """After its request the sender is known: what is for it goes out without asking."""
    host = 100 if teach == "request" else 101
    rig.compare("request", "left",
                arp(psrc=ip4("left", host), hwsrc=mac("left", host),
                    dst=US if teach == "request-unicast" else BROADCAST),
                expect_output=True, keep_solicitations=True)
    rig.compare("packet for it", "right",
                ether(v4(src=ip4("right", 2), dst=ip4("left", host)) / udp(4), link="right"),
                expect_output=True, keep_solicitations=True)


def test_arp_resolution(rig):
    """A packet for an unknown host: the question, and with the answer the packet."""
    packet = ether(v4(src=ip4("right", 2), dst=ip4("left", 102)) / udp(4), link="right")
    asked = rig.compare("packet", "right", packet, expect_output=True, keep_solicitations=True)
    assert [frame[20:22] for frame in asked["left"]] == [b"\0\1"]
    answer = arp(op=2, psrc=ip4("left", 102), hwsrc=mac("left", 102), hwdst=US, dst=US)
    assert "left" in rig.compare("answer", "left", answer, keep_solicitations=True)
    rig.compare("packet to the known host", "right", packet, expect_output=True,
                keep_solicitations=True)


def test_arp_reply_moves_a_host(rig):
    rig.compare("request", "left", arp(psrc=ip4("left", 103), hwsrc=mac("left", 103)))
    packet = ether(v4(src=ip4("right", 2), dst=ip4("left", 103)) / udp(4), link="right")
    rig.compare("before", "right", packet, expect_output=True)
    rig.compare("reply from elsewhere, to us", "left",
                arp(op=2, psrc=ip4("left", 103), hwsrc=mac("left", 104), hwdst=US, dst=US))
    rig.compare("after", "right", packet, expect_output=True)


# --- Neighbour discovery --------------------------------------------------------------------------


def solicited_node(address):
    tail = address.split(":")[-1].rjust(4, "0")
    return f"ff02::1:ff00:{tail}", f"33:33:ff:00:{tail[:2]}:{tail[2:]}"


def ns(target=None, src=None, dst=None, mac_to=None, option=True, hlim=255, host=2, link="left",
       options=b"", **fields):
    target = target or ip6(link)
    group, group_mac = solicited_node(target)
    packet = IPv6(src=src if src is not None else ip6(link, host), dst=dst or group,
                  hlim=hlim) / ICMPv6ND_NS(tgt=target, **fields)
    if options:
        packet /= Raw(options)
    elif option:
        packet /= ICMPv6NDOptSrcLLAddr(lladdr=mac(link, host))
    mac_to = mac_to or (mac(link) if dst else group_mac)
    return bytes(Ether(src=mac(link, host), dst=mac_to) / packet)


def na(target=None, src=None, dst=None, r=0, s=1, o=1, option=True, hlim=255, host=2, mac_to=None,
       **fields):
    packet = IPv6(src=src or ip6("left", host), dst=dst or ip6("left"),
                  hlim=hlim) / ICMPv6ND_NA(tgt=target or ip6("left", host), R=r, S=s, O=o, **fields)
    if option:
        packet /= ICMPv6NDOptDstLLAddr(lladdr=mac("left", host))
    return bytes(Ether(src=mac("left", host), dst=mac_to or US) / packet)


ALL_NODES = ("ff02::1", "33:33:00:00:00:01")
NDS = {
    "ns": ns(),
    "ns-for-link-local": ns(target=link_local("left")),
    "ns-from-link-local": ns(src=link_local("left", 2)),
    "ns-unicast": ns(dst=ip6("left")),
    "ns-unicast-without-option": ns(dst=ip6("left"), option=False),
    "ns-multicast-without-option": ns(option=False),
    "ns-for-another-of-our-addresses": ns(target=ip6("right")),
    "ns-for-another-of-our-addresses-unicast": ns(target=ip6("right"), dst=ip6("right")),
    "ns-for-a-host": ns(target=ip6("left", 3)),
    "ns-for-anycast": ns(target="fd00:1::", dst="ff02::1:ff00:0", mac_to="33:33:ff:00:00:00"),
    "ns-for-multicast": ns(target="ff02::1", dst=ALL_NODES[0], mac_to=ALL_NODES[1]),
    "ns-to-all-nodes": ns(dst=ALL_NODES[0], mac_to=ALL_NODES[1]),
    "ns-dad": ns(src="::", option=False),
    "ns-dad-with-option": ns(src="::"),
    "ns-dad-unicast": ns(src="::", dst=ip6("left"), option=False),
    "ns-dad-for-a-host": ns(src="::", target=ip6("left", 3), option=False),
    "ns-hop-limit-254": ns(hlim=254),
    "ns-hop-limit-1": ns(hlim=1),
    "ns-checksum-wrong": ns(cksum=0x1234),
    "ns-code-1": ns(code=1),
    "ns-from-off-link": ns(src=ip6("right", 2)),
    "ns-from-our-address": ns(src=ip6("left")),
    "ns-from-multicast": ns(src="ff02::1"),
    "ns-in-a-unicast-frame": ns(mac_to=US),
    "ns-option-length-0": ns(options=b"\x01\x00" + bytes(6)),
    "ns-option-too-long": ns(options=b"\x01\x02" + bytes(6)),
    "ns-options-unknown": ns(options=b"\x63\x01" + bytes(6)),
    "ns-cut": ns()[:14 + 40 + 20],
    "na-solicited": na(),
    "na-unsolicited": na(dst=ALL_NODES[0], mac_to=ALL_NODES[1], s=0),
    "na-solicited-to-multicast": na(dst=ALL_NODES[0], mac_to=ALL_NODES[1], s=1),
    "na-router": na(r=1),
    "na-for-our-address": na(target=ip6("left")),
    "na-hop-limit-254": na(hlim=254),
    "na-checksum-wrong": na(cksum=0x1234),
    "na-for-multicast": na(target="ff02::1"),
    "rs": bytes(Ether(src=THEM, dst="33:33:00:00:00:02") /
                IPv6(src=link_local("left", 2), dst="ff02::2", hlim=255) / ICMPv6ND_RS()),
    "ra": bytes(Ether(src=THEM, dst="33:33:00:00:00:01") /
                IPv6(src=link_local("left", 2), dst="ff02::1", hlim=255) / ICMPv6ND_RA()),
    "redirect-to-us": bytes(Ether(src=THEM, dst=US) /
                            IPv6(src=link_local("left", 2), dst=ip6("left"), hlim=255, nh=58) /
                            Raw(b"\x89\0\0\0" + bytes(36))),
}




@pytest.mark.parametrize("name", NDS)
def test_nd(rig, name):
    rig.compare(name, "left", NDS[name])


def test_ns_teaches(rig):
    rig.compare("solicitation", "left", ns(host=100), expect_output=True, keep_solicitations=True)
    rig.compare("packet for it", "right",
                ether(v6(src=ip6("right", 2), dst=ip6("left", 100)) / udp(4), link="right"),
                expect_output=True, keep_solicitations=True)


def test_nd_resolution(rig):
    packet = ether(v6(src=ip6("right", 2), dst=ip6("left", 102)) / udp(4), link="right")
    asked = rig.compare("packet", "right", packet, expect_output=True, keep_solicitations=True)
    assert [frame[54] for frame in asked["left"]] == [135]
    assert "left" in rig.compare("answer", "left", na(host=102), keep_solicitations=True)
    rig.compare("packet to the known host", "right", packet, expect_output=True,
                keep_solicitations=True)


@pytest.mark.parametrize("override", [0, 1])
def test_na_moves_a_host(rig, override):
    host = 104 + 2 * override
    rig.compare("solicitation", "left", ns(host=host))
    packet = ether(v6(src=ip6("right", 2), dst=ip6("left", host)) / udp(4), link="right")
    rig.compare("before", "right", packet, expect_output=True)
    rig.compare("advertisement from elsewhere", "left",
                na(target=ip6("left", host), host=host + 1, o=override, s=0))
    rig.compare("after", "right", packet, expect_output=True)
