"""Packets as bytes, quicker than scapy: a random test builds hundreds of thousands of them.

Every builder returns a whole IP packet with correct checksums. `layout` finds the parts again, also
inside ICMP errors and behind IPv6 extension headers.
"""

import ipaddress
import struct
from typing import NamedTuple, Optional

from normalise import fold

ICMP, TCP, UDP, GRE, ICMP6, SCTP, FRAGMENT6 = 1, 6, 17, 47, 58, 132, 44
CHECKSUM_AT = {ICMP: 2, TCP: 16, UDP: 6, ICMP6: 2}
FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
_EXTENSIONS = {0, 43, 60}
# ICMP messages that quote a packet.
_ERRORS = {ICMP: {3, 4, 5, 11, 12}, ICMP6: {1, 2, 3, 4}}
# ICMP messages with an identifier, which NAT treats as a port.
_QUERIES = {ICMP: {0, 8, 13, 14, 15, 16, 17, 18}, ICMP6: {128, 129}}


def packed(address):
    return ipaddress.ip_address(address).packed


def is6(address):
    return ":" in address


def _pseudo(source, destination, protocol, length):
    if len(source) == 4:
        return source + destination + struct.pack("!BBH", 0, protocol, length)
    return source + destination + struct.pack("!II", length, protocol)


def ip_packet(source, destination, protocol, payload, *, ttl=64, tos=0, ident=0x1234, flags=0,
              offset=0, options=b"", chain=(), flow_label=0):
    """An IPv4 or IPv6 packet, by the addresses. `chain`: (protocol, header without its first byte)
    of IPv6 extension headers. `flags`: 2 don't fragment, 1 more fragments."""
    source, destination = packed(source), packed(destination)
    if len(source) == 4:
        header = struct.pack("!BBHHHBBH", 0x45 + len(options) // 4, tos,
                             20 + len(options) + len(payload), ident, flags << 13 | offset, ttl,
                             protocol, 0) + source + destination + options
        return header[:10] + struct.pack("!H", ~fold(header) & 0xffff) + header[12:] + payload
    kinds = [kind for kind, _ in chain] + [protocol]
    payload = b"".join(bytes([kinds[i + 1]]) + rest
                       for i, (_, rest) in enumerate(chain)) + payload
    return (struct.pack("!IHBB", 6 << 28 | tos << 20 | flow_label, len(payload), kinds[0], ttl) +
            source + destination + payload)


def with_checksum(source, destination, protocol, segment):
    """The segment with its transport checksum filled in."""
    at = CHECKSUM_AT[protocol]
    pseudo = (b"" if protocol == ICMP else
              _pseudo(packed(source), packed(destination), protocol, len(segment)))
    value = ~fold(segment[:at] + b"\0\0" + segment[at + 2:], fold(pseudo)) & 0xffff
    if value == 0 and protocol == UDP:
        value = 0xffff
    return segment[:at] + struct.pack("!H", value) + segment[at + 2:]


def udp(source, destination, sport, dport, data=b"", checksum=True, **ip):
    segment = struct.pack("!HHHH", sport, dport, 8 + len(data), 0) + data
    if checksum:
        segment = with_checksum(source, destination, UDP, segment)
    return ip_packet(source, destination, UDP, segment, **ip)


def tcp(source, destination, sport, dport, flags, /, seq=1, ack=0, data=b"", window=8192, options=b"",
        **ip):
    options += b"\0" * (-len(options) % 4)
    segment = struct.pack("!HHIIBBHHH", sport, dport, seq & 0xffffffff, ack & 0xffffffff,
                          (5 + len(options) // 4) << 4, flags, window, 0, 0) + options + data
    return ip_packet(source, destination, TCP,
                     with_checksum(source, destination, TCP, segment), **ip)


def icmp(source, destination, kind, code=0, rest=b"\0\0\0\0", data=b"", **ip):
    """ICMP or ICMPv6, by the addresses. `rest`: the second four bytes."""
    protocol = ICMP6 if is6(source) else ICMP
    message = struct.pack("!BBH", kind, code, 0) + rest + data
    return ip_packet(source, destination, protocol,
                     with_checksum(source, destination, protocol, message), **ip)


def echo(source, destination, ident, sequence=1, data=b"", reply=False, **ip):
    kind = (129 if reply else 128) if is6(source) else (0 if reply else 8)
    return icmp(source, destination, kind, rest=struct.pack("!HH", ident, sequence), data=data,
                **ip)


def icmp_error(source, about, kind, code, rest=b"\0\0\0\0", quote=128, to=None, **ip):
    """The error that `source` sends about a packet, to the packet's sender."""
    parts = layout(about)
    return icmp(source, to or str(ipaddress.ip_address(parts.source)), kind, code, rest,
                about[:quote], **ip)


def sctp_init(tag, data=b"", acknowledge=False):
    """The chunk that opens an association, or the answer to it."""
    parameter = struct.pack("!HH", 0x8001, 4 + len(data)) + data if data else b""
    return struct.pack("!BBHIIHHI", 2 if acknowledge else 1, 0, 20 + len(parameter), tag, 65536,
                       5, 5, 1) + parameter + bytes(-len(parameter) % 4)


def sctp_data(number, data):
    return struct.pack("!BBHIHHI", 0, 3, 16 + len(data), number, 0, 0, 0) + data + bytes(
        -len(data) % 4)


def sctp(source, destination, sport, dport, chunk=sctp_init(1), tag=0, **ip):
    segment = struct.pack("!HHII", sport, dport, tag, 0) + chunk
    return ip_packet(source, destination, SCTP,
                     segment[:8] + crc32c(segment) + segment[12:], **ip)


def _crc32c_table():
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82f63b78 if byte & 1 else 0)
        yield byte


_CRC32C = tuple(_crc32c_table())


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc = crc >> 8 ^ _CRC32C[(crc ^ byte) & 0xff]
    return struct.pack("<I", ~crc & 0xffffffff)


def sctp_is_sound(segment):
    return segment[8:12] == crc32c(segment[:8] + bytes(4) + segment[12:])


def gre(source, destination, data=b"", **ip):
    return ip_packet(source, destination, GRE, b"\0\0\x08\0" + data, **ip)


def unfinished(packet):
    """(the packet with only the pseudo header's sum where its checksum belongs, what the virtio
    header says about it for a frame of it)"""
    parts = layout(packet)
    at = parts.transport + CHECKSUM_AT[parts.protocol]
    length = len(packet) - parts.transport
    pseudo = fold(_pseudo(parts.source, parts.destination, parts.protocol, length))
    return (packet[:at] + struct.pack("!H", pseudo) + packet[at + 2:],
            (14 + parts.transport, CHECKSUM_AT[parts.protocol]))


def fragments(packet, *sizes, ident=0x77):
    """The packet in pieces whose payloads have these sizes (multiples of eight) and the rest."""
    parts = layout(packet)
    header = parts.transport if packet[0] >> 4 == 4 else 40
    payload = packet[header:]
    pieces, at = [], 0
    for size in (*sizes, len(payload) - sum(sizes)):
        last = at + size >= len(payload)
        piece = payload[at:at + size]
        if packet[0] >> 4 == 4:
            start = (packet[:4] + struct.pack("!HH", ident, at // 8 | (0 if last else 0x2000)) +
                     packet[8:10] + b"\0\0" + packet[12:header])
            start = start[:2] + struct.pack("!H", header + len(piece)) + start[4:]
            start = start[:10] + struct.pack("!H", ~fold(start) & 0xffff) + start[12:]
        else:
            start = (packet[:4] + struct.pack("!HB", 8 + len(piece), FRAGMENT6) + packet[7:40] +
                     struct.pack("!BBHI", packet[6], 0, at | (not last), ident))
        pieces.append(start + piece)
        at += size
    return pieces


def clear_fragment_id(packet, start=0):
    """Of an IPv6 packet, at `start` of the bytearray, whose fragment header comes first: routers that
    put fragments together and send them on choose it at random."""
    if (len(packet) >= start + 48 and packet[start] >> 4 == 6 and
            packet[start + 6] == FRAGMENT6):
        packet[start + 44:start + 48] = bytes(4)


class Layout(NamedTuple):
    """Where things are in an IP packet; offsets count from its start."""
    version: int
    protocol: int
    source: bytes
    destination: bytes
    addresses: int              # offset of the source address
    transport: Optional[int]    # None where there is none: a later fragment, a short packet
    is_fragment: bool
    source_port: Optional[int]  # offsets; an ICMP query has its identifier as both
    destination_port: Optional[int]
    quoted: Optional[int]       # of the packet in an ICMP error


def layout(packet):
    """The packet's Layout, or None if it has no whole IP header."""
    if len(packet) < 20 or packet[0] >> 4 not in (4, 6):
        return None
    if packet[0] >> 4 == 4:
        at, protocol, addresses, size = (packet[0] & 15) * 4, packet[9], 12, 4
        place = struct.unpack_from("!H", packet, 6)[0]
        fragment, later = bool(place & 0x3fff), bool(place & 0x1fff)
    else:
        if len(packet) < 40:
            return None
        at, protocol, addresses, size = 40, packet[6], 8, 16
        fragment = later = False
        while protocol in _EXTENSIONS or protocol == FRAGMENT6:
            if len(packet) < at + 8:
                return None
            if protocol == FRAGMENT6:
                fragment, later = True, struct.unpack_from("!H", packet, at + 2)[0] >= 8
                protocol, at = packet[at], at + 8
                if later:
                    break
            else:
                protocol, at = packet[at], at + 8 * (packet[at + 1] + 1)
    source_port = destination_port = quoted = None
    if later or len(packet) < at + 8:
        at = None
    elif protocol in (TCP, UDP, SCTP):
        source_port, destination_port = at, at + 2
    elif protocol in _ERRORS and packet[at] in _ERRORS[protocol]:
        quoted = at + 8
    elif protocol in _QUERIES and packet[at] in _QUERIES[protocol]:
        source_port = destination_port = at + 4
    return Layout(4 if size == 4 else 6, protocol, bytes(packet[addresses:addresses + size]),
                  bytes(packet[addresses + size:addresses + 2 * size]), addresses, at, fragment,
                  source_port, destination_port, quoted)


def port(packet, at):
    return struct.unpack_from("!H", packet, at)[0] if at is not None else 0
