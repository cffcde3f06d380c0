"""Packets at random: everything mixed, from a seed, the same for both sides.

--long sends 20,000; --seed N starts elsewhere. A failure names the seed and the packet's number.
Left out is what depends on the moment: options that ask for the time, hosts that nobody has, and a
sender's second redirect or refusal.
"""

import itertools
import random
import struct

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from addresses import LINKS, MTU, ROUTER4, ROUTER6, far4, far6, ip4, ip6, link_local, mac
from frames import raw_ether
from normalise import fold, is_redirect6

SYSCTLS = {f"ipv4/conf/{name}/send_redirects": 0 for name in ("all", *LINKS)}
SETUP = ["route add blackhole 198.51.100.0/28", "route add prohibit 198.51.100.32/28",
         "route add unreachable 198.51.100.16/28",
         f"route add 198.51.100.64/28 via {ip4('right', 2)} mtu 1000",
         "route add blackhole fd00:b1::/64", "route add prohibit fd00:b3::/64",
         f"route add fd00:b5::/64 via {ip6('right', 2)} mtu 1300"]
SHORT, LONG = 600, 20000
REFUSED = ("198.51.100.1", "198.51.100.17", "198.51.100.33", "203.0.113.9", "240.0.0.1")
ODD4 = ("0.0.0.0", "127.0.0.1", "224.0.0.5", "255.255.255.255", "10.1.0.255",
        "10.2.0.0", *sorted(ROUTER4))
ODD6 = ("::", "::1", "ff02::1", "ff0e::5", "fe80::1:3", "2001:db8::7", "fd00:b1::1", "fd00:b3::1",
        "fd00:2::", *sorted(ROUTER6))
SIZES = (0, 1, 4, 8, 20, 64, 100, 548, 1000, 1232, 1272, 1352, 1372, 1400, 1452)
OPTIONS4 = (b"\x01" * 4, b"\x00" * 4, b"\x94\x04\0\0", b"\x07\x07\x04\0\0\0\0\x01",
            b"\x07\x03\x04\x01", b"\x83\x07\x04\x0a\x02\x00\x02\x01", b"\x1e\x04\xaa\xbb",
            b"\x99\x04\xaa\xbb", b"\x1e\x00\0\0", b"\x1e\x09\0\0", b"\x82\x04\0\0", b"\x01" * 40)
CHAIN6 = (  # (kind, bytes after the next header field)
    (0, b"\0\x01\x04\0\0\0\0"), (0, b"\0\x05\x02\0\0\x01\0"), (0, b"\0\x1e\x04\0\0\0\0"),
    (0, b"\0\x5e\x04\0\0\0\0"), (0, b"\0\x9e\x04\0\0\0\0"), (0, b"\0\xde\x04\0\0\0\0"),
    (43, b"\0\0\0\0\0\0\0"), (43, b"\0\0\x01\0\0\0\0"), (44, b"\0\0\0\0\0\0\x01"),
    (44, b"\0\0\x01\0\0\0\x02"), (44, b"\0\0\x29\0\0\0\x03"), (51, b"\x01" + bytes(10)),
    (60, b"\0\x01\x04\0\0\0\0"), (60, b"\0\xde\x04\0\0\0\0"))


class Generator:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self._fresh = itertools.count()

    def link(self):
        return self.random.choice(("left", "left", "right", "wan", "other"))

    def fresh4(self):
        # Behind the left gateway; more than the fixed tests use, and enough for a long run.
        n = next(self._fresh)
        return f"10.101.{100 + n // 250 % 150}.{n % 250 + 1}"

    def transport(self, version):
        r = self.random
        body = Raw(r.randbytes(r.choice(SIZES)))
        kind = r.randrange(8)
        if kind <= 2:
            packet = UDP(sport=r.randrange(65536), dport=r.randrange(65536)) / body
            if r.random() < 0.2:
                packet.chksum = r.choice((0, 0xffff, 0x1234))
            return 17, packet
        if kind <= 4:
            return 6, TCP(sport=r.randrange(65536), dport=r.randrange(65536),
                          seq=r.getrandbits(32), ack=r.getrandbits(32), flags=r.randrange(256),
                          window=r.randrange(65536)) / body
        if kind == 5 and version == 4:
            kind = r.choice((0, 3, 4, 5, 8, 8, 11, 12, 30))
            return 1, ICMP(type=kind, code=r.randrange(4)) / body
        if kind == 5:
            return 58, Raw(bytes((r.choice((1, 2, 3, 4, 100, 128, 128, 129, 200)), 0)) +
                           r.randbytes(6)) / body
        return r.choice((0, 2, 47, 50, 59, 99, 132, 255)), body

    def addresses(self, link, own, far, odd):
        r = self.random
        out = r.choice([other for other in LINKS if other != link])
        destination = r.choices((own(out, 2), own(out, r.randrange(3, 10)), far(out, 9), own(link),
                                 own(out), r.choice(odd)), (4, 2, 4, 2, 1, 2))[0]
        source = r.choices((own(link, r.randrange(2, 10)), far(link, r.randrange(1, 200)),
                            far("wan", 3), r.choice(odd)), (4, 4, 1, 1))[0]
        return source, destination

    def ipv4(self, link):
        r = self.random
        source, destination = self.addresses(link, ip4, far4, ODD4)
        if r.random() < 0.1:
            destination = r.choice(REFUSED)
        if destination in REFUSED or r.random() < 0.2:
            source = self.fresh4()
        elif r.random() < 0.1:
            destination = "198.51.100.65"
        protocol, payload = self.transport(4)
        payload = bytes(IP(src=source, dst=destination, proto=protocol) / payload)[20:]
        options = b"".join(r.choices(OPTIONS4, k=r.randint(1, 2))) if r.random() < 0.1 else b""
        options = options[:40]
        fragment = r.choices((0, 0x4000, 0x2000, r.randrange(65536)), (12, 4, 1, 1))[0]
        payload = payload[:1480 - len(options)]
        header = bytearray(struct.pack(
            "!BBHHHBBH", 0x45 + len(options) // 4, r.choice((0, 0, 0xb8, r.randrange(256))),
            20 + len(options) + len(payload), r.randrange(65536), fragment,
            r.choices((64, 0, 1, 2, 255), (12, 1, 2, 1, 1))[0], protocol, 0))
        packet = header + _packed4(source) + _packed4(destination) + options + payload
        if r.random() < 0.05:
            # Not the addresses: hosts that nobody has would be asked for, for seconds.
            at = r.choice((*range(0, 10), *range(20, min(len(packet), 60))))
            packet[at] ^= 1 << r.randrange(8)
        if r.random() < 0.97:
            length = min(max((packet[0] & 15) * 4, 20), len(packet) & ~1)
            packet[10:12] = b"\0\0"
            packet[10:12] = struct.pack("!H", ~fold(bytes(packet[:length])) & 0xffff)
        return bytes(packet), 0x0800

    def ipv6(self, link):
        r = self.random
        source, destination = self.addresses(link, ip6, far6, ODD6)
        if r.random() < 0.05:
            destination = "fd00:b5::1"
        elif r.random() < 0.05:
            source = link_local(link, 3)
        protocol, payload = self.transport(6)
        payload = bytes(IPv6(src=source, dst=destination, nh=protocol) / payload)[40:]
        chain = r.choices(CHAIN6, k=r.randint(1, 3)) if r.random() < 0.15 else []
        kinds = [kind for kind, _ in chain] + [protocol]
        headers = b"".join(bytes([kinds[i + 1]]) + rest for i, (_, rest) in enumerate(chain))
        payload = (headers + payload)[:1460]
        packet = bytearray(struct.pack(
            "!IHBB", 6 << 28 | r.choice((0, r.getrandbits(28))), len(payload), kinds[0],
            r.choices((64, 0, 1, 2, 255), (12, 1, 2, 1, 1))[0]))
        packet += bytes(IPv6(src=source, dst=destination))[8:40] + payload
        if r.random() < 0.05:
            at = r.choice((*range(0, 8), *range(40, min(len(packet), 80))))
            packet[at] ^= 1 << r.randrange(8)
        return bytes(packet), 0x86dd

    def frame(self):
        r = self.random
        link = self.link()
        packet, ether_type = self.ipv4(link) if r.random() < 0.55 else self.ipv6(link)
        destination = r.choices((mac(link), "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01",
                                 mac(link, 7)), (40, 1, 1, 1))[0]
        if r.random() < 0.03:
            packet = packet[:r.randrange(len(packet))]
        elif r.random() < 0.2:
            packet += bytes(r.randrange(1, 20))
        return link, raw_ether(packet[:MTU[link]], ether_type, link=link, dst=destination)


def _packed4(address):
    return bytes(map(int, address.split(".")))


def test_random_packets(rig, request):
    seed = request.config.getoption("--seed")
    generator = Generator(seed)
    answered = 0
    for number in range(LONG if request.config.getoption("--long") else SHORT):
        link, frame = generator.frame()
        answered += bool(rig.compare(f"--seed {seed}, packet {number}", link, frame,
                                     leave_out=is_redirect6))
    assert answered > number / 4, "hardly a packet came through: the test tests nothing"
