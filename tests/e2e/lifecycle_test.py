"""Sluice begins, ends and reloads, and interfaces come, go and change, while traffic flows."""

import json
import os
import re
import stat
import time

import pytest

from programs import iperf
from rig import Rig, Sluice, answered, growing, pinged, run, wait_for

H1 = {4: "10.77.1.2", 6: "fd77:0:0:1::2"}
H2 = {4: "10.77.2.2", 6: "fd77:0:0:2::2"}


@pytest.fixture
def rig():
    with Rig() as one:
        yield one


@pytest.fixture
def sluice(rig):
    with Sluice(rig) as one:
        yield one
        if one.process.poll() is None:
            one.check_accounts()


def check_forwarded_by_sluice(rig, sluice, address=H2[4], *options):
    with growing(sluice, "sluice_forwarded_packets_total", 3, interface="h1"):
        said = rig.ping("h1", address, *options).stdout
        assert answered(said), said + sluice.cli("show", "drops").stdout + sluice.log()


class Pinger:
    """ping at 50 packets a second, until stop()."""

    PER_SECOND = 50

    def __init__(self, rig, address=H2[4]):
        self.rig = rig
        self.process = rig.start("h1", "ping", "-n", "-i", "0.02", "-W", "1", address)
        self.wait_for_replies(5)

    def replies(self):
        return self.rig.read_log(self.process).count("icmp_seq=")

    def wait_for_replies(self, more):
        goal = self.replies() + more
        wait_for(lambda: self.replies() >= goal, f"{more} more replies", seconds=20)

    def stop(self):
        """How many were lost; one may be on its way."""
        self.process.send_signal(2)
        self.process.wait(timeout=10)
        sent, received = pinged(self.rig.read_log(self.process))
        return max(sent - received - 1, 0)


def kill(sluice):
    """How long it took, in seconds."""
    begin = time.monotonic()
    sluice.kill()
    return time.monotonic() - begin


# --- The end --------------------------------------------------------------------------------------


def test_killed_under_traffic_the_kernel_carries_on_and_a_restart_works_at_once(rig):
    sluice = Sluice(rig).start()
    pinger = Pinger(rig)
    assert rig.left_behind()
    dying = kill(sluice)
    assert stat.S_ISSOCK(os.stat(sluice.control).st_mode)  # stale now
    sluice.start()
    pinger.wait_for_replies(10)
    with growing(sluice, "sluice_forwarded_packets_total", 20, interface="h1"):
        pinger.wait_for_replies(20)
    dying += kill(sluice)
    pinger.wait_for_replies(20)
    wait_for(lambda: not rig.left_behind(), lambda: f"left behind: {rig.left_behind()}")
    # What comes while the program dies is lost; two kills and a start cost no more than that.
    assert pinger.stop() <= 10 + dying * Pinger.PER_SECOND
    for address in (H2[4], H2[6]):
        assert answered(rig.ping("h1", address).stdout)


@pytest.mark.parametrize("signal", [15, 2], ids=["SIGTERM", "SIGINT"])
def test_ended_cleanly_under_traffic(rig, signal):
    before = rig.links()
    sluice = Sluice(rig).start()
    pinger = Pinger(rig)
    sluice.process.send_signal(signal)
    assert sluice.process.wait(timeout=20) == 0, sluice.log()
    assert not rig.left_behind() and not os.path.exists(sluice.control)
    pinger.wait_for_replies(10)
    assert pinger.stop() <= 1
    assert "error" not in sluice.log()
    # Nothing about the interfaces has changed.
    def state(links):
        return [(x["ifname"], x["flags"], x["mtu"], x["address"]) for x in links]
    assert state(rig.links()) == state(before)


# --- Interfaces -----------------------------------------------------------------------------------


def test_interface_deleted_and_made_again(rig, sluice):
    for family in (4, 6):
        check_forwarded_by_sluice(rig, sluice, H2[family])
    old = sluice.interface("h2")["ifindex"]
    for _ in range(3):
        # Under load, so that frames are in every ring when it goes.
        flood = rig.start("h1", "ping", "-n", "-q", "-f", "-l", "200", "-s", "500", H2[4])
        with growing(sluice, "sluice_forwarded_packets_total", 500, interface="h2"):
            pass
        rig.run("router", "ip", "link", "del", "h2")
        sluice.wait_interface("h2", "absent")
        assert sluice.cli("wait-ready", "--timeout", "0").returncode == 1
        rig.end(flood)
        assert not rig.can_ping("h1", H2[4])
        assert rig.can_ping("h1", "10.77.1.1")
        rig.add_pair("h2")
        sluice.wait_interface("h2")
        for family in (4, 6):
            wait_for(lambda: rig.can_ping("h1", H2[family]), f"IPv{family}", seconds=20)
            check_forwarded_by_sluice(rig, sluice, H2[family])
        sluice.check_accounts()
    assert sluice.interface("h2")["ifindex"] != old
    assert sluice.cli("wait-ready", "--timeout", "5").returncode == 0
    assert [name for name in rig.left_behind() if name.startswith("slu")] == [
        sluice_tap(sluice, "h1"), sluice_tap(sluice, "h2")]


def test_interface_renamed_and_moved_away_and_back(rig, sluice):
    run("ip", "netns", "add", rig.namespace("away"))
    try:
        for there, back in (
                (["name", "other"], ("router", "other", ["name", "h2"])),
                (["netns", rig.namespace("away")],
                 ("away", "h2", ["netns", rig.namespace("router")]))):
            rig.run("router", "ip", "link", "set", "h2", "down")
            rig.run("router", "ip", "link", "set", "h2", *there)
            sluice.wait_interface("h2", "absent")
            wait_for(lambda: rig.left_behind() == ["h1", sluice_tap(sluice, "h1")],
                     lambda: f"left behind: {rig.left_behind()}")
            where, name, how = back
            assert "xdp" not in rig.link(name, host=where)
            rig.run(where, "ip", "link", "set", name, *how)
            rig.batch("router", "link set h2 up", "address replace 10.77.2.1/24 dev h2",
                      "address replace fd77:0:0:2::1/64 dev h2 nodad")
            sluice.wait_interface("h2")
            for family in (4, 6):
                wait_for(lambda: rig.can_ping("h1", H2[family]), f"IPv{family}", seconds=20)
                check_forwarded_by_sluice(rig, sluice, H2[family])
    finally:
        run("ip", "netns", "del", rig.namespace("away"))


def sluice_tap(sluice, interface):
    return f"slu{sluice.interface(interface)['ifindex']}"


def test_link_goes_down_and_up(rig, sluice):
    check_forwarded_by_sluice(rig, sluice)
    for end, device in (("router", "h2"), ("h2", "eth0")):
        rig.run(end, "ip", "link", "set", device, "down")
        sluice.wait_interface("h2", "down")
        assert not rig.can_ping("h1", H2[4])
        rig.run(end, "ip", "link", "set", device, "up")
        sluice.wait_interface("h2")
        # What the kernel forgets when a link goes down.
        rig.batch("router", "address replace fd77:0:0:2::1/64 dev h2 nodad")
        rig.batch("h2", "address replace fd77:0:0:2::2/64 dev eth0 nodad",
                  "route replace default via 10.77.2.1",
                  "-6 route replace default via fd77:0:0:2::1")
        for family in (4, 6):
            wait_for(lambda: rig.can_ping("h1", H2[family]), f"IPv{family}", seconds=20)
            check_forwarded_by_sluice(rig, sluice, H2[family])


def test_an_interface_that_is_down_at_the_start_is_served_later(rig):
    rig.run("router", "ip", "link", "set", "h2", "down")
    sluice = Sluice(rig)
    with sluice.start(wait=False):
        wait_for(lambda: sluice.cli("show", "status").returncode == 0, "an answer")
        refused = sluice.cli("wait-ready", "--timeout", "0.1")
        assert refused.returncode == 1 and "h2" in refused.stdout
        rig.run("router", "ip", "link", "set", "h2", "up")
        sluice.wait_ready()
        wait_for(lambda: rig.can_ping("h1", H2[4]), "ping", seconds=20)
        check_forwarded_by_sluice(rig, sluice)


def test_mtu_changes(rig, sluice):
    for mtu in (3000, 9000, 1500):
        rig.set_mtu(mtu)
        wait_for(lambda: {i["mtu"] for i in sluice.show("interfaces")} == {mtu}, f"MTU {mtu}")
        for family, headers in ((4, 28), (6, 48)):
            wait_for(lambda: rig.can_ping("h1", H2[family], "-M", "do", "-s", str(mtu - headers)),
                     f"IPv{family} packets of {mtu} bytes")
            check_forwarded_by_sluice(rig, sluice, H2[family], "-M", "do", "-s",
                                      str(mtu - headers))
            rig.run("h1", "ip", f"-{family}", "route", "flush", "cache")
            assert not rig.can_ping("h1", H2[family], "-M", "do", "-s", str(mtu - headers + 1))


# --- Queues and workers ---------------------------------------------------------------------------


def both_ways(rig, streams=8):
    rig.serve("h2", 5201, "iperf3", "-s")
    for options in ([], ["-R"]):
        iperf(rig, "h1", H2[4], "-P", str(streams), "-n", "16M", *options)


def test_two_queues_and_two_workers():
    with Rig(queues=2) as rig, Sluice(rig, workers={"count": 2}) as sluice:
        assert [i["queues"] for i in sluice.show("interfaces")] == [2, 2]
        both_ways(rig)
        sluice.check_accounts()
        metrics = sluice.metrics()
        for worker in ("0", "1"):
            for interface in ("h1", "h2"):
                assert metrics.get("sluice_received_packets_total", worker=worker,
                                   interface=interface) > 50
        for family in (4, 6):
            check_forwarded_by_sluice(rig, sluice, H2[family])
        assert answered(rig.ping("h1", "10.77.2.1", "-s", "3000").stdout)


def test_frames_are_handed_over_to_the_worker_that_owns_the_output():
    with Rig(queues=2) as rig:
        rig.run("router", "ip", "link", "del", "h2")
        rig.add_pair("h2", queues=1)
        with Sluice(rig, workers={"count": 2}) as sluice:
            assert [i["queues"] for i in sluice.show("interfaces")] == [2, 1]
            both_ways(rig)
            sluice.check_accounts()
            metrics = sluice.metrics()
            assert metrics.get("sluice_frames_handed_over_total", worker="1") > 50
            assert metrics.get("sluice_dropped_packets_total", reason="interface_down") == 0
            for family in (4, 6):
                check_forwarded_by_sluice(rig, sluice, H2[family])


def set_queues(rig, count, check=True):
    """Of h1. With XDP a veth needs as many receive queues as the other end has transmit queues."""
    ends = [("h1", "eth0", "tx"), ("router", "h1", "rx")]
    return [rig.run(host, "ethtool", "-L", device, kind, str(count), check=check).returncode
            for host, device, kind in (ends if count == 1 else reversed(ends))]


def test_number_of_queues_grows_while_it_runs():
    with Rig(queues=2) as rig:
        set_queues(rig, 1)
        with Sluice(rig, workers={"count": 2}) as sluice:
            assert [i["queues"] for i in sluice.show("interfaces")] == [1, 2]
            check_forwarded_by_sluice(rig, sluice)
            set_queues(rig, 2)
            wait_for(lambda: sluice.interface("h1")["queues"] == 2, "2 queues")
            sluice.wait_interface("h1")
            both_ways(rig)
            sluice.check_accounts()
            metrics = sluice.metrics()
            assert metrics.get("sluice_received_packets_total", worker="1", interface="h1") > 50
            # The kernel does not take a queue away from a socket, and nothing breaks.
            assert set_queues(rig, 1, check=False)[1] != 0
            for family in (4, 6):
                check_forwarded_by_sluice(rig, sluice, H2[family])


# --- Reload ---------------------------------------------------------------------------------------


def test_reload_adds_and_removes_an_interface_and_loses_nothing():
    with Rig(hosts=3) as rig:
        sluice = Sluice(rig, ["h1", "h2"])
        with sluice.start():
            pinger = Pinger(rig)
            assert "h3" not in json.dumps(sluice.show("interfaces"))
            for _ in range(2):
                sluice.configure(["h1", "h2", "h3"])
                sluice.hang_up()
                sluice.wait_interface("h3")
                wait_for(lambda: rig.can_ping("h1", "10.77.3.2"), "ping to h3")
                with growing(sluice, "sluice_forwarded_packets_total", 3, interface="h3"):
                    assert answered(rig.ping("h3", H1[4]).stdout)

                sluice.configure(["h1", "h2"])
                sluice.hang_up()
                wait_for(lambda: sluice.interface("h3") is None, "h3 is let go")
                with growing(sluice, "sluice_punts_total", interface="h1",
                             reason="unserved_output"):
                    wait_for(lambda: rig.can_ping("h1", "10.77.3.2"), "the kernel takes h3")
            assert pinger.stop() == 0
            sluice.configure(["h1", "h2"], limits={"neighbors": 100})
            sluice.hang_up()
            wait_for(lambda: "at the next start only" in sluice.log(), "a warning")
            sluice.configure(["h2", {"name": "h1", "checksum": "on"}])
            sluice.hang_up()
            wait_for(lambda: "reloaded" in sluice.log().split("h1: let go")[-1], "h1 is changed")
            sluice.wait_interface("h1")
            check_forwarded_by_sluice(rig, sluice)
            sluice.check_accounts()


BROKEN = [
    ("interfaces:\n  - name: h1\n  - name: h2\n    colour: green\n", r":4:5: "),
    ("interfaces: [", r":1:\d+: "),
    ("interfaces:\n  - name: h1\n  - name: h1\n", r":3:\d+: "),
    (None, "cannot|No such file"),
]


@pytest.mark.parametrize("text, said", BROKEN, ids=["key", "syntax", "twice", "absent"])
def test_reload_of_a_broken_file_changes_nothing_and_says_why(rig, sluice, text, said):
    pinger = Pinger(rig)
    before = sluice.show("interfaces")
    if text is None:
        os.remove(sluice.config)
    else:
        rig.write("sluice.yaml", text)
    sluice.hang_up()
    wait_for(lambda: "the running configuration stays" in sluice.log(), sluice.log)
    assert [line for line in sluice.log().splitlines()
            if "error" in line and sluice.config in line and re.search(said, line)], sluice.log()
    with growing(sluice, "sluice_forwarded_packets_total", 10, interface="h1"):
        pinger.wait_for_replies(10)
    assert pinger.stop() == 0
    same = ["name", "slot", "ifindex", "state", "queues"]
    assert [[i[key] for key in same] for i in sluice.show("interfaces")] == [
        [i[key] for key in same] for i in before]
