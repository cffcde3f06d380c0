"""What sysctls and routes decide: source checks, forwarding, redirects, several paths, limits."""

import time

import pytest
from scapy.layers.inet6 import ICMPv6EchoRequest

from addresses import LINKS, far4, far6, ip4, ip6, link_local, mac
from frames import echo, ether, fresh_neighbor, fresh_sender4, tcp, udp, v4, v6
from normalise import is_redirect6

REFUSE = ["route add blackhole 198.51.100.0/28", "route add prohibit 198.51.100.32/28",
          "route add prohibit fd00:b3::/64"]
SOURCES = [ip4("left", 3), far4("left", 3), ip4("right", 3), far4("right", 3), ip4("other", 3),
           far4("other", 3), "203.0.113.1", "198.51.100.1", "198.51.100.33", ip4("left"),
           ip4("right"), "10.1.0.255", "0.0.0.0", "127.0.0.1", "224.0.0.9", "255.255.255.255",
           "0.1.2.3", "240.0.0.9"]


def each_source(rig, links=("left", "wan", "other")):
    for link in links:
        for source in SOURCES:
            # The one that is refused first: the kernel's limit for refusals is drawn upon by other
            # errors too, and port unreachable comes from the kernel on either side.
            for to in ("198.51.100.34", ip4("right", 2), far4("left", 8), ip4("left")):
                packet = v4(src=source, dst=to)
                rig.compare(f"{source} > {to}", link, ether(packet / udp(4), link=link))
                if to == ip4("left"):
                    rig.compare(f"{source} > {to} echo", link, ether(packet / echo(4), link=link))


# Redirects have a limit in time, and one sender sends much here.
QUIET = {f"ipv4/conf/{name}/send_redirects": 0 for name in ("all", *LINKS)}


@pytest.mark.parametrize("everywhere, left", [(0, 0), (0, 1), (0, 2), (1, 0), (1, 2), (2, 1)])
def test_rp_filter(rig_with, everywhere, left):
    each_source(rig_with({**QUIET, "ipv4/conf/all/rp_filter": everywhere,
                          "ipv4/conf/left/rp_filter": left}, REFUSE), ("left",))


@pytest.mark.parametrize("rp_filter", [0, 1])
@pytest.mark.parametrize("name", ["accept_local", "route_localnet"])
def test_odd_sources_accepted(rig_with, name, rp_filter):
    rig = rig_with({**QUIET, f"ipv4/conf/left/{name}": 1, "ipv4/conf/left/rp_filter": rp_filter},
                   REFUSE)
    each_source(rig, ("left",))
    for to in ("127.0.0.1", "127.1.2.3"):
        rig.compare(f"to {to}", "left", ether(v4(dst=to) / echo(4)))


@pytest.mark.parametrize("off", [{"ipv4/ip_forward": 0}, {"ipv4/conf/left/forwarding": 0},
                                 {"ipv4/conf/right/forwarding": 0}],
                         ids=lambda off: next(iter(off)))
def test_forwarding_off_ipv4(rig_with, off):
    rig = rig_with({**QUIET, **off}, REFUSE)
    for link in ("left", "right", "other"):
        for to in (ip4("wan", 2), "203.0.113.1", "198.51.100.1", "198.51.100.33", ip4("left"),
                   ip4("right")):
            for ttl in (1, 64):
                for layer in (udp(4), echo(4)):
                    rig.compare(f"to {to}, ttl {ttl}", link,
                                ether(v4(src=fresh_sender4(), dst=to, ttl=ttl) / layer, link=link))


@pytest.mark.parametrize("off", [{"ipv6/conf/all/forwarding": 0}, {"ipv6/conf/left/forwarding": 0}],
                         ids=lambda off: next(iter(off)))
def test_forwarding_off_ipv6(rig_with, off):
    rig = rig_with(off, REFUSE)
    for link in ("left", "right", "other"):
        for to in (ip6("wan", 2), "2001:db8::1", "fd00:b3::1", ip6("left"), ip6("right"),
                   "fd00:1::"):
            for limit in (1, 64):
                for layer in (udp(4), ICMPv6EchoRequest(id=1)):
                    rig.compare(f"to {to}, hop limit {limit}", link,
                                ether(v6(src=far6("left", 5), dst=to, hlim=limit) / layer,
                                      link=link))


def test_ipv6_disabled_on_an_interface(rig_with):
    rig = rig_with({"ipv6/conf/left/disable_ipv6": 1})
    rig.compare("in", "left", ether(v6() / udp(4)))
    rig.compare("out", "right", ether(v6(src=ip6("right", 2), dst=ip6("left", 2)) / udp(4),
                                      link="right"))
    rig.compare("to the router", "left", ether(v6(dst=ip6("right")) / ICMPv6EchoRequest(id=1)))


# --- Redirects ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sysctls", [
    {}, {f"ipv4/conf/{name}/send_redirects": 0 for name in ("all", "left")},
    {f"ipv4/conf/{name}/shared_media": 0 for name in ("all", "left")},
    {"ipv4/conf/left/rp_filter": 1}], ids=["default", "off", "not-shared", "rp_filter"])
def test_redirects(rig_with, sysctls):
    setup = ["addr add 10.11.0.1/24 dev left",
             f"neigh add 10.11.0.9 dev left lladdr {mac('left', 9)} nud permanent",
             f"route add 198.51.100.0/28 via {ip4('left', 3)}",
             f"route add 198.51.100.16/28 via 10.11.0.9",
             f"route add 198.51.100.32/28 via inet6 {link_local('left', 3)} dev left",
             f"route add fd00:b1::/64 via {link_local('left', 3)} dev left",
             f"route add fd00:b2::/64 via {ip6('left', 4)}"]
    rig = rig_with(sysctls, setup)
    for to in ("198.51.100.1", "198.51.100.17", "198.51.100.33", ip4("left", 9), far4("left", 9)):
        for layer, ttl in ((udp(4), 64), (tcp(), 2), (echo(600), 1)):
            host = fresh_neighbor()
            rig.compare(f"to {to}, ttl {ttl}", "left",
                        ether(v4(src=ip4("left", host), dst=to, ttl=ttl) / layer, host=host))
    rig.compare("off link", "left", ether(v4(src=far4("left", 77), dst="198.51.100.1") / udp(4)))
    for number, (to, size) in enumerate(((f"fd00:b1::{n}", n * 300) for n in range(1, 5))):
        host = fresh_neighbor()
        rig.compare(f"to {to}", "left",
                    ether(v6(src=ip6("left", host), dst=to) / udp(size), host=host),
                    expect_output=True)
        to = f"fd00:b2::{number + 1}"
        rig.compare(f"to {to}", "left",
                    ether(v6(src=ip6("left", host), dst=to) / udp(size), host=host))
    for neighbor in (7, 8):
        host = fresh_neighbor()
        rig.compare("to a neighbour", "left",
                    ether(v6(src=ip6("left", host), dst=ip6("left", neighbor)) / udp(4), host=host),
                    expect_output=True)
    rig.compare("from off link", "left",
                ether(v6(src=far6("left", 5), dst="fd00:b1::99") / udp(4)), expect_output=True)


# --- Several paths --------------------------------------------------------------------------------


def either_way(by_link):
    """The same packet by any of the two: which one is a matter of each one's own hash."""
    out = {link: frames for link, frames in by_link.items() if link not in ("right", "wan")}
    out["either"] = sorted(frame[14:] for link in ("right", "wan") for frame in
                           by_link.get(link, []))
    return out


@pytest.mark.parametrize("policy", [0, 1])
def test_ecmp(rig_with, policy):
    rig = rig_with({"ipv4/fib_multipath_hash_policy": policy,
                    "ipv6/fib_multipath_hash_policy": policy},
                   [f"route add 198.51.100.0/24 nexthop via {ip4('right', 2)} "
                    f"nexthop via {ip4('wan', 2)}",
                    f"route add fd00:b1::/64 nexthop via {ip6('right', 2)} "
                    f"nexthop via {ip6('wan', 2)}"])
    used = set()
    for number in range(1, 41):
        for frame in (ether(v4(dst=f"198.51.100.{number}") / udp(4)),
                      ether(v6(dst=f"fd00:b1::{number:x}") / tcp())):
            links = set()
            for _ in range(2):
                rig.compare(f"flow {number}", "left", frame, expect_output=True, key=either_way)
                links |= rig.outputs()[1].keys()
            assert len(links) == 1, f"flow {number} changed its path"
            used.add((frame[12:14], *links))
    assert len(used) == 4, f"only {used} were used"


def test_path_without_a_link_is_not_used(rig_with):
    rig = rig_with({}, [f"route add 198.51.100.0/24 via {ip4('right', 2)} metric 1",
                        f"route add 198.51.100.0/24 via {ip4('wan', 2)} metric 2"])
    rig.compare("the better one", "left", ether(v4(dst="198.51.100.1") / udp(4)),
                expect_output=True)


# --- Errors: from where, how many -----------------------------------------------------------------


def test_errors_from_the_inbound_address(rig_with):
    rig = rig_with({"ipv4/icmp_errors_use_inbound_ifaddr": 1}, REFUSE)
    for link in ("left", "wan", "other"):
        for source in (far4("left", 200), ip4("right", 4)):
            rig.compare(f"to {source}, in by {link}", link,
                        ether(v4(src=source, ttl=1) / udp(4), link=link), expect_output=True)


def test_echo_ignored(rig_with):
    rig = rig_with({"ipv6/icmp/echo_ignore_multicast": 1, "ipv6/icmp/echo_ignore_anycast": 1})
    for to in ("ff02::1", "fd00:1::", ip6("left")):
        rig.compare(f"to {to}", "left", ether(v6(dst=to) / ICMPv6EchoRequest(id=1),
                                              dst="33:33:00:00:00:01" if to[0] == "f" and
                                              to[1] == "f" else None))


def burst(rig, what, frames):
    """All at once, within the time in which no limit lets another one through."""
    for side in rig.sides:
        while side.receive(0):
            pass
        side.frames.clear()
    for frame in frames:
        for side in rig.sides:
            side.send("left", frame)
    rig.settle("left")
    kernel, sluice = ({link: len(out) for link, out in by_link.items()}
                      for by_link in rig.outputs())
    assert kernel == sluice, f"{what}: the kernel answers {kernel}, Sluice {sluice}"
    return sum(kernel.values())


def test_limits_of_errors(rig_with):
    """The first errors of a burst get out, as many as the kernel's bucket holds."""
    rig = rig_with({"ipv4/icmp_ratelimit": 1000, "ipv6/icmp/ratelimit": 1000}, REFUSE)
    source = fresh_sender4()
    assert burst(rig, "time exceeded",
                 [ether(v4(src=source, ttl=1, id=n) / udp(4)) for n in range(20)]) < 20
    for to in ("203.0.113.1", "198.51.100.33"):
        source = fresh_sender4()
        assert burst(rig, f"to {to}", [ether(v4(src=source, dst=to, id=n) / udp(4))
                                       for n in range(20)]) < 20
    assert burst(rig, "fragmentation needed, not limited",
                 [ether(v4(dst=ip4("wan", 2), flags="DF", id=n) / udp(1400))
                  for n in range(20)]) == 20
    assert burst(rig, "hop limit, by a gateway",
                 [ether(v6(src=far6("left", 0x999), hlim=1, fl=n) / udp(4))
                  for n in range(20)]) < 20
    assert burst(rig, "too big, not limited",
                 [ether(v6(dst=ip6("wan", 2), fl=n) / udp(1400)) for n in range(20)]) == 20


def test_neighbor_that_never_answers(rig_with):
    """Three questions, a second apart, then host unreachable for what waited."""
    rig = rig_with()
    frames = [ether(v4(src=ip4("right", 2), dst=ip4("left", 150)) / udp(40), link="right"),
              ether(v4(src=ip4("right", 3), dst=ip4("left", 150)) / tcp(), link="right"),
              ether(v6(src=ip6("right", 2), dst=ip6("left", 150)) / udp(40), link="right")]
    for side in rig.sides:
        while side.receive(0):
            pass
        side.frames.clear()
        for frame in frames:
            side.send("right", frame)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        kernel, sluice = rig.outputs(keep_solicitations=True)
        if all(len(side.get("right", [])) == 3 for side in (kernel, sluice)):
            break
        for side in rig.sides:
            side.receive(0.1)
    kernel, sluice = rig.outputs(keep_solicitations=True)
    assert sorted(kernel.get("right", [])) == sorted(sluice.get("right", []))
    assert len(kernel["right"]) == 3
    questions = [[frame for frame in side["left"] if frame[12:14] == b"\x08\x06"]
                 for side in (kernel, sluice)]
    assert questions[0] == questions[1] and len(questions[0]) == 3
    solicitations = [[frame for frame in side["left"] if frame[12:14] == b"\x86\xdd"]
                     for side in (kernel, sluice)]
    assert solicitations[0] == solicitations[1] and len(solicitations[0]) == 3
