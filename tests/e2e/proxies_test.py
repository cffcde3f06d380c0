"""The TCP and UDP proxies between real programs: nginx, curl, iperf3, dnsmasq and kdig, with two workers,
over veth with its defaults. Every test ends with the conservation law and all frames accounted for.
"""

import contextlib
import hashlib
import os
import re
import socket
import struct
import threading

import pytest

from load import WINDOW, Load, carried, quiet, wait_until_carried
from programs import FileServer, iperf, serving
from rig import Rig, Sluice, inside, wait_for

ROUTER = {4: "10.77.1.1", 6: "fd77:0:0:1::1"}
FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
FAST = {"interval": "200ms", "timeout": "150ms", "fall": 2, "rise": 1}
MEGABYTES = 100


def listen(port):
    return [f"{ROUTER[4]}:{port}", f"[{ROUTER[6]}]:{port}"]


def services(**changes):
    """All services of this file, by name; `changes` replaces keys of one, or takes it out by None."""
    known = {
        "web": {"tcp_proxy": "web", "listen": listen(80),
                "backends": ["10.77.2.2:8080", "[fd77:0:0:3::2]:8080"],
                "health_check": {"http": "/file", **FAST}, "connect_timeout": "1200ms"},
        # Host 2's, for programs of the tests' own.
        "raw": {"tcp_proxy": "raw", "listen": listen(81), "backends": "10.77.2.2:9000"},
        "told": {"tcp_proxy": "told", "listen": listen(82), "backends": "10.77.2.2:9001",
                 "proxy_protocol": "v2"},
        "iperf": {"tcp_proxy": "iperf", "listen": listen(5201), "backends": "10.77.2.2:5201"},
        "dns": {"udp_proxy": "dns", "listen": listen(53),
                "backends": ["10.77.2.2:53", "10.77.3.2:53"], "health_check": FAST},
    }
    for name, change in changes.items():
        if change is None:
            del known[name]
        else:
            known[name].update(change)
    return list(known.values())


@pytest.fixture(scope="module")
def router():
    with Rig(hosts=3, queues=2) as rig:
        servers = {host: FileServer(rig, host, 8080) for host in ("h2", "h3")}
        with Sluice(rig, services=services(), workers={"count": 2}) as sluice:
            yield rig, sluice, servers


@contextlib.contextmanager
def connected(rig, family, port):
    with inside(rig.namespace("h1")):
        s = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6)
    with s:
        s.settimeout(60)
        s.connect((ROUTER[family], port))
        yield s


def backend(rig, serve, port=9000):
    return serving(rig, "h2", "10.77.2.2", port, serve)


def echo(s):
    with s, contextlib.suppress(OSError):
        while piece := s.recv(65536):
            s.sendall(piece)


def read_all(s):
    digest, count = hashlib.sha256(), 0
    while piece := s.recv(1 << 18):
        digest.update(piece)
        count += len(piece)
    return count, digest.hexdigest()


def failed(sluice, name, reason):
    return sluice.get("sluice_service_failures_total", service=name, reason=reason)


def active(sluice, name):
    return sluice.get("sluice_service_active", service=name)


def backends(sluice, name, health):
    """How many have this health, by all workers' checks."""
    return sum(b["health"] == health for s in sluice.show("services") if s["name"] == name
               for b in s["backends"])


def curl(rig, *urls, options=()):
    return rig.run("h1", "curl", "-sS", "-g", "--max-time", "30", *options, *urls, check=False)


def at(family, port, path=""):
    host = ROUTER[family] if family == 4 else f"[{ROUTER[family]}]"
    return f"http://{host}:{port}/{path}"


# The backends are of either family: clients of both get both.
@FAMILIES
def test_files_of_nginx(rig, sluice, router, family):
    wait_for(lambda: backends(sluice, "web", "up") == 2, lambda: str(sluice.show("services")[0]))
    digests = {server.digest for server in router[2].values()}
    seen = set()
    for i in range(6):
        path = rig.path(f"got-{family}-{i}")
        done = curl(rig, at(family, 80, "file"), options=("-f", "-o", path))
        assert done.returncode == 0, (done.stdout, sluice.show("services")[0], sluice.log())
        with open(path, "rb") as file:
            seen.add(hashlib.sha256(file.read()).hexdigest())
    assert seen <= digests
    assert len(seen) == 2
    wait_for(lambda: active(sluice, "web") == 0, "connections end")


def test_requests_on_one_connection(rig, sluice):
    before = sluice.get("sluice_service_accepted_total", service="web")
    done = curl(rig, *[at(4, 80, "file")] * 10,
                options=("-f", "-w", "%{num_connects}\n", *["-o", "/dev/null"] * 10))
    assert done.returncode == 0, done.stdout
    assert sum(int(line) for line in done.stdout.split()) == 1
    assert sluice.get("sluice_service_accepted_total", service="web") == before + 1


@FAMILIES
def test_a_hundred_megabytes_up_and_down(rig, sluice, family):
    block = os.urandom(1 << 20)
    wanted = hashlib.sha256(block * MEGABYTES).hexdigest()
    got = []
    def serve(s):
        with s:
            got.append(read_all(s))  # all of it, and its end: half-closed from here
            for _ in range(MEGABYTES):
                s.sendall(block)
    with backend(rig, serve), connected(rig, family, 81) as s:
        for _ in range(MEGABYTES):
            s.sendall(block)
        s.shutdown(socket.SHUT_WR)
        assert read_all(s) == (MEGABYTES << 20, wanted)
    assert got == [(MEGABYTES << 20, wanted)]
    wait_for(lambda: active(sluice, "raw") == 0, "the connection ends")


# The server is held back by the client, and what is between them stays small.
def test_slow_reader(rig, sluice):
    sent = [0]
    stopped = threading.Event()
    def held_back():
        """The server's kernel probes a window that has stayed shut."""
        said = rig.run("h2", "ss", "-Htnio", "state", "established", "sport", "=", ":9000").stdout
        return "persist" in said and re.search(r"backoff:[1-9]", said)
    def serve(s):
        block = bytes(1 << 16)
        with s, contextlib.suppress(OSError):
            while not stopped.is_set():
                sent[0] += s.send(block)
    with backend(rig, serve), connected(rig, 4, 81) as s:
        s.recv(1)
        wait_for(held_back, "the server is held back", seconds=30)
        assert sent[0] < 64 << 20
        before = sent[0]
        for _ in range(2000):
            s.recv(1 << 16)
        wait_for(lambda: sent[0] > before, "it goes on")
        stopped.set()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_for(lambda: active(sluice, "raw") == 0, "the connection ends")


# A reset of either end is one for the other.
def test_resets(rig, sluice):
    linger = struct.pack("ii", 1, 0)
    ended = threading.Event()
    def reset(s):
        s.recv(1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        s.close()
    before = failed(sluice, "raw", "backend_reset"), failed(sluice, "raw", "client_reset")
    with backend(rig, reset), connected(rig, 4, 81) as s:
        s.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            while s.recv(100):
                pass
    def wait_for_reset(s):
        with s:
            try:
                while s.recv(100):
                    s.sendall(b"y")
            except ConnectionResetError:
                ended.set()
    with backend(rig, wait_for_reset):
        with connected(rig, 4, 81) as s:
            s.sendall(b"x")
            assert s.recv(1) == b"y"
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        assert ended.wait(10)
    after = failed(sluice, "raw", "backend_reset"), failed(sluice, "raw", "client_reset")
    assert [a - b for a, b in zip(after, before)] == [1, 1]


def test_five_hundred_connections_at_once(rig, sluice):
    with backend(rig, echo), contextlib.ExitStack() as stack:
        everyone = [stack.enter_context(connected(rig, 4 if i % 2 else 6, 81)) for i in range(500)]
        for round_ in range(3):
            for i, s in enumerate(everyone):
                s.sendall(b"%d of %d" % (i, round_))
            for i, s in enumerate(everyone):
                assert s.recv(100) == b"%d of %d" % (i, round_)
        assert active(sluice, "raw") == 500
    wait_for(lambda: active(sluice, "raw") == 0, "they end")


# haproxy's specification, section 2.2: signature, 0x21, family, length, addresses and ports.
@FAMILIES
def test_the_backend_is_told_who_the_client_is(rig, sluice, family):
    received = []
    def serve(s):
        with s:
            received.append(s.recv(1000))
    with backend(rig, serve, 9001), connected(rig, family, 82) as s:
        here = s.getsockname()
        wait_for(lambda: received, "the header")
    packed = [socket.inet_pton(s.family, a) for a in (here[0], ROUTER[family])]
    body = b"".join(packed) + struct.pack("!HH", here[1], 82)
    kind = b"\x21\x11" if family == 4 else b"\x21\x21"
    assert received[0] == b"\r\n\r\n\0\r\nQUIT\n" + kind + struct.pack("!H", len(body)) + body


@pytest.mark.parametrize("way", [(), ("-R",)], ids=["up", "down"])
def test_iperf3(rig, sluice, way):
    server = rig.serve("h2", 5201, "iperf3", "-s", "-1")
    before = sluice.get("sluice_service_accepted_total", service="iperf")
    done = iperf(rig, "h1", ROUTER[4], "-t", "2", "-P", "4", *way)
    moved = [stream["receiver"]["bytes"] for stream in done["streams"]]
    assert len(moved) == 4 and min(moved) > 1_000_000
    assert sluice.get("sluice_service_accepted_total", service="iperf") == before + 5
    server.wait(timeout=20)


# A backend takes no more connections, under load: those that it has are served to their end, whoever
# else is sent to it is sent on, and not a request is lost. It gets its share again when it is back.
@pytest.mark.parametrize("how", ["drop", "reject with tcp reset"], ids=["silent", "refusing"])
def test_a_backend_is_lost_and_not_a_request(rig, sluice, how):
    wait_for(lambda: backends(sluice, "web", "up") == 2, "both are up")
    lost = failed(sluice, "web", "connect_failed")
    results, stop = [], threading.Event()
    def ask():
        while not stop.is_set():
            done = curl(rig, at(4, 80, "file"), options=("-f", "-o", "/dev/null"))
            results.append((done.returncode, done.stdout))
    def some_more():
        after = len(results)
        wait_for(lambda: len(results) > after + 10, "some requests")
    clients = [threading.Thread(target=ask) for _ in range(3)]
    for client in clients:
        client.start()
    try:
        some_more()
        rig.run("h3", "nft", "add table inet lost; add chain inet lost in "
                "{ type filter hook input priority 0; }; add rule inet lost in "
                f"tcp dport 8080 tcp flags & (syn | ack) == syn {how}")
        wait_for(lambda: backends(sluice, "web", "down") == 1, "it is found out")
        some_more()
        rig.run("h3", "nft", "delete table inet lost")
        wait_for(lambda: backends(sluice, "web", "up") == 2, "it is back")
        some_more()
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert [r for r in results if r[0] != 0] == [], [
        (labels, value) for name, labels, value in sluice.metrics().series
        if name == "sluice_service_failures_total" and labels["service"] == "web" and value]
    assert failed(sluice, "web", "connect_failed") == lost


# What a reload does not change goes on; what it adds is there; what it takes away drains.
def test_reload(rig, sluice):
    with backend(rig, echo), connected(rig, 4, 81) as kept:
        kept.sendall(b"before")
        assert kept.recv(100) == b"before"
        sluice.configure(rig.hosts, workers={"count": 2}, services=services(
            raw=None, told={"listen": listen(83)}))
        sluice.hang_up()
        def names():
            return {s["name"]: s for s in sluice.show("services")}
        wait_for(lambda: names().get("raw", {"state": "gone"})["state"] != "listening", "it drains")
        kept.sendall(b"after")
        assert kept.recv(100) == b"after"
        with pytest.raises(ConnectionRefusedError):  # by the kernel, which has the port
            with connected(rig, 4, 81):
                pass
    wait_for(lambda: "raw" not in names(), "it is gone after its last connection")
    def serve(s):
        with s:
            s.recv(1000)
    with backend(rig, serve, 9001), connected(rig, 4, 83) as s:
        assert s.recv(1) == b""
    sluice.configure(rig.hosts, workers={"count": 2}, services=services())
    sluice.hang_up()
    wait_for(lambda: names().get("raw", {"state": ""})["state"] == "listening", "it is back")


RESOLVERS = {"h2": "192.0.2.2", "h3": "192.0.2.3"}  # what each says of any name


@pytest.fixture
def resolvers(rig):
    started = {}
    for host, address in RESOLVERS.items():
        started[host] = rig.serve(host, 53, "dnsmasq", "-d", "-C", "/dev/null", "--no-resolv",
                                  "--no-hosts", "--user=root", "--bind-interfaces",
                                  f"--address=/test/{address}", kind="udp")
    yield started
    for process in started.values():
        rig.end(process)


# Four hundred questions from as many ports, and then with one resolver only.
@FAMILIES
def test_dns_forwarder(rig, sluice, resolvers, family):
    wait_for(lambda: backends(sluice, "dns", "up") == 2, "both are up")
    def ask(count):
        questions = [f"n{i}.test" for i in range(count)]
        done = rig.run("h1", "kdig", f"@{ROUTER[family]}", "+short", "+timeout=2", "+retry=3",
                       *questions)
        answers = done.stdout.split()
        assert len(answers) == count and set(answers) <= set(RESOLVERS.values()), done.stdout
        return set(answers)
    assert ask(400) == set(RESOLVERS.values())
    rig.end(resolvers["h3"])
    wait_for(lambda: backends(sluice, "dns", "down") == 1, "the dead one is found out")
    assert ask(50) == {RESOLVERS["h2"]}
    assert failed(sluice, "dns", "no_backend") == 0


def test_sockets_towards_backends_name_their_service(rig, sluice, resolvers):
    def owners(protocol, remote, state):
        return {s["service"] for s in sluice.show("sockets")["sockets"] if
                (s["protocol"], s["remote"], s["state"]) == (protocol, remote, state)}

    with backend(rig, echo), connected(rig, 4, 81) as s:
        s.sendall(b"x")
        assert s.recv(1) == b"x"
        assert owners("tcp", "10.77.2.2:9000", "ESTABLISHED") == {"raw"}
    wait_for(lambda: backends(sluice, "dns", "up") == 2, "both are up")
    rig.run("h1", "kdig", f"@{ROUTER[4]}", "+short", "a.test", "b.test", "c.test", "d.test")
    for host in ("2", "3"):
        assert owners("udp", f"10.77.{host}.2:53", "CONNECTED") == {"dns"}
    # A check that waits for its answer.
    rig.run("h3", "nft", "add table inet lost; add chain inet lost in "
            "{ type filter hook input priority 0; }; add rule inet lost in tcp dport 53 drop")
    wait_for(lambda: owners("tcp", "10.77.3.2:53", "SYN-SENT") == {"dns"}, "a check is seen")
    rig.run("h3", "nft", "delete table inet lost")
    wait_for(lambda: backends(sluice, "dns", "up") == 2, "it is back")


# --- What XDP carries of them ----------------------------------------------------------------------

BACKENDS = {4: {"h2": "10.77.2.2", "h3": "10.77.3.2"},
            6: {"h2": "fd77:0:0:2::2", "h3": "fd77:0:0:3::2"}}


def udp_load(rig, family, port, servers, **options):
    return Load(rig, "h1", servers, ROUTER[family], port=port, server_addresses=BACKENDS[family],
                **options)


def udp_service(family, port, hosts, **more):
    at = "{}:{}" if family == 4 else "[{}]:{}"
    return {"udp_proxy": "load", "listen": at.format(ROUTER[family], port),
            "backends": [at.format(BACKENDS[family][host], port) for host in hosts], **more}


def messages(sluice):
    """Datagrams and bytes, in and out."""
    metrics = sluice.metrics()
    return [metrics.get(f"sluice_service_{what}_total", service="load", direction=direction)
            for what in ("messages", "bytes") for direction in ("in", "out")]


@FAMILIES
def test_xdp_carries_a_udp_session(family):
    port = 6500
    with Rig(hosts=2, queues=2) as rig, Sluice(
            rig, flow_offload="on", workers={"count": 2},
            services=[udp_service(family, port, ["h2"], idle_timeout="2s")]) as sluice:
        quiet(rig)
        load = udp_load(rig, family, port, {2: "h2"})
        wait_until_carried(sluice, load)
        seen = carried(sluice)[1]
        uptime = sluice.show("status")["uptime_seconds"]
        # Longer than idle_timeout, in which no worker sees a datagram.
        wait_for(lambda: sluice.show("status")["uptime_seconds"] > uptime + 3, "time passes")
        assert carried(sluice)[1] - seen < 50, "workers have seen datagrams"
        sent = load.stop()
        assert not load.lost(0, sent)
        assert sluice.get("sluice_service_accepted_total", service="load") == 1
        expected = [sent, sent, sent * load.size, sent * load.size]
        wait_for(lambda: messages(sluice) == expected, lambda: f"{messages(sluice)}, not {expected}")
        wait_for(lambda: active(sluice, "load") == 0, "the session ends in its time")
        assert sluice.show("status")["tiers"]["entries"] == 0
        sluice.check_accounts()


# On veth XDP runs where the sender does: the connection moves between CPUs, far more than a window on
# each. All is counted, and its end is believed.
def test_a_spliced_connection_moves_between_cpus():
    cpus = sorted(os.sched_getaffinity(0))
    service = {"tcp_proxy": "load", "listen": f"{ROUTER[4]}:6500", "backends": "10.77.2.2:9000"}
    got = []
    def serve(s):
        with s:
            s.sendall(s.recv(1))
            got.append(1 + sum(iter(lambda: len(s.recv(1 << 20)), 0)))
    with Rig(hosts=2, queues=2) as rig, Sluice(
            rig, flow_offload="on", workers={"count": 2}, services=[service]) as sluice:
        block = bytes(1 << 20)
        try:
            with serving(rig, "h2", "10.77.2.2", 9000, serve), connected(rig, 4, 6500) as s:
                s.sendall(b"x")
                assert s.recv(1) == b"x"
                for turn in range(6):
                    os.sched_setaffinity(0, {cpus[turn % len(cpus)]})
                    for _ in range(100):
                        s.sendall(block)
                s.shutdown(socket.SHUT_WR)
                assert s.recv(1) == b""
        finally:
            os.sched_setaffinity(0, cpus)
        total = 1 + (600 << 20)
        assert got == [total]
        wait_for(lambda: active(sluice, "load") == 0, lambda: sluice.show("sockets"))
        assert carried(sluice)[0] > 600 << 20 >> 16, "XDP has carried it"
        counted = sluice.get("sluice_service_bytes_total", service="load", direction="in")
        assert counted == total
        sluice.check_accounts()


# The server itself goes on, so that whoever answers is known.
def test_xdp_gives_back_sessions_of_a_backend_that_is_down():
    port = 6500
    service = udp_service(4, port, ["h2", "h3"], balance="maglev",
                          health_check={**FAST, "port": 8080})
    with Rig(hosts=3) as rig:
        checked = {host: rig.serve(host, 8080, "/usr/bin/python3", "-m", "http.server", "8080")
                   for host in ("h2", "h3")}
        with Sluice(rig, flow_offload="on", services=[service]) as sluice:
            wait_for(lambda: backends(sluice, "load", "up") == 2, "both are up")
            load = udp_load(rig, 4, port, {2: "h2", 3: "h3"})
            wait_until_carried(sluice, load)
            at = load.fates(0, load.arrived() // 2)[-1]
            first = load.bound()
            rig.end(checked[f"h{at}"])
            other = 5 - at
            def moved():
                bound = load.bound()
                load.wait(500)
                return other in load.fates(bound, load.bound())
            wait_for(moved, lambda: sluice.show("services"))
            wait_until_carried(sluice, load)
            load.nothing_lost(first, but=WINDOW)  # answers on their way to the session that ended
            load.stop()
            sluice.check_accounts()


# With rules each datagram is theirs to see; without them XDP has them again.
def test_rules_take_relayed_datagrams_from_xdp():
    port = 6500
    with Rig(hosts=2) as rig, Sluice(
            rig, flow_offload="on", services=[udp_service(4, port, ["h2"])]) as sluice:
        quiet(rig)
        load = udp_load(rig, 4, port, {2: "h2"})
        wait_until_carried(sluice, load)
        rig.run("router", "nft", "add table inet t; add chain inet t in "
                "{ type filter hook input priority 0; }; add rule inet t in counter")
        def by_workers():
            before = carried(sluice)
            load.wait(500)
            return carried(sluice)[0] == before[0]
        wait_for(by_workers, lambda: sluice.show("status")["tiers"])
        wait_for(lambda: sluice.show("status")["tiers"]["entries"] == 0, "stale entries go")
        rig.run("router", "nft", "delete table inet t")
        wait_until_carried(sluice, load)
        sent = load.stop()
        wait_for(lambda: messages(sluice)[:2] == [sent, sent], lambda: f"{messages(sluice)}, {sent}")
        sluice.check_accounts()
