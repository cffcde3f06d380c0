"""Frames for the experiments, built by scapy, and their description for people.

Everything that scapy would look up in this machine (routes, MACs) is given, so a frame depends on
nothing but its arguments.
"""

import itertools
import logging

logging.getLogger("scapy").setLevel(logging.ERROR)

# pylint: disable=wrong-import-position
from scapy.layers.inet import ICMP, IP, TCP, UDP  # noqa: E402
from scapy.layers.inet6 import IPv6  # noqa: E402
from scapy.layers.l2 import Ether  # noqa: E402
from scapy.packet import Raw  # noqa: E402

from addresses import SENDERS, far4, ip4, ip6, mac  # noqa: E402

_FRESH = itertools.count(1)
_SENDER = itertools.count()


def fresh_sender4():
    """A source that has not been used: the kernel limits what it tells one sender (ip_error), and
    that limit cannot be set in a namespace."""
    n = next(_FRESH)
    return far4("left", n % 250 + 1, n // 250)


def fresh_neighbor():
    """A host number on the left link that has not been used, for redirects, which are limited."""
    return SENDERS[next(_SENDER) % len(SENDERS)]


def data(size, first=0):
    return Raw(bytes((first + i) & 0xff for i in range(size)))


def ether(packet, link="left", host=2, dst=None, **fields):
    """The frame that `host` on `link` sends to the router."""
    return bytes(Ether(src=mac(link, host), dst=dst or mac(link), **fields) / packet)


def raw_ether(payload, ether_type, link="left", host=2, dst=None):
    return bytes(Ether(src=mac(link, host), dst=dst or mac(link), type=ether_type)) + payload


def v4(src=None, dst=None, **fields):
    fields.setdefault("id", 0x1234)
    return IP(src=src or ip4("left", 2), dst=dst or ip4("right", 2), **fields)


def v6(src=None, dst=None, **fields):
    fields.setdefault("hlim", 64)
    return IPv6(src=src or ip6("left", 2), dst=dst or ip6("right", 2), **fields)


def udp(size=32, **fields):
    return UDP(sport=4000, dport=5000, **fields) / data(size)


def tcp(size=0, **fields):
    fields.setdefault("flags", "S")
    return TCP(sport=4001, dport=5001, seq=1, **fields) / data(size)


def echo(size=32):
    return ICMP(type=8, id=7, seq=9) / data(size)


def describe(frame):
    if frame is None:
        return "nothing"
    try:
        return f"{Ether(frame).summary()} ({len(frame)} bytes)"
    except Exception as error:  # scapy meets malformed packets; the hexdump tells the rest
        return f"{len(frame)} bytes that scapy cannot read ({type(error).__name__})"


def hexdump(frame, indent="", length=0):
    """Lines of 16 bytes; `length`: pad with empty lines up to that of another frame."""
    lines = []
    for at in range(0, max(len(frame), length), 16):
        lines.append(f"{indent}{at:04x}  {frame[at:at + 16].hex(' ')}")
    return lines
