"""A home router: two hosts inside (h1, h2), a server outside (h3) that knows no way to the inside.

The rules are nftables' in the router's namespace, loaded by nft; Sluice follows them. Everything
here is real programs with Linux' default offloads. SLUICE_E2E_AGAINST=kernel runs the same without
Sluice: what then fails is the test's fault.
"""

import contextlib
import hashlib
import os
import re

import pytest

from programs import DnsServer, FileServer, FtpServer, iperf, url
from rig import Rig, Sluice, answered, growing, wait_for

KERNEL_ONLY = os.environ.get("SLUICE_E2E_AGAINST") == "kernel"
OUTSIDE = {4: "10.77.3.1", 6: "fd77:0:0:3::1"}  # the router, as h3 sees it
SERVER = {4: "10.77.3.2", 6: "fd77:0:0:3::2"}
INSIDE = {4: "10.77.1.2", 6: "fd77:0:0:1::2"}
FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
RULES = """
flush ruleset
table inet filter {
  set blocked { type ipv4_addr; }
  chain input {
    type filter hook input priority 0; policy drop;
    ct state established,related accept
    iifname { lo, h1, h2 } accept
    meta l4proto { icmp, ipv6-icmp } accept
  }
  chain forward {
    type filter hook forward priority 0; policy drop;
    ip saddr @blocked counter drop
    ct state vmap { established : accept, related : accept, invalid : drop }
    iifname { h1, h2 } counter accept
    iifname h3 ct status dnat counter accept
    counter
  }
}
table ip nat {
  chain prerouting {
    type nat hook prerouting priority -100; policy accept;
    ip daddr 10.77.3.1 tcp dport 8080 counter dnat to 10.77.1.2:80
    ip daddr 10.77.3.1 udp dport 5353 counter dnat to 10.77.1.2:53
  }
  chain postrouting {
    type nat hook postrouting priority 100; policy accept;
    oifname h3 counter masquerade
    oifname h1 ip saddr 10.77.1.0/24 ip daddr 10.77.1.2 counter masquerade
  }
}
"""


class Nobody(Sluice):
    """In Sluice's place when the kernel alone is tested: there is nothing to start or to ask."""

    def start(self, *_, **__):
        self.process = None
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    hang_up = kill = check_accounts = lambda self: None

    def stop(self):
        return 0

    def log(self):
        return "reloaded"


def make_rig():
    rig = Rig(hosts=3)
    rig.__enter__()
    # The server answers to the router only: what arrives untranslated stays unanswered.
    rig.batch("h3", "route del default")
    load(rig, RULES)
    return rig


def load(rig, commands):
    path = rig.write("rules.nft", commands)
    rig.run("router", "nft", "-f", path)


def make_sluice(rig, **sections):
    return (Nobody if KERNEL_ONLY else Sluice)(rig, **sections)


@pytest.fixture(scope="module")
def router():
    rig = make_rig()
    try:
        with make_sluice(rig) as sluice:
            yield rig, sluice
    finally:
        rig.__exit__(None, None, None)


@pytest.fixture(scope="module")
def servers(router):
    rig = router[0]
    rig.serve("h3", 5201, "iperf3", "-s")
    DnsServer(rig, "h3")
    return {"outside": FileServer(rig, "h3", 80), "inside": FileServer(rig, "h1", 80)}


def through_sluice(sluice, packets, interface="h1", reason=None):
    """Sluice itself must have forwarded as much when the block ends."""
    if KERNEL_ONLY:
        return contextlib.nullcontext()
    if reason:
        return growing(sluice, "sluice_dropped_packets_total", packets, interface=interface,
                       reason=reason)
    return growing(sluice, "sluice_forwarded_packets_total", packets, interface=interface)


def download(rig, host, name, server, address, port=80):
    """Starts a download; returns (process, path, digest)."""
    path = rig.path(name)
    process = rig.start(host, "curl", "-sS", "-g", "--fail", "--max-time", "60", "-o", path,
                        url(address, port, "file"))
    return process, path, server.digest


def finish(rig, downloads):
    for process, path, digest in downloads:
        assert process.wait(timeout=90) == 0, rig.read_log(process)
        with open(path, "rb") as file:
            assert hashlib.sha256(file.read()).hexdigest() == digest


def test_parallel_downloads_both_ways(rig, sluice, servers):
    """Out through masquerade, and in through the port forward, all at a time."""
    with through_sluice(sluice, 1000), through_sluice(sluice, 1000, "h3"):
        finish(rig, [download(rig, host, f"out-{host}-{i}", servers["outside"], SERVER[4])
                     for i in range(4) for host in ("h1", "h2")] +
               [download(rig, "h3", f"in-{i}", servers["inside"], OUTSIDE[4], 8080)
                for i in range(4)])


@pytest.mark.parametrize("direction", [[], ["-R"]], ids=["there", "back"])
def test_iperf_of_sixteen_streams(rig, sluice, servers, direction):
    with through_sluice(sluice, 100):
        end = iperf(rig, "h1", SERVER[4], "-P", "16", "-n", "32M", *direction)
    assert max(end["sum_received"]["bytes"], end["sum_sent"]["bytes"]) >= 32 << 20


def ask(rig, host, address, port=53, check=True, wait=5):
    done = rig.run(host, "kdig", f"@{address}", "-p", str(port), "+short", f"+timeout={wait}",
                   "+retry=0", "name.example", check=check)
    return done.stdout.strip()


def test_dns_over_udp(rig, sluice, servers):
    with through_sluice(sluice, 20), through_sluice(sluice, 20, "h2"):
        for _ in range(20):
            for host in ("h1", "h2"):
                assert ask(rig, host, SERVER[4]) == DnsServer.ANSWER


def test_udp_port_forward(rig, sluice, servers):
    DnsServer(rig, "h1")
    with through_sluice(sluice, 1, "h3"):
        assert ask(rig, "h3", OUTSIDE[4], 5353) == DnsServer.ANSWER


@pytest.mark.parametrize("size", [56, 1400, 8000])
def test_ping(rig, sluice, size):
    with through_sluice(sluice, 3):  # what was in fragments is one packet, put together
        said = rig.ping("h1", SERVER[4], "-s", str(size)).stdout
    assert answered(said) and said.count("ttl=63") >= 3, said
    # Two hosts with the same identifier.
    pings = [rig.start(host, "ping", "-n", "-c", "3", "-i", "0.1", "-e", "77", SERVER[4])
             for host in ("h1", "h2")]
    for process in pings:
        assert process.wait(timeout=20) == 0, rig.read_log(process)


@pytest.mark.parametrize("kind", [["-U", "-p", "33434"], ["-I"], ["-T", "-p", "80"]],
                         ids=["udp", "icmp", "tcp"])
def test_traceroute(rig, sluice, servers, kind):
    with through_sluice(sluice, 1, reason="ttl_expired"):
        said = rig.run("h1", "traceroute", "-4", "-n", "-q", "1", "-w", "5", "-m", "5", *kind,
                       SERVER[4]).stdout
    assert re.findall(r"^ *\d+ +(\S+)", said, re.MULTILINE) == ["10.77.1.1", SERVER[4]], said


def test_tracepath_through_a_narrow_outer_link(rig, sluice):
    for host, device in (("router", "h3"), ("h3", "eth0")):
        rig.run(host, "ip", "link", "set", device, "mtu", "1300")
    try:
        if not KERNEL_ONLY:
            wait_for(lambda: sluice.interface("h3")["mtu"] == 1300, "the new MTU")
        said = rig.run("h1", "tracepath", "-n", "-4", SERVER[4]).stdout
        assert re.search(r"Resume: pmtu 1300 hops 2 back 2", said), said
    finally:
        for host, device in (("router", "h3"), ("h3", "eth0")):
            rig.run(host, "ip", "link", "set", device, "mtu", "1500")
        rig.run("h1", "ip", "-4", "route", "flush", "cache")


def test_ftp_in_passive_mode(rig, sluice):
    server = FtpServer(rig, "h3", 21)
    path = rig.path("by-ftp")
    for host in ("h1", "h2"):
        with through_sluice(sluice, 20, host):
            rig.run(host, "curl", "-sS", "--fail", "--max-time", "30", "--ftp-pasv", "-o", path,
                    f"ftp://{SERVER[4]}/file")
        with open(path, "rb") as file:
            assert hashlib.sha256(file.read()).hexdigest() == server.digest


def test_port_forward_from_outside(rig, sluice, servers):
    with through_sluice(sluice, 1000, "h1"):
        servers_download(rig, servers, "h3", OUTSIDE[4], 8080)
    refused = rig.run("h3", "curl", "-sS", "--max-time", "2", url(OUTSIDE[4], 8081), check=False)
    assert refused.returncode != 0


def servers_download(rig, servers, host, address, port):
    finish(rig, [download(rig, host, f"forward-{host}", servers["inside"], address, port)])


@pytest.mark.parametrize("host", ["h1", "h2"])
def test_hairpin(rig, sluice, servers, host):
    """From inside to the outer address, and so back inside: by h2, and by the server itself."""
    with through_sluice(sluice, 1000, "h1"):  # where the server is
        servers_download(rig, servers, host, OUTSIDE[4], 8080)


def test_ipv6_goes_out_and_does_not_come_in(rig, sluice, servers):
    # Of the data, which comes from h3; of acknowledgments there are as few as GRO at h1 makes of them.
    with through_sluice(sluice, 1000, "h3"):
        servers["outside"].check_download("h1", SERVER[6])
    assert answered(rig.ping("h1", SERVER[6], "-s", "4000").stdout)
    with through_sluice(sluice, 1, "h3", reason="firewall_rule"):
        done = rig.run("h3", "curl", "-sS", "-g", "--max-time", "2", url(INSIDE[6], 80),
                       check=False)
    assert done.returncode == 28, done.stdout
    said = rig.run("h1", "traceroute", "-6", "-n", "-q", "1", "-w", "5", "-m", "5",
                   SERVER[6]).stdout
    assert re.findall(r"^ *\d+ +(\S+)", said, re.MULTILINE) == ["fd77:0:0:1::1", SERVER[6]], said


def test_rules_and_elements_added_while_it_runs(rig, sluice, servers):
    def asked(host):
        return ask(rig, host, SERVER[4], check=False, wait=1) == DnsServer.ANSWER

    assert asked("h1") and asked("h2")
    rig.run("router", "nft", "add element inet filter blocked { 10.77.1.2 }")
    wait_for(lambda: not asked("h1"), "h1 is blocked")
    assert asked("h2")
    rig.run("router", "nft", "delete element inet filter blocked { 10.77.1.2 }")
    wait_for(lambda: asked("h1"), "h1 is allowed again")
    rig.run("router", "nft", "insert rule inet filter forward udp dport 53 counter drop")
    wait_for(lambda: not asked("h1") and not asked("h2"), "DNS is dropped")
    # Nothing else has suffered; and then all is as it was.
    assert answered(rig.ping("h1", SERVER[4]).stdout)
    load(rig, RULES)
    wait_for(lambda: asked("h1") and asked("h2"), "DNS is allowed again")


# --- Connections that outlive Sluice --------------------------------------------------------------


class LongDownload:
    """curl from inside through NAT, for some twenty seconds. Both ends keep the rate low: what the
    client alone does not read, its kernel would."""

    def __init__(self, rig):
        self.rig = rig
        self.server = FileServer(rig, "h3", 81, rate="150k")
        self.path = rig.path("long-download")
        self.process = rig.start("h1", "curl", "-sS", "--fail", "--limit-rate", "150k", "-o",
                                 self.path, url(SERVER[4], 81, "file"))
        wait_for(lambda: self.size() > 0, "the download begins")

    def size(self):
        return os.path.getsize(self.path) if os.path.exists(self.path) else 0

    def must_go_on(self, bytes_more=50_000):
        goal = self.size() + bytes_more
        wait_for(lambda: self.size() >= goal or self.process.poll() is not None,
                 "the download goes on", seconds=20)
        assert self.process.poll() in (None, 0), self.rig.read_log(self.process)
        assert self.size() >= goal, "it was over too early to show anything"

    def finish(self):
        finish(self.rig, [(self.process, self.path, self.server.digest)])


@pytest.fixture
def fresh_rig():
    rig = make_rig()
    yield rig
    rig.__exit__(None, None, None)


def test_a_long_download_lives_through_start_reload_stop_and_another_start(fresh_rig):
    rig = fresh_rig
    long = LongDownload(rig)  # begun with the kernel alone
    long.must_go_on()
    sluice = make_sluice(rig)
    sluice.start()
    with through_sluice(sluice, 20):
        long.must_go_on()
    sluice.hang_up()
    wait_for(lambda: "reloaded" in sluice.log(), sluice.log)
    with through_sluice(sluice, 20):
        long.must_go_on()
    begun_with_sluice = LongerTalk(rig)
    assert sluice.stop() == 0, sluice.log()
    long.must_go_on()
    begun_with_sluice.must_go_on()
    sluice.start()
    with through_sluice(sluice, 20):
        long.must_go_on()
    begun_with_sluice.must_go_on()
    long.finish()
    begun_with_sluice.finish()
    sluice.stop()


_TALKER = """
import socket, sys, time
s = socket.create_connection((sys.argv[1], 7777))
s.settimeout(30)
number = 0
while True:
    line = b"%d\\n" % number
    s.sendall(line)
    heard = b""
    while len(heard) < len(line):
        more = s.recv(100)
        if not more: sys.exit("closed")
        heard += more
    if heard != line: sys.exit("garbled")
    print(number, flush=True)
    number += 1
    time.sleep(0.02)
"""
_ECHO = """
import socket, threading
l = socket.create_server(("", 7777))
def serve(c):
    while True:
        data = c.recv(4096)
        if not data: break
        c.sendall(data)
while True:
    threading.Thread(target=serve, args=(l.accept()[0],), daemon=True).start()
"""


class LongerTalk:
    """A client inside that says something fifty times a second and wants it repeated."""

    def __init__(self, rig):
        self.rig = rig
        if not rig.listening("h3", 7777):
            rig.serve("h3", 7777, "/usr/bin/python3", "-c", _ECHO)
        self.process = rig.start("h1", "/usr/bin/python3", "-c", _TALKER, SERVER[4])
        self.must_go_on()

    def lines(self):
        return self.rig.read_log(self.process).count("\n")

    def must_go_on(self, more=10):
        goal = self.lines() + more
        wait_for(lambda: self.lines() >= goal or self.process.poll() is not None,
                 "the talk goes on", seconds=30)
        assert self.process.poll() is None, self.rig.read_log(self.process)

    def finish(self):
        self.rig.end(self.process)


def test_killed_the_kernel_carries_on_with_the_same_rules(fresh_rig):
    """What the kernel does with connections that Sluice has not given back: it sees them in the
    middle, and picks up the ones whose client speaks first (nf_conntrack_tcp_loose), with the same
    port as before. New ones work at once."""
    rig = fresh_rig
    outside = FileServer(rig, "h3", 80)
    DnsServer(rig, "h3")
    sluice = make_sluice(rig)
    sluice.start()
    talk = LongerTalk(rig)
    sluice.kill()
    wait_for(lambda: not rig.left_behind(), lambda: f"left behind: {rig.left_behind()}")
    assert answered(rig.ping("h1", SERVER[4]).stdout)
    assert ask(rig, "h1", SERVER[4]) == DnsServer.ANSWER
    outside.check_download("h1", SERVER[4])
    talk.must_go_on()
    # And a new Sluice takes over what the kernel has now.
    sluice.start()
    talk.must_go_on()
    with through_sluice(sluice, 10):
        talk.must_go_on(20)
    talk.finish()
    sluice.stop()


def test_two_workers(fresh_rig):
    """Both directions of a translated flow meet on one of them, whatever queue they arrive by."""
    rig = fresh_rig
    sluice = make_sluice(rig, workers={"count": 2})
    with sluice:
        rig.serve("h3", 5201, "iperf3", "-s")
        outside = FileServer(rig, "h3", 80)
        with through_sluice(sluice, 100):
            iperf(rig, "h1", SERVER[4], "-P", "16", "-n", "16M")
            iperf(rig, "h1", SERVER[4], "-P", "16", "-n", "16M", "-R")
        finish(rig, [download(rig, host, f"w-{host}-{i}", outside, SERVER[4])
                     for i in range(4) for host in ("h1", "h2")])
        # The forward changes the port, and with it the worker that the replies would go to.
        inside = FileServer(rig, "h1", 80)
        finish(rig, [download(rig, "h3", f"f-{i}", inside, OUTSIDE[4], 8080) for i in range(12)])
        assert answered(rig.ping("h1", SERVER[4], "-s", "4000").stdout)
        sluice.check_accounts()


