"""The router itself, behind Sluice: its own programs keep working, as the kernel's.

What is for the machine is returned to the kernel (the punt path), which receives it on the
interface that it came in by; a frame returned in generic mode must not come round again.
"""

import json
import os
import re
import socket
import struct

import pytest

from programs import FileServer, SshServer
from rig import Rig, Sluice, answered, growing, inside, pinged, wait_for

FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
NEAR = {4: "10.77.1.1", 6: "fd77:0:0:1::1"}
FAR = {4: "10.77.2.1", 6: "fd77:0:0:2::1"}
LEARNED_BY_BGP = "198.51.100.0/24"
LEARNED_BY_OSPF = "203.0.113.0/24"


@pytest.fixture(scope="module", params=["native", "generic"])
def router(request):
    with Rig() as rig:
        interfaces = [{"name": name, "mode": request.param} for name in rig.hosts]
        with Sluice(rig, interfaces) as sluice:
            yield rig, sluice


def test_ping_to_the_router(rig, sluice):
    for address in (*NEAR.values(), *FAR.values()):
        with growing(sluice, "sluice_local_packets_total", 3, interface="h1"):
            said = rig.ping("h1", address).stdout
        assert answered(said)
        assert said.count("ttl=64") >= 3
    # In fragments, which the kernel puts together again; and to a link-local address.
    for address in (FAR[4], FAR[6]):
        assert answered(rig.ping("h1", address, "-s", "5000").stdout)
    assert pinged(rig.ping("h1", "ff02::1%eth0").stdout)[1] >= 3
    (link_local,) = [address["local"] for address in json.loads(rig.run(
        "router", "ip", "-j", "-6", "address", "show", "dev", "h1", "scope", "link").stdout)[0][
            "addr_info"] if "local" in address]
    assert answered(rig.ping("h1", f"{link_local}%eth0").stdout)


def test_http_server_in_the_router(rig, sluice):
    server = FileServer(rig, "router", 8081)
    for family in (4, 6):
        for address in (NEAR[family], FAR[family]):
            with growing(sluice, "sluice_punts_total", 10, interface="h1", reason="local"):
                server.check_download("h1", address)


def test_ssh_to_the_router(rig, sluice):
    server = SshServer(rig, "router", 22)
    for address in (NEAR[4], FAR[6]):
        said = server.run("h2", address, "cat /proc/net/dev").stdout
        assert "h1:" in said and "h2:" in said
    source = rig.write("upload", os.urandom(500_000))
    server.copy("h1", FAR[4], source, rig.path("uploaded"))
    with open(source, "rb") as sent, open(rig.path("uploaded"), "rb") as received:
        assert sent.read() == received.read()


def test_a_program_in_the_router_reaches_out(rig, sluice):
    # The answers come in through Sluice.
    server = FileServer(rig, "h2", 8082)
    server.check_download("router", "10.77.2.2")
    server.check_download("router", "fd77:0:0:2::2")
    assert answered(rig.ping("router", "10.77.1.2").stdout)


def udp_socket(rig, host, family=4, **options):
    with inside(rig.namespace(host)):
        kind = socket.AF_INET if family == 4 else socket.AF_INET6
        s = socket.socket(kind, socket.SOCK_DGRAM)
    s.settimeout(10)
    for option, value in options.items():
        s.setsockopt(socket.SOL_SOCKET, getattr(socket, option), value)
    return s


def tcp_socket(rig, host, family):
    with inside(rig.namespace(host)):
        s = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_STREAM)
    s.settimeout(10)
    return s


@FAMILIES
def test_a_server_sees_the_interface_that_a_packet_came_by(rig, sluice, family):
    with udp_socket(rig, "router", family) as server:
        if family == 4:
            pktinfo = 8  # IP_PKTINFO
            server.setsockopt(socket.IPPROTO_IP, pktinfo, 1)
        else:
            pktinfo = socket.IPV6_PKTINFO
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        server.bind(("" if family == 4 else "::", 5300))
        for host in ("h1", "h2"):
            with udp_socket(rig, host, family) as client:
                client.sendto(host.encode(), (FAR[family], 5300))
                data, ancillary, _, peer = server.recvmsg(100, 200)
                assert data == host.encode()
                ((_, kind, info),) = ancillary
                assert kind == pktinfo
                place = struct.unpack("i", info[:4] if family == 4 else info[16:20])[0]
                assert place == rig.link(host)["ifindex"]
                server.sendto(b"and back", peer)
                assert client.recv(100) == b"and back"


@pytest.mark.parametrize("address", ["255.255.255.255", "10.77.1.255"])
def test_broadcast_reaches_the_router_as_dhcp_needs_it(rig, sluice, address):
    with udp_socket(rig, "router", SO_BROADCAST=1, SO_BINDTODEVICE=b"h1\0") as server, \
         udp_socket(rig, "h1", SO_BROADCAST=1, SO_BINDTODEVICE=b"eth0\0") as client:
        server.bind(("", 67))
        client.bind(("", 68))
        client.sendto(b"discover", (address, 67))
        data, peer = server.recvfrom(100)
        assert (data, peer) == (b"discover", ("10.77.1.2", 68))
        server.sendto(b"offer", ("255.255.255.255", 68))
        assert client.recv(100) == b"offer"


def test_punted_frames_go_round_once(rig, sluice):
    before = sluice.metrics()
    with udp_socket(rig, "router") as server, udp_socket(rig, "h1") as client:
        server.bind(("", 5301))
        for number in range(100):
            client.sendto(str(number).encode(), (NEAR[4], 5301))
        assert [server.recv(10) for _ in range(100)] == [str(n).encode() for n in range(100)]
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.recv(10)  # none came twice
    sluice.check_accounts()
    after = sluice.metrics()
    punted = {"interface": "h1", "reason": "local"}
    assert (after.get("sluice_punts_total", **punted) ==
            before.get("sluice_punts_total", **punted) + 100)
    received = after.get("sluice_received_packets_total", interface="h1")
    # Besides those at most ARP and neighbour discovery.
    assert received - before.get("sluice_received_packets_total", interface="h1") <= 110


TRACKED = """table inet tracked {
  chain in { type filter hook input priority filter; policy accept; ct state new counter; }
  chain through { type filter hook forward priority filter; policy accept; ct state new counter; }
}"""
ECHO = {"echo": "echo", "listen": [f"{NEAR[4]}:7", f"[{NEAR[6]}]:7", f"{FAR[4]}:7", f"[{FAR[6]}]:7"]}


@pytest.mark.parametrize("mode", ["native", "generic"])
@pytest.mark.parametrize("rules, services", [(None, []), (TRACKED, []), (None, [ECHO])],
                         ids=["open", "tracked", "services"])
def test_interfaces_with_fewer_queues_than_workers(mode, rules, services):
    """A packet may belong to a worker that has no queue of the interface it came by."""
    with Rig(queues=2) as rig:
        rig.run("router", "ip", "link", "delete", "h2")
        rig.add_pair("h2", queues=1)
        if rules:
            rig.run("router", "nft", rules)
        interfaces = [{"name": name, "mode": mode} for name in rig.hosts]
        with Sluice(rig, interfaces, workers={"count": 2}, services=services) as sluice:
            assert [sluice.interface(name)["queues"] for name in rig.hosts] == [2, 1]
            for host, router in (("h1", NEAR), ("h2", FAR)):
                for family in (4, 6):
                    check_sockets_of_the_kernel(rig, host, family, router[family])
                    if services:
                        check_echo(rig, host, family, router[family])
            sluice.check_accounts()
            metrics = sluice.metrics()
            assert metrics.get("sluice_dropped_packets_total", reason="punt_failed") == 0
            handed_over = metrics.get("sluice_frames_handed_over_total")
            assert (handed_over > 0) == bool(rules or services)


def check_sockets_of_the_kernel(rig, host, family, address):
    with inside(rig.namespace("router")):
        tcp = socket.create_server(("::", 9001), family=socket.AF_INET6, dualstack_ipv6=True)
    tcp.settimeout(10)
    with tcp, udp_socket(rig, "router", 6) as udp:
        udp.bind(("::", 9001))
        for _ in range(20):  # by as many ports, and so of both workers
            with tcp_socket(rig, host, family) as client:
                client.connect((address, 9001))
                served, _ = tcp.accept()
                with served:
                    served.sendall(b"hello")
                    assert client.recv(100) == b"hello"
            with udp_socket(rig, host, family) as client:
                client.sendto(b"hello", (address, 9001))
                data, peer = udp.recvfrom(100)
                udp.sendto(data, peer)
                assert client.recv(100) == b"hello"


def check_echo(rig, host, family, address):
    for _ in range(20):
        with tcp_socket(rig, host, family) as client:
            client.connect((address, 7))
            client.sendall(b"hello")
            assert client.recv(100) == b"hello"


def dhcp_server(rig, port, *options):
    return rig.serve("h2", port, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null",
                     "--user=root", "--port=0", "--log-dhcp", "--log-facility=-", "--pid-file=",
                     "--interface=eth0", "--bind-interfaces", "--dhcp-authoritative",
                     f"--dhcp-leasefile={rig.path('leases')}", *options, kind="udp")


def lease_over_ipv4(rig):
    """What busybox's DHCP client in the router gets from h2; it takes the address into use."""
    script = rig.write("lease", '#!/bin/sh\n[ "$1" != bound ] || '
                                'exec ip address add "$ip/$mask" dev "$interface"\n')
    os.chmod(script, 0o755)
    return rig.run("router", "busybox", "udhcpc", "-i", "h2", "-f", "-n", "-q", "-t", "5", "-T", "1",
                   "-s", script, check=False).stdout


FIREWALL = """
table inet dhcp {
  chain early {
    type filter hook prerouting priority raw; policy accept;
    udp dport 68 counter drop comment "seen"
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state established accept
  }
  chain leaving {
    type nat hook postrouting priority srcnat;
    oifname "h1" masquerade
  }
}
"""


@pytest.mark.parametrize("rules", ["", FIREWALL], ids=["no rules", "rules"])
@pytest.mark.parametrize("mode", ["native", "generic"])
def test_dhcp_client_in_the_router(mode, rules):
    with Rig() as rig:
        rig.run("router", "nft", "-f", "-", input=rules)
        rig.batch("router", "address del 10.77.2.1/24 dev h2")
        server = dhcp_server(rig, 67, "--no-ping", "--dhcp-range=10.77.2.100,10.77.2.110,1h")
        with Sluice(rig, [{"name": name, "mode": mode} for name in rig.hosts]) as sluice:
            # Without a route to the new address, and with one that leads elsewhere.
            for route in ((), ("route add default via 10.77.1.2",)):
                rig.batch("router", *route)
                if route:
                    wait_for(lambda: sluice.route_to("10.77.2.100"), "the default route")
                with growing(sluice, "sluice_punts_total", 2, interface="h2", reason="dhcp"):
                    said = lease_over_ipv4(rig)
                    address = re.search(r"lease of (10\.77\.2\.1\d\d) obtained", said)
                    assert address, said + rig.read_log(server) + sluice.cli("show", "drops").stdout
                wait_for(lambda: sluice.route_to(address[1])["type"] == "local", "the address")
                assert answered(rig.ping("router", "10.77.2.2").stdout)
                rig.batch("router", f"address del {address[1]}/24 dev h2")
                wait_for(lambda: (sluice.route_to(address[1]) or {}).get("type") != "local", "gone")
            if rules:
                (rule,) = [line for line in sluice.show("rules")["lines"] if "seen" in line["text"]]
                assert rule["packets"] == 0 and rule["where"] == "xdp"
            sluice.check_accounts()


def test_dhcpv6_client_and_router_advertisements_in_the_router():
    with Rig() as rig:
        rig.batch("router", "address del fd77:0:0:2::1/64 dev h2")
        rig.sysctl("router", "net.ipv6.conf.h2.accept_ra=2")  # a router's own upstream
        with Sluice(rig) as sluice:
            server = dhcp_server(rig, 547, "--enable-ra",
                                 "--dhcp-range=fd77:0:0:2::100,fd77:0:0:2::110,slaac,64,1h")

            def configured():
                shown = json.loads(rig.run("router", "ip", "-j", "-6", "address", "show", "dev", "h2",
                                           "scope", "global").stdout)
                return [a for link in shown for a in link.get("addr_info", ()) if a.get("dynamic")]
            wait_for(configured, lambda: rig.read_log(server), seconds=20)
            with udp_socket(rig, "router", 6, SO_BINDTODEVICE=b"h2\0") as client:
                client.bind(("::", 546))
                h2 = rig.link("h2")
                mac = bytes.fromhex(h2["address"].replace(":", ""))
                # Solicit (RFC 8415): who asks, an address, please, and since no time at all.
                client.sendto(b"\1abc" + struct.pack("!HHHH", 1, 10, 3, 1) + mac +
                              struct.pack("!HHIII", 3, 12, 1, 0, 0) + struct.pack("!HHH", 8, 2, 0),
                              ("ff02::1:2", 547, 0, h2["ifindex"]))
                answer = client.recv(1500)
                assert answer[:4] == b"\2abc", rig.read_log(server)  # Advertise
                assert socket.inet_pton(socket.AF_INET6, "fd77:0:0:2::100")[:15] in answer
            sluice.check_accounts()


class Birds:
    """BIRD in the router and in h2: BGP and OSPF between them, and one network from each."""

    ROUTER = """
router id 10.77.2.1;
protocol device { scan time 1; }
protocol kernel { ipv4 { import none; export all; }; }
protocol bgp peer {
  local 10.77.2.1 as 65001; neighbor 10.77.2.2 as 65002;
  connect delay time 1; connect retry time 1; error wait time 1, 2;
  ipv4 { import all; export none; };
}
protocol ospf v2 links {
  ipv4 { import all; export none; };
  area 0 { interface "h2" { type ptp; hello 1; dead count 5; }; };
}
"""
    H2 = """
router id 10.77.2.2;
protocol device { scan time 1; }
protocol static by_bgp { ipv4; route %s via "eth0"; }
protocol static by_ospf { ipv4; route %s via "eth0"; }
protocol bgp peer {
  local 10.77.2.2 as 65002; neighbor 10.77.2.1 as 65001; passive on;
  ipv4 { import none; export where proto = "by_bgp"; next hop self; };
}
protocol ospf v2 links {
  ipv4 { import none; export where proto = "by_ospf"; };
  area 0 { interface "eth0" { type ptp; hello 1; dead count 5; }; };
}
""" % (LEARNED_BY_BGP, LEARNED_BY_OSPF)

    def __init__(self, rig):
        self.rig = rig
        for host, text in (("h2", self.H2), ("router", self.ROUTER)):
            config = rig.write(f"bird-{host}.conf", text)
            rig.start(host, "bird", "-f", "-c", config, "-s", rig.path(f"bird-{host}.ctl"))

    def tell(self, host, *command):
        return self.rig.run(host, "birdc", "-s", self.rig.path(f"bird-{host}.ctl"), *command)

    def states(self):
        return "\n".join(self.rig.run(host, "birdc", "-s", self.rig.path(f"bird-{host}.ctl"),
                                      "show", "protocols", check=False).stdout
                         for host in ("router", "h2"))


def test_bird_learns_routes_and_sluice_forwards_by_them(rig, sluice):
    rig.batch("h2", "address add 198.51.100.1/32 dev lo", "address add 203.0.113.1/32 dev lo")
    birds = Birds(rig)
    for prefix, protocol in ((LEARNED_BY_BGP, "by_bgp"), (LEARNED_BY_OSPF, "by_ospf")):
        address = prefix.replace(".0/24", ".1")

        def in_kernel():
            return "proto bird" in rig.run("router", "ip", "route", "show", prefix).stdout
        wait_for(in_kernel, birds.states, seconds=30)
        wait_for(lambda: sluice.route_to(address), f"Sluice has {prefix}")
        route = sluice.route_to(address)
        assert route["prefix"] == prefix and route["served"]
        assert [path["via"] for path in route["paths"]] == ["10.77.2.2"]
        with growing(sluice, "sluice_forwarded_packets_total", 3, interface="h1"):
            assert rig.ping("h1", address).stdout.count("ttl=63") >= 3

        birds.tell("h2", "disable", protocol)
        wait_for(lambda: not in_kernel(), birds.states, seconds=30)
        wait_for(lambda: sluice.route_to(address) is None, f"Sluice drops {prefix}")
        said = rig.ping("h1", address, count=1, check=False).stdout
        assert re.search("Destination Net Unreachable|100% packet loss", said)
    assert sluice.get("sluice_mirror_divergence") == 0
