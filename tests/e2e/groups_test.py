"""Multicast groups that services listen to, sent to by real hosts over veth: the service and members of the
kernel's own each get every datagram once, and what no service listens to is the kernel's as before.
"""

import contextlib
import os
import socket
import struct
import threading

import pytest

from rig import Rig, Sluice, growing, input_chain, inside, wait_for

ROUTER = {4: "10.77.1.1", 6: "fd77:0:0:1::1"}
HOST = {4: "10.77.1.2", 6: "fd77:0:0:1::2"}
GROUP = {4: "239.1.2.3", 6: "ff05::1:3"}
OTHER = {4: "239.1.2.4", 6: "ff05::1:4"}
OF_H2 = {4: "239.1.2.5", 6: "ff05::1:5"}
LINK = {4: "224.0.0.251", 6: "ff02::fb"}  # mDNS
PORT = 7007
FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])


def at(group, port=PORT):
    return [f"{group[4]}:{port}", f"[{group[6]}]:{port}"]


SERVICES = [{"echo": "news", "listen": at(GROUP), "protocol": "udp"},
            {"discard": "of-h2", "listen": at(OF_H2), "protocol": "udp", "group_interfaces": "h2"}]
GUARDED = "table inet guard {%s}" % input_chain(
    f'udp dport {PORT} counter accept comment "groups"', "udp dport 5353 accept")


@pytest.fixture(scope="module", params=["native", "generic", "guarded"])
def setting(request):
    mode = "generic" if request.param == "generic" else "native"
    with Rig(queues=2) as rig:
        if request.param == "guarded":
            rig.run("router", "nft", "-f", rig.write("guard.nft", GUARDED))
        interfaces = [{"name": name, "mode": mode} for name in rig.hosts]
        with Sluice(rig, interfaces=interfaces, services=SERVICES,
                    workers={"count": 2}) as sluice:
            yield rig, sluice, interfaces


@pytest.fixture
def rig(setting):
    return setting[0]


@pytest.fixture
def sluice(setting):
    yield setting[1]
    setting[1].check_accounts()


def packed(family, address):
    return socket.inet_pton(socket.AF_INET if family == 4 else socket.AF_INET6, address)


@contextlib.contextmanager
def udp(rig, host, family):
    with inside(rig.namespace(host)):
        s = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    with s:
        s.settimeout(10)
        yield s


@contextlib.contextmanager
def member(rig, family, group, interface="h1", port=PORT):
    """A program of the router's own, which the kernel serves."""
    with udp(rig, "router", family) as s, inside(rig.namespace("router")):
        index = socket.if_nametoindex(interface)
        s.bind((group, port) if family == 4 else
               (group, port, 0, index if group.startswith("ff02:") else 0))
        if family == 4:
            s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP,
                         packed(4, group) + bytes(4) + struct.pack("i", index))
        else:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP,
                         packed(6, group) + struct.pack("I", index))
        yield s


@contextlib.contextmanager
def sender(rig, family, host="h1"):
    i = rig.hosts.index(host) + 1
    with udp(rig, host, family) as s, inside(rig.namespace(host)):
        if family == 4:
            s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, packed(4, f"10.77.{i}.2"))
        else:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF,
                         socket.if_nametoindex("eth0"))
            s.bind((f"fd77:0:0:{i}::2", 0))
        yield s


def nothing_waits(s):
    s.setblocking(False)
    with pytest.raises(BlockingIOError):
        s.recv(65536)
    s.settimeout(10)


def everybody_gets(rig, family, size, count):
    """Each datagram is echoed once, and comes to the kernel's member once."""
    with member(rig, family, GROUP[family]) as kernel:
        for _ in range(count):
            with sender(rig, family) as s:
                block = os.urandom(size)
                s.sendto(block, (GROUP[family], PORT))
                assert s.recv(65536) == block
                assert kernel.recv(65536) == block
        nothing_waits(kernel)


def groups_of(rig, interface, host="router"):
    return rig.run(host, "ip", "maddr", "show", "dev", interface).stdout.split()


def service(sluice, name):
    return next(s for s in sluice.show("services") if s["name"] == name)


def xdp(sluice, reason, interface="h1"):
    return sluice.get("sluice_xdp_packets_total", interface=interface, reason=reason)


@FAMILIES
def test_a_service_and_the_kernels_member_get_each_datagram_once(rig, sluice, family):
    assert GROUP[family] in groups_of(rig, "h1") and GROUP[family] in groups_of(rig, "h2")
    before = service(sluice, "news")["messages_in"]
    metrics = sluice.metrics()
    sent = []
    with member(rig, family, GROUP[family]) as kernel, contextlib.ExitStack() as stack:
        # So many ports are of both workers.
        for i in range(16):
            s = stack.enter_context(sender(rig, family))
            for j in range(5):
                sent.append(b"%d.%d" % (i, j))
                s.sendto(sent[-1], (GROUP[family], PORT))
                answer, peer = s.recvfrom(100)
                assert answer == sent[-1]
                assert peer[:2] == (ROUTER[family], PORT)  # not the group's
            nothing_waits(s)
        got = [kernel.recv(100) for _ in sent]
        assert sorted(got) == sorted(sent)
        sluice.check_accounts()  # all is at rest
        nothing_waits(kernel)
    assert service(sluice, "news")["messages_in"] == before + len(sent)
    after = sluice.metrics()
    for name, labels in (("xdp_packets_total", {"reason": "group", "action": "redirect"}),
                         ("punt_copies_total", {})):
        name, labels = f"sluice_{name}", {"interface": "h1", **labels}
        grown = after.get(name, **labels) - metrics.get(name, **labels)
        # ARP and neighbour discovery are copied as well.
        assert grown == len(sent) if "xdp" in name else grown >= len(sent)
    for worker in "01":
        assert after.get("sluice_udp_datagrams_total", worker=worker, direction="received") > (
            metrics.get("sluice_udp_datagrams_total", worker=worker, direction="received"))


@FAMILIES
def test_datagrams_in_fragments(rig, sluice, family):
    everybody_gets(rig, family, 4000, 6)
    sluice.check_accounts()


@FAMILIES
def test_other_groups_and_ports_stay_the_kernels(rig, sluice, family):
    passed, taken = xdp(sluice, "multicast"), xdp(sluice, "group")
    before = service(sluice, "news")["messages_in"]
    # A link's own group is the kernel's in any case, mDNS for one.
    for group, port in ((OTHER[family], PORT), (LINK[family], 5353)):
        with member(rig, family, group, port=port) as kernel, sender(rig, family) as s:
            s.sendto(b"other", (group, port))
            assert kernel.recv(100) == b"other"
            nothing_waits(s)
    assert xdp(sluice, "multicast") >= passed + 2
    assert xdp(sluice, "group") == taken
    # Of the group, but for nobody here: by way of a worker.
    with member(rig, family, GROUP[family], port=5353) as kernel, sender(rig, family) as s:
        with growing(sluice, "sluice_punts_total", 1, reason="multicast"):
            s.sendto(b"no service", (GROUP[family], 5353))
        assert kernel.recv(100) == b"no service"
    assert service(sluice, "news")["messages_in"] == before


@FAMILIES
def test_groups_are_joined_where_it_is_said(rig, sluice, family):
    assert OF_H2[family] not in groups_of(rig, "h1")
    assert OF_H2[family] in groups_of(rig, "h2")
    before = service(sluice, "of-h2")["messages_in"]
    with sender(rig, family, "h2") as s:
        s.sendto(b"x", (OF_H2[family], PORT))
        wait_for(lambda: service(sluice, "of-h2")["messages_in"] == before + 1, "it arrives")
    with member(rig, family, OF_H2[family]) as kernel, sender(rig, family) as s:
        s.sendto(b"x", (OF_H2[family], PORT))
        assert kernel.recv(100) == b"x"
    assert service(sluice, "of-h2")["messages_in"] == before + 1
    assert xdp(sluice, "group", "h2") > 0


def test_views_and_metrics(rig, sluice):
    bound = [s for s in sluice.show("sockets")["sockets"] if s["service"] == "news"]
    assert sorted({s["local"] for s in bound}) == sorted(at(GROUP))
    assert all(s["state"] == "BOUND" for s in bound) and len(bound) == 2 * 2  # addresses, workers
    assert service(sluice, "news")["state"] == "listening"
    assert sluice.get("sluice_table_used", table="groups") == 4  # on h2
    assert sluice.get("sluice_table_limit", table="groups") == 64
    assert sluice.get("sluice_groups_not_joined") == 0
    said = sluice.cli("explain", "--in", "h1", f"ip saddr {HOST[4]} ip daddr {GROUP[4]} "
                      f"udp sport 999 udp dport {PORT}").stdout
    assert "socket" in said and "the kernel gets a copy" in said, said
    said = sluice.cli("explain", "--in", "h1", f"ip saddr {HOST[4]} ip daddr {OF_H2[4]} "
                      f"udp sport 999 udp dport {PORT}").stdout
    assert "left to the kernel: multicast" in said, said


# The last ones: they change the services, and an interface, for good.
@FAMILIES
def test_reload_drops_and_adds(setting, rig, sluice, family):
    interfaces = setting[2]
    with member(rig, family, GROUP[family]) as kernel, sender(rig, family) as s:
        s.sendto(b"before", (GROUP[family], PORT))
        assert s.recv(100) == kernel.recv(100) == b"before"
        sluice.configure(interfaces, services=SERVICES[1:], workers={"count": 2})
        sluice.hang_up()
        wait_for(lambda: GROUP[family] not in groups_of(rig, "h2"), "the group is left")
        taken = xdp(sluice, "group")
        s.sendto(b"without", (GROUP[family], PORT))
        assert kernel.recv(100) == b"without"
        assert xdp(sluice, "group") == taken
        sluice.check_accounts()
        nothing_waits(s)
        nothing_waits(kernel)
        assert GROUP[family] in groups_of(rig, "h1")  # the program's own
    assert GROUP[family] not in groups_of(rig, "h1")
    sluice.configure(interfaces, services=SERVICES, workers={"count": 2})
    sluice.hang_up()
    wait_for(lambda: GROUP[family] in groups_of(rig, "h1"), "the group is joined")
    with member(rig, family, GROUP[family]) as kernel, sender(rig, family) as s:
        wait_for(lambda: sluice.get("sluice_table_used", table="groups") == 4, "in XDP as well")
        s.sendto(b"again", (GROUP[family], PORT))
        assert s.recv(100) == kernel.recv(100) == b"again"


def test_an_interface_that_returns(rig, sluice):
    rig.run("router", "ip", "link", "del", "h2")
    sluice.wait_interface("h2", "absent")
    rig.add_pair("h2", queues=2)
    sluice.wait_interface("h2")
    for family in (4, 6):
        wait_for(lambda: OF_H2[family] in groups_of(rig, "h2"), "the group is joined anew")
        before = service(sluice, "of-h2")["messages_in"]
        with sender(rig, family, "h2") as s:
            def arrives():
                s.sendto(b"x", (OF_H2[family], PORT))
                return service(sluice, "of-h2")["messages_in"] > before
            wait_for(arrives, "it comes to the service")


@FAMILIES
def test_rules_of_input_judge_both(family):
    word = "ip" if family == 4 else "ip6"
    with Rig(queues=2) as rig:
        rig.run("router", "nft", "-f", rig.write("guard.nft", GUARDED))
        rig.run("router", "nft", "insert", "rule", "inet", "guard", "input", word, "daddr",
                GROUP[family], "counter", "drop", "comment", '"no news"')
        with contextlib.ExitStack() as stack:
            sluice = stack.enter_context(Sluice(rig, services=SERVICES, workers={"count": 2}))
            kernel = stack.enter_context(member(rig, family, GROUP[family]))
            s = stack.enter_context(sender(rig, family))
            with growing(sluice, "sluice_dropped_packets_total", 1, reason="firewall_rule"):
                s.sendto(b"x", (GROUP[family], PORT))
            sluice.check_accounts()
            assert service(sluice, "news")["messages_in"] == 0
            rig.run("router", "nft", "-f",
                    rig.write("again.nft", "flush table inet guard\n" + GUARDED))
            wait_for(lambda: "no news" not in str(sluice.show("rules")), "the rule is gone")
            s.sendto(b"y", (GROUP[family], PORT))
            assert s.recv(100) == b"y"
            assert kernel.recv(100) == b"y"  # the rule has dropped its x as well
            assert service(sluice, "news")["messages_in"] == 1
            sluice.check_accounts()


def test_jumbo_frames():
    with Rig(queues=2) as rig:
        rig.set_mtu(9000)
        with Sluice(rig, services=SERVICES, workers={"count": 2}) as sluice:
            for family in (4, 6):
                everybody_gets(rig, family, 8900, 6)
            assert xdp(sluice, "group") == 12  # not in fragments
            sluice.check_accounts()


def test_groups_are_left_at_the_end():
    with Rig(hosts=1) as rig:
        with Sluice(rig, services=SERVICES[:1]) as sluice:
            assert GROUP[4] in groups_of(rig, "h1") and GROUP[6] in groups_of(rig, "h1")
            assert sluice.stop() == 0
            assert not {*GROUP.values()} & {*groups_of(rig, "h1")}
            sluice.start()
            assert GROUP[4] in groups_of(rig, "h1")
            sluice.kill()
            assert not {*GROUP.values()} & {*groups_of(rig, "h1")}


# What the kernel does not join is said, and joined once it can be; the rest goes on.
def test_a_group_that_cannot_be_joined():
    with Rig(hosts=1) as rig:
        rig.run("router", "ip", "link", "set", "h1", "mtu", "1000")  # too small for IPv6
        with Sluice(rig, services=SERVICES[:1]) as sluice:
            assert sluice.get("sluice_groups_not_joined") == 1
            assert f"h1: group {GROUP[6]} is not joined" in sluice.log()
            with sender(rig, 4) as s:
                s.sendto(b"x", (GROUP[4], PORT))
                assert s.recv(100) == b"x"
            rig.run("router", "ip", "link", "set", "h1", "mtu", "1500")
            wait_for(lambda: sluice.get("sluice_groups_not_joined") == 0, "it is joined")
            assert GROUP[6] in groups_of(rig, "h1")
            # The kernel forgets its members then.
            rig.run("router", "ip", "link", "set", "h1", "mtu", "1000")
            wait_for(lambda: sluice.get("sluice_groups_not_joined") == 1, "it is left")
            rig.run("router", "ip", "link", "set", "h1", "mtu", "1500")
            wait_for(lambda: GROUP[6] in groups_of(rig, "h1"), "it is joined anew")
            wait_for(lambda: sluice.get("sluice_groups_not_joined") == 0, "and that is told")


@FAMILIES
def test_udp_proxy(family):
    """Asked by a group, answered from the router's address."""
    backend = f"10.77.2.2:{PORT}"
    with Rig(queues=2) as rig, udp(rig, "h2", 4) as server:
        server.bind(("10.77.2.2", PORT))
        def serve():
            with contextlib.suppress(OSError):
                while True:
                    data, peer = server.recvfrom(100)
                    server.sendto(b"to " + data, peer)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with Sluice(rig, workers={"count": 2},
                        services=[{"udp_proxy": "find", "listen": at(GROUP)[family == 6],
                                   "backends": backend}]) as sluice:
                for i in range(8):
                    with sender(rig, family) as s:
                        s.sendto(b"%d" % i, (GROUP[family], PORT))
                        answer, peer = s.recvfrom(100)
                        assert answer == b"to %d" % i
                        assert peer[:2] == (ROUTER[family], PORT)
                sluice.check_accounts()
        finally:
            server.settimeout(0.01)
            thread.join()
