"""The flow tier from end to end: what it counts, what it keeps alive, its limits, and its end.
tests/e2e/offload_changes_test.py has what changes meanwhile.
"""

import json

import pytest

from load import WINDOW, Load, carried, quiet, wait_until_carried
from programs import FileServer
from rig import SLUICE, Rig, Sluice, growing, wait_for

H1 = {4: "10.77.1.2", 6: "fd77:0:0:1::2"}
H2 = {4: "10.77.2.2", 6: "fd77:0:0:2::2"}
HEADERS = {4: 28, 6: 48}
FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
TRACKED = """
flush ruleset
table inet filter {
  chain forward {
    type filter hook forward priority 0; policy accept;
    ct state established counter
  }
}
"""
COUNTED = """
flush ruleset
table inet filter {
  counter passed { }
  chain forward {
    type filter hook forward priority 0; policy accept;
    counter name "passed"
    udp dport PORT counter comment "forth"
    udp sport PORT counter comment "back"
    ct state new counter comment "new"
    ct state established counter comment "established"
    meta l4proto tcp counter comment "never"
  }
}
table ip nat {
  chain postrouting {
    type nat hook postrouting priority 100; policy accept;
    oifname h2 counter masquerade comment "once"
  }
}
"""


@pytest.fixture
def rig_of():
    """rig_of(hosts, queues): a rig."""
    made = []

    def make(hosts=2, queues=1):
        made.append(Rig(hosts=hosts, queues=queues).__enter__())
        return made[-1]

    yield make
    for rig in made:
        rig.__exit__(None, None, None)


def nft(rig, commands):
    rig.run("router", "nft", "-f", rig.write("rules.nft", commands))


def counter(sluice, name):
    """The line of a rule with this comment, or of a named counter."""
    return next(line for line in sluice.show("rules")["lines"]
                if (line["handle"] and f'comment "{name}"' in line["text"]) or
                (not line["handle"] and line["chain"] == name))


INTERFACE = {name: f"sluice_{name}_total" for name in (
    "received_packets", "received_bytes", "transmitted_packets", "transmitted_bytes",
    "forwarded_packets")}


def interfaces(sluice):
    metrics = sluice.metrics()
    return {(interface, name): metrics.get(metric, interface=interface)
            for interface in ("h1", "h2") for name, metric in INTERFACE.items()}


@pytest.mark.parametrize("family, workers", [(4, 1), (6, 1), (4, 2)],
                         ids=["ipv4", "ipv6", "two workers"])
def test_all_counts_are_exact(rig_of, family, workers):
    rig = rig_of(queues=workers)
    quiet(rig)
    port = 6500
    nft(rig, COUNTED.replace("PORT", str(port)))
    with Sluice(rig, flow_offload="on", workers={"count": workers}) as sluice:
        before = interfaces(sluice)
        load = Load(rig, "h1", {2: "h2"}, H2[family], port=port)
        wait_until_carried(sluice, load)
        load.wait(20_000)
        sent = load.stop()
        assert not load.lost(0, sent)
        size = load.size + HEADERS[family]
        expected = {"passed": 2 * sent, "forth": sent, "back": sent, "never": 0}

        def shown():
            return {name: counter(sluice, name)["packets"] for name in expected}
        wait_for(lambda: shown() == expected, lambda: f"{shown()}, not {expected}")
        for name, packets in expected.items():
            assert counter(sluice, name)["bytes"] == packets * size
        new, established = (counter(sluice, name)["packets"] for name in ("new", "established"))
        assert 1 <= new < sent and new + established == 2 * sent
        assert counter(sluice, "once")["packets"] == (1 if family == 4 else 0)
        metrics = sluice.metrics()
        assert metrics.get("sluice_named_packets_total", table="filter") == 2 * sent
        assert metrics.get("sluice_named_bytes_total", table="filter") == 2 * sent * size

        [flow] = [f for f in sluice.show("flows")["flows"]
                  if f["original"].get("destination_port") == port]
        assert "OFFLOAD" in flow["status"]
        for direction in ("original", "reply"):
            assert (flow[direction]["packets"], flow[direction]["bytes"]) == (sent, sent * size)

        frames = sent * (size + 14)
        for (interface, name), value in interfaces(sluice).items():
            assert value - before[interface, name] == (frames if "bytes" in name else sent), (
                interface, name)
        tiers = {tier: metrics.get("sluice_tier_packets_total", tier=tier)
                 for tier in ("xdp", "worker", "kernel")}
        by_xdp = metrics.get("sluice_xdp_packets_total", reason="flow")
        assert tiers["xdp"] == by_xdp > 30_000
        assert sum(tiers.values()) == metrics.get("sluice_received_packets_total")
        assert metrics.get("sluice_offloaded_bytes_total") == by_xdp * (size + 14)
        status = sluice.show("status")
        assert status["packets"]["balanced"] and status["tiers"]["xdp"] == by_xdp
        assert sum(i["xdp_forward"] for i in sluice.show("interfaces")) == by_xdp
        # Linux leaves checksums to the card, which is nobody here: they have been completed. (In a
        # worker, where it is looked for twice, one of 65,536 looks like that again.)
        assert 2 * sent <= metrics.get("sluice_checksums_completed_total") < 2 * sent + 20
        sluice.check_accounts()


@FAMILIES
def test_downloads(rig_of, family):
    """TCP as Linux sends it, with partial checksums and long segments, there and back."""
    rig = rig_of()
    nft(rig, COUNTED.replace("PORT", "1"))
    with Sluice(rig, flow_offload="on") as sluice:
        server = FileServer(rig, "h2", 80, rate="4m")
        for _ in range(2):
            with growing(sluice, "sluice_xdp_packets_total", 1000, reason="flow"), \
                    growing(sluice, "sluice_checksums_completed_total", 1000):
                server.check_download("h1", H2[family])
        # What has ended holds no entry.
        wait_for(lambda: sluice.show("status")["tiers"]["entries"] == 0,
                 lambda: sluice.show("status")["tiers"])
        sluice.check_accounts()


def flow_to(sluice, load):
    return next((f for f in sluice.show("flows")["flows"]
                 if f["original"].get("destination_port") == load.port), None)


def test_traffic_that_no_worker_sees_keeps_a_connection(rig_of):
    rig = rig_of()
    quiet(rig)
    nft(rig, TRACKED)
    with Sluice(rig, flow_offload="on", timeouts={"udp": "2s", "udp_stream": "2s"}) as sluice:
        load = Load(rig, "h1", {2: "h2"}, H2[4])
        wait_until_carried(sluice, load)
        seen = carried(sluice)[1]
        first = load.bound()
        begun = uptime(sluice)
        wait_for(lambda: uptime(sluice) > begun + 4, "time passes")
        assert carried(sluice)[1] - seen < 20, "a worker has seen packets"
        load.nothing_lost(first)
        flow = flow_to(sluice, load)
        assert flow["original"]["packets"] > first and 0 < flow["timeout_seconds"] <= 2
        sent = load.stop()
        wait_for(lambda: flow_to(sluice, load) is None, lambda: flow_to(sluice, load))
        wait_for(lambda: sluice.show("status")["tiers"]["entries"] == 0,
                 lambda: sluice.show("status")["tiers"])
        assert not load.lost(first, sent)
        sluice.check_accounts()


def kernel_knows(rig, interface, address):
    shown = json.loads(rig.run("router", "ip", "-j", "neigh", "show", address, "dev",
                               interface).stdout)
    return any("lladdr" in neighbour for neighbour in shown)


def uptime(sluice):
    return sluice.show("status")["uptime_seconds"]


# --- What is said of it, and what comes before it --------------------------------------------------


@FAMILIES
def test_explain_and_trace_name_the_tier(rig_of, family):
    rig = rig_of()
    quiet(rig)
    nft(rig, TRACKED)
    with Sluice(rig, flow_offload="on") as sluice:
        # One at a time: of a burst, some may find no place in the trace.
        load = Load(rig, "h1", {2: "h2"}, H2[family], window=1)
        wait_until_carried(sluice, load)
        ip = "ip" if family == 4 else "ip6"

        def explained(source_port):
            done = sluice.cli("explain", "--in", "h1", ip, "saddr", H1[family], ip, "daddr",
                              H2[family], "udp", "sport", str(source_port), "udp", "dport",
                              str(load.port), "--json")
            assert done.returncode == 0, done.stdout
            return [stage["text"] for stage in json.loads(done.stdout)["stages"]
                    if stage["stage"] == "tier"]
        assert explained(load.source_port) == ["xdp"]
        assert explained(load.source_port + 1) == ["worker"]  # nobody has begun that one

        first = load.bound()
        done = sluice.cli("trace", f"udp port {load.port}", "--limit", "20", "--json")
        assert done.returncode == 0, done.stdout
        traced = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(traced) == 20 and {packet["tier"] for packet in traced} == {"xdp"}, done.stdout
        wait_until_carried(sluice, load)
        load.nothing_lost(first)
        # An echo request is the workers', and trace says so.
        trace = rig.start("router", SLUICE, "--control", sluice.control, "trace", "icmp or icmp6",
                          "--limit", "1", "--json")
        wait_for(lambda: rig.ping("h1", H2[family], count=1) and trace.poll() is not None,
                 "the trace ends")
        assert json.loads(rig.read_log(trace).splitlines()[-1])["tier"] == "worker"
        load.stop()
        sluice.check_accounts()


def test_explain_changes_nothing_for_who_comes_next(rig_of):
    """What is promoted after an `explain` goes on counting for the rules that it meets."""
    rig = rig_of()
    quiet(rig)
    port = 6501
    nft(rig, COUNTED.replace("PORT", str(port)))
    with Sluice(rig, flow_offload="on") as sluice:
        done = sluice.cli("explain", "--in", "h1", "ip", "saddr", H1[4], "ip", "daddr", H2[4], "udp",
                          "sport", "5", "udp", "dport", str(port))
        assert done.returncode == 0, done.stdout
        load = Load(rig, "h1", {2: "h2"}, H2[4], port=port)
        wait_until_carried(sluice, load)
        load.wait(5000)
        sent = load.stop()

        def counted():
            return counter(sluice, "passed")["packets"]
        wait_for(lambda: counted() == 2 * sent, lambda: f"{counted()} counted of {2 * sent}")
        sluice.check_accounts()


@FAMILIES
def test_early_rules_come_before_the_entry(rig_of, family):
    """A rule of the ingress hook drops what is too much of a connection while XDP carries the rest,
    then all of it: every datagram has been heard or counted by such a rule."""
    rig = rig_of()
    quiet(rig)
    nft(rig, TRACKED)
    with Sluice(rig, flow_offload="on") as sluice:
        load = Load(rig, "h1", {2: "h2"}, H2[family])
        wait_until_carried(sluice, load)
        nft(rig, f"""
        table netdev early {{
          chain ingress {{
            type filter hook ingress device "h1" priority 0; policy accept;
            udp dport {load.port} limit rate over 1000/second counter drop comment "some"
          }}
        }}
        """)

        def in_xdp(comment):
            return any(f'comment "{comment}"' in line["text"] and line["where"] == "xdp"
                       for line in sluice.show("rules")["lines"])
        wait_for(lambda: in_xdp("some"), lambda: sluice.show("rules"))
        with growing(sluice, "sluice_xdp_packets_total", 500, interface="h1", reason="flow"), \
                growing(sluice, "sluice_xdp_packets_total", 500, interface="h1",
                        reason="rate_limit"):
            pass
        nft(rig, f'add rule netdev early ingress udp dport {load.port} counter drop comment "all"')
        wait_for(lambda: in_xdp("all"), lambda: sluice.show("rules"))
        bound = load.bound()
        with growing(sluice, "sluice_xdp_packets_total", 500, interface="h1", reason="early_rule"):
            load.wait_sent(500)
        sent = load.stop()
        assert not any(load.heard(2, bound, sent))
        heard = sum(map(bool, load.heard(2, 0, sent)))

        def dropped():
            return sum(counter(sluice, name)["packets"] for name in ("some", "all"))
        wait_for(lambda: heard + dropped() == sent,
                 lambda: f"{sent} sent, {heard} heard, {dropped()} dropped")
        sluice.check_accounts()


# --- Limits ---------------------------------------------------------------------------------------


def test_more_flows_than_entries(rig_of):
    rig = rig_of()
    quiet(rig)
    nft(rig, TRACKED)
    with Sluice(rig, flow_offload="on", limits={"offloads": 256}) as sluice:
        load = Load(rig, "h1", {2: "h2"}, H2[4], flows=2000)

        def entries():
            now = sluice.show("status")["tiers"]["entries"]
            assert now <= 256
            return now
        wait_for(lambda: entries() == 256, lambda: f"{entries()} entries")
        with growing(sluice, "sluice_offload_refusals_total", 2000, reason="full"), \
                growing(sluice, "sluice_xdp_packets_total", 2000, reason="flow"):
            pass
        assert entries() == 256
        sent = load.stop()
        assert not load.lost(0, sent)
        # The idle make room for who comes.
        one = Load(rig, "h1", {2: "h2"}, H2[4])
        wait_until_carried(sluice, one)
        assert sluice.get("sluice_offload_failed_orders_total") == 0
        one.nothing_lost(0)
        one.stop()
        sluice.check_accounts()


def test_all_are_promoted_again_after_each_change(rig_of):
    rig = rig_of()
    quiet(rig)
    nft(rig, TRACKED)
    with Sluice(rig, flow_offload="on") as sluice:
        load = Load(rig, "h1", {2: "h2"}, H2[4], flows=1000)

        def entries():
            return sluice.show("status")["tiers"]["entries"]
        wait_for(lambda: entries() == 2000, lambda: f"{entries()} entries", seconds=20)
        first = load.bound()
        for _ in range(5):
            with growing(sluice, "sluice_offload_promotions_total", 2000):
                nft(rig, "add rule inet filter forward udp dport 1 counter")
        wait_until_carried(sluice, load)
        assert entries() == 2000
        load.nothing_lost(first)
        sent = load.stop()
        assert not load.lost(0, sent)
        assert sluice.get("sluice_offload_failed_orders_total") == 0
        sluice.check_accounts()


def test_half_a_million_flows_of_one_packet(rig_of):
    """They cost XDP nothing, and the flow that it carries goes on."""
    rig = rig_of(hosts=3)
    quiet(rig)
    nft(rig, TRACKED)
    with Sluice(rig, flow_offload="on", limits={"flows": 20000}) as sluice:
        load = Load(rig, "h1", {2: "h2"}, H2[4])
        wait_until_carried(sluice, load)
        promoted = sluice.get("sluice_offload_promotions_total")
        flood = load.flood("h3", "10.77.3.2", 500_000)
        while flood.poll() is None:
            load.wait(1000)
            metrics = sluice.metrics()
            assert metrics.get("sluice_table_used", table="flows") <= 20000
            assert metrics.get("sluice_table_used", table="offloads") <= 4
        assert flood.wait() == 0, rig.read_log(flood)
        # What the worker could not take is counted; the others have made room for each other.
        came = sluice.get("sluice_xdp_packets_total", interface="h3", action="redirect")
        assert came >= 500_000
        wait_for(lambda: sluice.get("sluice_received_packets_total", interface="h3") +
                 sluice.get("sluice_xdp_ring_full_total", interface="h3") == came,
                 lambda: sluice.cli("show", "interfaces").stdout)
        assert sluice.get("sluice_conntrack_events_total", event="early_drop") > 10_000
        assert sluice.get("sluice_offload_promotions_total") <= promoted + 4
        wait_until_carried(sluice, load)
        load.nothing_lost(load.bound())
        load.stop()
        sluice.check_accounts()


# --- Outputs that XDP cannot send to --------------------------------------------------------------


@pytest.mark.parametrize("choice", ["auto", "on"])
def test_a_host_without_napi(rig_of, choice):
    """What XDP redirected to it would vanish: workers send there, and the user is told. The other way
    XDP carries, and both when the host has seen to it."""
    rig = rig_of()
    quiet(rig)
    nft(rig, TRACKED)
    rig.run("h2", "ethtool", "-K", "eth0", "gro", "off")
    with Sluice(rig, flow_offload=choice) as sluice:
        load = Load(rig, "h1", {2: "h2"}, H2[4])

        def problems():
            return sluice.show("status")["tiers"]["problems"]
        assert len(problems()) == 1 and "h2:" in problems()[0], problems()
        assert "workers send there" in sluice.log()
        assert "h2" in sluice.cli("show", "status").stdout.partition("tiers")[2].partition("\n\n")[0]

        def by_xdp(interface):
            return sluice.get("sluice_xdp_packets_total", interface=interface, reason="flow")
        wait_for(lambda: by_xdp("h2") > 5000, "the replies are carried")
        assert by_xdp("h1") == 0
        rig.run("h2", "ethtool", "-K", "eth0", "gro", "on")
        wait_until_carried(sluice, load, seconds=20)
        assert not problems() and "XDP can send here now" in sluice.log()
        load.nothing_lost(0)
        load.stop()
        sluice.check_accounts()


def test_a_host_loses_napi_under_load(rig_of):
    """No more is lost than was under way, and all of it is counted."""
    rig = rig_of()
    quiet(rig)
    nft(rig, TRACKED)
    with Sluice(rig, flow_offload="on") as sluice:
        load = Load(rig, "h1", {2: "h2"}, H2[4])
        wait_until_carried(sluice, load)
        first = load.bound()
        rig.run("h2", "ethtool", "-K", "eth0", "gro", "off")
        wait_for(lambda: "workers send there" in sluice.log(), sluice.log)
        load.nothing_lost(load.bound())
        sent = load.stop()
        lost = len(load.lost(first, sent))
        assert lost <= 2 * WINDOW
        # h2 has answered those that were lost on their way out of its own queue, at most.
        assert lost - WINDOW <= sluice.get("sluice_offload_lost_frames_total",
                                           interface="h2") <= lost
        sluice.check_accounts()


# --- The end --------------------------------------------------------------------------------------


@FAMILIES
@pytest.mark.parametrize("neighbours", ["permanent", "found"])
def test_killed_under_load_the_kernel_forwards_the_next_packet(rig_of, neighbours, family):
    rig = rig_of()
    if neighbours == "permanent":
        quiet(rig)
    nft(rig, TRACKED)
    sluice = Sluice(rig, flow_offload="on").start()
    load = Load(rig, "h1", {2: "h2"}, H2[family])
    wait_until_carried(sluice, load)
    wait_for(lambda: all(kernel_knows(rig, host, address)
                         for host, address in (("h1", H1[family]), ("h2", H2[family]))),
             "the kernel knows both hosts")
    before = load.bound()
    sluice.kill()
    wait_for(lambda: not rig.left_behind(), lambda: f"left behind: {rig.left_behind()}")
    load.nothing_lost(load.bound())
    # What was under way in the devices' rings, at most.
    load.nothing_lost(before, but=2 * WINDOW)
    with sluice.start():
        wait_until_carried(sluice, load)
        load.stop()
        sluice.check_accounts()


def test_clean_end_under_load_and_a_new_start(rig_of):
    """The connection keeps the port that Sluice has chosen at random, in the kernel, and again in
    Sluice."""
    rig = rig_of()
    nft(rig, TRACKED + """
table ip nat {
  chain postrouting {
    type nat hook postrouting priority 100; policy accept;
    oifname h2 masquerade fully-random
  }
}
""")
    sluice = Sluice(rig, flow_offload="on").start()
    load = Load(rig, "h1", {2: "h2"}, H2[4])
    wait_until_carried(sluice, load)
    for _ in range(2):
        first = load.bound()
        assert sluice.stop() == 0, sluice.log()
        assert not rig.left_behind()
        load.nothing_lost(load.bound())
        load.nothing_lost(first, but=WINDOW)
        sluice.start()
        wait_until_carried(sluice, load)
    sent = load.stop()
    assert set(load.heard(2, 0, sent)) <= {0, 1}, "another translation"
    sluice.check_accounts()
    assert sluice.stop() == 0
