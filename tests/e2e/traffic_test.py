"""Real programs through Sluice, IPv4 and IPv6, in native and in generic mode.

After each test the accounts are checked: on every interface each received packet has one outcome,
and no frame is missing.
"""

import contextlib
import json
import os
import re

import pytest

from programs import FileServer, SshServer, iperf
from rig import Rig, Sluice, answered, growing, wait_for

NEAR = {4: "10.77.1.1", 6: "fd77:0:0:1::1"}  # the router, as h1 sees it
H1 = {4: "10.77.1.2", 6: "fd77:0:0:1::2"}
H2 = {4: "10.77.2.2", 6: "fd77:0:0:2::2"}
FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])


@pytest.fixture(scope="module", params=["native", "generic"])
def router(request):
    """(rig, sluice), the same for all tests of a mode."""
    with Rig() as rig:
        interfaces = [{"name": name, "mode": request.param} for name in rig.hosts]
        with Sluice(rig, interfaces) as sluice:
            assert {i["mode"] for i in sluice.show("interfaces")} == {request.param}
            yield rig, sluice


@pytest.fixture(scope="module")
def servers(router):
    rig = router[0]
    rig.serve("h2", 5201, "iperf3", "-s")
    return {"h1": FileServer(rig, "h1", 8080), "h2": FileServer(rig, "h2", 8080)}


@FAMILIES
@pytest.mark.parametrize("size", [56, 1400, 8000])
def test_ping(rig, sluice, family, size):
    # 8000 bytes are six fragments each way, which the hosts make and reassemble.
    packets = 3 * -(-size // 1480)
    with growing(sluice, "sluice_forwarded_packets_total", packets, interface="h1"), \
         growing(sluice, "sluice_forwarded_packets_total", packets, interface="h2"):
        said = rig.ping("h1", H2[family], "-s", str(size)).stdout
    assert answered(said)
    assert said.count("ttl=63") >= 3, said


@FAMILIES
def test_downloads_arrive_unharmed_in_both_directions(rig, sluice, servers, family):
    with growing(sluice, "sluice_checksums_completed_total", 10, interface="h1"), \
         growing(sluice, "sluice_checksums_completed_total", 10, interface="h2"):
        servers["h2"].check_download("h1", H2[family])
        servers["h1"].check_download("h2", H1[family])


@FAMILIES
@pytest.mark.parametrize("direction", [[], ["-R"]], ids=["there", "back"])
def test_iperf_tcp(rig, sluice, servers, family, direction):
    end = iperf(rig, "h1", H2[family], "-n", "16M", *direction)
    assert end["sum_received"]["bytes"] >= 16 << 20 or end["sum_sent"]["bytes"] >= 16 << 20


@FAMILIES
@pytest.mark.parametrize("direction", [[], ["-R"]], ids=["there", "back"])
def test_iperf_udp(rig, sluice, servers, family, direction):
    """Nothing gets lost without a trace. A busy machine may stall a receiver or a worker for longer
    than their queues last, so how much is lost says nothing about Sluice; that somebody has counted
    each of them does."""
    before = counted_as_lost(rig, sluice)
    with growing(sluice, "sluice_forwarded_packets_total",
                 interface="h2" if direction else "h1"):
        end = iperf(rig, "h1", H2[family], "-u", "-b", "8M", "-l", "1200", "-n", "1M",
                    *direction)["sum"]
    counted = counted_as_lost(rig, sluice) - before
    assert end["packets"] >= 870
    assert end["lost_packets"] <= counted, f"{end}: {counted} counted as lost"


def counted_as_lost(rig, sluice):
    """By Sluice, by the programs' sockets, by the queues of the interfaces between them."""
    metrics = sluice.metrics()
    total = sum(metrics.get(name) for name in (
        "sluice_dropped_packets_total", "sluice_generated_dropped_packets_total",
        "sluice_xdp_ring_full_total", "sluice_tx_errors_total"))
    for host in ("router", "h1", "h2"):
        for line in rig.run(host, "nstat", "-asz", "UdpInErrors", "Udp6InErrors").stdout.splitlines():
            if line.startswith("Udp"):
                total += int(line.split()[1])
        for link in json.loads(rig.run(host, "ip", "-s", "-j", "link").stdout):
            total += sum(link["stats64"][way]["dropped"] for way in ("rx", "tx"))
    return total


@FAMILIES
@pytest.mark.parametrize("kind", [["-U", "-p", "33434"], ["-I"], ["-T", "-p", "8080"]],
                         ids=["udp", "icmp", "tcp"])
def test_traceroute(rig, sluice, servers, family, kind):
    with growing(sluice, "sluice_dropped_packets_total", interface="h1", reason="ttl_expired"):
        said = rig.run("h1", "traceroute", f"-{family}", "-n", "-q", "1", "-w", "5", "-m", "5",
                       *kind, H2[family]).stdout
    hops = re.findall(r"^ *\d+ +(\S+)", said, re.MULTILINE)
    assert hops == [NEAR[family], H2[family]], said


@pytest.fixture
def narrow_h2(rig, sluice):
    """The way out to h2 has an MTU of 1300."""
    rig.run("router", "ip", "link", "set", "h2", "mtu", "1300")
    wait_for(lambda: sluice.interface("h2")["mtu"] == 1300, "the new MTU")
    yield
    rig.run("router", "ip", "link", "set", "h2", "mtu", "1500")
    rig.run("h2", "ip", "link", "set", "eth0", "mtu", "1500")
    wait_for(lambda: sluice.interface("h2")["mtu"] == 1500, "the old MTU")
    for family in ("-4", "-6"):
        rig.run("h1", "ip", family, "route", "flush", "cache")


@FAMILIES
def test_tcp_finds_the_smaller_mtu_behind_the_router(rig, sluice, servers, narrow_h2, family):
    # h2 knows nothing of it, and asks for segments of full size.
    reason = "fragmentation_needed" if family == 4 else "packet_too_big"
    told = (growing(sluice, "sluice_dropped_packets_total", interface="h1", reason=reason)
            if sluice.interface("h1")["mode"] == "native"
            else contextlib.nullcontext())  # unsegmented TCP is the kernel's there
    with told:
        servers["h1"].check_download("h2", H1[family])


@FAMILIES
def test_tracepath_finds_the_smaller_mtu_behind_the_router(rig, sluice, narrow_h2, family):
    rig.run("h2", "ip", "link", "set", "eth0", "mtu", "1300")
    said = rig.run("h1", "tracepath", "-n", f"-{family}", H2[family]).stdout
    assert "pmtu 1300" in said and re.search(r"Resume: pmtu 1300 hops 2 back 2", said), said
    # IPv4 without DF is fragmented by the router, IPv6 by the host, which knows now.
    rig.run("h1", "ip", "-4", "route", "flush", "cache")
    assert answered(rig.ping("h1", H2[family], "-M", "dont", "-s", "1400").stdout)


@FAMILIES
@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_netcat(rig, sluice, family, kind):
    port = 7000 + family + (10 if kind == "udp" else 0)
    flags = ["-u"] if kind == "udp" else []
    server = rig.serve("h2", port, "nc", f"-{family}", "-l", *flags, str(port), kind=kind)
    text = f"through Sluice by {kind} over IPv{family}\n"
    rig.run("h1", "nc", f"-{family}", *flags, "-w", "1", "-N", H2[family], str(port), input=text)
    wait_for(lambda: rig.read_log(server) == text, "nc's text arrives")
    rig.end(server)


@FAMILIES
def test_ssh_and_scp(rig, sluice, family):
    server = SshServer(rig, "h2", 2200 + family)
    assert rig.run("h1", "hostname").stdout == server.run("h1", H2[family], "hostname").stdout
    source = rig.write("upload", os.urandom(500_000))
    target = rig.path(f"uploaded{family}")
    server.copy("h1", H2[family], source, target)
    with open(source, "rb") as sent, open(target, "rb") as received:
        assert sent.read() == received.read()
    os.remove(server.key)
    os.remove(server.key + ".pub")
    os.remove(rig.path("host-key-h2"))
    os.remove(rig.path("host-key-h2.pub"))


def test_unknown_and_unreachable_destinations_are_answered(rig, sluice):
    with growing(sluice, "sluice_dropped_packets_total", interface="h1", reason="no_route"):
        said = rig.ping("h1", "192.0.2.99", count=1, check=False).stdout
    assert "Destination Net Unreachable" in said
    with growing(sluice, "sluice_dropped_packets_total", interface="h1", reason="neighbor_failed"):
        said = rig.run("h1", "ping", "-n", "-c", "1", "-W", "10", "10.77.2.77", check=False).stdout
    assert "Destination Host Unreachable" in said


def test_nothing_was_lost_without_a_word(rig, sluice):
    metrics = sluice.metrics()
    assert metrics.get("sluice_mirror_divergence") == 0
    assert metrics.get("sluice_worker_stalled") == 0
    assert metrics.get("sluice_ready") == 1
    assert metrics.get("sluice_dropped_packets_total", reason="no_frames") == 0
    assert metrics.get("sluice_dropped_packets_total", reason="punt_failed") == 0


def test_jumbo_frames_in_several_buffers():
    with Rig() as rig:
        rig.set_mtu(9000)
        with Sluice(rig, limits={"frame_size": 2048}) as sluice:
            assert all(i["multi_buffer"] and i["mtu"] == 9000 for i in sluice.show("interfaces"))
            for family in (4, 6):
                said = rig.ping("h1", H2[family], "-M", "do", "-s", "8900").stdout
                assert answered(said)
            rig.serve("h2", 5201, "iperf3", "-s")
            for options in ([], ["-R"]):
                end = iperf(rig, "h1", H2[4], "-n", "16M", "-M", "8900", *options)
                assert end["sum_sent"]["bytes"] >= 16 << 20
            # To the router itself: through the punt device in one piece.
            said = rig.ping("h1", "10.77.2.1", "-M", "do", "-s", "8900").stdout
            assert answered(said)
            sluice.check_accounts()
            metrics = sluice.metrics()
            assert metrics.get("sluice_received_bytes_total") > 24 << 20
            assert metrics.get("sluice_dropped_packets_total", reason="too_many_segments") == 0


def test_idle_costs_next_to_nothing():
    with Rig() as rig, Sluice(rig) as sluice:
        rig.ping("h1", H2[4])
        sluice.check_accounts()
        # Two seconds by the program's own uptime, in which nobody asks anything.
        used = sluice.cpu_seconds()
        since = sluice.show("status")["uptime_seconds"]
        idle = {}
        def two_seconds_passed():
            with open("/proc/uptime", encoding="ascii") as file:
                now = float(file.read().split()[0])
            return now - idle.setdefault("start", now) >= 2
        wait_for(two_seconds_passed)
        used = sluice.cpu_seconds() - used
        elapsed = sluice.show("status")["uptime_seconds"] - since
        assert elapsed >= 2
        assert used < 0.02 * elapsed + 0.01, f"{used} s of CPU time in {elapsed} s"
