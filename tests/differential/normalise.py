"""What may differ between the kernel's output and Sluice's, and why. Nothing else may.

  IP id of packets the router makes      each stack counts its own
  IPv6 flow label of those               the kernel takes a hash of its own secret
  id of the fragments of those           random in both
  checksums left to the network card     the kernel forwards them unfinished over veth (the packet
                                         socket says so), Sluice completes them: completed here
  the router's own solicitations         when a neighbour is asked anew is a matter of timers; tests
                                         of neighbours ask for them with keep_solicitations
  MLD reports, router solicitations      sent whenever the kernel likes
  ND redirects, where a test says so     limited to one a second by sender and by destination, so
                                         repeated packets get one by chance

A frame that this module cannot parse is compared as it is.
"""

import struct

from addresses import LINKS, ROUTER4, ROUTER6, mac

_ROUTER4 = frozenset(bytes(map(int, a.split("."))) for a in ROUTER4)
_ROUTER_MACS = frozenset(bytes.fromhex(mac(link).replace(":", "")) for link in LINKS)


def _packed6(address):
    import socket
    return socket.inet_pton(socket.AF_INET6, address)


_ROUTER6 = frozenset(map(_packed6, ROUTER6))
_CHECKSUM_AT = {1: 2, 6: 16, 17: 6, 58: 2}
_EXTENSIONS = {0, 43, 60}


def fold(data, initial=0):
    if len(data) % 2:
        data += b"\0"
    total = initial + sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return total


def _ipv6_payload(ip):
    """Protocol and offset of what follows the extension headers; None in fragments and oddities."""
    protocol, at = ip[6], 40
    while protocol in _EXTENSIONS:
        if len(ip) < at + 8:
            return None
        protocol, at = ip[at], at + 8 * (ip[at + 1] + 1)
    return protocol, at


def _fill(ip, at, protocol, pseudo):
    place = _CHECKSUM_AT.get(protocol)
    if place is None or len(ip) < at + place + 2:
        return
    place += at
    ip[place:place + 2] = b"\0\0"
    initial = fold(pseudo) if protocol != 1 else 0
    value = ~fold(bytes(ip[at:]), initial) & 0xffff
    if value == 0 and protocol == 17:
        value = 0xffff
    ip[place:place + 2] = struct.pack("!H", value)


def complete_checksum(frame):
    """The transport checksum of an unfragmented packet, computed."""
    ip = bytearray(frame[14:])
    if frame[12:14] == b"\x08\x00":
        at = (ip[0] & 15) * 4
        pseudo = bytes(ip[12:20]) + struct.pack("!HH", ip[9], len(ip) - at)
        _fill(ip, at, ip[9], pseudo)
    elif frame[12:14] == b"\x86\xdd":
        found = _ipv6_payload(ip)
        if found:
            protocol, at = found
            _fill(ip, at, protocol, bytes(ip[8:40]) +
                  struct.pack("!IHH", len(ip) - at, 0, protocol))
    return frame[:14] + bytes(ip)


def is_housekeeping(frame, keep_solicitations=False):
    if frame[6:12] not in _ROUTER_MACS:
        return False
    if frame[12:14] == b"\x08\x06":
        return frame[20:22] == b"\0\x01" and not keep_solicitations
    if frame[12:14] == b"\x08\x00":
        return len(frame) >= 34 and frame[23] == 2 and frame[26:30] in _ROUTER4  # IGMP
    if frame[12:14] != b"\x86\xdd" or len(frame) < 62:
        return False
    found = _ipv6_payload(frame[14:])
    if not found or found[0] != 58 or len(frame) <= 14 + found[1]:
        return False
    kind = frame[14 + found[1]]
    if kind in (131, 132, 133, 143):  # MLD, router solicitation
        return True
    return kind == 135 and frame[22:38] in _ROUTER6 and not keep_solicitations


def is_redirect6(frame):
    return frame[12:14] == b"\x86\xdd" and frame[20:22] == b"\x3a\xff" and frame[54:55] == b"\x89"


def normalise(frame):
    """The frame with what is free to differ set to zero."""
    if frame[12:14] == b"\x08\x00" and len(frame) >= 34 and (frame[26:30] in _ROUTER4 or
                                                            frame[26] == 127):
        ip = bytearray(frame[14:])
        header = max((ip[0] & 15) * 4, 20)
        ip[4:6] = b"\0\0"
        # Still telling whether the checksum was right.
        wrong = fold(frame[14:14 + header]) != 0xffff
        ip[10:12] = b"\xba\xad" if wrong else b"\0\0"
        return frame[:14] + bytes(ip)
    if frame[12:14] == b"\x86\xdd" and len(frame) >= 54 and frame[22:38] in _ROUTER6:
        ip = bytearray(frame[14:])
        ip[1:4] = bytes((ip[1] & 0xf0, 0, 0))
        if ip[6] == 44 and len(ip) >= 48:
            ip[44:48] = b"\0\0\0\0"
        return frame[:14] + bytes(ip)
    return frame
