"""The firewall and NAT cases: what rules and translations cost beside the bare forwarder, and how
long a change takes. `benchmarks/run.sh --firewall`.

    masquerade        10,000 flows through a home router's ruleset, each seen in both directions
    rules             the same flows, with 1,000 rules that do not match before the one that does
    new flows         every packet begins a flow, through those 1,000 rules
    early drop        all sources are among 100,000 denied prefixes; beside a bare XDP_DROP
    a new ruleset     10,000 rules, from the command's start to the first packet that they drop
    a set element     one more in a set of 100,000
"""

import dataclasses
import ipaddress
import os
import random
import time

import rig
from measure import Sample, core_times, measure, thread_ns
from rig import (DUT_CPU, DUT_NS, GEN_IF, IN_IF, MACS, NEXT_HOP, OUT_IF, SINK_IF, SINK_NS, RigError,
                 in_namespace, run)

GENTLY = "50000"  # packets per second
ASSURED_AFTER = 2.2  # seconds; the kernel's conntrack wants two of a UDP flow
FLOWS, RULES, PREFIXES, RULESET_RULES, ELEMENTS = 10000, 1000, 100000, 10000, 100000
OUTER = rig.TRANSLATED
SERVERS = ipaddress.IPv4Address("198.19.0.0")
CLIENTS = ipaddress.IPv4Address("10.0.0.0")
# New flows come faster than idle ones go: the table must have room for some seconds of them.
CONNTRACK = {"net.netfilter.nf_conntrack_max": 4194304, "net.netfilter.nf_conntrack_buckets": 1048576}

HOME_ROUTER = """
table inet filter {{
  chain input {{
    type filter hook input priority 0; policy drop;
    ct state vmap {{ established : accept, related : accept, invalid : drop }}
    iifname vmap {{ lo : accept, {inside} : accept }}
    icmp type echo-request limit rate 5/second accept
  }}
  chain forward {{
    type filter hook forward priority 0; policy drop;
{rules}
    ct state vmap {{ established : accept, related : accept, invalid : drop }}
    iifname {inside} accept
    ct status dnat accept
  }}
}}
table ip nat {{
  chain prerouting {{
    type nat hook prerouting priority -100; policy accept;
    iifname {outside} tcp dport {{ 80, 443 }} dnat to 10.0.0.2
  }}
  chain postrouting {{
    type nat hook postrouting priority 100; policy accept;
    ip saddr 10.0.0.0/8 oifname {outside} masquerade
  }}
}}
"""
EARLY = """
table netdev early {{
  set denied {{
    type ipv4_addr; flags interval;
    elements = {{ {elements} }}
  }}
  chain ingress {{
    type filter hook ingress device {inside} priority 0; policy accept;
    ip saddr @denied drop
  }}
}}
"""


def linear_rules(count):
    """Rules that no packet here matches, each with another address, and other ports."""
    rng = random.Random(count)
    return "\n".join(
        f"    ip saddr 172.{rng.randrange(16, 32)}.{rng.randrange(256)}.{n % 256} "
        f"ip daddr 100.64.{n // 256}.0/24 {('tcp', 'udp')[n % 2]} dport {n % 60000 + 1} drop"
        for n in range(count))


def home_router(rules=""):
    return HOME_ROUTER.format(rules=rules, inside=IN_IF, outside=OUT_IF)


@dataclasses.dataclass(frozen=True)
class FirewallLoad:
    name: str
    ruleset: str
    targets: str = ""
    replies: str = ""
    new_ports: int = 0
    family: int = 4
    size: int = 64
    rate: int = 0

    @property
    def generator_options(self):
        return ("--new-ports", str(self.new_ports)) if self.new_ports else ()


def _write(bench, name, lines):
    path = os.path.join(bench.work, name)
    with open(path, "w", encoding="ascii") as file:
        file.write("\n".join(lines) + "\n")
    return path


def make_loads(bench, size, rate):
    """Of the cases whose result is a rate of forwarded frames."""
    flows = [(SERVERS + 1 + n % 1000, CLIENTS + 10 + n // 4, 2000 + n) for n in range(FLOWS)]
    random.Random(FLOWS).shuffle(flows)
    targets = _write(bench, "flows.txt", (f"{s} {c} {port}" for s, c, port in flows))
    # Masquerade keeps the port, since no other flow has it.
    replies = _write(bench, "replies.txt", (f"{OUTER} {s} 4001 {port}" for s, _, port in flows))
    new = _write(bench, "new.txt", (f"{SERVERS + 1 + n} {CLIENTS + 10 + n % 250} 1024"
                                    for n in range(FLOWS)))
    plain = home_router()
    long = home_router(linear_rules(RULES))
    common = {"size": size, "rate": rate}
    return [FirewallLoad("masquerade-10000flows", plain, targets, replies, **common),
            FirewallLoad("masquerade-1000rules-10000flows", long, targets, replies,
                         **common),
            FirewallLoad("masquerade-1000rules-newflows", long, new, new_ports=60000,
                         **common)]


class Network:
    """What these cases need beside the rig: routes, and room for flows; undone at the end."""

    def __enter__(self):
        self._before = {name: run("sysctl", "-n", name).strip() for name in CONNTRACK}
        for name, value in CONNTRACK.items():
            run("sysctl", "-qw", f"{name}={max(value, int(self._before[name]))}")
        run("ip", "-n", DUT_NS, "route", "replace", "198.19.0.0/16", "via", NEXT_HOP[4])
        run("ip", "-n", DUT_NS, "route", "replace", "10.0.0.0/8", "via", rig.SOURCE[4])
        # Of the kernel's, per namespace: what was new a while ago is idle now.
        run(*in_namespace(DUT_NS, "sysctl", "-qw", "net.netfilter.nf_conntrack_udp_timeout=10",
                          "net.netfilter.nf_conntrack_udp_timeout_stream=60"))
        return self

    def __exit__(self, *_):
        load_rules("")
        for name, value in self._before.items():
            run("sysctl", "-qw", f"{name}={value}")


def load_rules(text):
    run(*in_namespace(DUT_NS, "nft", "-f", "-"), text_input="flush ruleset\n" + text)


def forget_flows():
    run(*in_namespace(DUT_NS, "conntrack", "-F"), check=False)


def send_replies(bench, load):
    """One from each server, so that every flow has been seen in both directions."""
    run(*in_namespace(SINK_NS, bench.program("rig_generator"), "--interface", SINK_IF, "--targets",
                      load.replies, "--source", NEXT_HOP[4], "--source-mac", MACS[SINK_IF],
                      "--gateway-mac", MACS[OUT_IF], "--size", str(load.size), "--cpu",
                      str(rig.RIG_CPU), "--frames", str(FLOWS), "--rate", GENTLY))


def establish(bench, load):
    """Begins every flow slowly enough that next to none is lost, and has it answered."""
    words = [*in_namespace(rig.GEN_NS, *bench.generator_words(GEN_IF, load.targets,
                                                              rig.SOURCE[load.family], load.size))]
    for _ in range(2):
        run(*words, "--frames", str(FLOWS * 2), "--rate", GENTLY)
        time.sleep(0.2)
        send_replies(bench, load)
        time.sleep(0.2)


def sample(bench, device, load, seconds, assured=False, warm_up=0.5):
    """One device under one of the loads: a Sample. `assured`: the flows have gone both ways for long
    enough to be believed in."""
    load_rules(load.ruleset if device.translates else "")
    forget_flows()
    device.start()
    expected = device.expected
    if device.translates:
        device.expected = "translated"
    try:
        if load.replies and device.translates:
            establish(bench, load)
            if assured:
                time.sleep(ASSURED_AFTER)
                establish(bench, load)
        return measure(bench, device, load, seconds, warm_up)
    finally:
        device.expected = expected
        device.stop()
        load_rules("")
        forget_flows()


# --- Early drop -----------------------------------------------------------------------------------


def make_prefixes(count):
    """Prefixes that do not touch each other, so that nft merges none: of lengths 24 to 32."""
    rng = random.Random(count)
    nets = rng.sample(range(1 << 22), count)  # of /24s in 64.0.0.0 and the three behind
    return [((64 << 24) + (net << 8), rng.choice((24, 24, 25, 26, 28, 32))) for net in nets]


def early_load(bench, size, rate):
    prefixes = make_prefixes(PREFIXES)
    elements = ", ".join(f"{ipaddress.IPv4Address(value)}/{length}" for value, length in prefixes)
    rng = random.Random(1)
    sources = [ipaddress.IPv4Address(value + rng.randrange(1 << (32 - length)))
               for value, length in prefixes]
    rng.shuffle(sources)
    targets = _write(bench, "denied.txt", (f"{SERVERS + 1} {source}" for source in sources))
    return FirewallLoad("earlydrop-100000prefixes", EARLY.format(elements=elements,
                                                                     inside=IN_IF),
                        targets, size=size, rate=rate)


class DropDevice:
    """XDP_DROP and nothing else."""

    name = "drop"

    def __init__(self, bench):
        self._object = bench.program("benchmarks/rig/drop.bpf.o")

    def available(self):
        return os.path.exists(self._object)

    def start(self):
        run("ip", "-n", DUT_NS, "link", "set", "dev", IN_IF, "xdpdrv", "obj", self._object, "sec",
            "xdp")
        rig.confine_napi([IN_IF])

    def stop(self):
        run("ip", "-n", DUT_NS, "link", "set", "dev", IN_IF, "xdpdrv", "off")

    @staticmethod
    def threads():
        return rig.napi_threads()


def _taken():
    """Frames that the device's interface has taken from the wire."""
    words = run(*in_namespace(DUT_NS, "cat", f"/sys/class/net/{IN_IF}/statistics/rx_packets"))
    return int(words)


def early_sample(bench, device, load, seconds):
    """The rate at which the device's interface takes frames, all of which must be dropped."""
    load_rules("" if device.name == "drop" else load.ruleset)
    device.start()
    generator = bench.start_generator(load)
    try:
        time.sleep(1.0)
        before = _early_snapshot(bench, generator, device)
        time.sleep(seconds)
        after = _early_snapshot(bench, generator, device)
    finally:
        generator.close()
        device.stop()
        load_rules("")
    spent, taken, sent, passed, thread, core, idle = (b - a for a, b in zip(before, after))
    return Sample(rate=taken / spent, offered=sent / spent,
                  good_share=1 - passed / taken if taken else 0.0,
                  core_busy=1 - idle / core if core else 0.0, device_busy=thread / 1e9 / spent,
                  sink_astray=0.0)


def _early_snapshot(bench, generator, device):
    sink, sent = bench.sink.ask("read"), generator.ask("read")["sent"]
    return (time.monotonic(), _taken(), sent, sink["forwarded"] + sink["untouched"],
            thread_ns(device.threads()), *core_times(DUT_CPU))


# --- Changes --------------------------------------------------------------------------------------


def change_rulesets():
    """(a ruleset that lets all pass, one of 10,000 rules whose last one drops all,
    one with a set of 100,000 elements, the command that adds the one that drops all)"""
    head = "table inet change {\n"
    chain = "  chain forward {\n    type filter hook forward priority 0; policy accept;\n"
    rules = linear_rules(RULESET_RULES - 1)
    big = head + chain + rules + "\n    udp dport 4001 drop\n  }\n}\n"
    elements = ", ".join(str(ipaddress.IPv4Address((64 << 24) + 2 * n)) for n in range(ELEMENTS))
    with_set = (head + "  set denied { type ipv4_addr; elements = { " + elements + " }; }\n" +
                chain + "    ip saddr @denied drop\n  }\n}\n")
    return (head + chain + "    counter\n  }\n}\n", big, with_set,
            f"add element inet change denied {{ {rig.SOURCE[4]} }}\n")


def time_of_change(bench, device, before, commands):
    """(seconds from the start of nft to the last packet that still came through, seconds that nft
    itself took)"""
    load_rules(before)
    device.start()
    load = FirewallLoad("change", before, _write(bench, "one.txt", [str(SERVERS + 1)]), rate=20000)
    generator = bench.start_generator(load)
    try:
        time.sleep(1.5)
        reads = _Reads(bench, device)
        reads.watch(until=lambda: reads.count > 1000)
        start = time.monotonic_ns()
        process = rig.spawn(*in_namespace(DUT_NS, "nft", "-f", "-"), stdin=-1)
        process.stdin.write(commands)
        process.stdin.close()
        ended = []

        def over():
            if not ended and process.poll() is not None:
                ended.append(time.monotonic_ns())
            return ended and time.monotonic_ns() - max(ended[0], reads.last) > 100_000_000

        reads.watch(until=over, limit=20)
        if process.wait() != 0:
            raise RigError("nft refused the change")
        return max(0, reads.last - start) / 1e9, (ended[0] - start) / 1e9
    finally:
        generator.close()
        device.stop()
        load_rules("")


class _Reads:
    """Looks at the sink all the time: when did the last frame come?"""

    def __init__(self, bench, device):
        self._sink = bench.sink
        self._key = device.expected
        self._value = self._read()[0]
        self.count, self.last = 0, 0

    def _read(self):
        answer = self._sink.ask("read")
        return answer[self._key], answer["time_ns"]

    def watch(self, until, limit=10):
        deadline = time.monotonic() + limit
        while not until():
            value, now = self._read()
            if value != self._value:
                self.count += value - self._value
                self._value, self.last = value, now
            if time.monotonic() > deadline:
                raise RigError(f"no end to the packets, or none came ({self.count})")
