"""Services on the workers, used by real programs of the hosts around, over veth with its defaults.

Each worker has its part of the connections (two queues, two workers); every test ends with the
conservation law and all frames accounted for.
"""

import contextlib
import hashlib
import os
import re
import socket
import struct
import threading

import pytest

from programs import DnsServer, FileServer
from rig import SOURCE, Rig, Sluice, growing, input_chain, inside, wait_for

ROUTER = {4: "10.77.1.1", 6: "fd77:0:0:1::1"}
FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
ECHO, DISCARD, CHARGEN, HTTP = 7, 9, 19, 8080


def listen(port):
    return [f"{ROUTER[4]}:{port}", f"[{ROUTER[6]}]:{port}"]


SERVICES = [{"echo": "echo", "listen": listen(ECHO)},
            {"discard": "discard", "listen": listen(DISCARD)},
            {"chargen": "chargen", "listen": listen(CHARGEN)},
            {"http": "status", "listen": listen(HTTP)}]
# What a careful machine lets in; the services stand behind it as the kernel's programs do.
GUARDED = "table inet guard {%s}" % input_chain(
    'tcp dport { 7, 9, 19, 8080 } counter accept comment "services"',
    "udp dport { 7, 9, 19 } accept")


@pytest.fixture(scope="module", params=["open", "guarded"])
def router(request):
    with Rig(queues=2) as rig:
        if request.param == "guarded":
            rig.run("router", "nft", "-f", rig.write("guard.nft", GUARDED))
        with Sluice(rig, services=SERVICES, workers={"count": 2}) as sluice:
            yield rig, sluice


@contextlib.contextmanager
def connected(rig, family, port, host="h1", kind=socket.SOCK_STREAM):
    with inside(rig.namespace(host)):
        s = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, kind)
    with s:
        s.settimeout(20)
        s.connect((ROUTER[family], port))
        yield s


def sockets(sluice, **wanted):
    return [s for s in sluice.show("sockets")["sockets"]
            if all(s[key] == value for key, value in wanted.items())]


def service(sluice, name):
    return next((s for s in sluice.show("services") if s["name"] == name), None)


def read_to_end(s):
    data = b""
    while piece := s.recv(65536):
        data += piece
    return data


@FAMILIES
def test_echo_a_hundred_megabytes(rig, sluice, family):
    size = 100 << 20
    block = os.urandom(1 << 20)
    sent, received = hashlib.sha256(), hashlib.sha256()
    with connected(rig, family, ECHO) as s:
        s.settimeout(60)
        def send():
            for _ in range(size // len(block)):
                s.sendall(block)
                sent.update(block)
            s.shutdown(socket.SHUT_WR)
        sender = threading.Thread(target=send)
        sender.start()
        count = 0
        while piece := s.recv(1 << 18):
            received.update(piece)
            count += len(piece)
        sender.join()
    assert count == size
    assert received.digest() == sent.digest()


@FAMILIES
def test_many_connections_on_both_workers(rig, sluice, family):
    with contextlib.ExitStack() as stack:
        with growing(sluice, "sluice_tcp_accepted_total", 50):
            all_of_them = [stack.enter_context(connected(rig, family, ECHO)) for _ in range(50)]
            for i, s in enumerate(all_of_them):
                s.sendall(b"hello %d" % i)
            for i, s in enumerate(all_of_them):
                assert s.recv(100) == b"hello %d" % i
        established = sockets(sluice, state="ESTABLISHED", service="echo")
        assert len(established) >= 50
        assert {s["worker"] for s in established} == {0, 1}
        assert service(sluice, "echo")["active"] >= 50
    wait_for(lambda: service(sluice, "echo")["active"] == 0, "they end")


@FAMILIES
def test_discard_and_chargen(rig, sluice, family):
    before = service(sluice, "discard")["bytes_in"]
    with connected(rig, family, DISCARD) as s:
        s.sendall(bytes(1_000_000))
        s.shutdown(socket.SHUT_WR)
        assert s.recv(1) == b""
    assert service(sluice, "discard")["bytes_in"] == before + 1_000_000
    with connected(rig, family, CHARGEN) as s:
        data = b""
        while len(data) < 200_000:
            data += s.recv(65536)
    assert data == pattern(len(data))


def pattern(size):
    """RFC 864's: lines of 72 of the 95 characters, each of which begins with the next one."""
    characters = bytes(range(ord(" "), ord("~") + 1))
    ring = characters * 2
    lines = b"".join(ring[n:n + 72] + b"\r\n" for n in range(len(characters)))
    return (lines * (size // len(lines) + 1))[:size]


@FAMILIES
def test_udp(rig, sluice, family):
    with connected(rig, family, ECHO, kind=socket.SOCK_DGRAM) as s:
        for size in (0, 1, 100, 1400):
            data = os.urandom(size)
            s.send(data)
            assert s.recv(65536) == data
        for data in (os.urandom(4000), b"after"):  # in fragments, put together here
            s.send(data)
            assert s.recv(65536) == data
    with connected(rig, family, CHARGEN, kind=socket.SOCK_DGRAM) as s:
        sizes = set()
        for _ in range(20):
            s.send(b"?")
            answer = s.recv(65536)
            assert answer in pattern(20_000)
            sizes.add(len(answer))
    assert len(sizes) > 5 and max(sizes) <= 512  # a random number of characters
    before = service(sluice, "discard")["messages_in"]
    with connected(rig, family, DISCARD, kind=socket.SOCK_DGRAM) as s:
        s.send(b"nothing")
        wait_for(lambda: service(sluice, "discard")["messages_in"] == before + 1, "it is discarded")
        s.setblocking(False)
        with pytest.raises(BlockingIOError):
            s.recv(1)


@FAMILIES
def test_http(rig, sluice, family):
    address = ROUTER[family] if family == 4 else f"[{ROUTER[family]}]"
    with growing(sluice, "sluice_service_accepted_total", 1, service="status"):
        page = rig.run("h1", "curl", "-s", "-g", "-f", f"http://{address}:{HTTP}/metrics").stdout
    assert 'sluice_ready 1' in page
    assert re.search(r'sluice_tcp_connections\{worker="0",state="ESTABLISHED"\} \d', page)
    # By one connection.
    said = rig.run("h1", "curl", "-s", "-g", "-w", "\n%{http_code} %{num_connects}\n",
                   f"http://{address}:{HTTP}/healthz", f"http://{address}:{HTTP}/nothing").stdout
    assert re.match(r"ok\s+200 1\n", said) and said.endswith("\n404 0\n"), said


def test_reset_in_mid_transfer(rig, sluice):
    with growing(sluice, "sluice_tcp_resets_total", 1, reason="received"):
        with connected(rig, 4, CHARGEN) as s:
            s.recv(1000)
            # SO_LINGER with 0: closing resets.
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_for(lambda: service(sluice, "chargen")["active"] == 0, "it has ended")


def test_peer_that_vanishes(rig, sluice):
    with connected(rig, 4, CHARGEN) as s:
        s.recv(1000)
        mine = s.getsockname()
        rig.run("h1", "ip", "link", "set", "eth0", "down")
        def retransmitting():
            found = sockets(sluice, remote=f"{mine[0]}:{mine[1]}")
            return found and found[0]["retransmits"] > 0
        try:
            wait_for(retransmitting, "the sender asks again")
        finally:
            rig.batch("h1", "link set eth0 up", "address replace fd77:0:0:1::2/64 dev eth0 nodad",
                      "route replace default via 10.77.1.1",
                      "-6 route replace default via fd77:0:0:1::1")
        assert len(s.recv(1000)) > 0  # it goes on when the peer is back
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_for(lambda: service(sluice, "chargen")["active"] == 0, "it has ended")


def test_port_scan(rig, sluice, request):
    guarded = "guarded" in request.node.callspec.id
    for kind in ("-sS", "-sT"):
        said = rig.run("h1", "nmap", "-n", "-Pn", kind, "-p", "7,9,19,8080,8081", "--reason",
                       ROUTER[4]).stdout
        for port in (7, 9, 19, 8080):
            assert re.search(rf"^{port}/tcp\s+open", said, re.MULTILINE), said
        verdict = "filtered" if guarded else "closed"
        assert re.search(rf"^8081/tcp\s+{verdict}", said, re.MULTILINE), said


def test_show_sockets(rig, sluice):
    with connected(rig, 4, ECHO) as s:
        s.sendall(b"x" * 1000)
        assert len(s.recv(1000)) > 0
        mine = s.getsockname()
        (found,) = sockets(sluice, remote=f"{mine[0]}:{mine[1]}")
        assert found["state"] == "ESTABLISHED" and found["service"] == "echo"
        assert found["mss"] == 1448 and found["rtt_ms"] > 0 and found["congestion_window"] > 0
        table = sluice.cli("show", "sockets").stdout
        assert f"{mine[0]}:{mine[1]}" in table and "LISTEN" in table
    assert len(sockets(sluice, state="LISTEN", service="echo")) == 2 * 2  # addresses, workers
    assert "chargen" in sluice.cli("show", "services").stdout


def test_explain_names_the_socket(rig, sluice):
    said = sluice.cli("explain", "--in", "h1",
                      "ip saddr 10.77.1.2 ip daddr 10.77.1.1 tcp dport 7 tcp flags syn").stdout
    assert "socket" in said and "kernel" not in said.splitlines()[-1], said
    said = sluice.cli("explain", "--in", "h1",
                      "ip saddr 10.77.1.2 ip daddr 10.77.1.1 tcp dport 22 tcp flags syn").stdout
    assert "kernel" in said, said


def test_other_ports_are_the_kernels(rig, sluice):
    rig.serve("router", 8081, "/usr/bin/python3", "-m", "http.server", "8081")
    if "guard" in rig.run("router", "nft", "list", "ruleset").stdout:
        rig.run("router", "nft", "insert", "rule", "inet", "guard", "input", "tcp", "dport",
                "8081", "accept")
    with growing(sluice, "sluice_punts_total", 3, reason="local"):
        assert "Directory" in rig.run("h2", "curl", "-s", f"http://{ROUTER[4]}:8081/").stdout


# The last one: it changes the services for good.
def test_reload_gives_a_port_back_and_drains(rig, sluice):
    with connected(rig, 4, ECHO) as old:
        old.sendall(b"before")
        assert old.recv(100) == b"before"
        sluice.configure(rig.hosts, services=SERVICES[1:], workers={"count": 2})
        sluice.hang_up()
        wait_for(lambda: not sockets(sluice, state="LISTEN", service="echo"), "echo is gone")
        # Its connection lives on while it drains; the port is the kernel's.
        old.sendall(b"after")
        assert old.recv(100) == b"after"
        with pytest.raises(ConnectionRefusedError):
            with connected(rig, 4, ECHO):
                pass
        rig.serve("router", ECHO, "/usr/bin/python3", "-m", "http.server", str(ECHO))
        assert "Directory" in rig.run("h1", "curl", "-s", f"http://{ROUTER[4]}:{ECHO}/").stdout
        old.sendall(b"still")
        assert old.recv(100) == b"still"
    sluice.configure(rig.hosts, services=SERVICES, workers={"count": 2})
    sluice.hang_up()
    wait_for(lambda: sockets(sluice, state="LISTEN", service="echo"), "echo is back")
    with connected(rig, 4, ECHO) as s:
        s.sendall(b"again")
        assert s.recv(100) == b"again"


def test_end_drains_and_is_bounded():
    with Rig(hosts=1) as rig:
        with Sluice(rig, services=SERVICES) as sluice:
            with connected(rig, 4, ECHO) as s:
                s.sendall(b"x")
                assert s.recv(10) == b"x"
                assert "16384-32767" in rig.run(
                    "router", "cat", "/proc/sys/net/ipv4/ip_local_reserved_ports").stdout
                assert sluice.stop() == 0  # although the client stays
                assert "connections of services are cut off" in sluice.log()
                with pytest.raises(ConnectionResetError):
                    s.sendall(b"y")
                    s.recv(1)
            assert not rig.run(
                "router", "cat", "/proc/sys/net/ipv4/ip_local_reserved_ports").stdout.strip()


# The kernel's own connections keep off the ports that services listen on, as long as they do: answers
# to them would come to the service.
def test_ports_of_services_are_kept_from_the_kernel():
    def at(port):
        return [{"echo": "echo", "listen": [f"{ROUTER[4]}:{port}"]}]

    def reserved():
        return rig.run("router", "cat",
                       "/proc/sys/net/ipv4/ip_local_reserved_ports").stdout.strip().split(",")

    def own_ports():
        return rig.run("router", "/usr/bin/python3", "-c", """
import socket
for i in range(4):
    with socket.create_connection(("10.77.1.2", 8000)) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\\1\\0\\0\\0\\0\\0\\0\\0")
        print(s.getsockname()[1])
""").stdout.split()

    with Rig(hosts=1) as rig:
        rig.serve("h1", 8000, "/usr/bin/python3", "-m", "http.server", "8000")
        rig.sysctl("router", "net.ipv4.ip_local_port_range=40000 40001",
                   "net.ipv4.ip_local_reserved_ports=8000")
        with Sluice(rig, services=at(40000)) as sluice:
            assert "40000" in reserved()
            assert set(own_ports()) == {"40001"}
            sluice.configure(rig.hosts, services=at(40001))
            sluice.hang_up()
            wait_for(lambda: "40000" not in reserved(), "the port is given back")
            assert "40001" in reserved()
            assert set(own_ports()) == {"40000"}
            assert sluice.stop() == 0
        assert reserved() == ["8000"]


# Limits change at the next start only, so a reload is judged by those that hold, not by the file's.
def test_reload_with_ports_that_overlap_is_refused():
    with Rig(hosts=1) as rig:
        with Sluice(rig, limits={"nat_ports": "20000-29999"}) as sluice:  # those of sockets, too
            sluice.configure(rig.hosts, services=SERVICES)
            sluice.hang_up()
            wait_for(lambda: "the running configuration stays" in sluice.log(), "refused")
            assert "limits.nat_ports must have no port of them" in sluice.log()
            assert not sockets(sluice)
            # One that fits is taken as ever; the first services lack frames of their own, and say so.
            sluice.configure(rig.hosts, limits={"nat_ports": "20000-29999"})
            sluice.hang_up()
            wait_for(lambda: "reloaded" in sluice.log(), "taken")
        with Sluice(rig) as sluice:
            sluice.configure(rig.hosts, services=SERVICES)
            sluice.hang_up()
            wait_for(lambda: sockets(sluice, state="LISTEN", service="echo"), "it listens")
            assert "frames for data of services" in sluice.log()
        with Sluice(rig, services=SERVICES) as sluice:
            sluice.hang_up()
            wait_for(lambda: "reloaded" in sluice.log(), "taken")
            assert "frames for data of services" not in sluice.log()


# A home router with a proxy: its connections to the backend are masqueraded as others are, and OUTPUT
# lets nothing else out.
HOME = "table inet home {" + input_chain('tcp dport 80 counter accept comment "clients"') + """
    chain output {
        type filter hook output priority filter; policy drop;
        oifname "lo" accept
        ct state established,related accept
        meta l4proto { icmp, ipv6-icmp } accept
        tcp dport 8080 counter accept comment "backends"
    }
    chain forward { type filter hook forward priority filter; policy accept; }
    chain leaving {
        type nat hook postrouting priority srcnat;
        oifname "h2" masquerade
    }
}
"""


def test_proxy_behind_rules_and_nat():
    proxy = [{"tcp_proxy": "web", "listen": "10.77.1.1:80", "backends": ["10.77.2.2:8080"]}]
    with Rig(queues=2) as rig:
        rig.run("router", "nft", "-f", rig.write("home.nft", HOME))
        server = FileServer(rig, "h2", 8080)
        with Sluice(rig, services=proxy, workers={"count": 2}) as sluice:
            server.port = 80
            for _ in range(10):
                server.check_download("h1", ROUTER[4])
            server.port = 8080
            server.check_download("h1", "10.77.2.2")  # in transit, as before
            counted = {c["rule"]: c for c in counted_rules(sluice)}
            assert counted["clients"]["packets"] == 10
            assert counted["backends"]["packets"] == 10
            # Not let out by OUTPUT: the backend is as good as dead.
            rig.run("router", "nft", "flush chain inet home output;"
                    "add rule inet home output ct state established,related accept;"
                    "add rule inet home output oifname lo accept")
            before = service(sluice, "web")["failures"]
            said = rig.run("h1", "curl", "-s", "-m", "20", f"http://{ROUTER[4]}/file",
                           check=False)
            assert said.returncode != 0
            wait_for(lambda: service(sluice, "web")["failures"] != before, "it is counted")
            sluice.check_accounts()


REDIRECTED = """
table inet nat {
    chain pre {
        type nat hook prerouting priority dstnat;
        tcp dport { 80, 81 } redirect to tcp dport map { 80 : 8080, 81 : 8181 }
        udp dport 53 redirect to :7
    }
}
"""


def test_redirect_and_dnat_reach_services():
    with Rig(queues=2) as rig:
        rig.run("router", "nft", "-f", rig.write("nat.nft", REDIRECTED))
        rig.run("router", "nft", "add rule inet nat pre ip daddr 203.0.113.9 tcp dport 443 "
                f"dnat ip to {ROUTER[4]}:8080")
        rig.run("h1", "ip", "route", "add", "203.0.113.9", "via", ROUTER[4])
        rig.serve("router", 8181, "/usr/bin/python3", "-m", "http.server", "8181")
        with Sluice(rig, services=SERVICES, workers={"count": 2}) as sluice:
            for url in (f"{ROUTER[4]}", f"[{ROUTER[6]}]", "203.0.113.9:443"):
                for _ in range(6):
                    said = rig.run("h1", "curl", "-sg", "-m", "10", f"http://{url}/healthz")
                    assert said.stdout.strip() == "ok", url
            for family in (4, 6):
                for _ in range(6):
                    with connected(rig, family, 53, kind=socket.SOCK_DGRAM) as s:
                        s.sendall(b"ping")
                        assert s.recv(100) == b"ping"  # from port 53, or a connected one would not
            assert service(sluice, "status")["accepted"] == 18
            # Where no service listens, the kernel's programs are reached as before.
            assert "Directory" in rig.run("h1", "curl", "-s", f"http://{ROUTER[4]}:81/").stdout
            said = sluice.cli("explain", "--in", "h1", f"ip saddr 10.77.1.2 ip daddr {ROUTER[4]} "
                              "tcp sport 999 tcp dport 80 tcp flags syn").stdout
            assert "socket" in said
            sluice.check_accounts()


def test_rules_that_sluice_cannot_do_refuse_services():
    with Rig(queues=2) as rig:
        with Sluice(rig, services=SERVICES, workers={"count": 2}) as sluice:
            with connected(rig, 4, ECHO) as before:
                before.sendall(b"hello")
                assert before.recv(100) == b"hello"
                rig.run("router", "nft", "add table inet odd; add chain inet odd input "
                        "{ type filter hook input priority filter; }; add rule inet odd input "
                        "meta l4proto { tcp, udp } th dport 7 meta iifgroup default accept")
                wait_for(lambda: "it is refused (reason unsupported_rule)" in sluice.log(),
                         "the log names it")
                before.sendall(b"again")
                with pytest.raises(ConnectionResetError):
                    assert before.recv(100) == b""
            with pytest.raises(ConnectionRefusedError), connected(rig, 6, ECHO):
                pass
            with connected(rig, 4, ECHO, kind=socket.SOCK_DGRAM) as s:
                s.sendall(b"ping")
                with pytest.raises(OSError):  # EHOSTUNREACH: administratively prohibited
                    s.recv(100)
            with connected(rig, 4, HTTP) as s:  # other services go on
                s.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
                assert b"ok" in read_to_end(s)
            assert sluice.get("sluice_dropped_packets_total", reason="unsupported_rule") >= 3
            wait_for(lambda: not sockets(sluice, state="ESTABLISHED"), "the socket's end is told")
            sluice.check_accounts()


def test_large_datagrams_are_judged_before_fragmentation():
    with Rig(queues=2) as rig:
        rig.run("router", "nft", "add table inet large; add chain inet large output "
                "{ type filter hook output priority filter; policy drop; }; "
                "add rule inet large output udp sport 7 ct state established counter accept "
                "comment \"echoed\"; add rule inet large output meta l4proto != udp accept")
        with Sluice(rig, services=SERVICES, workers={"count": 2}) as sluice:
            block = os.urandom(20000)
            for family in (4, 6):
                for _ in range(4):
                    with connected(rig, family, ECHO, kind=socket.SOCK_DGRAM) as s:
                        s.sendall(block)
                        assert s.recv(65536) == block
            assert {c["rule"]: c["packets"] for c in counted_rules(sluice)}["echoed"] == 8
            sluice.check_accounts()


def tell_too_big(rig, sluice, quoted, mtu):
    with inside(rig.namespace("h1")):
        raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    with raw, growing(sluice, "sluice_tcp_events_total", event="path_mtu_learned"):
        raw.sendto(struct.pack("!BBHI", 2, 0, 0, mtu) + quoted, (ROUTER[6], 0))


def segment_in_flight(rig, s):
    """An answer of the echo service, which h1 holds back until its table `hold` is deleted."""
    rig.run("h1", "nft", "add table inet hold; add chain inet hold input "
            f"{{ type filter hook input priority 0; }}; add rule inet hold input tcp sport {ECHO} drop")
    with inside(rig.namespace("h1")):
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x86dd))
    with tap:
        tap.settimeout(20)
        s.sendall(b"again")
        while True:
            packet = tap.recv(2000)
            if packet[6] == socket.IPPROTO_TCP and packet[40:42] == struct.pack("!H", ECHO) and (
                    packet.endswith(b"again")):
                return packet


def test_what_routers_tell_of_a_path_is_remembered():
    with Rig(queues=2) as rig, Sluice(rig, services=SERVICES, workers={"count": 1}) as sluice:
        with connected(rig, 6, ECHO, kind=socket.SOCK_DGRAM) as s:
            s.sendall(b"ping")
            assert s.recv(100) == b"ping"
            mine, port = s.getsockname()[:2]
            # As a router on the way back would say it of the answer (RFC 4443 section 3.2).
            quoted = (struct.pack("!IHBB", 6 << 28, 12, socket.IPPROTO_UDP, 64) +
                      socket.inet_pton(socket.AF_INET6, ROUTER[6]) +
                      socket.inet_pton(socket.AF_INET6, mine) +
                      struct.pack("!HHHH", ECHO, port, 12, 0) + b"ping")
            tell_too_big(rig, sluice, quoted, 1290)
        # Nothing shows that it is about a datagram that was sent: connections take no notice.
        with connected(rig, 6, ECHO) as s:
            s.sendall(b"hello")
            assert s.recv(100) == b"hello"
            (found,) = sockets(sluice, state="ESTABLISHED", service="echo")
            assert found["path_mtu"] == 1500
            tell_too_big(rig, sluice, segment_in_flight(rig, s), 1300)
            rig.run("h1", "nft", "delete table inet hold")
            assert s.recv(100) == b"again"
        with connected(rig, 6, ECHO) as s:
            s.sendall(b"hello")
            assert s.recv(100) == b"hello"
            (found,) = sockets(sluice, state="ESTABLISHED", service="echo")
            assert found["path_mtu"] == 1300 and found["mss"] == 1300 - 40 - 20 - 12
        with connected(rig, 4, ECHO) as s:  # another destination
            s.sendall(b"hello")
            assert s.recv(100) == b"hello"
            (found,) = sockets(sluice, state="ESTABLISHED", service="echo")
            assert found["path_mtu"] == 1500
        assert sluice.get("sluice_table_used", table="path_mtus") == 2  # datagrams' is kept apart
        sluice.check_accounts()


def counted_rules(sluice):
    metrics = sluice.metrics()
    return [{"rule": labels["rule"], "packets": value} for name, labels, value in metrics.series
            if name == "sluice_rule_packets_total"]


# What config/ shows, with the interfaces and addresses that it has.


def pasted(rig, name):
    sluice = Sluice(rig)
    with open(os.path.join(SOURCE, "config", name), encoding="utf-8") as file:
        rig.write(os.path.basename(sluice.config), file.read())
    return sluice


def backends_up(sluice, name):
    return sum(b["health"] == "up" for b in service(sluice, name)["backends"])


def test_the_load_balancer_of_config():
    with Rig(hosts=("client", "web1", "web2")) as rig:
        servers = {}
        for host in ("web1", "web2"):
            os.mkdir(rig.path(host))
            rig.write(f"{host}/name", host)
            servers[host] = rig.serve(host, 8080, "/usr/bin/python3", "-m", "http.server", "8080",
                                      "--directory", rig.path(host))

        def ask(family):
            address = ROUTER[4] if family == 4 else f"[{ROUTER[6]}]"
            return rig.run("client", "curl", "-sgf", "-m", "10", f"http://{address}/name").stdout

        with pasted(rig, "load-balancer.yaml") as sluice:
            wait_for(lambda: backends_up(sluice, "web") == 2, "the servers are checked")
            for family in (4, 6):
                assert sorted(ask(family) for _ in range(4)) == ["web1"] * 2 + ["web2"] * 2
            said = rig.run("client", "curl", "-sf", "-m", "10", f"http://{ROUTER[4]}:8081/healthz")
            assert said.stdout.strip() == "ok"
            rig.end(servers["web1"])  # whoever is sent to it is sent on
            assert {ask(4) for _ in range(4)} == {"web2"}
            wait_for(lambda: backends_up(sluice, "web") == 1, "it is taken out")
            sluice.check_accounts()


def test_the_dns_forwarder_of_config():
    with Rig(hosts=("lan0", "wan0")) as rig:
        rig.batch("router", "address add 192.168.1.1/24 dev lan0",
                  *(f"route add {resolver} via 10.77.2.2"
                    for resolver in ("192.0.2.53", "198.51.100.53")))
        rig.batch("lan0", "address add 192.168.1.2/24 dev eth0")
        rig.batch("wan0", "address add 192.0.2.53/32 dev lo", "address add 198.51.100.53/32 dev lo")
        DnsServer(rig, "wan0")
        with pasted(rig, "dns-forwarder.yaml") as sluice:
            for name, how in (("dns", "+notcp"), ("dns-tcp", "+tcp")):
                wait_for(lambda name=name: backends_up(sluice, name) == 2, "they are checked")
                for _ in range(4):
                    said = rig.run("lan0", "kdig", "@192.168.1.1", how, "+short", "name.example")
                    assert said.stdout.strip() == DnsServer.ANSWER
                assert [b["total"] for b in service(sluice, name)["backends"]] == [2, 2]
            # Sessions end with their answers.
            wait_for(lambda: service(sluice, "dns")["active"] == 0, "nothing is waited for")
            sluice.check_accounts()
