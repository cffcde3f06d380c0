"""The hosts around a server under test, and what clients ask of it: programs and receive processing on
core 0, namespaces that are new for each measurement."""

import contextlib
import dataclasses
import json
import os
import re
import resource
import signal
import time
from subprocess import DEVNULL, PIPE

import rig
from measure import thread_ns
from rig import (DUT_CPU, DUT_NS, GEN_IF, GEN_NS, RIG_CPU, SINK_IF, SINK_NS, Helper, RigError,
                 in_namespace, run, steer)
from servers import BACK, DNS, FRONT, HTTP, HTTP_BACK, IPERF, moderate

CONNECTIONS = 64
NAMES = 1000  # that clients ask for
_TICK = os.sysconf("SC_CLK_TCK")
# Beyond this, others were on the server's core. A server that sleeps often loses up to a tenth by waking
# up from idle, which is nobody's time; so do the interrupts that find it idle.
DISTURBED = 0.15
# A program that hangs must not hang the run.
_GRACE = 30
_OFFLOADS = ("tso", "gso", "tx")
# A veth has room for 256 frames: the hosts' NAPIs come before their programs, as interrupts do.
_HOST_NICE = -19
# Room for the connections of seconds, in all namespaces alike.
_SYSCTLS = ("net.ipv4.ip_local_port_range=1024 65535", "net.core.somaxconn=65535",
            "net.ipv4.tcp_max_syn_backlog=65535", "net.ipv4.tcp_tw_reuse=1")


@dataclasses.dataclass
class Work:
    """What a server did: `rate` per second (connections, requests, bits, queries), and shares of cores
    from 0 to 1. `own`: by the server's threads; what interrupts took of an idle core is not in it."""
    rate: float
    core: float
    own: float
    hosts_core: float
    failed: int = 0

    @property
    def per_core(self):
        """Per second that the server's core was busy, which is the server's doing if undisturbed."""
        return self.rate / self.core if self.core else 0.0

    @property
    def disturbed(self):
        return self.core - self.own > DISTURBED


@dataclasses.dataclass
class Latencies:
    """Microseconds, from when a request was due."""
    p50: float
    p90: float
    p99: float
    p999: float
    lost: int
    core: float
    own: float


@contextlib.contextmanager
def network(bench, server, offloads=False, moderated=True):
    """New namespaces, hosts and backend in them, and the server started. `offloads`: the hosts' for
    segmentation and checksums. `moderated`: no NAPI is woken for each frame."""
    bench.build_network(sink=False)
    try:
        for namespace in (GEN_NS, DUT_NS, SINK_NS):
            run(*in_namespace(namespace, "sysctl", "-qw", *_SYSCTLS))
        for namespace, interface, address in ((GEN_NS, GEN_IF, rig.SOURCE[4]),
                                              (SINK_NS, SINK_IF, BACK)):
            _host(namespace, interface, address, offloads, moderated)
        _neighbours()
        backend = Helper(*in_namespace(SINK_NS, *_on_rig(bench.program("answerer"), BACK,
                                                         str(HTTP_BACK), str(DNS))))
        server.arrange(offloads, moderated)
        try:
            server.start()
            yield
        finally:
            server.stop()
            backend.close()
    finally:
        bench.remove()


def _host(namespace, interface, address, offloads, moderated):
    """GRO gives a veth a NAPI, so that a thread on core 0 receives, and not who sends. Moderated, it is
    a timer there that wakes it, so that the server does not pay for it either."""
    run("ip", "-n", namespace, "addr", "add", f"{address}/24", "dev", interface)
    run(*in_namespace(namespace, "ethtool", "-K", interface, "gro", "on"))
    if not offloads:
        for what in _OFFLOADS:
            run(*in_namespace(namespace, "ethtool", "-K", interface, what, "off"))
    rig.confine_napi([interface], _HOST_NICE, namespace, RIG_CPU)
    steer(namespace, interface, RIG_CPU)  # what passes by the NAPI: segments of 64 KB
    if moderated:
        moderate(namespace, interface, always=True)


def _neighbours():
    for namespace, interface, gateway, peer in ((GEN_NS, GEN_IF, FRONT, rig.IN_IF),
                                                (SINK_NS, SINK_IF, "198.18.1.1", rig.OUT_IF)):
        run("ip", "-n", namespace, "neigh", "replace", gateway, "lladdr", rig.MACS[peer], "dev",
            interface, "nud", "permanent")


def _on_rig(*words):
    return ("taskset", "-c", str(RIG_CPU), *words)


def _ask(seconds, *words):
    """A client's output."""
    return run(*in_namespace(GEN_NS, "timeout", str(int(seconds + _GRACE)), *_on_rig(*words)))


def _idle(cpu):
    """Seconds. Other times are not exact, but sampled."""
    with open("/proc/stat", encoding="ascii") as file:
        for line in file:
            if line.startswith(f"cpu{cpu} "):
                ticks = [int(word) for word in line.split()[1:]]
                return (ticks[3] + ticks[4]) / _TICK
    raise LookupError(f"no cpu{cpu} in /proc/stat")


def _threads(server):
    return server.threads() + [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc")))
                               if _comm(pid) == f"ksoftirqd/{DUT_CPU}"]


def _comm(pid):
    try:
        with open(f"/proc/{pid}/comm", encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


@contextlib.contextmanager
def watching(server):
    """Yields a dictionary that has the shares of the cores when the block ends. The clients are idle
    before and after, so what their run took is all there."""
    threads, shares = _threads(server), {}
    before = time.monotonic(), _idle(DUT_CPU), _idle(RIG_CPU), thread_ns(threads)
    yield shares
    after = time.monotonic(), _idle(DUT_CPU), _idle(RIG_CPU), thread_ns(threads)
    wall, core_idle, hosts_idle, own = (b - a for a, b in zip(before, after))
    shares.update(wall=wall, core=1 - core_idle / wall, own=own / 1e9 / wall,
                  hosts_core=1 - hosts_idle / wall)


def _work(count, failed, shares):
    """The rate is over the whole run of the client, as the shares are."""
    shares = dict(shares)
    return Work(count / shares.pop("wall"), failed=failed, **shares)


def _wrk(seconds, *options):
    """(requests answered, failures)"""
    said = _ask(seconds, "wrk", "--threads", "1", "--connections", str(CONNECTIONS), "--duration",
                f"{max(1, round(seconds))}s", *options, f"http://{FRONT}:{HTTP}/")
    found = re.search(r"(\d+) requests in", said)
    if not found:
        raise RigError(f"wrk: {said.strip()}")
    failed = sum(int(number) for line in re.findall(r"Socket errors: (.*)|Non-2xx.*: (\d+)", said)
                 for part in line for number in re.findall(r"\d+", part))
    return int(found[1]), failed


def http(server, seconds, close):
    """Requests on connections that stay, or each on a connection of its own."""
    options = ("--header", "Connection: close") if close else ()
    _wrk(1, *options)
    with watching(server) as shares:
        count, failed = _wrk(seconds, *options)
    if count == 0:
        raise RigError(f"{server.name}: no answer")
    return _work(count, failed, shares)


def latencies(bench, server, rate, seconds):
    with watching(server) as shares:
        text = _ask(seconds, bench.program("http_load"), FRONT, str(HTTP), "--connections",
                    str(CONNECTIONS), "--rate", f"{rate:.0f}", "--seconds", str(seconds))
    said = json.loads(text)
    return Latencies(*(said[f"p{name}_ns"] / 1e3 for name in ("50", "90", "99", "999")),
                     lost=said["lost"], core=shares["core"], own=shares["own"])


def bulk(server, seconds, direction):
    """Bits per second of one connection."""
    with _iperf_server():
        words = ["iperf3", "--client", FRONT, "--port", str(IPERF), "--json", "--time"]
        if direction == "download":
            words.insert(1, "--reverse")
        _ask(1, *words, "1")
        with watching(server) as shares:
            said = json.loads(_ask(seconds, *words, str(max(1, round(seconds)))))
    if "error" in said or "end" not in said:
        raise RigError(f"iperf3: {said.get('error', 'no result')}")
    received = said["end"]["sum_received"]["bytes"]
    return _work(received * 8, 0, shares)


@contextlib.contextmanager
def _iperf_server():
    process = rig.spawn(*in_namespace(SINK_NS, *_on_rig("iperf3", "--server", "--port", str(IPERF),
                                                        "--forceflush")),
                        stdout=PIPE, stderr=DEVNULL)
    try:
        if not any("listening" in line for line in iter(process.stdout.readline, "")):
            raise RigError("iperf3 does not listen")
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()


def dns(bench, server, seconds, port=DNS):
    path = os.path.join(bench.work, "names.txt")
    with open(path, "w", encoding="ascii") as file:
        file.writelines(f"host{i}.example.com A\n" for i in range(NAMES))

    def ask(length):
        said = _ask(length, "dnsperf", "-s", FRONT, "-p", str(port), "-d", path, "-c",
                    str(CONNECTIONS), "-T", "1", "-q", "128", "-b", "4096", "-t", "1", "-l",
                    str(max(1, round(length))))
        found = [re.search(rf"Queries {what}:\s+(\d+)", said) for what in ("completed", "lost")]
        if not all(found):
            raise RigError(f"dnsperf: {said.strip()}")
        return [int(match[1]) for match in found]
    ask(1)
    with watching(server) as shares:
        completed, lost = ask(seconds)
    return _work(completed, lost, shares)


# --- Memory ---------------------------------------------------------------------------------------


def resident(server):
    """Bytes."""
    with open(f"/proc/{server.process.pid}/status", encoding="ascii") as file:
        return int(re.search(r"VmRSS:\s+(\d+) kB", file.read())[1]) * 1024


def slab():
    """Bytes of the kernel's objects, of all programs of the machine."""
    with open("/proc/meminfo", encoding="ascii") as file:
        return int(re.search(r"Slab:\s+(\d+) kB", file.read())[1]) * 1024


@contextlib.contextmanager
def idle_connections(bench, count):
    """Each has had an answer."""
    # The backend, too, has a descriptor for each.
    files = count + 1024
    for process in _pids(SINK_NS):
        resource.prlimit(process, resource.RLIMIT_NOFILE, (files, files))
    holder = Helper(*in_namespace(GEN_NS, *_on_rig(bench.program("http_load"), FRONT, str(HTTP),
                                                   "--connections", str(count), "--hold")))
    try:
        yield
    finally:
        holder.close()


def _pids(namespace):
    return [int(pid) for pid in run("ip", "netns", "pids", namespace).split()]
