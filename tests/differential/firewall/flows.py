"""Connections through both routers: what a host answers depends on how a packet reached it.

A Flow goes from a client to a server. Each of its packets tells whose it is and which way it goes,
by its payload or by its TCP sequence number, neither of which NAT changes; so for each side the
flow knows how its packets look at the other end, and a reply goes to that address, on that link.
Where nothing came out, a reply is addressed as if nothing had been translated.
"""

import ipaddress
import struct

import wire
from addresses import LINKS, ip4, ip6
from twins import frame_of, link_of

FORTH, BACK = 0, 1
_OWN = {address(link) for link in LINKS for address in (ip4, ip6)}
_MARK = b"\xf1\x0e"
# Where data may begin. What is before it, a port or a checksum, may look like the mark.
_HEADERS = {wire.UDP: 8, wire.ICMP: 8, wire.ICMP6: 8, wire.SCTP: 12, wire.GRE: 4}
PROTOCOLS = {"tcp": wire.TCP, "udp": wire.UDP, "icmp": wire.ICMP, "sctp": wire.SCTP,
             "gre": wire.GRE}


class Flows:
    """All flows of a round, by number."""

    def __init__(self, twins):
        self.twins = twins
        self._flows = []
        twins.begin()

    def add(self, protocol, source, destination, sport=4000, dport=5000, link=None, gateway=2):
        """`link`: where the client is, if its address does not tell."""
        flow = Flow(self, len(self._flows), protocol, source, destination, sport, dport, link,
                    gateway)
        self._flows.append(flow)
        return flow

    def look(self):
        """Takes note of what has come out since the last time."""
        for number, side in enumerate(self.twins.sides):
            for link, frame in side.frames[side.taken:]:
                packet = frame[14:]
                parts = wire.layout(packet) if frame[12:13] in (b"\x08", b"\x86") else None
                found = parts and _identify(packet, parts)
                if found and found[0] < len(self._flows):
                    self._flows[found[0]].seen[number][found[1]] = link, packet
            side.taken = len(side.frames)


def _identify(packet, parts):
    """(flow, direction) of a packet of a Flow, or None."""
    if parts.transport is None or parts.quoted is not None:
        return None
    if parts.protocol == wire.TCP:
        sequence = struct.unpack_from("!I", packet, parts.transport + 4)[0]
        return sequence >> 17, sequence >> 16 & 1
    at = packet.find(_MARK, parts.transport + _HEADERS.get(parts.protocol, 0))
    if at < 0 or len(packet) < at + 5:
        return None
    return struct.unpack_from("!HB", packet, at + 2)


class Flow:
    def __init__(self, flows, number, protocol, source, destination, sport, dport, link, gateway):
        self._flows = flows
        self._twins = flows.twins
        self._number = number
        self.protocol = PROTOCOLS[protocol]
        self.client, self.server = (source, sport), (destination, dport)
        self.link = link or link_of(source)
        self.gateway = gateway
        # Per side and direction, the last packet as it came out: (link, packet).
        self.seen = [[None, None], [None, None]]
        self.sent = [0, 0]  # packets with data
        self.next = [self._first(FORTH), self._first(BACK)]  # sequence numbers to send

    def _first(self, direction):
        return self._number << 17 | direction << 16

    def _ends(self, side, direction):
        """(link, source, destination) of a packet in this direction, endpoints as its sender sees
        them; link None: nobody there to send it."""
        if direction == FORTH:
            return self.link, self.client, self.server
        seen = self.seen[side][FORTH]
        if seen is None:
            # The router itself has answered, if it was the server.
            link = None if self.server[0] in _OWN else link_of(self.server[0])
            return link, self.server, self.client
        link, packet = seen
        parts = wire.layout(packet)
        address = ipaddress.ip_address
        return (link,
                (str(address(parts.destination)), wire.port(packet, parts.destination_port)),
                (str(address(parts.source)), wire.port(packet, parts.source_port)))

    def _send(self, direction, make):
        """`make(source, destination)` builds the packet between two endpoints."""
        if direction == BACK:
            self._twins.settle_sent()
            self._flows.look()
        links, packets = [], []
        for side in (0, 1):
            link, source, destination = self._ends(side, direction)
            links.append(link)
            packets.append(make(source, destination) if link else None)
        host = self.gateway if direction == FORTH else 2
        pieces = [p if isinstance(p, list) else [p] for p in packets]
        self._twins.send_each(links, pieces, host)

    def payload(self, direction, size):
        mark = _MARK + struct.pack("!HB", self._number, direction)
        return mark + bytes(i & 0xff for i in range(max(0, size - len(mark))))

    def send(self, direction=FORTH, size=24, checksum=True, split=(), ident=0x77, shuffle=(), **ip):
        """One packet with data: UDP, SCTP, GRE, an echo request or its answer. `split`: payload
        sizes of fragments; `shuffle`: their order, by number."""
        def make(source, destination):
            packet = self._data(source, destination, direction, size, checksum, ip)
            if split:
                packet = wire.fragments(packet, *split, ident=ident)
                packet = [packet[i] for i in shuffle] if shuffle else packet
            return packet
        self._send(direction, make)
        self.sent[direction] += 1

    def send_unfinished(self, direction=FORTH, size=24):
        """The same, its checksum left to the network card, as a container's packets are."""
        self._twins.settle_sent()
        self._flows.look()
        for number, side in enumerate(self._twins.sides):
            link, source, destination = self._ends(number, direction)
            packet = self._data(source, destination, direction, size, True, {})
            packet, where = wire.unfinished(packet)
            side.send(link, frame_of(link, packet), where)
            self._twins.settle(link)
        self._twins.settle(*LINKS)  # an answer goes by how it came out

    def reply(self, **how):
        self.send(BACK, **how)

    def _data(self, source, destination, direction, size, checksum, ip):
        data = self.payload(direction, size)
        ends = source[0], destination[0]
        if self.protocol == wire.UDP:
            return wire.udp(*ends, source[1], destination[1], data, checksum, **ip)
        if self.protocol == wire.ICMP:
            ident = source[1] if direction == FORTH else destination[1]
            return wire.echo(*ends, ident, data=data, reply=direction == BACK, **ip)
        if self.protocol == wire.SCTP:
            return wire.sctp(*ends, source[1], destination[1], *self._chunk(direction, data), **ip)
        if self.protocol == wire.GRE:
            return wire.gre(*ends, data, **ip)
        flags = wire.ACK | wire.PSH
        return self._segment(source, destination, direction, flags, data, {}, ip)

    def segment(self, flags, /, direction=FORTH, size=0, offset=0, ack_offset=0, window=8192,
                options=b"", **ip):
        """One TCP segment, next in order but for the offsets."""
        data = bytes(size)
        tcp = {"offset": offset, "ack_offset": ack_offset, "window": window, "options": options}
        self._send(direction, lambda source, destination: self._segment(
            source, destination, direction, flags, data, tcp, ip))
        if not offset:
            self.next[direction] += size + bool(flags & wire.SYN) + bool(flags & wire.FIN)

    def _chunk(self, direction, data):
        """(the next chunk, the tag that it goes by)"""
        tags = 0x1000 + self._number, 0x2000 + self._number
        sent = self.sent[direction]
        if sent == 0 and (direction == FORTH or self.sent[FORTH]):
            return (wire.sctp_init(tags[direction], data, direction == BACK),
                    0 if direction == FORTH else tags[FORTH])
        return wire.sctp_data(sent, data), tags[1 - direction]

    def _segment(self, source, destination, direction, flags, data, tcp, ip):
        ack = self.next[1 - direction] + tcp.get("ack_offset", 0) if flags & wire.ACK else 0
        return wire.tcp(source[0], destination[0], source[1], destination[1], flags,
                        self.next[direction] + tcp.get("offset", 0), ack, data,
                        tcp.get("window", 8192), tcp.get("options", b""), **ip)

    def handshake(self):
        self.segment(wire.SYN, options=b"\x02\x04\x05\xb4")
        self.segment(wire.SYN | wire.ACK, BACK, options=b"\x02\x04\x05\xb4")
        self.segment(wire.ACK)

    def exchange(self, size=100):
        self.segment(wire.ACK | wire.PSH, FORTH, size)
        self.segment(wire.ACK | wire.PSH, BACK, size)
        self.segment(wire.ACK)

    def finish(self):
        self.segment(wire.FIN | wire.ACK)
        self.segment(wire.FIN | wire.ACK, BACK)
        self.segment(wire.ACK)

    def error(self, kind, code, about=FORTH, sender=None, rest=b"\0\0\0\0", quote=128):
        """The ICMP error about the last packet that came out in direction `about`, from the host it
        was for, or from another behind the same link; a router that lost it sends none."""
        self._twins.settle_sent()
        self._flows.look()
        links, packets = [None, None], [[None], [None]]
        for side in (0, 1):
            if self.seen[side][about] is not None:
                link, packet = self.seen[side][about]
                source = sender or str(ipaddress.ip_address(wire.layout(packet).destination))
                links[side] = link
                quoted = bytearray(packet)
                wire.clear_fragment_id(quoted)  # its checksum is a port to `th dport`
                packets[side] = [wire.icmp_error(source, bytes(quoted), kind, code, rest, quote)]
        self._twins.send_each(links, packets)
