"""IPv4 options: in transit, to the router, in what errors quote, in fragments."""

import struct

import pytest
from scapy.layers.inet import ICMP
from scapy.packet import Raw

from addresses import far4, ip4
from frames import echo, ether, fresh_sender4, raw_ether, udp, v4

SETUP = ["route add prohibit 198.51.100.32/28"]
NOP, EOL = b"\x01", b"\x00"


def address(text):
    return bytes(map(int, text.split(".")))


def timestamp(flag, pointer, entries, overflow=0):
    body = b"".join(entries)
    return bytes([68, 4 + len(body), pointer, overflow << 4 | flag]) + body


def route(kind, pointer, *hops):
    return bytes([kind, 3 + 4 * len(hops), pointer]) + b"".join(map(address, hops))


ROUTER, NEXT, FAR = ip4("left"), ip4("right", 2), far4("right", 7)
OPTIONS = {
    "nop": NOP * 4,
    "nop-40": NOP * 40,
    "eol": EOL * 4,
    "eol-then-garbage": EOL + b"\xff\xff\xff",
    "nop-eol-garbage": NOP + EOL + b"\x83\x03",
    "rr-empty": route(7, 4, "0.0.0.0", "0.0.0.0"),
    "rr-half": route(7, 8, "192.0.2.1", "0.0.0.0"),
    "rr-full": route(7, 12, "192.0.2.1", "192.0.2.2"),
    "rr-no-room": bytes([7, 3, 4]) + NOP,
    "rr-room-for-3-bytes": bytes([7, 6, 4, 0, 0, 0]),
    "rr-pointer-3": route(7, 3, "0.0.0.0"),
    "rr-pointer-0": route(7, 0, "0.0.0.0"),
    "rr-pointer-5": route(7, 5, "0.0.0.0", "0.0.0.0"),
    "rr-length-2": bytes([7, 2]) + NOP * 2,
    "rr-twice": route(7, 4, "0.0.0.0") + NOP + route(7, 4, "0.0.0.0"),
    "rr-9": route(7, 4, *["0.0.0.0"] * 9) + NOP,
    "ra-0": b"\x94\x04\x00\x00",
    "ra-1": b"\x94\x04\x00\x01",
    "ra-length-3": b"\x94\x03\x00" + NOP,
    "ra-twice": b"\x94\x04\x00\x00" * 2,
    "ts-full": timestamp(0, 9, [b"\0\0\0\1"]),
    "ts-overflow-14": timestamp(0, 9, [b"\0\0\0\1"], overflow=14),
    "ts-overflow-15": timestamp(0, 9, [b"\0\0\0\1"], overflow=15),
    "ts-prespecified-other": timestamp(3, 5, [address("192.0.2.9"), b"\0\0\0\0"]),
    "ts-prespecified-no-room": timestamp(3, 9, [address("192.0.2.9")]),
    "ts-flag-2": timestamp(2, 5, [b"\0\0\0\0"]),
    "ts-flag-7": timestamp(7, 5, [b"\0\0\0\0"]),
    "ts-pointer-4": timestamp(0, 4, [b"\0\0\0\0"]),
    "ts-length-3": bytes([68, 3, 5]) + NOP,
    "ts-room-for-3-bytes": bytes([68, 7, 5, 0, 0, 0, 0]) + NOP,
    "lsrr-ours-is-next": route(131, 4, NEXT),
    "lsrr-done": route(131, 8, NEXT),
    "lsrr-empty": route(131, 4) + NOP,
    "lsrr-pointer-3": route(131, 3, NEXT),
    "lsrr-two": route(131, 4, NEXT, FAR) + NOP,
    "ssrr": route(137, 4, NEXT) + NOP,
    "ssrr-two": route(137, 4, NEXT, FAR) + NOP,
    "lsrr-and-ssrr": route(131, 4, NEXT) + route(137, 4, NEXT) + NOP * 2,
    "security": bytes([130, 11]) + bytes(9) + NOP,
    "cipso": bytes([134, 8, 0, 0, 0, 1, 1, 2]),
    "stream-id": b"\x88\x04\x12\x34",
    "unknown-25": b"\x19\x04\xaa\xbb",
    "unknown-copied": b"\x9e\x04\xaa\xbb",
    "unknown-length-0": b"\x1e\x00\x00\x00",
    "unknown-length-1": b"\x1e\x01\x00\x00",
    "unknown-length-too-long": b"\x1e\x09\x00\x00",
    "kind-without-length": NOP * 3 + b"\x1e",
    "rr-and-ra": route(7, 4, "0.0.0.0") + NOP + b"\x94\x04\x00\x00",
    "nop-unknown-nop": NOP + b"\x1e\x04\xaa\xbb" + NOP * 3,
}


def with_options(options, protocol=17, src=None, dst=None, payload=None, **fields):
    """scapy's own options field would correct what is to stay wrong."""
    options += EOL * (-len(options) % 4)
    payload = bytes(payload if payload is not None else udp(16))
    src, dst = src or ip4("left", 2), dst or ip4("right", 2)
    header = bytearray(bytes(v4(src, dst, proto=protocol, ihl=5 + len(options) // 4,
                                len=20 + len(options) + len(payload), **fields))[:20])
    whole = bytes(header[:10]) + b"\0\0" + bytes(header[12:]) + options
    total = sum(struct.unpack(f"!{len(whole) // 2}H", whole))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return whole[:10] + struct.pack("!H", ~total & 0xffff) + whole[12:] + payload


def frame(*arguments, **fields):
    return raw_ether(with_options(*arguments, **fields), 0x0800)


# rr-pointer-5 leaves the router's address at an odd place; both must do it at the same.
@pytest.mark.parametrize("name", OPTIONS)
def test_in_transit(rig, name):
    rig.compare(name, "left", frame(OPTIONS[name], src=fresh_sender4()))


@pytest.mark.parametrize("name", OPTIONS)
def test_with_an_error(rig, name):
    rig.compare(f"{name}, ttl 1", "left", frame(OPTIONS[name], src=fresh_sender4(), ttl=1))
    rig.compare(f"{name}, prohibit", "left",
                frame(OPTIONS[name], src=fresh_sender4(), dst="198.51.100.33"))
    rig.compare(f"{name}, no route", "left",
                frame(OPTIONS[name], src=fresh_sender4(), dst="203.0.113.5"))


@pytest.mark.parametrize("name", OPTIONS)
def test_echo_to_the_router(rig, name):
    rig.compare(name, "left", frame(OPTIONS[name], protocol=1, dst=ROUTER, payload=echo(16)))


@pytest.mark.parametrize("name", ["nop", "nop-40", "rr-9", "ra-0", "unknown-25", "unknown-copied",
                                  "rr-and-ra", "nop-unknown-nop", "stream-id", "security",
                                  "ts-full", "eol-then-garbage"])
@pytest.mark.parametrize("flags", ["", "DF", "MF"])
def test_too_large(rig, name, flags):
    """Options without the copied bit are in the first fragment only."""
    size = (1500 - 28 - len(OPTIONS[name]) - 3) & ~7
    rig.compare(f"{name}, too large, {flags}", "left",
                frame(OPTIONS[name], dst=ip4("wan", 2), flags=flags, payload=udp(size)))


@pytest.mark.parametrize("name", [n for n in OPTIONS if "sr" in n])
def test_source_route_accepted(source_routing_rig, name):
    for destination in (ROUTER, ip4("right", 2)):
        source_routing_rig.compare(f"{name} to {destination}", "left",
                                   frame(OPTIONS[name], dst=destination))


@pytest.fixture(scope="module")
def source_routing_rig():
    from conftest import finish
    from rig import Rig
    made = Rig({"ipv4/conf/all/accept_source_route": 1,
                "ipv4/conf/left/accept_source_route": 1})
    yield made
    finish(made)


def test_icmp_error_with_options_in_the_quote(rig):
    quoted = with_options(NOP * 4, src=ip4("right", 2), dst=ip4("left", 2))
    rig.compare("error quoting options", "left",
                ether(v4() / ICMP(type=3, code=1) / Raw(quoted[:36])))
