"""Whether two routers put out the same frames, where NAT may choose.

Beside the router's own solicitations and reports (normalise.py), these are free to differ:

  IP id, flow label of ICMP and of TCP resets   the router's own, whatever address they carry
  id in IPv6 fragment headers                   random in both
  the order of those among other frames         a router may take its time to complain
  the order between different pairs of hosts    what Sluice gives to the kernel comes out later, such
  and of packets with options or extensions     as packets with some IP options
  addresses and ports that a NAT rule leaves    the kernel's choice stands for the other's, always
  to the router                                 the same one, and both are in the rule's range

Checksums are compared, after the other side's choice has been replaced by the kernel's.
"""

import collections
import dataclasses
import ipaddress
import struct

import wire
from addresses import LINKS
from frames import describe, hexdump
from normalise import fold, is_housekeeping


@dataclasses.dataclass(frozen=True)
class Choices:
    """What NAT may choose: addresses as (first, last) and ports as (first, last)."""
    addresses: tuple = ()
    ports: tuple = ()

    def allow(self, kernel, other):
        """Whether two endpoints (address, port) are both within the choice."""
        if kernel[0] != other[0] and not all(self._address_allowed(e[0]) for e in (kernel, other)):
            return False
        return kernel[1] == other[1] or all(
            any(first <= e[1] <= last for first, last in self.ports) for e in (kernel, other))

    def _address_allowed(self, address):
        if not address:
            return False
        address = ipaddress.ip_address(address)
        return any(address.version == ipaddress.ip_address(first).version and
                   ipaddress.ip_address(first) <= address <= ipaddress.ip_address(last)
                   for first, last in self.addresses)


NO_CHOICES = Choices()
# Where ports are wanted by two, masquerade and snat take any other from the same range (nf_nat).
ANY_PORT = Choices(ports=((1, 65535),))


def _made_by_router(packet, parts):
    """Whether it may be: ICMP errors, echo replies, resets."""
    if parts is None:
        return False
    if parts.transport is None:  # the rest of a long echo reply
        return parts.is_fragment and parts.protocol == wire.ICMP
    if parts.protocol == wire.TCP:
        return len(packet) > parts.transport + 13 and bool(packet[parts.transport + 13] & wire.RST)
    return parts.quoted is not None or (parts.protocol, packet[parts.transport]) in (
        (wire.ICMP, 0), (wire.ICMP6, 129))


def canonical(frame):
    """(whether the router may have made it, the frame with what is free to differ set to zero)"""
    if frame[12:14] not in (b"\x08\0", b"\x86\xdd"):
        return False, frame
    packet = bytearray(frame[14:])
    parts = wire.layout(packet)
    if parts is None:
        return False, frame
    made = _made_by_router(packet, parts)
    if parts.version == 4 and made:
        # Still telling whether the checksum was right.
        wrong = fold(bytes(packet[:(packet[0] & 15) * 4])) != 0xffff
        packet[4:6] = b"\0\0"
        packet[10:12] = b"\xba\xad" if wrong else b"\0\0"
    if parts.version == 6:
        if made:
            packet[1:4] = bytes((packet[1] & 0xf0, 0, 0))
        _clear_fragment_id(packet, 0)
    if parts.quoted is not None:
        old = bytes(packet[parts.quoted:])
        _clear_quoted(packet, parts.quoted)
        _adjust(packet, parts.transport + 2, old, packet[parts.quoted:])
    return made, frame[:14] + bytes(packet)


def _clear_quoted(packet, start):
    """An error may be about a packet that the router had made."""
    quoted = wire.layout(packet[start:])
    if quoted is None:
        return
    if quoted.version == 6:
        _clear_fragment_id(packet, start)
    if not _made_by_router(packet[start:], quoted):
        return
    if quoted.version == 6:
        packet[start + 1:start + 4] = bytes((packet[start + 1] & 0xf0, 0, 0))
    else:
        _adjust(packet, start + 10, packet[start + 4:start + 6], b"\0\0")
        packet[start + 4:start + 6] = b"\0\0"


def _clear_fragment_id(packet, start):
    """Of an IPv6 packet whose fragment header comes first."""
    if len(packet) >= start + 48 and packet[start + 6] == wire.FRAGMENT6:
        packet[start + 44:start + 48] = b"\0\0\0\0"


def by_link(frames):
    """{link: (those in order, those in any order)}, canonical."""
    result = {}
    for link, frame in frames:
        if not is_housekeeping(frame):
            made, what = canonical(frame)
            result.setdefault(link, ([], []))[made].append(what)
    return result


def outputs(kernel_frames, other_frames, choices):
    """Lines that tell the differences; empty: none."""
    kernel, other = by_link(kernel_frames), by_link(other_frames)
    chosen = _Chosen(choices)
    lines = []
    for link in LINKS:
        for kind in (0, 1):
            ours = kernel.get(link, ([], []))[kind]
            theirs = other.get(link, ([], []))[kind]
            if ours == theirs:
                continue
            if kind == 0:
                ours, theirs = sorted(ours, key=_pair), sorted(theirs, key=_pair)
            if choices is not NO_CHOICES and len(ours) == len(theirs):
                if kind == 1:
                    ours, theirs = sorted(ours, key=_shape), sorted(theirs, key=_shape)
                theirs = [chosen.adopt(k, o) for k, o in zip(ours, theirs)]
            if kind == 1:
                ours, theirs = _without_common(ours, theirs)
            if ours != theirs:
                lines += _explain(link, ours, theirs)
    return lines + chosen.complaints


def _pair(frame):
    """Frames of one of these stay in order: two hosts and a protocol. None do with options or
    extension headers, since Sluice gives some of those to the kernel and not others."""
    packet = frame[14:]
    parts = wire.layout(packet)
    if parts is None:
        return b"", b"", 0, 0, ()
    plain = packet[0] == 0x45 if parts.version == 4 else packet[6] == parts.protocol
    return (parts.source, parts.destination, parts.protocol,
            packet[0] if parts.version == 4 else packet[6], () if plain else _shape(frame))


def _without_common(ours, theirs):
    """What each of two lists has that the other has not."""
    mine, others = collections.Counter(ours), collections.Counter(theirs)
    return (sorted((mine - others).elements(), key=_shape),
            sorted((others - mine).elements(), key=_shape))


def _shape(frame):
    """To sort by: the frame without ports and checksums."""
    packet = bytearray(frame[14:])
    start, parts = 0, wire.layout(packet)
    while parts is not None:
        if parts.version == 4:
            packet[start + 10:start + 12] = b"\0\0"
        for at in (parts.source_port, parts.destination_port):
            if at is not None:
                packet[start + at:start + at + 2] = b"\0\0"
        checksum = wire.CHECKSUM_AT.get(parts.protocol)
        if parts.transport is not None and checksum is not None:
            at = start + parts.transport + checksum
            packet[at:at + 2] = b"\0\0"[:max(0, len(packet) - at)]
        start += parts.quoted or 0
        parts = wire.layout(packet[start:]) if parts.quoted else None
    return len(frame), frame[:14] + bytes(packet)


class _Chosen:
    """The other side's choices, by the kernel's."""

    def __init__(self, choices):
        self._choices = choices
        self._kernel_of = {}
        self._other_of = {}
        self.complaints = []

    def adopt(self, kernel, other):
        """The other side's frame with the kernel's choices in it, where both are free."""
        if kernel == other or len(kernel) != len(other):
            return other
        packet = bytearray(other[14:])
        self._adopt(kernel[14:], packet, 0)
        return other[:14] + bytes(packet)

    def _adopt(self, kernel, packet, start):
        """In place, from `start` on; returns whether anything has changed."""
        ours, theirs = wire.layout(kernel[start:]), wire.layout(packet[start:])
        if ours is None or theirs is None or (ours.version, ours.protocol, ours.transport) != (
                theirs.version, theirs.protocol, theirs.transport):
            return False
        changed = False
        places = ((0, theirs.source_port), (len(ours.source), theirs.destination_port))
        ends = [[(bytes(data[start + theirs.addresses + place:][:len(ours.source)]),
                  wire.port(data[start:], at)) for place, at in places] for data in (kernel, packet)]
        begin = start + (theirs.transport or 0)
        # Its port may be that of an earlier connection of one of the two that has ended.
        first = theirs.protocol == wire.TCP and len(packet) > begin + 13 and (
            packet[begin + 13] & (wire.SYN | wire.ACK) == wire.SYN)
        sctp = theirs.protocol == wire.SCTP and wire.sctp_is_sound(packet[begin:])
        for number, (place, port_at) in enumerate(places):
            # An endpoint, and the other one: a port may be used again for another partner.
            pairs = [(end[number], end[1 - number]) for end in ends]
            if pairs[0][0] == pairs[1][0] or not self._same(theirs.protocol, *pairs, first):
                continue
            changed = True
            address, port = pairs[0][0]
            _replace(packet, start, theirs, start + theirs.addresses + place, address, False)
            if port_at is not None:
                _replace(packet, start, theirs, start + port_at, struct.pack("!H", port), True)
        if changed and sctp:
            packet[begin + 8:begin + 12] = wire.crc32c(packet[begin:begin + 8] + bytes(4) +
                                                       packet[begin + 12:])
        if theirs.quoted is not None:
            at = start + theirs.quoted
            old = bytes(packet[at:])
            if self._adopt(kernel, packet, at):
                changed = True
                _adjust(packet, start + theirs.transport + 2, old, packet[at:])
        return changed

    def _same(self, protocol, kernel, other, first):
        """Whether the kernel chose for one pair of endpoints what the other chose for its pair.
        `first`: of a connection, so that both may choose anew."""
        ours, theirs = (protocol, *kernel), (protocol, *other)
        known = self._kernel_of.get(theirs), self._other_of.get(ours)
        if known == (ours, theirs):
            return True
        if not self._choices.allow(kernel[0], other[0]):
            return False
        if first and known != (None, None):
            self._other_of.pop(known[0], None)
            self._kernel_of.pop(known[1], None)
            known = None, None
        if known != (None, None):
            self.complaints.append(f"chosen before otherwise: {ours} for {theirs}, was {known}")
            return False
        self._kernel_of[theirs], self._other_of[ours] = ours, theirs
        return True


def _adjust(packet, at, old, new):
    """RFC 1624, for the checksum at `at`."""
    if at + 2 > len(packet):
        return
    value = struct.unpack_from("!H", packet, at)[0]
    even = len(old) & ~1
    old, new = old[:even], new[:even]
    total = fold(bytes(old).translate(_INVERT) + bytes(new), ~value & 0xffff)
    struct.pack_into("!H", packet, at, ~total & 0xffff)


_INVERT = bytes(255 - i for i in range(256))


def _replace(packet, start, parts, at, new, is_port):
    """Bytes of an address or a port, with the checksums that cover them."""
    old = bytes(packet[at:at + len(new)])
    packet[at:at + len(new)] = new
    if not is_port and parts.version == 4 and packet[start + 10:start + 12] != b"\0\0":
        _adjust(packet, start + 10, old, new)
    place = wire.CHECKSUM_AT.get(parts.protocol)
    if place is None or parts.transport is None or (not is_port and parts.protocol == wire.ICMP):
        return
    place += start + parts.transport
    if parts.protocol == wire.UDP and packet[place:place + 2] == b"\0\0":
        return
    _adjust(packet, place, old, new)
    if parts.protocol == wire.UDP and packet[place:place + 2] == b"\0\0":
        packet[place:place + 2] = b"\xff\xff"


def _explain(link, ours, theirs):
    lines = []
    for i in range(max(len(ours), len(theirs))):
        expected = ours[i] if i < len(ours) else None
        seen = theirs[i] if i < len(theirs) else None
        if expected == seen:
            continue
        lines += [f"  out by {link}, number {i + 1}:", f"    kernel: {describe(expected)}",
                  f"    other:  {describe(seen)}"]
        if expected and seen:
            for k, s in zip(hexdump(expected, "", len(seen)), hexdump(seen, "", len(expected))):
                lines += [f"      {k}"] if k == s else [f"    K {k}", f"    S {s}"]
        else:
            lines += hexdump(expected or seen, "    K " if expected else "    S ")
        if len(lines) > 60:
            return lines + ["  ..."]
    return lines
