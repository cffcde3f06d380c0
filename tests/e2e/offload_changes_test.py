"""Everything that changes how packets go, while XDP carries a flow at full speed: no packet that is
sent after the change is in force is treated by the old state, none is lost that a change of that kind
does not lose anyway, and afterwards XDP carries the flow again.

"In force" is when Sluice says so: what it shows is asked first, then which number the sender has come
to; that number and all above count.
"""

import contextlib
import socket
import struct

import pytest

from load import Load, carried, wait_until_carried
from rig import Rig, Sluice, inside, wait_for

TARGET = {4: "10.9.0.1", 6: "fd09::1"}  # at h2 and at h3
HOST = {4: "10.77.{}.2", 6: "fd77:0:0:{}::2"}
FAMILIES = (4, 6)
TRANSLATED = 6999
SECOND = "10.77.2.9"  # another address of the router's towards h2
RULES = f"""
flush ruleset
table inet filter {{
  set blocked {{ typeof udp dport; }}
  chain forward {{
    type filter hook forward priority 0; policy accept;
    udp dport @blocked counter drop comment "blocked"
    ct state established counter comment "established"
  }}
}}
table inet nat {{
  chain postrouting {{
    type nat hook postrouting priority 100; policy accept;
    udp dport {TRANSLATED} counter masquerade
  }}
}}
"""


@pytest.fixture(scope="module")
def router():
    with Rig(hosts=3) as rig:
        for i, host in enumerate(("h2", "h3"), 2):
            rig.batch(host, f"address add {TARGET[4]}/32 dev lo",
                      f"address add {TARGET[6]}/128 dev lo nodad")
        rig.batch("router", f"route add {TARGET[4]}/32 via {HOST[4].format(2)}",
                  f"-6 route add {TARGET[6]}/128 via {HOST[6].format(2)}")
        nft(rig, RULES)
        with Sluice(rig, flow_offload="on") as sluice:
            for family in FAMILIES:
                for i in (1, 2, 3):
                    rig.ping("h1", HOST[family].format(i if i != 1 else 2))
            yield rig, sluice
            sluice.check_accounts()


class Scene:
    """One flow at full speed, which XDP carries."""

    def __init__(self, rig, sluice, family, load):
        self.rig, self.sluice, self.family, self.load = rig, sluice, family, load
        self.target = TARGET[family]

    def ip(self, *lines):
        self.rig.batch("router", *((f"-6 {line}" if self.family == 6 else line) for line in lines))

    def host(self, number):
        return HOST[self.family].format(number)

    def prefix(self, address=None):
        return f"{address or self.target}/{32 if self.family == 4 else 128}"

    def carried(self):
        return carried(self.sluice)

    def wait_until_carried(self):
        wait_until_carried(self.sluice, self.load)

    def now(self):
        return self.load.bound()

    def nothing_lost(self, first):
        self.load.nothing_lost(first)

    def none_arrives(self, first, enough=500):
        """Of the numbers from `first` on, none must reach a server."""
        self.load.wait_sent(enough)
        heard = self.load.heard_by_anybody(first, self.load.bound())
        assert not heard, f"{len(heard)} packets got through after the change: {heard[:10]}"


@pytest.fixture(params=FAMILIES, ids=["ipv4", "ipv6"], scope="module")
def load(request, router):
    rig, sluice = router
    made = Load(rig, "h1", {2: "h2", 3: "h3"}, TARGET[request.param])
    made.family = request.param
    yield made
    made.stop()


@pytest.fixture
def scene(router, load):
    made = Scene(*router, load.family, load)
    made.wait_until_carried()
    yield made
    made.wait_until_carried()  # again, or still


def nft(rig, commands):
    rig.run("router", "nft", "-f", rig.write("rules.nft", commands))


def rule(sluice, comment):
    return next((line for line in sluice.show("rules")["lines"]
                 if f'comment "{comment}"' in line["text"] and line["handle"]), None)


@contextlib.contextmanager
def new_rules(scene):
    """The ruleset that is loaded in the block is in force when it ends."""
    before = scene.sluice.show("rules")["firewall"]["generation"]
    yield
    wait_for(lambda: scene.sluice.show("rules")["firewall"]["generation"] > before,
             scene.sluice.log)


# --- Routes ---------------------------------------------------------------------------------------


def test_route_replaced(scene):
    first = scene.now()
    for number in (3, 2):
        scene.ip(f"route replace {scene.prefix()} via {scene.host(number)}")
        wait_for(lambda: scene.sluice.route_to(scene.target)["paths"][0]["via"] ==
                 scene.host(number), "the route")
        bound = scene.now()
        scene.load.wait(1000)
        strays = set(scene.load.fates(bound, scene.load.bound())) - {0, number}
        assert not strays, f"packets went to {strays}"
        scene.wait_until_carried()
    scene.nothing_lost(first)


@pytest.mark.parametrize("how", ["blackhole", "unreachable", "no route"])
def test_route_that_refuses(scene, how):
    if how == "no route":
        scene.ip(f"route del {scene.prefix()}")
        wait_for(lambda: scene.sluice.route_to(scene.target) is None, "no route")
    else:
        scene.ip(f"route replace {how} {scene.prefix()}")
        wait_for(lambda: scene.sluice.route_to(scene.target)["type"] == how, how)
    scene.none_arrives(scene.now())
    if scene.family == 6 and how != "no route":  # another metric's
        scene.ip(f"route del {how} {scene.prefix()}")
    scene.ip(f"route replace {scene.prefix()} via {scene.host(2)}")
    scene.load.wait(1000)


def test_routes_of_others_flap(scene):
    """In the same /16 (IPv6: /32) and in another one."""
    near, far = {4: ("10.9.200.0/24", "10.10.0.0/24"),
                 6: ("fd09:0:99::/48", "fd0a::/48")}[scene.family]
    first = scene.now()
    before = scene.carried()
    for _ in range(20):
        for word in ("add", "del"):
            scene.ip(f"route {word} {far} via {scene.host(3)}")
            wait_for(lambda: (word == "add") == (
                (scene.sluice.route_to(far.split("/")[0]) or {}).get("prefix") == far), far)
    after = scene.carried()
    assert after[0] - before[0] > 20 * (after[1] - before[1]), (before, after)
    for _ in range(20):
        for word in ("add", "del"):
            scene.ip(f"route {word} {near} via {scene.host(3)}")
    scene.wait_until_carried()
    scene.nothing_lost(first)


def test_policy_routing(scene):
    """The kernel alone knows what a rule of ip(8) leads to."""
    scene.ip("route add blackhole default table 100", "rule add iif h1 lookup 100")
    wait_for(lambda: any("ip rule" in line for line in scene.sluice.show("status")["kernel_decides"]),
             lambda: scene.sluice.show("status"))
    bound = scene.now()
    before = scene.carried()[0]
    scene.none_arrives(bound)
    assert scene.carried()[0] == before
    scene.ip("rule del iif h1 lookup 100", "route del blackhole default table 100")
    scene.load.wait(1000)


# --- Neighbours -----------------------------------------------------------------------------------


def mac_of(scene, address):
    return next((n["mac"] for n in scene.sluice.show("neighbors") if n["address"] == address), None)


def test_neighbour_replaced(scene):
    """By hand, to an address that nobody has, and back."""
    gateway = scene.host(2)
    right = scene.rig.link("eth0", "h2")["address"]
    wrong = "02:00:00:00:99:99"
    scene.ip(f"neigh replace {gateway} lladdr {wrong} nud permanent dev h2")
    wait_for(lambda: mac_of(scene, gateway) == wrong, "the neighbour's new address")
    scene.none_arrives(scene.now())
    scene.ip(f"neigh replace {gateway} lladdr {right} nud reachable dev h2")
    wait_for(lambda: mac_of(scene, gateway) == right, "the neighbour's own address")
    bound = scene.now()
    scene.load.wait(1000)
    scene.nothing_lost(bound)


def test_neighbour_announces_another_address(scene):
    """Gratuitous ARP, an unsolicited neighbour advertisement."""
    right = scene.rig.link("eth0", "h2")["address"]
    for mac in ("02:00:00:00:77:02", right):
        scene.rig.run("h2", "ip", "link", "set", "eth0", "address", mac)
        def known():
            announce(scene, mac)
            return mac_of(scene, scene.host(2)) == mac
        wait_for(known, "the neighbour's new address")
        bound = scene.now()
        scene.load.wait(1000)
        scene.nothing_lost(bound)
        scene.wait_until_carried()


def announce(scene, mac):
    raw = bytes.fromhex(mac.replace(":", ""))
    if scene.family == 4:
        address = socket.inet_aton(scene.host(2))
        frame = (b"\xff" * 6 + raw + b"\x08\x06\0\x01\x08\0\x06\x04\0\x01" + raw + address +
                 bytes(6) + address)
    else:
        address = socket.inet_pton(socket.AF_INET6, scene.host(2))
        everybody = socket.inet_pton(socket.AF_INET6, "ff02::1")
        message = b"\x88\0\0\0\x20\0\0\0" + address + b"\x02\x01" + raw
        total = sum(struct.unpack("!16H", address + everybody)) + len(message) + 58 + sum(
            struct.unpack(f"!{len(message) // 2}H", message))
        while total >> 16:
            total = (total & 0xffff) + (total >> 16)
        message = message[:2] + struct.pack("!H", ~total & 0xffff) + message[4:]
        frame = (b"\x33\x33\0\0\0\x01" + raw + b"\x86\xdd" +
                 struct.pack("!IHBB", 6 << 28, len(message), 58, 255) + address + everybody + message)
    with inside(scene.rig.namespace("h2")):
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:
            s.bind(("eth0", 0))
            s.send(frame)


# --- Rules ----------------------------------------------------------------------------------------


def test_rule_that_drops(scene):
    with new_rules(scene):
        nft(scene.rig, f'insert rule inet filter forward udp dport {scene.load.port} counter drop '
                       'comment "new"')
    scene.none_arrives(scene.now())
    wait_for(lambda: rule(scene.sluice, "new")["packets"] > 0, "it counts")
    with new_rules(scene):
        nft(scene.rig, RULES)
    bound = scene.now()
    scene.load.wait(1000)
    scene.nothing_lost(bound)


def test_element_that_drops(scene):
    with new_rules(scene):
        nft(scene.rig, f"add element inet filter blocked {{ {scene.load.port} }}")
    scene.none_arrives(scene.now())
    with new_rules(scene):
        nft(scene.rig, f"delete element inet filter blocked {{ {scene.load.port} }}")
    bound = scene.now()
    scene.load.wait(1000)
    scene.nothing_lost(bound)


def test_other_rules_come_and_go(scene):
    first = scene.now()
    for _ in range(5):
        with new_rules(scene):
            nft(scene.rig, "add rule inet filter forward udp dport 1 counter drop")
        with new_rules(scene):
            nft(scene.rig, RULES)
    scene.wait_until_carried()
    scene.nothing_lost(first)


def test_ruleset_flushed(scene):
    """Without rules, the route is carried; with rules again, the connection, found in its middle."""
    bound = scene.now()
    with new_rules(scene):
        nft(scene.rig, "flush ruleset")
    scene.wait_until_carried()
    with new_rules(scene):
        nft(scene.rig, RULES)
    scene.wait_until_carried()
    scene.nothing_lost(bound)


# --- Links, addresses, configuration --------------------------------------------------------------


def test_link_goes_down_and_up(scene):
    scene.rig.run("router", "ip", "link", "set", "h2", "down")
    scene.sluice.wait_interface("h2", "down")
    scene.none_arrives(scene.now())
    scene.rig.run("router", "ip", "link", "set", "h2", "up")
    scene.sluice.wait_interface("h2")
    # What the kernel forgets when a link goes down.
    scene.rig.batch("router", "address replace fd77:0:0:2::1/64 dev h2 nodad",
                    f"route replace {TARGET[4]}/32 via {HOST[4].format(2)}",
                    f"-6 route replace {TARGET[6]}/128 via {HOST[6].format(2)}")
    scene.load.wait(1000)


def test_mtu_lowered(scene):
    for mtu in (1500, 1400):  # that changes nothing for packets of this size
        first = scene.now()
        scene.rig.run("router", "ip", "link", "set", "h2", "mtu", str(mtu))
        wait_for(lambda: scene.sluice.interface("h2")["mtu"] == mtu, "the MTU")
        scene.wait_until_carried()
        scene.nothing_lost(first)
    # IPv6 has none below 1280: a route's, then.
    small = 220
    if scene.family == 4:
        scene.rig.run("router", "ip", "link", "set", "h2", "mtu", str(small))
        wait_for(lambda: scene.sluice.interface("h2")["mtu"] == small, "the MTU")
        scene.none_arrives(scene.now())
    scene.rig.run("router", "ip", "link", "set", "h2", "mtu", "1500")
    wait_for(lambda: scene.sluice.interface("h2")["mtu"] == 1500, "the MTU")
    if scene.family == 4:  # and what IPv6 lost meanwhile
        scene.rig.batch("router", "address replace fd77:0:0:2::1/64 dev h2 nodad",
                        f"-6 route replace {TARGET[6]}/128 via {HOST[6].format(2)}")
    scene.load.wait(1000)


def test_target_becomes_the_routers_own(scene):
    scene.ip(f"address add {scene.prefix()} dev lo" + (" nodad" if scene.family == 6 else ""))
    wait_for(lambda: scene.sluice.route_to(scene.target)["type"] == "local", "the address")
    scene.none_arrives(scene.now())
    scene.ip(f"address del {scene.prefix()} dev lo")
    wait_for(lambda: scene.sluice.route_to(scene.target)["type"] == "unicast", "the route")
    scene.load.wait(1000)


def test_forwarding_switched_off(scene):
    name = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}[scene.family]

    def dropped():
        return scene.sluice.get("sluice_dropped_packets_total", interface="h1",
                                reason="forwarding_off")
    before = dropped()
    scene.rig.sysctl("router", f"{name}=0")
    wait_for(lambda: dropped() > before, "the first packet that is not forwarded")
    scene.none_arrives(scene.now())
    scene.rig.sysctl("router", f"{name}=1")
    scene.load.wait(1000)


def test_interface_removed_and_added(scene):
    """By reload. Meanwhile the kernel sends what comes by the other one."""
    scene.sluice.configure(["h1", "h3"], flow_offload="on")
    scene.sluice.hang_up()
    wait_for(lambda: scene.sluice.interface("h2") is None, "h2 is gone")
    bound, before = scene.now(), scene.carried()[0]
    scene.load.wait(1000)
    scene.nothing_lost(bound)
    assert scene.carried()[0] == before
    scene.sluice.configure(scene.rig.hosts, flow_offload="on")
    scene.sluice.hang_up()
    scene.sluice.wait_interface("h2")


def test_configuration_reloaded(scene):
    first = scene.now()
    for _ in range(3):
        before = scene.sluice.log().count("reloaded")
        scene.sluice.hang_up()
        wait_for(lambda: scene.sluice.log().count("reloaded") > before, scene.sluice.log)
        scene.wait_until_carried()
    scene.nothing_lost(first)


def test_masquerades_address_removed(router):
    """The kernel forgets connections that had the address; new ones take what there is."""
    rig, sluice = router
    load = Load(rig, "h1", {2: "h2"}, HOST[4].format(2), port=TRANSLATED)
    scene = Scene(rig, sluice, 4, load)
    for old, new in (("10.77.2.1", SECOND), (SECOND, "10.77.2.1")):
        scene.wait_until_carried()
        before = set(load.heard(2, load.bound() - 1000, load.bound())) - {0}
        rig.batch("router", f"address add {new}/24 dev h2", f"address del {old}/24 dev h2",
                  f"address replace {new}/24 dev h2",  # the kernel takes it along
                  f"route replace {TARGET[4]}/32 via {HOST[4].format(2)}")
        wait_for(lambda new=new: [a for a in sluice.interface("h2")["addresses"] if "." in a] ==
                 [f"{new}/24"], lambda: sluice.interface("h2"))
        bound = load.bound()
        load.wait(1000)
        after = set(load.heard(2, bound, load.bound())) - {0}
        assert len(before) == len(after) == 1 and after != before
    scene.wait_until_carried()
    load.stop()
