"""Real programs on either side of the services, and peers that end abruptly: nginx as a server and
as a client, ssh, kxdpgun, nmap; connections that one end has forgotten, ends that have vanished.

Two workers, veth with its defaults. Every test ends with the conservation law, all frames accounted
for, and none of them kept by a socket.
"""

import concurrent.futures
import contextlib
import fcntl
import hashlib
import os
import re
import socket
import struct
import termios
import threading

import pytest

from programs import DnsServer, FileServer, SshServer, serving, url
from rig import Rig, Sluice, growing, inside, wait_for

ROUTER = {4: "10.77.1.1", 6: "fd77:0:0:1::1"}
FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
EITHER = pytest.mark.parametrize("name,port", [("raw", 81), ("ended", 83)])
RESET = struct.pack("ii", 1, 0)  # SO_LINGER with 0: closing resets
SESSIONS = 2048


def listen(port):
    return [f"{ROUTER[4]}:{port}", f"[{ROUTER[6]}]:{port}"]


SERVICES = [
    {"tcp_proxy": "files", "listen": listen(80), "backends": "10.77.2.2:8080"},
    {"tcp_proxy": "ssh", "listen": listen(2222), "backends": "[fd77:0:0:2::2]:22"},
    {"tcp_proxy": "raw", "listen": listen(81), "backends": "10.77.2.2:9000"},
    # Both connections of a relay end here all the time.
    {"tcp_proxy": "ended", "listen": listen(83), "backends": "10.77.2.2:9000", "splice": "off"},
    # For ends that vanish.
    {"tcp_proxy": "brief", "listen": listen(82), "backends": "10.77.2.2:9000",
     "idle_timeout": "500ms"},
    {"udp_proxy": "dns", "listen": [*listen(53), "10.77.3.1:53"], "backends": "10.77.2.2:53",
     "idle_timeout": "1s"},
    {"echo": "echo", "listen": listen(7)},
]


@pytest.fixture(scope="module")
def router():
    with Rig(hosts=3, queues=2) as rig:
        # kxdpgun looks at one receive queue only, so host 3 has no other.
        rig.run("router", "ip", "link", "delete", "h3")
        rig.add_pair("h3")
        rig.run("h3", "ethtool", "-K", "eth0", "gro", "on")
        with Sluice(rig, services=SERVICES, workers={"count": 2},
                    limits={"udp_sessions": SESSIONS}) as sluice:
            yield rig, sluice


@pytest.fixture
def sluice(sluice):
    yield sluice
    wait_for(lambda: sluice.get("sluice_frames", state="sockets") == 0, "no frame is kept")


@pytest.fixture(scope="module")
def files(router):
    return FileServer(router[0], "h2", 8080, more="dav_methods PUT; client_max_body_size 100m;")


@contextlib.contextmanager
def connected(rig, port, family=4, source_port=0, timeout=20):
    with inside(rig.namespace("h1")):
        s = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6)
    with s:
        s.settimeout(timeout)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("", source_port))
        s.connect((ROUTER[family], port))
        yield s


def active(sluice, name):
    return sluice.get("sluice_service_active", service=name)


def accepted(sluice, name):
    return sluice.get("sluice_service_accepted_total", service=name)


def digest_of(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def upload_and_download(rig, target):
    """PUTs and GETs twenty megabytes by one connection of curl's."""
    sent = rig.write("sent", os.urandom(20 << 20))
    got = rig.path("got")
    rig.run("h1", "curl", "-sS", "-g", "-f", "-m", "30", "-T", sent, target)
    rig.run("h1", "curl", "-sS", "-g", "-f", "-m", "30", "-o", got, target)
    assert digest_of(got) == digest_of(sent)


@FAMILIES
def test_nginx_behind_the_proxy(rig, sluice, files, family):
    upload_and_download(rig, url(ROUTER[family], 80, f"put{family}"))
    wait_for(lambda: active(sluice, "files") == 0, "connections end")


REVERSE = """
daemon off; master_process off; pid {path}.pid; error_log stderr;
events {{ worker_connections 64; }}
http {{
  access_log off; client_max_body_size 100m;
  client_body_temp_path {path}-b; proxy_temp_path {path}-p; fastcgi_temp_path {path}-f;
  uwsgi_temp_path {path}-u; scgi_temp_path {path}-s;
  upstream sluice {{ server {upstream}; keepalive 4; }}
  server {{
    listen [::]:8090 ipv6only=off;
    location / {{
      proxy_pass http://sluice; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_request_buffering off;
    }}
  }}
}}
"""


# nginx keeps its connections to the proxy: twelve requests, and hardly any connections.
@FAMILIES
def test_nginx_before_the_proxy(rig, sluice, files, family):
    upstream = f"{ROUTER[4]}:80" if family == 4 else f"[{ROUTER[6]}]:80"
    config = rig.write("reverse.conf", REVERSE.format(path=rig.path(f"reverse{family}"),
                                                      upstream=upstream))
    nginx = rig.serve("h3", 8090, "nginx", "-e", "stderr", "-c", config)
    before = accepted(sluice, "files")
    upload_and_download(rig, url("10.77.3.2", 8090, f"far{family}"))
    for _ in range(10):
        said = rig.run("h1", "curl", "-sS", "-f", "-o", rig.path("got"),
                       url("10.77.3.2", 8090, "file"))
        assert digest_of(rig.path("got")) == files.digest, said.stdout
    assert 1 <= accepted(sluice, "files") - before <= 4
    rig.end(nginx)
    wait_for(lambda: active(sluice, "files") == 0, "connections end")


@pytest.fixture(scope="module")
def sshd(router):
    server = SshServer(router[0], "h2", 22)
    server.port = 2222
    return server


@FAMILIES
def test_ssh(rig, sluice, sshd, family):
    said = sshd.run("h1", ROUTER[family], "echo $SSH_CONNECTION; exit 3", check=False)
    assert said.returncode == 3
    assert said.stdout.split()[0] == "fd77:0:0:2::1"  # the proxy, which is on IPv6 there
    there, back = rig.path("there"), rig.path("back")
    content = rig.write("content", os.urandom(5 << 20))
    sshd.copy("h1", ROUTER[family], content, there)
    assert digest_of(there) == digest_of(content)
    sshd.fetch("h1", ROUTER[family], there, back)
    assert digest_of(back) == digest_of(content)
    wait_for(lambda: active(sluice, "ssh") == 0, "connections end")


@pytest.fixture(scope="module")
def resolver(router):
    return DnsServer(router[0], "h2")


def kxdpgun(rig, *options):
    """Runs it on host 3; (queries sent, answers, answers that say NOERROR)."""
    questions = rig.write("questions", "".join(f"n{i}.test A\n" for i in range(100)))
    rig.ping("h3", "10.77.3.1")  # kxdpgun wants to know the neighbour
    said = rig.run("h3", "kxdpgun", "-I", "eth0", "-i", questions, *options, "10.77.3.1").stdout
    def number(pattern):
        return sum(map(int, re.findall(pattern, said)))
    return (number(r"total queries: +(\d+)"), number(r"total replies: +(\d+)"),
            number(r"responded NOERROR: +(\d+)"))


def messages(sluice):
    return [sluice.get("sluice_service_messages_total", service="dns", direction=d)
            for d in ("in", "out")]


# Each question comes from another port, so more than there may be sessions.
def test_kxdpgun(rig, sluice, resolver):
    before = messages(sluice)
    queries, replies, good = kxdpgun(rig, "-t", "0.5", "-Q", "10000")
    assert queries > 2 * SESSIONS
    assert replies == good > 0.95 * queries
    after = messages(sluice)
    assert after[0] - before[0] <= queries
    assert after[1] - before[1] >= replies
    assert sluice.get("sluice_service_failures_total", service="dns", reason="evicted") > 0
    wait_for(lambda: active(sluice, "dns") == 0, "sessions end")


# As fast as it goes; somebody else is answered nevertheless, if not at the first attempt.
def test_kxdpgun_floods(rig, sluice, resolver):
    before = messages(sluice)
    flood = rig.start("h3", "kxdpgun", "-I", "eth0", "-t", "1", "-Q", "10000000", "-i",
                      rig.write("questions", "flood.test A\n"), "10.77.3.1")
    wait_for(lambda: messages(sluice)[0] > before[0] + 5000, "it floods")
    done = rig.run("h1", "kdig", f"@{ROUTER[4]}", "+short", "+timeout=1", "+retry=20",
                   *[f"n{i}.test" for i in range(20)])
    answers = [line for line in done.stdout.splitlines() if not line.startswith(";;")]
    assert answers == [DnsServer.ANSWER] * 20, done.stdout
    assert active(sluice, "dns") <= 2 * SESSIONS
    assert flood.wait(timeout=20) == 0, rig.read_log(flood)
    wait_for(lambda: active(sluice, "dns") == 0, "sessions end")


# Judged by rules that drop what is no connection, and by none.
STRICT = """
table inet strict {
    chain input {
        type filter hook input priority filter; policy accept;
        ct state invalid counter drop comment "invalid"
    }
}
"""
# -sW looks at the window of resets, -sM at what a FIN with an ACK meets.
SCANS = ["-sS", "-sT", "-sN", "-sF", "-sX", "-sA", "-sW", "-sM"]


def scan(rig, kind, address):
    """What nmap says of port 7, which is Sluice's, 8081, the kernel's, and 9, nobody's."""
    said = rig.run("h1", "nmap", "-n", "-Pn", *(["-6"] if ":" in address else []), kind,
                   "--max-retries", "1", "--max-rtt-timeout", "300ms", "--reason", "-p",
                   "7,9,8081", address).stdout
    found = {int(port): (state, reason) for port, state, reason in re.findall(
        r"^(\d+)/tcp +(\S+) +\S+ +(\S+)", said, re.MULTILINE)}
    assert set(found) == {7, 9, 8081}, said
    return found


@pytest.mark.parametrize("family, rules", [(4, ""), (4, STRICT), (6, "")],
                         ids=["ipv4", "ipv4-strict", "ipv6"])
def test_nmap_sees_no_difference(rig, sluice, family, rules):
    kernels = rig.serve("router", 8081, "/usr/bin/python3", "-c", """
import socket
s = socket.create_server(("::", 8081), family=socket.AF_INET6, dualstack_ipv6=True)
while True: s.accept()[0].close()
""")
    if rules:
        generation = sluice.get("sluice_ruleset_generation")
        rig.run("router", "nft", "-f", rig.write("strict.nft", rules))
        wait_for(lambda: sluice.get("sluice_ruleset_generation") != generation, "rules in force")
    try:
        with concurrent.futures.ThreadPoolExecutor(len(SCANS)) as pool:
            verdicts = dict(zip(SCANS, pool.map(lambda kind: scan(rig, kind, ROUTER[family]),
                                                SCANS)))
    finally:
        rig.end(kernels)
        if rules:
            rig.run("router", "nft", "delete", "table", "inet", "strict")
    assert {s: v[7] for s, v in verdicts.items()} == {s: v[8081] for s, v in verdicts.items()}
    assert verdicts["-sS"][7] == ("open", "syn-ack")
    assert verdicts["-sS"][9] == ("closed", "reset")
    assert verdicts["-sN"][7] == ("open|filtered", "no-response")


def failed(sluice, name, reason):
    return sluice.get("sluice_service_failures_total", service=name, reason=reason)


@contextlib.contextmanager
def cut_off(rig, host, *rules):
    """While it lasts, a host's own firewall drops what the rules say of its TCP."""
    rig.run(host, "nft", "add table ip cut; add chain ip cut in { type filter hook input priority "
            "0; }; add chain ip cut out { type filter hook output priority 0; };" + ";".join(
                f"add rule ip cut {chain} tcp {match} drop" for chain, match in rules))
    try:
        yield
    finally:
        rig.run(host, "nft", "delete table ip cut")


class Backend:
    """Host 2's: sends or receives as much as it can, or echoes; notes how its connections ended."""

    def __init__(self, what):
        self.what = what
        self.moved = 0
        self.ended = []

    def __call__(self, s):
        block = bytes(1 << 16)
        try:
            with s:
                while True:
                    if self.what == "send":
                        self.moved += s.send(block)
                    else:
                        data = s.recv(1 << 16)
                        if not data:
                            break
                        self.moved += len(data)
                        if self.what == "echo":
                            s.sendall(data)
            self.ended.append("end")
        except OSError as error:
            self.ended.append(type(error).__name__)


def serve(rig, what):
    backend = Backend(what)
    return backend, serving(rig, "h2", "10.77.2.2", 9000, backend)


def send_until_reset(s, at_least=0):
    """Sends as much as goes until the connection is reset; how much that was."""
    sent = 0
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        while True:
            sent += s.send(bytes(1 << 16))
    assert sent > at_least
    return sent


# Many who do not read, each with a server that has no end of data for it: they have their part of
# the memory, and whoever reads is served as ever.
@EITHER
def test_readers_that_stop(rig, sluice, files, name, port):
    backend, server = serve(rig, "send")
    with server, contextlib.ExitStack() as stack:
        readers = [stack.enter_context(connected(rig, port)) for _ in range(100)]
        for s in readers:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            assert s.recv(1)
        def kept():
            return sluice.get("sluice_frames", state="sockets")
        if name == "ended":
            wait_for(lambda: kept() > 1000, lambda: f"{kept()} frames wait for readers")
        else:  # the senders keep it themselves
            wait_for(lambda: kept() == 0, lambda: f"{kept()} frames wait for readers")
        files.port = 80
        for family in (4, 6):
            files.check_download("h1", ROUTER[family])
        files.port = 8080
        assert kept() <= sluice.get("sluice_table_limit", table="frames") / 2
        assert active(sluice, name) == len(readers)
    wait_for(lambda: len(backend.ended) == len(readers), lambda: str(len(backend.ended)))
    wait_for(lambda: active(sluice, name) == 0, "they have ended")


# The network between is full of data when one end resets.
@EITHER
def test_client_resets_in_mid_download(rig, sluice, name, port):
    backend, server = serve(rig, "send")
    with server, growing(sluice, "sluice_service_failures_total", 1, service=name,
                         reason="client_reset"):
        with connected(rig, port) as s:
            got = 0
            while got < 5_000_000:
                got += len(s.recv(1 << 16))
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        wait_for(lambda: backend.ended == ["ConnectionResetError"], lambda: str(backend.ended))
    wait_for(lambda: active(sluice, name) == 0, "it has ended")


@EITHER
def test_backend_resets_in_mid_upload(rig, sluice, name, port):
    def serve_and_reset(s):
        got = 0
        while got < 5_000_000:
            got += len(s.recv(1 << 16))
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        s.close()
    with serving(rig, "h2", "10.77.2.2", 9000, serve_and_reset), growing(
            sluice, "sluice_service_failures_total", 1, service=name, reason="backend_reset"):
        with connected(rig, port) as s:
            send_until_reset(s, 5_000_000)
    wait_for(lambda: active(sluice, name) == 0, "it has ended")


# An end that says nothing any more is given up after the idle timeout, and the other end is told.
def test_client_vanishes_in_mid_download(rig, sluice):
    backend, server = serve(rig, "send")
    with server, connected(rig, 82) as s:
        s.recv(1000)
        before = failed(sluice, "brief", "idle_timeout")
        with cut_off(rig, "h1", ("in", "sport 82"), ("out", "dport 82")):
            wait_for(lambda: backend.ended, "the server hears of it")
            assert active(sluice, "brief") == 0
        assert backend.ended == ["ConnectionResetError"]
        assert failed(sluice, "brief", "idle_timeout") == before + 1
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def test_backend_vanishes_in_mid_upload(rig, sluice):
    backend, server = serve(rig, "receive")
    with server, connected(rig, 82) as s:
        s.sendall(bytes(1_000_000))
        before = failed(sluice, "brief", "idle_timeout")
        with cut_off(rig, "h2", ("in", "dport 9000"), ("out", "sport 9000")):
            send_until_reset(s)
        assert failed(sluice, "brief", "idle_timeout") == before + 1
        assert active(sluice, "brief") == 0
    # Back again, the server's kernel has data to acknowledge or to ask for; nobody knows about it.


# Half-open (RFC 9293, section 3.5.1): one end has forgotten the connection and nobody else knows.
# Its kernel resets what comes for it then, and that reaches the other end.
def test_client_has_forgotten(rig, sluice):
    told = threading.Event()
    ended = []
    def serve_later(s):
        with s:
            s.sendall(s.recv(100))
            told.wait(20)
            s.sendall(b"news")
            try:
                ended.append(s.recv(100))
            except OSError as error:
                ended.append(type(error))
    with serving(rig, "h2", "10.77.2.2", 9000, serve_later):
        with cut_off(rig, "h1", ("out", "flags rst")):
            with connected(rig, 81) as s:
                s.sendall(b"x")
                assert s.recv(100) == b"x"
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        assert active(sluice, "raw") == 1
        told.set()
        wait_for(lambda: ended == [ConnectionResetError], lambda: str(ended))
    wait_for(lambda: active(sluice, "raw") == 0, "it has ended")


def test_backend_has_forgotten(rig, sluice):
    def unacknowledged(s):
        return struct.unpack("i", fcntl.ioctl(s, termios.TIOCOUTQ, bytes(4)))[0]
    def forget(s):
        s.sendall(s.recv(100))
        wait_for(lambda: unacknowledged(s) == 0, "all has come")  # else its ACK would be reset later
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        s.close()
        forgotten.set()
    forgotten = threading.Event()
    with serving(rig, "h2", "10.77.2.2", 9000, forget), connected(rig, 81) as s:
        with cut_off(rig, "h2", ("out", "flags rst")):
            s.sendall(b"x")
            assert s.recv(100) == b"x"
            assert forgotten.wait(20)
        assert active(sluice, "raw") == 1
        send_until_reset(s)
    wait_for(lambda: active(sluice, "raw") == 0, "it has ended")


# A client that has restarted connects from the same port while the old connection still stands
# here: its SYN is answered with an ACK of that one (RFC 5961, section 4.2; RFC 9293, section
# 3.10.7.4), which it resets, and its next SYN is as any.
def test_restarted_client_uses_the_same_port(rig, sluice):
    backend, server = serve(rig, "echo")
    with server:
        with cut_off(rig, "h1", ("out", "flags rst")):
            with connected(rig, 81, source_port=45454) as s:
                s.sendall(b"x")
                assert s.recv(100) == b"x"
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        with growing(sluice, "sluice_service_failures_total", 1, service="raw",
                     reason="client_reset"):
            with connected(rig, 81, source_port=45454) as s:
                s.sendall(b"again")
                assert s.recv(100) == b"again"
        wait_for(lambda: sorted(backend.ended) == ["ConnectionResetError", "end"],
                 lambda: str(backend.ended))
    wait_for(lambda: active(sluice, "raw") == 0, "they have ended")


# A handshake that goes no further than its SYN: the answer is sent again, until the peer's kernel,
# which knows nothing of it, may say so.
def test_handshake_that_is_left_half_open(rig, sluice):
    with inside(rig.namespace("h1")):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    def half_open():
        return sluice.get("sluice_tcp_connections", state="SYN-RECEIVED")
    with raw, cut_off(rig, "h1", ("out", "flags rst")):
        raw.sendto(syn("10.77.1.2", 40404, ROUTER[4], 81), (ROUTER[4], 0))
        with growing(sluice, "sluice_tcp_retransmits_total", 1):
            wait_for(lambda: half_open() == 1, "it is half open")
        assert half_open() == 1
        assert active(sluice, "raw") == 0
    wait_for(lambda: half_open() == 0, "it is reset")


def syn(source, source_port, address, port):
    header = struct.pack("!HHIIBBHHH", source_port, port, 1000, 0, 5 << 4, 2, 65535, 0, 0)
    pseudo = socket.inet_aton(source) + socket.inet_aton(address) + struct.pack("!HH", 6, 20)
    total = sum(struct.unpack("!16H", pseudo + header))
    total = (total & 0xffff) + (total >> 16)
    total = (total & 0xffff) + (total >> 16)
    return header[:16] + struct.pack("!HH", ~total & 0xffff, 0)
