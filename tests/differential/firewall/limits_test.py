"""Floods: whatever is full, it is bounded and counted, and everybody else is still served.

Sluice's own limits, so this is no comparison: it is put under load, and the kernel beside it only
shows that the load is what it should be.
"""

import random
import re
import socket
import time

import pytest

import wire
from flows import Flows
from traffic import Hosts, addressed
from twins import SluiceTwin, frame_of
from wire import ACK, SYN

FLOWS, FRAGMENTS = 4096, 256
CONFIG = f"""limits:
  flows: {FLOWS}
  fragments: {FRAGMENTS}
"""
RULES = """
table inet t {
  chain forward {
    type filter hook forward priority 0; policy drop;
    ct state established,related counter accept
    ct state new counter accept
    counter
  }
}
"""
NAT = """
table ip nat {
  chain post {
    type nat hook postrouting priority 100; policy accept;
    oifname wan meta l4proto udp ip daddr <wan.1> counter masquerade to :2000-2009
    oifname wan counter masquerade
  }
}
"""


@pytest.fixture
def router(twins_with):
    return twins_with(config=CONFIG)


def metric(twins, name, **labels):
    """Of Sluice; None where a second kernel stands in for it."""
    return twins.other.metric(name, **labels) if isinstance(twins.other, SluiceTwin) else None


def flood(twins, link, packets):
    """Sends to the second side only, with a pause at every hundred for what comes out."""
    side = twins.other
    for number, packet in enumerate(packets):
        side.send(link, frame_of(link, packet))
        if number % 100 == 99:
            assert side.wait_for(twins.sentinels_to(side)), "no longer answers"
    assert side.wait_for(twins.sentinels_to(side)), "no longer answers"


def connection(twins, hosts):
    flow = Flows(twins).add("tcp", hosts.left(1), hosts.wan(9), 4000, 80)
    flow.handshake()
    flow.exchange()
    twins.finish()
    return flow


def still_served(twins, flow):
    """A segment each way comes out."""
    twins.begin()
    flow.exchange(77)
    twins.finish()
    for side in twins.sides:
        out = [link for link, frame in side.frames if frame[12:14] == b"\x08\0"
               and len(frame) == 14 + 40 + 77]
        assert sorted(out) == ["left", "wan"], f"{side.name}: {out}"


def new_connection_served(twins, hosts, client):
    twins.begin()
    flow = Flows(twins).add("tcp", hosts.left(client), hosts.wan(8), 4321, 443)
    flow.handshake()
    twins.finish()
    for side in twins.sides:
        assert len([link for link, frame in side.frames if frame[12:14] == b"\x08\0"]) == 3, side.name


def accounted(twins):
    """The conservation law, and no frame lost."""
    if not isinstance(twins.other, SluiceTwin):
        return
    side = twins.other
    received = side.metric("sluice_received_packets_total")
    explained = sum(side.metric(f"sluice_{name}") for name in (
        "forwarded_packets_total", "local_packets_total", "punted_packets_total",
        "dropped_packets_total", "merged_packets_total", "held_packets"))
    assert received == explained


def random_sources(rng, hosts, count, make):
    for _ in range(count):
        source = f"11.{rng.randrange(200, 250)}.{rng.randrange(256)}.{rng.randrange(1, 255)}"
        yield make(source, rng.randrange(1024, 65536), hosts)


def test_syn_flood(router):
    router.load(RULES)
    hosts = Hosts(router, 4)
    flow = connection(router, hosts)
    rng = random.Random(1)
    flood(router, "left", random_sources(
        rng, hosts, 3 * FLOWS, lambda source, port, to: wire.tcp(source, to.wan(7), port, 80, SYN)))
    if metric(router, "sluice_ready") is not None:
        assert metric(router, "sluice_table_used", table="flows") <= FLOWS
        assert metric(router, "sluice_table_limit", table="flows") == FLOWS
    still_served(router, flow)
    new_connection_served(router, hosts, 2)
    accounted(router)


def test_table_overflow_by_one_source(router):
    """Complete UDP conversations, which are not half open, from a single host."""
    router.load(RULES)
    hosts = Hosts(router, 4)
    flow = connection(router, hosts)
    for first in range(0, 3 * FLOWS, 1000):
        ports = range(1024 + first, 1024 + first + 1000)
        flood(router, "left", (wire.udp(hosts.left(5), hosts.wan(5), p, 53, b"q") for p in ports))
        flood(router, "wan", (wire.udp(hosts.wan(5), hosts.left(5), 53, p, b"a") for p in ports))
    used = metric(router, "sluice_table_used", table="flows")
    assert used is None or used <= FLOWS
    still_served(router, flow)
    new_connection_served(router, hosts, 2)
    accounted(router)


def exhaustion_is_told(side, hosts):
    """By counters, by a line in the log for all of them (two, if it was just being written), and to each
    client but the first, who has the ports, by an ICMP error, of which there is a limited number."""
    assert side.metric("sluice_dropped_packets_total", reason="nat_exhausted") == 40
    assert side.metric("sluice_nat_exhausted_total") == 40
    told = {frame[30:34] for link, frame in side.frames
            if link == "left" and frame[23] == wire.ICMP and frame[34:36] == b"\x03\x01"}
    assert told == {socket.inet_aton(hosts.left(client)) for client in range(2, 6)}
    said = []
    deadline = time.monotonic() + 10
    while sum(said) < 40 and time.monotonic() < deadline:
        said = [int(n) for n in re.findall(r"warning: NAT has no free port .*: (\d+) new connections "
                                           r"refused", side.topology.read_log())]
        time.sleep(0.02)
    assert sum(said) == 40 and len(said) <= 2


def test_port_exhaustion(router):
    router.load(addressed(RULES + NAT, router.round + 1, 4))
    hosts = Hosts(router, 4)
    flow = connection(router, hosts)
    router.begin()
    for client in range(1, 6):
        for port in range(4000, 4010):
            router.send("left", wire.udp(hosts.left(client), hosts.wan(1), port, 53, b"question"))
    router.finish()
    for side in router.sides:
        out = {wire.port(frame[14:], wire.layout(frame[14:]).source_port)
               for link, frame in side.frames if link == "wan" and frame[23] == wire.UDP}
        assert out == set(range(2000, 2010)), f"{side.name}: {sorted(out)}"
    if isinstance(router.other, SluiceTwin):
        exhaustion_is_told(router.other, hosts)
    still_served(router, flow)
    new_connection_served(router, hosts, 2)
    accounted(router)


def test_fragment_flood(router):
    router.load(RULES)
    hosts = Hosts(router, 4)
    flow = connection(router, hosts)
    big = wire.udp(hosts.left(6), hosts.wan(6), 4000, 53, bytes(1200))
    first, second = wire.fragments(big, 800)

    def with_id(packet, ident):
        header = packet[:4] + ident.to_bytes(2, "big") + packet[6:10] + b"\0\0" + packet[12:20]
        checksum = ~wire.fold(header) & 0xffff
        return header[:10] + checksum.to_bytes(2, "big") + header[12:] + packet[20:]

    flood(router, "left", (with_id(first, n) for n in range(20 * FRAGMENTS)))
    flood(router, "left", (with_id(second, 30000 + n) for n in range(20 * FRAGMENTS)))
    held = metric(router, "sluice_table_used", table="fragments")
    assert held is None or held <= FRAGMENTS
    assert metric(router, "sluice_dropped_packets_total", reason="fragment_limit") != 0
    still_served(router, flow)
    accounted(router)
    if not isinstance(router.other, SluiceTwin):
        return  # the kernel takes no more fragments from anybody then
    # A datagram in pieces from somebody else is put together all the same.
    router.begin()
    other = Flows(router).add("udp", hosts.left(7), hosts.wan(7), 4000, 53)
    other.send(size=1200, split=(800,), ident=0x4321)
    router.finish()
    out = [frame for link, frame in router.other.frames if link == "wan"]
    assert len(out) == 2
    accounted(router)


def test_flood_of_acknowledgements_and_of_rubbish(router):
    """No connection is made of a segment without one where the rules want none, and what is invalid
    takes no room."""
    router.load(RULES.replace("ct state new counter accept", "ct state invalid counter drop\n"
                              "    tcp flags & (fin|syn|rst|ack) == syn counter accept\n"
                              "    udp dport 53 counter accept"))
    hosts = Hosts(router, 4)
    flow = connection(router, hosts)
    rng = random.Random(2)
    flood(router, "left", random_sources(rng, hosts, 2 * FLOWS, lambda source, port, to: wire.tcp(
        source, to.wan(7), port, 80, rng.choice((ACK, SYN | ACK, 0, 0x29)))))
    still_served(router, flow)
    new_connection_served(router, hosts, 2)
    accounted(router)


def test_meter_overflow(router):
    """A dynamic set that is full refuses, and does not grow."""
    router.load("""
table ip t {
  set seen { type ipv4_addr; size 100; flags dynamic; }
  chain f {
    type filter hook forward priority 0; policy accept;
    udp dport 53 add @seen { ip saddr limit rate 1/day burst 2 packets } counter accept
    udp dport 53 counter drop
  }
}
""")
    hosts = Hosts(router, 4)
    router.begin()
    for _ in range(3):
        for client in range(1, 201):
            router.send("left", wire.udp(hosts.left(client), hosts.wan(1), 4000, 53, b"x"))
    router.send("left", wire.udp(hosts.left(1), hosts.wan(1), 4000, 54, b"x"))
    router.check("a full meter")
