"""Sluice's TCP and UDP sockets beside the kernel's: the same segments to a service and to a program
that does the same, well-formed or not, in or out of the state they are for."""

import itertools
import socket
import threading

import pytest
from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.inet6 import IPv6ExtHdrFragment, fragment6

from frames import data, ether, v4, v6
from segments import LINK, ROUTER, Conversation

ECHO, DISCARD, CLOSED = 7, 9, 4444
SLUICE = "services:\n" + "".join(
    f'  - {{{name}: {name}, listen: ["{ROUTER[4]}:{port}", "[{ROUTER[6]}]:{port}"]}}\n'
    for name, port in (("echo", ECHO), ("discard", DISCARD)))
# What limits answers to nonsense is not what is compared.
SYSCTLS = {"ipv4/tcp_invalid_ratelimit": 0, "ipv4/tcp_challenge_ack_limit": 1000000}
OPTIONS = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1000, 0)), ("NOP", None), ("WScale", 7)]
FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
IP_MTU_DISCOVER, IP_PMTUDISC_DONT = 10, 0
_PORTS = itertools.count(20000)


class Program:
    """The kernel's side of the services, on a thread for each of its sockets."""

    def __init__(self, namespace):
        self._sockets = []
        for family, version in ((socket.AF_INET, 4), (socket.AF_INET6, 6)):
            for port in (ECHO, DISCARD):
                s = namespace.socket(family, socket.SOCK_STREAM)
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                s.bind((ROUTER[version], port))
                s.listen(64)
                self._start(self._accept, s, port)
            s = namespace.socket(family, socket.SOCK_DGRAM)
            if version == 4:  # as Sluice's, its answers may be cut up on their way
                s.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
            s.bind((ROUTER[version], ECHO))
            self._start(self._datagrams, s)

    def _start(self, run, s, *arguments):
        self._sockets.append(s)
        threading.Thread(target=run, args=(s, *arguments), daemon=True).start()

    def _accept(self, listener, port):
        try:
            while True:
                s, _ = listener.accept()
                threading.Thread(target=self._serve, args=(s, port), daemon=True).start()
        except OSError:
            pass  # closed

    @staticmethod
    def _serve(s, port):
        try:
            with s:
                while received := s.recv(65536):
                    if port == ECHO:
                        s.sendall(received)
        except OSError:
            pass  # reset

    @staticmethod
    def _datagrams(s):
        while True:
            received, peer = s.recvfrom(65536)
            if peer is None:
                return  # closed
            if peer[1] != 0:  # where nothing can be sent
                s.sendto(received, peer)

    def close(self):
        for s in self._sockets:
            try:
                s.shutdown(socket.SHUT_RDWR)  # wakes its thread
            except OSError:
                pass  # a datagram socket without a peer, which is woken nevertheless
            s.close()


@pytest.fixture(scope="module", autouse=True)
def program(rig):
    made = Program(rig.sides[0].topology.router)
    yield made
    made.close()


@pytest.fixture
def talk(rig):
    """talk(family, port): a conversation, which is reset in the end."""
    made = []

    def begin(family, port=DISCARD):
        made.append(Conversation(rig, family, port, next(_PORTS)))
        return made[-1]

    yield begin
    for one in made:
        one.end()


@pytest.fixture
def connected(talk):
    """connected(family, port): after the handshake, with all options or with those given."""

    def begin(family, port=DISCARD, options=OPTIONS):
        one = talk(family, port)
        one.send("S", options=options)
        one.check("SA")
        one.send("A", 1, 1, options=stamp(options))
        return one

    return begin


def stamp(options, value=1001):
    return [("Timestamp", (value, 0))] if any(kind == "Timestamp" for kind, _ in options) else []


PLAIN = [("MSS", 1460)]
SACK = [("MSS", 1460), ("SAckOK", b"")]

# To a port that listens and has no connection: flags (and an ack of 5), what is answered.
UNASKED = {"S": "SA", "A": "R", "F": "", "R": "", "RA": "", "SF": "", "SR": "", "SA": "R", "": "",
           "FPU": "", "FA": "R", "PA": "R", "SU": "SA", "SP": "SA", "SEC": "SAE", "FSRPAU": "",
           "P": "", "U": ""}


@FAMILIES
@pytest.mark.parametrize("flags", UNASKED, ids=lambda flags: flags or "none")
def test_listener(talk, family, flags):
    one = talk(family)
    one.send(flags, 0, 5)
    one.check(UNASKED[flags])


CLOSED_PORT = {"S": "RA", "A": "R", "F": "RA", "R": "", "SA": "R", "": "RA", "FPU": "RA",
               "FA": "R"}


@FAMILIES
@pytest.mark.parametrize("flags", CLOSED_PORT, ids=lambda flags: flags or "none")
def test_closed_port(talk, family, flags):
    one = talk(family, CLOSED)
    one.send(flags, 0, 5)
    one.check(CLOSED_PORT[flags])


SYNS = {
    "no-options": {"options": []},
    "mss": {"options": PLAIN},
    "sack": {"options": SACK},
    "all-options": {"options": OPTIONS},
    "timestamps": {"options": [("Timestamp", (7, 0))]},
    "unknown-option": {"options": [("MSS", 1400), (200, b"abc")]},
    "data": {"data": b"early", "options": PLAIN},
    "small-window": {"window": 1},
    "no-window": {"window": 0},
    "urgent": {"flags": "SU", "urgptr": 7},
    "reserved-bits": {"reserved": 7},
}


@FAMILIES
@pytest.mark.parametrize("name", SYNS)
def test_syn(talk, family, name):
    one = talk(family)
    fields = dict(SYNS[name])
    one.send(fields.pop("flags", "S"), **fields)
    one.check("SA")


BROKEN = {
    "checksum": {"chksum": 0x1234},
    "checksum-0": {"chksum": 0},
    "offset-4": {"dataofs": 4},
    "offset-beyond-the-end": {"dataofs": 15},
}


@FAMILIES
@pytest.mark.parametrize("name", BROKEN)
def test_broken_syn(talk, family, name):
    one = talk(family)
    one.send("S", **BROKEN[name])
    one.check("")


# --- Half-open ------------------------------------------------------------------------------------


@FAMILIES
def test_syn_again(talk, family):
    one = talk(family)
    for _ in range(2):
        one.send("S", options=PLAIN)
    one.check("SA SA")


def half_open(talk, family):
    one = talk(family)
    one.send("S", options=PLAIN)
    one.check("SA")
    return one


@FAMILIES
@pytest.mark.parametrize("ack", [0, 2, 1000])
def test_handshake_with_a_wrong_ack(talk, family, ack):
    one = half_open(talk, family)
    one.send("A", 1, ack)
    one.check("SA R")


@FAMILIES
def test_reset_of_a_handshake(talk, family):
    one = half_open(talk, family)
    one.send("R", 1)
    one.send("A", 1, 1)  # nobody knows it any more
    one.check("SA R")


@FAMILIES
def test_data_with_the_handshake(talk, family):
    one = half_open(talk, family)
    one.send("PA", 1, 1, b"hello")
    one.check("SA A")


# --- Connected ------------------------------------------------------------------------------------

# What follows a handshake: (flags, seq, ack, data), and what is answered to that.
FAR = 1 << 30  # beyond any window
CONNECTED = {
    "data": [("PA", 1, 1, b"x" * 100, "A")],
    "data-behind-the-window": [("PA", FAR, 1, b"x", "A")],
    "data-before-the-window": [("PA", -1000, 1, b"x" * 10, "A")],
    "data-again": [("PA", 1, 1, b"x" * 10, "A")] * 2,
    "data-that-overlaps": [("PA", 1, 1, b"x" * 10, "A"), ("PA", 6, 1, b"x" * 10, "A")],
    "gap": [("PA", 101, 1, b"y" * 10, "A")],
    "two-gaps": [("PA", 101, 1, b"y" * 10, "A"), ("PA", 301, 1, b"z" * 10, "A")],
    "gap-that-is-filled": [("PA", 11, 1, b"y" * 10, "A"), ("PA", 1, 1, b"x" * 10, "A")],
    "keepalive": [("A", 0, 1, b"", "A")],
    "keepalive-with-a-byte": [("A", 0, 1, b"x", "A")],
    "ack-behind-the-window": [("A", FAR, 1, b"", "A")],
    "ack-in-the-window": [("A", 100, 1, b"", "")],
    "ack-again": [("A", 1, 1, b"", "")],
    "ack-of-what-was-not-sent": [("A", 1, 5, b"", "A")],
    "ack-of-what-was-not-sent-with-data": [("PA", 1, 5, b"x", "A")],
    "ack-of-long-ago": [("A", 1, -FAR, b"", "A")],
    "ack-of-long-ago-with-data": [("PA", 1, -FAR, b"x", "A")],
    "no-ack-flag": [("P", 1, None, b"x", "")],
    "no-flags": [("", 1, None, b"x", "")],
    "syn": [("S", 0, None, b"", "A")],
    "syn-in-the-window": [("S", 100, None, b"", "A")],
    "syn-ack": [("SA", 0, 1, b"", "A")],
    "reset": [("R", 1, None, b"", ""), ("A", 1, 1, b"", "R")],
    "reset-in-the-window": [("R", 2, None, b"", "A")],
    "reset-behind-the-window": [("R", FAR, None, b"", "")],
    "reset-before-the-window": [("R", 0, None, b"", "")],
    "reset-with-ack": [("RA", 1, 1, b"", ""), ("A", 1, 1, b"", "R")],
    "end": [("FA", 1, 1, b"", "FA")],
    "end-and-its-acknowledgment": [("FA", 1, 1, b"", "FA"), ("A", 2, 2, b"", ""),
                                   ("A", 2, 2, b"", "R")],
    "end-with-data": [("FPA", 1, 1, b"last", "FA")],
    "end-behind-the-window": [("FA", FAR, 1, b"", "A")],
}


@FAMILIES
@pytest.mark.parametrize("options", [PLAIN, SACK, OPTIONS], ids=["plain", "sack", "all"])
@pytest.mark.parametrize("name", CONNECTED)
def test_connected(connected, family, options, name):
    one = connected(family, options=options)
    said = "SA"
    for flags, seq, ack, data_, answers in CONNECTED[name]:
        one.send(flags, seq, ack, data_, options=stamp(options))
        said = f"{said} {answers}"
        one.check(said)


# Without SACK: the kernel would report the FIN alone by it, Sluice reports data.
@FAMILIES
def test_end_before_its_data(connected, family):
    one = connected(family, options=PLAIN)
    one.send("FA", 5, 1)
    one.check("SA A")
    one.send("PA", 1, 1, b"last")
    one.check("SA A FA")


@FAMILIES
def test_broken_checksum(connected, family):
    one = connected(family, options=PLAIN)
    one.send("PA", 1, 1, b"hello", chksum=0x1234)
    one.check("SA")
    one.send("PA", 1, 1, b"hello")
    one.check("SA A")


@FAMILIES
def test_timestamp_of_the_past(connected, family):
    one = connected(family)
    one.send("PA", 1, 1, b"hello", options=stamp(OPTIONS, 2000))
    one.check("SA A")
    one.send("PA", 6, 1, b"hello", options=stamp(OPTIONS, 1500))  # PAWS, RFC 7323 section 5
    one.check("SA A A")


# --- Echo -----------------------------------------------------------------------------------------


@FAMILIES
@pytest.mark.parametrize("options", [PLAIN, OPTIONS], ids=["plain", "all"])
def test_echo(connected, family, options):
    one = connected(family, ECHO, options)
    one.send("PA", 1, 1, b"hello", options=stamp(options))
    one.check("SA PA")
    one.send("A", 6, 6, options=stamp(options))
    one.check("SA PA")
    one.send("FA", 6, 6, options=stamp(options))
    one.check("SA PA FA")


@FAMILIES
def test_echo_into_a_half_closed_connection(connected, family):
    one = connected(family, ECHO, PLAIN)
    one.send("FPA", 1, 1, b"hello")
    one.check("SA PA FA")


# --- Datagrams ------------------------------------------------------------------------------------

SIZES = (0, 1, 2, 17, 1000, 1400)
DATAGRAMS = {
    **{f"size-{n}": {"size": n} for n in SIZES},
    "checksum-wrong": {"chksum": 0x1234},
    "no-checksum": {"chksum": 0},
    "length-too-small": {"len": 7},
    "length-within": {"len": 12},
    "length-beyond-the-end": {"len": 100},
    "from-port-0": {"sport": 0},
    "to-port-0": {"dport": 0},
    "closed-port": {"dport": CLOSED},
}
ANSWERED = {*(f"size-{n}" for n in SIZES), "closed-port", "to-port-0"}


def datagram(family, size=10, **fields):
    ip = v4(dst=ROUTER[4]) if family == 4 else v6(dst=ROUTER[6])
    return ip / UDP(**{"sport": 4000, "dport": ECHO, **fields}) / data(size)


@FAMILIES
@pytest.mark.parametrize("name", DATAGRAMS)
def test_datagram(rig, family, name):
    answered = name in ANSWERED or (name == "no-checksum" and family == 4)
    rig.compare(name, LINK, ether(datagram(family, **DATAGRAMS[name])), expect_output=answered)


# In IPv6 the kernel takes it for a jumbogram, with or without the option that makes one (RFC 2675).
def test_datagram_of_length_0(rig):
    rig.compare("length 0", LINK, ether(datagram(4, len=0)), expect_output=False)
    rig.exchange(LINK, ether(datagram(6, len=0)))
    assert rig.outputs()[1] == {}


@FAMILIES
@pytest.mark.parametrize("size", [1473, 4000, 20000])
def test_datagram_in_fragments(rig, family, size):
    if family == 4:
        pieces = fragment(IP(bytes(datagram(4, size))), fragsize=1480)
    else:
        whole = v6(dst=ROUTER[6]) / IPv6ExtHdrFragment(id=size) / UDP(sport=4000, dport=ECHO)
        pieces = fragment6(whole / data(size), 1280)
    for i, piece in enumerate(pieces):
        rig.compare(f"piece {i} of {size}", LINK, ether(piece),
                    expect_output=i + 1 == len(pieces))
