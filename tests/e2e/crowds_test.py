"""Many at once, through tcp_proxy: ten thousand idle connections, a thousand busy ones, and a flood
of SYNs while clients are served. Memory stays within what the README says, and comes back.

Two workers, veth with its defaults. Every test ends with the conservation law, all frames accounted
for, and no connection left but in TIME-WAIT.
"""

import collections
import contextlib
import hashlib
import os
import select
import socket
import struct

import pytest

from rig import Rig, Sluice, growing, input_chain, inside, wait_for

ROUTER, ROUTER6 = "10.77.1.1", "fd77:0:0:1::1"
PORT = 80
ENDS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "crowd_ends.py")
RESET = struct.pack("ii", 1, 0)  # SO_LINGER with 0: closing resets
BACKLOG = 1024  # of one listener, on each worker
FLOWS = 16384
PER_CONNECTION = 2048  # bytes, on top of the room that is had at the start


@pytest.fixture(scope="module")
def router():
    proxy = {"tcp_proxy": "crowd", "listen": [f"{ROUTER}:{PORT}", f"[{ROUTER6}]:{PORT}"],
             "backends": "10.77.2.2:9000"}
    with Rig(hosts=3, queues=2) as rig:
        rig.serve("h2", 9000, "/usr/bin/python3", "-B", ENDS, "echo", "10.77.2.2", "9000")
        rig.batch("router", "route add 198.18.0.0/16 via 10.77.3.2",
                  "-6 route add 2001:db8::/48 via fd77:0:0:3::2")
        with Sluice(rig, services=[proxy], workers={"count": 2},
                    limits={"flows": FLOWS}) as sluice:
            yield rig, sluice


@pytest.fixture
def sluice(sluice):
    yield sluice
    wait_for(lambda: not connections(sluice), lambda: str(connections(sluice)))
    wait_for(lambda: sluice.get("sluice_service_active") == 0, "nobody is served")


def connections(sluice):
    """By state, but for TIME-WAIT, which lasts a minute."""
    counts = collections.Counter()
    for name, labels, value in sluice.metrics().series:
        if name == "sluice_tcp_connections" and labels["state"] != "TIME-WAIT":
            counts[labels["state"]] += int(value)
    assert counts.keys() >= {"SYN-RECEIVED", "ESTABLISHED", "LAST-ACK"}
    return {state: count for state, count in counts.items() if count}


def resident(sluice):
    return sluice.get("process_resident_memory_bytes")


class Crowd:
    """Connections of host 1's, which this process waits for all at a time."""

    def __init__(self, rig):
        self.rig = rig
        self.sockets = {}
        self._poll = select.epoll()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for s in self.sockets.values():
            s.close()
        self._poll.close()

    def connect(self, count, at_a_time=500):
        for some in range(0, count, at_a_time):
            new = {}
            with inside(self.rig.namespace("h1")):
                for _ in range(min(at_a_time, count - some)):
                    s = socket.socket()
                    new[s.fileno()] = s
            for s in new.values():
                s.setblocking(False)
                s.connect_ex((ROUTER, PORT))
                self._poll.register(s, 0)
            self.sockets.update(new)
            self.exchange({d: b"hello" for d in new})

    def exchange(self, texts):
        """Sends each socket its text, and waits until it has come back."""
        rest = dict(texts)
        got = {d: [] for d in texts}
        missing = {d: len(text) for d, text in texts.items()}
        for d in texts:
            self._poll.modify(d, select.EPOLLIN | select.EPOLLOUT)
        while missing:
            ready = self._poll.poll(20)
            assert ready, f"{len(missing)} connections have stalled"
            for d, events in ready:
                s = self.sockets[d]
                if rest[d] and events & select.EPOLLOUT:
                    rest[d] = rest[d][s.send(rest[d]):]
                    if not rest[d]:
                        self._poll.modify(d, select.EPOLLIN)
                if events & (select.EPOLLIN | select.EPOLLERR | select.EPOLLHUP):
                    data = s.recv(1 << 16)
                    assert data, "the connection has ended"
                    got[d].append(data)
                    missing[d] -= len(data)
                    if missing[d] <= 0:
                        del missing[d]
                        self._poll.modify(d, 0)
        for d, text in texts.items():
            assert b"".join(got[d]) == text

    def leave(self, count, reset):
        for d in list(self.sockets)[:count]:
            s = self.sockets.pop(d)
            if reset:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            s.close()


def test_ten_thousand_idle_connections(rig, sluice):
    count = 10_000
    before = resident(sluice)
    with Crowd(rig) as crowd:
        crowd.connect(count)
        assert sluice.get("sluice_service_active", service="crowd") == count
        assert connections(sluice) == {"ESTABLISHED": 2 * count}
        wait_for(lambda: sluice.get("sluice_frames", state="sockets") == 0, "no frame is kept")
        assert resident(sluice) - before <= count * PER_CONNECTION
        crowd.exchange({d: b"still there" for d in crowd.sockets})
        # A reset is sent once, and too many in a burst would find no room in a receive ring.
        for left in range(count - 250, count // 2 - 1, -250):
            crowd.leave(250, reset=True)
            wait_for(lambda: sluice.get("sluice_service_active", service="crowd") == left,
                     f"{left} are left")
        assert connections(sluice) == {"ESTABLISHED": count}
        crowd.leave(count // 2, reset=False)


def test_thousand_busy_connections(rig, sluice):
    with Crowd(rig) as crowd:
        crowd.connect(1000)
        for size in [2 << 10] * 10 + [16 << 10]:
            crowd.exchange({d: os.urandom(size) for d in crowd.sockets})
        assert sluice.get("sluice_service_active", service="crowd") == 1000


TRACKED = "table inet tracked {%s}" % input_chain("tcp dport 80 ct state new accept")


@contextlib.contextmanager
def judged(rig, sluice, rules):
    generation = sluice.get("sluice_ruleset_generation")
    if rules:
        rig.run("router", "nft", "-f", rig.write("rules.nft", rules))
        wait_for(lambda: sluice.get("sluice_ruleset_generation") != generation, "rules in force")
    try:
        yield
    finally:
        rig.run("router", "nft", "flush", "ruleset")


@contextlib.contextmanager
def strangers(rig, sluice, what, address):
    """While it lasts, host 3 sends as many frames as it can."""
    process = rig.start("h3", "/usr/bin/python3", "-B", ENDS, what, "eth0",
                        rig.link("h3")["address"], address, str(PORT))
    before = sluice.get("sluice_received_packets_total", interface="h3")
    def floods():
        assert process.poll() is None, rig.read_log(process)
        return sluice.get("sluice_received_packets_total", interface="h3") > before + 10_000
    try:
        wait_for(floods, "they send")
        yield
    finally:
        rig.end(process)


def ask(rig, address):
    """One client: a connection, a kilobyte there and back, the end."""
    with inside(rig.namespace("h1")):
        s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    text = os.urandom(1024)
    with s:
        s.settimeout(20)
        s.connect((address, PORT))
        s.sendall(text)
        s.shutdown(socket.SHUT_WR)
        got = b""
        while data := s.recv(4096):
            got += data
    assert hashlib.sha256(got).digest() == hashlib.sha256(text).digest()


# Half-open connections are as many as the backlog allows, of all others only cookies tell; with
# rules, the table of connections is at its limit as well.
@pytest.mark.parametrize("address", [ROUTER, ROUTER6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("rules", ["", TRACKED], ids=["open", "tracked"])
def test_syn_flood(rig, sluice, rules, address):
    before = resident(sluice)
    reached = sluice.get("sluice_backend_connections_total", service="crowd")
    with judged(rig, sluice, rules), strangers(rig, sluice, "syns", address):
        with growing(sluice, "sluice_tcp_events_total", 50_000, event="syn_cookie_sent"):
            pass
        with growing(sluice, "sluice_tcp_events_total", 50_000, event="syn_cookie_sent"):
            for _ in range(50):
                ask(rig, address)
        assert sluice.get("sluice_tcp_events_total", event="syn_cookie_accepted") > 0
        assert 0 < connections(sluice)["SYN-RECEIVED"] <= 2 * BACKLOG
        assert sluice.get("sluice_conntrack_flows") <= (FLOWS if rules else 0)
        assert resident(sluice) - before <= 2 * BACKLOG * PER_CONNECTION + FLOWS * 256
    assert sluice.get("sluice_backend_connections_total", service="crowd") == reached + 50
    with strangers(rig, sluice, "resets", address):
        wait_for(lambda: not connections(sluice), lambda: str(connections(sluice)))
