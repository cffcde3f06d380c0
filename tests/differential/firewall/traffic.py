"""Packets of every kind, so that each match has something to match and something to pass by."""

import re

import wire
from addresses import ip4, ip6
from flows import BACK, FORTH, Flows
from twins import far, frame_of
from wire import ACK, FIN, PSH, RST, SYN, URG

MSS = b"\x02\x04\x05\xb4"
SYN_OPTIONS = MSS + b"\x04\x02\x08\x0a\0\0\0\x01\0\0\0\0\x01\x03\x03\x07"
SMALL_MSS = b"\x02\x04\x02\x18"


def _own(link, family):
    return (ip4 if family == 4 else ip6)(link)


_ADDRESS = re.compile(r"<(\w+)\.(\d+)(?:/([46]))?>")


def addressed(text, number, version):
    """nft's text with the addresses of a round for <left.1>, or <left.1/6> where both are."""
    return _ADDRESS.sub(lambda m: far(m[1], number, int(m[2]), int(m[3] or version)), text)


class Hosts:
    """Shorthands of a round: left(3) is host 3 behind the left gateway."""

    def __init__(self, twins, family):
        self.family = family
        self.number = twins.round
        for link in ("left", "right", "wan", "other"):
            setattr(self, link,
                    lambda host, link=link: far(link, self.number, host, family))


def mixed(twins, family, odd=True):
    """About a hundred packets of one family. `odd`: also such with options, extension headers or an
    odd sender, some of which Sluice gives to the kernel. That has rules of its own: what limits,
    quotas and dynamic sets have seen there does not count here."""
    flows = Flows(twins)
    hosts = Hosts(twins, family)
    _connections(flows, hosts)
    _datagrams(flows, hosts)
    if odd:
        _odd_headers(twins, hosts)
        _local(flows, hosts)
    return flows


def _connections(flows, hosts):
    web = flows.add("tcp", hosts.left(1), hosts.right(9), 4001, 80)
    web.segment(SYN, options=SYN_OPTIONS)
    web.segment(SYN | ACK, BACK, options=SYN_OPTIONS)
    web.segment(ACK)
    web.exchange(400)
    web.segment(ACK | PSH | URG, size=10)
    web.finish()
    ssh = flows.add("tcp", hosts.left(2), hosts.wan(9), 50000, 22)
    ssh.segment(SYN, options=SMALL_MSS, ttl=3)
    ssh.segment(SYN | ACK, BACK, options=SMALL_MSS)
    ssh.segment(ACK, tos=0xbb)
    ssh.segment(ACK | PSH, size=1000, tos=0xb8)
    ssh.segment(RST | ACK, BACK)
    refused = flows.add("tcp", hosts.wan(3), hosts.left(1), 4002, 8080)
    refused.segment(SYN)
    refused.segment(RST | ACK, BACK)
    stray = flows.add("tcp", hosts.wan(3), hosts.left(1), 4003, 443)
    for flags in (0, ACK, FIN | ACK, FIN | PSH | URG, SYN | FIN, RST, SYN | ACK, SYN | 0xc0):
        stray.segment(flags, window=flags * 100)


def _datagrams(flows, hosts):
    dns = flows.add("udp", hosts.left(1), hosts.wan(53), 5353, 53)
    dns.send(size=40)
    dns.reply(size=200, tos=0x28)
    dns.send(size=8, ttl=2)
    dns.send(size=1200, ttl=255)
    silent = flows.add("udp", hosts.right(4), hosts.wan(53), 4004, 9999)
    silent.send(size=20, checksum=False)
    silent.send(size=2000, split=(800, 600))
    silent.send(size=900, split=(400,), shuffle=(1, 0), ident=0x78)
    silent.error(*((3, 3) if hosts.family == 4 else (1, 4)))
    silent.error(*((11, 0) if hosts.family == 4 else (3, 0)), sender=hosts.wan(77))
    big = flows.add("udp", hosts.left(5), hosts.wan(7), 4005, 6000)
    big.send(size=100)
    big.error(*((3, 4) if hosts.family == 4 else (2, 0)), rest=b"\0\0\x05\x14")
    ping = flows.add("icmp", hosts.left(1), hosts.wan(1), 77)
    ping.send()
    ping.reply()
    ping.send(size=1300, split=(640,), ident=0x79)
    stray = flows.add("icmp", hosts.wan(4), hosts.left(1), 78)
    stray.reply()
    for protocol, port in (("sctp", 2905), ("gre", 0)):
        flow = flows.add(protocol, hosts.left(6), hosts.right(6), 2905, port)
        flow.send()
        flow.reply()


def _odd_headers(twins, hosts):
    """What no Flow sends: options, extension headers, other protocols."""
    ends = hosts.left(8), hosts.right(8)
    # 51 is an extension header of IPv6, whose chain these bytes would continue behind the packet's end:
    # the kernel takes that for a protocol without a header, Sluice for an invalid packet.
    packets = [wire.ip_packet(*ends, protocol, bytes(range(40)))
               for protocol in ((2, 50, 51, 59, 99, 136) if hosts.family == 4 else (2, 50, 59, 99, 136))]
    if hosts.family == 4:
        for port, options in enumerate((b"\x01\x01\x01\0", b"\x94\x04\0\0",
                                        b"\x07\x07\x04\0\0\0\0\0"), 4020):
            packets.append(wire.udp(*ends, port, 53, b"data", options=options))
        packets.append(wire.udp(*ends, 4006, 53, b"data", ident=0x4242, flags=2))
        packets += [wire.icmp(*ends, kind, data=bytes(16)) for kind in (13, 17, 9, 5)]
    else:
        for port, kind in enumerate((0, 43, 60), 4020):
            header = b"\0\x01\x04\0\0\0\0" if kind != 43 else b"\0\0\0\0\0\0\0"
            packets.append(wire.udp(*ends, port, 53, b"data", chain=((kind, header),)))
            packets.append(wire.tcp(*ends, port, 80, SYN, chain=((kind, header),)))
        packets.append(wire.udp(*ends, 4006, 53, b"data", flow_label=0x12345))
        packets += [wire.icmp(*ends, kind, data=bytes(16)) for kind in (130, 200)]
    packets.append(wire.tcp(*ends, 4007, 80, SYN, seq=0x01020304,
                            options=b"\x22\x04\x0a\x0b\x01\x01\x05\x0a" + bytes(8)))
    for packet in packets:
        twins.send("left", packet)
    twins.send("left", wire.udp(*ends, 4008, 7, b"x"), host=3)
    # From the link's own network, and with sources that do not belong there.
    twins.send("left", wire.udp(_host("left", 3, hosts.family), hosts.right(8), 4009, 7, b"x"),
               host=3)
    twins.send("left", wire.udp(hosts.wan(8), hosts.right(8), 4010, 7, b"spoofed"))
    twins.send("left", wire.udp(_own("right", hosts.family), hosts.right(8), 4014, 7, b"ours"))
    twins.send_frame("left", b"\xff" * 6 + frame_of(
        "left", wire.udp(*ends, 4015, 7, b"broadcast"))[6:])
    twins.send("left", wire.sctp(*ends, 2905, 2905))
    twins.send("left", wire.udp("203.0.113.7" if hosts.family == 4 else "2001:db8::7",
                                hosts.right(8), 4011, 7, b"from nowhere"))


def _host(link, number, family):
    return (ip4 if family == 4 else ip6)(link, number)


def _local(flows, hosts):
    """To and from the router itself."""
    ping = flows.add("icmp", hosts.left(1), _own("left", hosts.family), 79)
    ping.send()
    ping.send()
    ping = flows.add("icmp", hosts.left(1), _own("wan", hosts.family), 80)
    ping.send(size=200)
    closed = flows.add("tcp", hosts.left(1), _own("left", hosts.family), 4012, 81)
    closed.segment(SYN)
    udp = flows.add("udp", hosts.wan(1), _own("wan", hosts.family), 4013, 82)
    udp.send(size=50)
    flows.twins.send("left", wire.udp(hosts.wan(8), _own("left", hosts.family), 4016, 83, b"spoof"))
