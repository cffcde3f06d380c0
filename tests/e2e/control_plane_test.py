"""Linux as the control plane: what ip, sysctl and nft change takes effect while Sluice runs."""

import contextlib
import itertools
import json
import socket

import pytest

from programs import url
from rig import Rig, Sluice, answered, growing, inside, wait_for

H1 = {4: "10.77.1.2", 6: "fd77:0:0:1::2"}
H2 = {4: "10.77.2.2", 6: "fd77:0:0:2::2"}
FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])


@pytest.fixture(scope="module")
def router():
    with Rig() as rig, Sluice(rig) as sluice:
        rig.serve("h2", 8080, "python3", "-m", "http.server", "--bind", "::", "8080",
                  "--directory", rig.directory)
        rig.write("hello", "hello\n")
        # The far side of every route that the tests add.
        rig.batch("h2", "address add 192.0.2.1/32 dev lo", "address add 2001:db8:77::1/128 dev lo",
                  "address add 198.18.1.1/32 dev lo")
        yield rig, sluice


@pytest.fixture
def sluice(sluice):
    yield sluice
    assert sluice.get("sluice_mirror_divergence") == 0


def ip(rig, *arguments):
    rig.run("router", "ip", *arguments)


def check_forwarded_by_sluice(rig, sluice, address, count=3):
    with growing(sluice, "sluice_forwarded_packets_total", count, interface="h1"):
        assert answered(rig.ping("h1", address, count=count).stdout, count)


@FAMILIES
def test_route_added_replaced_and_deleted(rig, sluice, family):
    prefix, address = {4: ("192.0.2.0/24", "192.0.2.1"),
                       6: ("2001:db8:77::/64", "2001:db8:77::1")}[family]
    route = [f"-{family}", "route"]
    assert sluice.route_to(address) is None
    ip(rig, *route, "add", prefix, "via", H2[family])
    wait_for(lambda: sluice.route_to(address), "the new route")
    assert sluice.route_to(address)["paths"][0]["via"] == H2[family]
    check_forwarded_by_sluice(rig, sluice, address)

    kind = {4: "blackhole", 6: "unreachable"}[family]
    ip(rig, *route, "replace", kind, prefix)
    wait_for(lambda: (sluice.route_to(address) or {}).get("type") == kind, f"a {kind} route")
    with growing(sluice, "sluice_dropped_packets_total", interface="h1", reason=f"route_{kind}"):
        assert not rig.can_ping("h1", address)

    ip(rig, *route, "del", prefix)
    wait_for(lambda: sluice.route_to(address) is None, "the route is gone")
    with growing(sluice, "sluice_dropped_packets_total", interface="h1", reason="no_route"):
        assert not rig.can_ping("h1", address)


def test_nexthop_object_and_multipath(rig, sluice):
    ip(rig, "nexthop", "add", "id", "7", "via", H2[4], "dev", "h2")
    ip(rig, "route", "add", "192.0.2.0/24", "nhid", "7")
    wait_for(lambda: sluice.route_to("192.0.2.1"), "the route by its object")
    check_forwarded_by_sluice(rig, sluice, "192.0.2.1")
    ip(rig, "nexthop", "replace", "id", "7", "via", "10.77.2.99", "dev", "h2")
    wait_for(lambda: sluice.route_to("192.0.2.1")["paths"][0]["via"] == "10.77.2.99", "the change")
    ip(rig, "nexthop", "del", "id", "7")
    wait_for(lambda: sluice.route_to("192.0.2.1") is None, "route and object are gone")

    ip(rig, "route", "add", "192.0.2.0/24", "nexthop", "via", H2[4], "weight", "3",
       "nexthop", "via", "10.77.2.99", "weight", "1")
    wait_for(lambda: sluice.route_to("192.0.2.1"), "the multipath route")
    paths = sluice.route_to("192.0.2.1")["paths"]
    assert {(path["via"], path["weight"]) for path in paths} == {(H2[4], 3), ("10.77.2.99", 1)}
    ip(rig, "route", "del", "192.0.2.0/24")
    wait_for(lambda: sluice.route_to("192.0.2.1") is None, "the route is gone")


def test_ten_thousand_routes(rig, sluice):
    before = sluice.get("sluice_table_used", table="routes4")
    prefixes = [f"198.{18 + i // 65536}.{i // 256 % 256}.{i % 256}/32" for i in range(10_000)]
    rig.batch("router", *(f"route add {prefix} via {H2[4]}" for prefix in prefixes))
    wait_for(lambda: sluice.get("sluice_table_used", table="routes4") == before + 10_000,
             "10,000 routes", seconds=20)
    shown = sluice.show("routes", "--limit", "20000")
    assert set(prefixes) <= {route["prefix"] for route in shown["routes"]}
    assert not shown["truncated"] and shown["total4"] == before + 10_000
    check_forwarded_by_sluice(rig, sluice, "198.18.1.1")
    # All have one result, and it is kept once.
    assert sluice.get("sluice_table_used", table="route_results") < 50
    rig.batch("router", *(f"route del {prefix}" for prefix in prefixes))
    wait_for(lambda: sluice.get("sluice_table_used", table="routes4") == before, "all are gone",
             seconds=20)


def test_neighbours_flushed_under_traffic(rig, sluice):
    # The kernel knows h2 as well, so that it has something to flush and to tell of.
    for family in (4, 6):
        rig.ping("router", H2[family])
    pinger = rig.start("h1", "ping", "-n", "-c", "50", "-i", "0.02", "-w", "20", H2[4])
    for _ in range(5):
        ip(rig, "neigh", "flush", "dev", "h2")
    assert pinger.wait(timeout=30) == 0
    assert answered(rig.read_log(pinger), 50)


@FAMILIES
def test_the_kernel_is_told_of_neighbours(rig, sluice, family):
    """So that it can forward at once when Sluice ends."""
    def known():
        return {n["dst"]: n.get("lladdr") for n in json.loads(
            rig.run("router", "ip", "-j", f"-{family}", "neigh", "show", "dev", "h2").stdout)}
    ip(rig, "neigh", "flush", "dev", "h2")
    assert rig.can_ping("h1", H2[family])
    wait_for(lambda: known().get(H2[family]) == rig.link("eth0", "h2")["address"], known)
    assert sluice.get("sluice_neighbors_not_exported") == 0


def test_a_host_has_a_new_mac_address_and_says_so(rig, sluice):
    mac = "02:00:00:00:77:02"
    for family in (4, 6):
        check_forwarded_by_sluice(rig, sluice, H2[family])
    # An unsolicited neighbour advertisement; ARP would be ignored within a second of an update.
    rig.sysctl("h2", "net.ipv6.conf.eth0.ndisc_notify=1")
    rig.run("h2", "ip", "link", "set", "eth0", "address", mac)
    wait_for(lambda: rig.can_ping("h1", H2[6]), "IPv6 to the new MAC")

    def announced_and_reached():
        rig.run("h2", "arping", "-q", "-U", "-c", "1", "-I", "eth0", H2[4], check=False)
        return rig.can_ping("h1", H2[4])
    wait_for(announced_and_reached, "IPv4 to the new MAC")
    known = {n["address"]: n["mac"] for n in sluice.show("neighbors")}
    assert known[H2[4]] == known[H2[6]] == mac


def test_a_permanent_neighbour(rig, sluice):
    ip(rig, "neigh", "replace", "10.77.2.200", "lladdr", "02:00:00:00:77:c8", "nud", "permanent",
       "dev", "h2")
    wait_for(lambda: any(n["address"] == "10.77.2.200" for n in sluice.show("neighbors")),
             "the kernel's permanent neighbour")
    with growing(sluice, "sluice_forwarded_packets_total", interface="h1"):
        assert not rig.can_ping("h1", "10.77.2.200")  # sent at once, though nobody is there
    ip(rig, "neigh", "del", "10.77.2.200", "dev", "h2")
    with growing(sluice, "sluice_dropped_packets_total", interface="h1", reason="neighbor_failed"):
        rig.run("h1", "ping", "-n", "-c", "1", "-W", "5", "10.77.2.200", check=False)


def test_the_router_has_a_new_mac_address(rig, sluice):
    old = rig.link("h1")["address"]
    try:
        ip(rig, "link", "set", "h1", "address", "02:00:00:00:77:01")
        wait_for(lambda: sluice.interface("h1")["mac"] == "02:00:00:00:77:01", "the new MAC")
        rig.run("h1", "ip", "neigh", "flush", "dev", "eth0")
        for family in (4, 6):
            check_forwarded_by_sluice(rig, sluice, H2[family])
    finally:
        ip(rig, "link", "set", "h1", "address", old)
        rig.run("h1", "ip", "neigh", "flush", "dev", "eth0")
    wait_for(lambda: sluice.interface("h1")["mac"] == old, "the old MAC")
    check_forwarded_by_sluice(rig, sluice, H2[4])


@FAMILIES
def test_address_added_and_deleted(rig, sluice, family):
    router, host = {4: ("10.99.0.1/24", "10.99.0.2/24"),
                    6: ("2001:db8:99::1/64", "2001:db8:99::2/64")}[family]
    addresses = [f"-{family}", "addr"]
    nodad = ["nodad"] if family == 6 else []
    ip(rig, *addresses, "add", router, "dev", "h1", *nodad)
    rig.run("h1", "ip", *addresses, "add", host, "dev", "eth0", *nodad)
    wait_for(lambda: router in sluice.interface("h1")["addresses"], "the address")
    with growing(sluice, "sluice_local_packets_total", 3, interface="h1"):
        rig.ping("h1", router.split("/")[0])
    with growing(sluice, "sluice_forwarded_packets_total", 3, interface="h2"):
        assert rig.ping("h2", host.split("/")[0]).stdout.count("ttl=63") >= 3

    ip(rig, *addresses, "del", router, "dev", "h1")
    wait_for(lambda: router not in sluice.interface("h1")["addresses"], "the address is gone")
    wait_for(lambda: sluice.route_to(host.split("/")[0]) is None, "its network is gone")
    assert not rig.can_ping("h2", host.split("/")[0])
    rig.run("h1", "ip", *addresses, "del", host, "dev", "eth0")


@FAMILIES
def test_forwarding_is_switched_off_and_on(rig, sluice, family):
    check_forwarded_by_sluice(rig, sluice, H2[family])
    scope = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}[family]
    rig.sysctl("router", f"{scope}=0")
    try:
        wait_for(lambda: not rig.can_ping("h1", H2[family]), "nothing gets through")
        with growing(sluice, "sluice_dropped_packets_total", interface="h1",
                     reason="forwarding_off"):
            assert not rig.can_ping("h1", H2[family])
        # For the router itself it makes no difference.
        assert rig.can_ping("h1", {4: "10.77.1.1", 6: "fd77:0:0:1::1"}[family])
    finally:
        rig.sysctl("router", f"{scope}=1")
    wait_for(lambda: rig.can_ping("h1", H2[family]), "forwarding is on again", seconds=20)
    check_forwarded_by_sluice(rig, sluice, H2[family])


def can_fetch(rig, family, port=8080):
    return rig.run("h1", "curl", "-sS", "-g", "--max-time", "1", url(H2[family], port, "hello"),
                   check=False).stdout == "hello\n"


@contextlib.contextmanager
def nftables(rig, text):
    rig.run("router", "nft", "-f", "-", input=text)
    try:
        yield
    finally:
        rig.run("router", "nft", "flush", "ruleset")


def has_rules(sluice):
    """Whether a ruleset is in force (and Sluice shows how it fares)."""
    return sluice.show("status").get("firewall") is not None


def test_the_kernels_rules_are_carried_out(rig, sluice):
    assert can_fetch(rig, 4) and can_fetch(rig, 6)
    with nftables(rig, """
table inet guard {
  chain forward {
    type filter hook forward priority filter; policy accept;
    tcp dport 8080 counter drop comment "closed"
  }
}
"""):
        wait_for(lambda: has_rules(sluice), "the rules are seen")
        assert not sluice.show("status")["kernel_decides"]
        for family in (4, 6):
            check_forwarded_by_sluice(rig, sluice, H2[family])
            with growing(sluice, "sluice_dropped_packets_total", interface="h1",
                         reason="firewall_rule"):
                assert not can_fetch(rig, family)
        closed = [line for line in sluice.show("rules")["lines"] if "closed" in line["text"]]
        assert closed[0]["where"] == "worker" and closed[0]["packets"] >= 2
        # The rule away, the chain still there.
        rig.run("router", "nft", "flush", "chain", "inet", "guard", "forward")
        wait_for(lambda: can_fetch(rig, 4), "the rule is gone")
        assert can_fetch(rig, 6)
    wait_for(lambda: not has_rules(sluice), "the firewall is gone")
    for family in (4, 6):
        check_forwarded_by_sluice(rig, sluice, H2[family])
    assert can_fetch(rig, 4) and can_fetch(rig, 6)


def test_a_firewall_for_one_family_leaves_the_other_alone(rig, sluice):
    with nftables(rig, """
table ip6 guard {
  chain forward { type filter hook forward priority 0; policy drop; }
}
"""):
        wait_for(lambda: has_rules(sluice), "the firewall is seen")
        check_forwarded_by_sluice(rig, sluice, H2[4])
        assert not rig.can_ping("h1", H2[6])
    wait_for(lambda: not has_rules(sluice), "the firewall is gone")
    check_forwarded_by_sluice(rig, sluice, H2[6])


def test_masquerading(rig, sluice):
    # h2 has no way back to this source but by the router's own address.
    rig.run("h1", "ip", "addr", "add", "172.31.0.1/32", "dev", "lo")
    ip(rig, "route", "add", "172.31.0.1", "via", H1[4])
    rig.run("h2", "ip", "route", "add", "blackhole", "172.31.0.1")
    with nftables(rig, """
table ip nat {
  chain post { type nat hook postrouting priority srcnat; oifname "h2" masquerade; }
}
"""):
        wait_for(lambda: has_rules(sluice), "the NAT is seen")
        said = rig.ping("h1", H2[4], "-I", "172.31.0.1").stdout
        assert answered(said)
        assert can_fetch(rig, 4)
        assert sluice.show("nat")["mappings"] > 0
    wait_for(lambda: not has_rules(sluice), "the NAT is gone")
    assert not rig.run("h1", "ping", "-c", "1", "-W", "1", "-I", "172.31.0.1", H2[4],
                       check=False).returncode == 0
    rig.run("h1", "ip", "addr", "del", "172.31.0.1/32", "dev", "lo")
    rig.run("h2", "ip", "route", "del", "blackhole", "172.31.0.1")
    ip(rig, "route", "del", "172.31.0.1")


def test_timeouts_of_connections(rig, sluice):
    """The kernel's, which are followed, unless the configuration has its own."""
    ports = itertools.count(20000)

    def timeout_is(low, high):
        """Of an unanswered datagram's connection. (h2 has nobody there, and its error is no answer.)"""
        port = next(ports)
        with inside(rig.namespace("h1")):
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with s:
            s.bind((H1[4], port))
            s.sendto(b"?", (H2[4], 9))
        flows = sluice.show("flows", "udp", "sport", str(port))["flows"]
        return len(flows) == 1 and low < flows[0]["timeout_seconds"] <= high

    def configure(**sections):
        reloads = sluice.log().count("reloaded")
        sluice.configure(rig.hosts, **sections)
        sluice.hang_up()
        wait_for(lambda: sluice.log().count("reloaded") > reloads, "the configuration is reloaded")

    with nftables(rig, """
table inet guard {
  chain forward { type filter hook forward priority 0; policy accept; ct state new counter; }
}
"""):
        wait_for(lambda: has_rules(sluice), "the rules are seen")
        wait_for(lambda: timeout_is(20, 30), "the kernel's default")
        rig.sysctl("router", "net.netfilter.nf_conntrack_udp_timeout=90")
        wait_for(lambda: timeout_is(80, 90), "the sysctl is followed", seconds=20)
        configure(timeouts={"udp": "7s"})
        assert timeout_is(4, 7)
        configure()
        assert timeout_is(80, 90)


@FAMILIES
def test_policy_routing_is_the_kernels(rig, sluice, family):
    rule = ["from", H1[family], "lookup", "100"]
    ip(rig, f"-{family}", "route", "add", "table", "100", "unreachable", "default")
    ip(rig, f"-{family}", "rule", "add", *rule)
    try:
        wait_for(lambda: sluice.show("status")["kernel_decides"], "the rule is seen")
        with growing(sluice, "sluice_punts_total", interface="h1", reason="policy_routing"):
            assert not rig.can_ping("h1", H2[family])
        # The other direction has no such rule, and its answers come back by it.
        assert not rig.can_ping("h2", H1[family])
    finally:
        ip(rig, f"-{family}", "rule", "del", *rule)
        ip(rig, f"-{family}", "route", "flush", "table", "100")
    wait_for(lambda: not sluice.show("status")["kernel_decides"], "the rule is gone")
    check_forwarded_by_sluice(rig, sluice, H2[family])


def test_a_device_that_sluice_does_not_serve_is_the_kernels(rig, sluice):
    rig.batch("router", "tuntap add dev tap0 mode tap", "link set tap0 up",
              "address add 172.30.0.1/24 dev tap0")
    wait_for(lambda: sluice.route_to("172.30.0.9"), "the route")
    route = sluice.route_to("172.30.0.9")
    assert not route["served"] and route["not_served_by"]
    with growing(sluice, "sluice_punts_total", interface="h1", reason="unserved_output"):
        rig.can_ping("h1", "172.30.0.9")
    ip(rig, "link", "del", "tap0")
    wait_for(lambda: sluice.route_to("172.30.0.9") is None, "the route is gone")
