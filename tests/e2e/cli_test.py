"""The command line of the real program: what it shows, its exit codes, and errors at the start.

Exit codes: 0 fine, 1 failed, 2 bad usage or configuration, 3 not running. An error at the start is
one line that says what to do, and leaves nothing behind.
"""

import ctypes
import os
import re
import socket
import struct
import subprocess

import pytest

from rig import SLUICE, Rig, Sluice, inside, run, wait_for

# Every key that design and views.h promise: added to, never renamed.
PACKETS = {"received", "forwarded", "local", "punted", "dropped", "held", "merged"}
STATUS = {"version", "kernel", "pid", "uptime_seconds", "ready", "not_ready_reason", "config_file",
          "metrics_listen", "interfaces", "interfaces_up", "workers", "workers_stalled", "packets",
          "punts", "kernel_decides", "mirror", "tables"}
INTERFACE = {"name", "slot", "ifindex", "state", "problem", "mac", "mtu", "driver", "mode",
             "zero_copy", "multi_buffer", "busy_poll", "checksum", "queues", "addresses",
             "rx_packets", "rx_bytes", "tx_packets", "tx_bytes", "tx_errors", "drops", "punts",
             "held", "xdp_redirect", "xdp_pass", "xdp_drop", "xdp_forward", "ring_full"}
ROUTES = {"total4", "total6", "truncated", "routes"}
ROUTE = {"prefix", "type", "paths", "mtu", "served", "not_served_by"}
NEIGHBOR = {"address", "dev", "mac", "state", "queued", "age_seconds", "worker"}
WORKER = {"worker", "cpu", "state", "busy_ratio", "loops", "sleeps", "frames_free", "frames_fill",
          "frames_tx", "frames_held", "frames_handed_over"}
DROP = {"interface", "reason", "text", "packets"}
WHATS = ["status", "interfaces", "routes", "neighbors", "workers", "drops"]


@pytest.fixture(scope="module")
def rig():
    with Rig() as one:
        yield one


@pytest.fixture(scope="module")
def running(rig):
    with Sluice(rig) as sluice:
        rig.ping("h1", "10.77.2.2")
        rig.ping("h1", "fd77:0:0:2::2")
        yield sluice


# --- show -----------------------------------------------------------------------------------------


def test_json_has_the_promised_keys(running):
    status = running.show("status")
    assert STATUS <= set(status) and PACKETS <= set(status["packets"])
    assert status["ready"] and status["pid"] == running.process.pid
    assert status["interfaces"] == status["interfaces_up"] == 2
    assert {table["name"] for table in status["tables"]} >= {"routes4", "routes6", "neighbors"}
    assert status["mirror"]["in_step"]
    interfaces = running.show("interfaces")
    assert [i["name"] for i in interfaces] == ["h1", "h2"]
    for interface in interfaces:
        assert INTERFACE <= set(interface)
        assert interface["state"] == "up" and interface["driver"] == "veth"
        assert interface["rx_packets"] > 0 and interface["tx_packets"] > 0
    routes = running.show("routes")
    assert ROUTES <= set(routes) and routes["total4"] > 0 and not routes["truncated"]
    assert all(ROUTE <= set(route) for route in routes["routes"])
    assert {"10.77.1.0/24", "fd77:0:0:2::/64"} <= {r["prefix"] for r in routes["routes"]}
    neighbors = running.show("neighbors")
    assert all(NEIGHBOR <= set(neighbor) for neighbor in neighbors)
    assert {"10.77.1.2", "10.77.2.2", "fd77:0:0:2::2"} <= {n["address"] for n in neighbors}
    workers = running.show("workers")
    assert len(workers) == 1 and WORKER <= set(workers[0])
    drops = running.show("drops")
    assert all(DROP <= set(drop) for drop in drops)
    assert {drop["interface"] for drop in drops} == {"h1", "h2"}


@pytest.mark.parametrize("what, said", [
    ("status", "ready"), ("interfaces", "h1"), ("routes", "10.77.1.0/24"),
    ("neighbors", "10.77.2.2"), ("workers", "sleeping|running"), ("drops", ".")])
def test_table_for_people(running, what, said):
    done = running.cli("show", what)
    assert done.returncode == 0 and re.search(said, done.stdout), done.stdout
    assert "{" not in done.stdout


def test_show_routes_by_destination_and_limit(running):
    assert running.route_to("10.77.2.99")["prefix"] == "10.77.2.0/24"
    assert running.route_to("fd77:0:0:1::77")["prefix"] == "fd77:0:0:1::/64"
    assert running.route_to("10.77.1.1")["type"] == "local"
    few = running.show("routes", "--limit", "2")
    assert len(few["routes"]) == 2 and few["truncated"]


@pytest.mark.parametrize("arguments, status", [
    (["show", "status"], 0), (["wait-ready", "--timeout", "5"], 0), (["--help"], 0),
    (["--version"], 0), (["show", "nonsense"], 2), (["show", "flows"], 0), (["show"], 2), ([], 2),
    (["nonsense"], 2), (["run"], 2), (["show", "status", "--nonsense"], 2),
    (["show", "status", "--limit", "5"], 2), (["show", "routes", "--limit", "0"], 2),
    (["show", "routes", "--destination", "nowhere"], 2), (["wait-ready", "--timeout", "-1"], 2),
])
def test_exit_codes(running, arguments, status):
    done = running.cli(*arguments)
    assert done.returncode == status, done.stdout
    assert done.stdout.strip() or arguments[:1] == ["wait-ready"]


def test_output_that_cannot_be_written_is_an_error(running):
    with open("/dev/full", "w", encoding="ascii") as full:
        done = subprocess.run([SLUICE, "--control", running.control, "show", "routes"],
                              stdout=full, stderr=subprocess.PIPE, check=False, timeout=30)
    assert done.returncode == 1 and b"cannot write" in done.stderr


@pytest.mark.parametrize("what", WHATS)
def test_show_when_it_is_not_running(rig, what):
    done = run(SLUICE, "--control", rig.path("nobody.sock"), "show", what, check=False)
    assert done.returncode == 3
    assert done.stdout.count("\n") == 1 and "not running" in done.stdout


def test_wait_ready_when_it_is_not_running(rig):
    done = run(SLUICE, "--control", rig.path("nobody.sock"), "wait-ready", "--timeout", "0.2",
               check=False)
    assert done.returncode == 3 and "not running" in done.stdout


def test_check(rig):
    good = rig.write("good.yaml", "interfaces:\n  - name: lan0\n")
    assert run(SLUICE, "check", "--config", good).returncode == 0
    bad = rig.write("bad.yaml", "interfaces:\n  - name: lan0\n    mode: fast\n"
                                "    queues: 0\nworkers: {count: -1}\ncolour: 1\n")
    done = run(SLUICE, "check", "--config", bad, check=False)
    assert done.returncode == 2
    lines = done.stdout.splitlines()
    assert len(lines) == 4  # every error, in the order of the file
    for line, number in zip(lines, (3, 4, 5, 6)):
        assert re.match(rf"{re.escape(bad)}:{number}:\d+: \S", line), done.stdout


# --- Errors at the start --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quiet():
    """A rig where no Sluice runs."""
    with Rig() as one:
        yield one


def make_broken(rig):
    """A Sluice that is not going to start, and must leave nothing."""
    one = Sluice(rig, name="broken", metrics={"listen": "127.0.0.1:9471"})
    before = rig.left_behind()
    yield one
    if one.process is not None:
        rig.end(one.process)
    wait_for(lambda: rig.left_behind() == before, lambda: f"left behind: {rig.left_behind()}")
    assert not os.path.exists(rig.path("broken.sock"))


@pytest.fixture
def sluice(quiet):
    yield from make_broken(quiet)


@pytest.fixture
def second(rig, running):
    yield from make_broken(rig)
    assert running.show("status")["ready"]


def check_refused(sluice, status, *said, wrapper=()):
    sluice.start(*wrapper, wait=False)
    assert sluice.process.wait(timeout=30) == status, sluice.log()
    errors = [line for line in sluice.log().splitlines() if " error: " in line]
    assert len(errors) == 1, sluice.log()
    assert not re.search(r" (info|debug): ", sluice.log().splitlines()[-1])  # it is the last word
    for text in said:
        assert text in errors[0]


@pytest.mark.parametrize("capabilities, missing", [
    ("-all", "CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF"), ("-all,+net_admin,+bpf", "CAP_NET_RAW")])
def test_start_without_privileges(sluice, capabilities, missing):
    check_refused(sluice, 1, "not enough privileges", missing,
                  wrapper=["setpriv", f"--bounding-set={capabilities}", "--inh-caps=-all"])


def test_start_on_an_old_kernel(quiet, sluice):
    check_refused(sluice, 1, "kernel 2.6.", "is too old", "6.1",
                  wrapper=["setarch", os.uname().machine, "--uname-2.6"])
    assert not quiet.left_behind()


def test_start_with_a_missing_interface(sluice):
    sluice.configure(["h1", "h9"], metrics={"listen": "off"})
    check_refused(sluice, 1, "h9: there is no such interface", "ip link")


def load_xdp_pass(rig, interface):
    """A descriptor that keeps another program's XDP on an interface of the router."""
    libc = ctypes.CDLL(None, use_errno=True)

    def bpf(command, attributes):
        buffer = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
        fd = libc.syscall(321, command, buffer, 128)
        assert fd >= 0, os.strerror(ctypes.get_errno())
        return fd
    # r0 = XDP_PASS; exit
    program = ctypes.create_string_buffer(struct.pack("<BBhiBBhi", 0xb7, 0, 0, 2, 0x95, 0, 0, 0))
    licence = ctypes.create_string_buffer(b"GPL")
    loaded = bpf(5, struct.pack("<IIQQIIQII16s", 6, 2, ctypes.addressof(program),
                                ctypes.addressof(licence), 0, 0, 0, 0, 0, b"somebody"))
    try:
        with inside(rig.namespace("router")):
            return bpf(28, struct.pack("<IIII", loaded, rig.link(interface)["ifindex"], 37, 0))
    finally:
        os.close(loaded)


def test_start_where_another_xdp_program_is(quiet, sluice):
    link = load_xdp_pass(quiet, "h2")
    try:
        check_refused(sluice, 1, "h2", "somebody")
        assert quiet.left_behind() == ["h2"]  # untouched
    finally:
        os.close(link)
    wait_for(lambda: not quiet.left_behind(), "the program goes")


def test_start_with_the_metrics_port_taken(quiet, sluice):
    with inside(quiet.namespace("router")):
        taken = socket.create_server(("127.0.0.1", 9471))
    with taken:
        check_refused(sluice, 1, "127.0.0.1 port 9471 is taken")


def test_start_where_lo_is_down(quiet, sluice):
    quiet.batch("router", "address flush dev lo", "link set lo down")  # as in a new namespace
    try:
        check_refused(sluice, 1, "cannot listen on 127.0.0.1 port 9471", "ip link set lo up")
    finally:
        quiet.run("router", "ip", "link", "set", "lo", "up")


def test_start_of_a_second_instance(running, second):
    second.control = running.control
    check_refused(second, 1, "already running", running.control)


def test_start_of_a_second_instance_on_the_same_interfaces(second):
    check_refused(second, 1, "h1", "another sluice")


def test_start_where_the_control_socket_cannot_be(quiet, sluice):
    quiet.write("broken.sock", "a file")
    check_refused(sluice, 1, sluice.control, "not a socket")
    os.remove(sluice.control)


def test_start_with_a_broken_configuration(quiet, sluice):
    quiet.write("broken.yaml", "interfaces:\n  - name: h1\n    colour: green\n")
    check_refused(sluice, 2, f"{sluice.config}:3:5: ", "colour")


def test_start_with_an_interface_named_twice(quiet, sluice):
    quiet.write("broken.yaml", "interfaces:\n  - name: h1\n  - name: h1\n")
    check_refused(sluice, 2, f"{sluice.config}:3:", "listed twice")


def test_start_with_a_configuration_that_cannot_be_read(quiet, sluice):
    os.remove(sluice.config)
    check_refused(sluice, 2, sluice.config, "No such file")
    os.mkdir(sluice.config)
    check_refused(sluice, 2, sluice.config)
    os.rmdir(sluice.config)


def test_start_with_something_the_driver_cannot_do(sluice):
    sluice.configure([{"name": "h1", "zero_copy": "on"}], metrics={"listen": "off"})
    check_refused(sluice, 1, "h1", "zero")


def test_after_all_that_it_starts(quiet, sluice):
    with sluice.start():
        quiet.ping("h1", "10.77.2.2")
