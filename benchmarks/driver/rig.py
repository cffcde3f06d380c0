"""The rig: three namespaces in a row, joined by veth pairs with one queue.

    bench-gen [brig-gen] --> [brig-in] bench-dut [brig-out] --> [brig-sink] bench-sink

The generator and the sink live on core 0, the device under test on core 1. A frame that the device
sends schedules the sink's NAPI on the sender's core, which would be charged to the device; so the
sink's NAPI is deferred and polled by a timer on core 0 (`defer_sink`).
"""

import json
import os
import signal
import subprocess
import time

GEN_NS, DUT_NS, SINK_NS = "bench-gen", "bench-dut", "bench-sink"
GEN_IF, IN_IF, OUT_IF, SINK_IF = "brig-gen", "brig-in", "brig-out", "brig-sink"
MACS = {GEN_IF: "02:00:00:00:01:02", IN_IF: "02:00:00:00:01:01",
        OUT_IF: "02:00:00:00:02:01", SINK_IF: "02:00:00:00:02:02"}
# The ranges that RFC 2544 and RFC 5180 set aside for benchmarks.
SOURCE = {4: "198.18.0.2", 6: "2001:2:0:1::2"}
NEXT_HOP = {4: "198.18.1.2", 6: "2001:2:0:2::2"}
TRANSLATED = "198.18.1.1"  # what masquerade makes of sources: the device's outer address
RIG_CPU, DUT_CPU = 0, 1
# The NAPI threads yield to the worker, which then finds full batches; where the kernel groups tasks
# by session (autogroup), a process's own nice value means nothing beside a kernel thread, and the
# group's counts. There the whole rig can also run before whatever else the machine does.
AUTOGROUP = "/proc/sys/kernel/sched_autogroup_enabled"
NAPI_YIELD = 10


PRIME_FRAMES, PRIME_TRIES = 16, 10


class RigError(Exception):
    """The rig could not be built or did not answer."""


def run(*words, check=True, text_input=None):
    done = subprocess.run(words, input=text_input, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise RigError(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def in_namespace(namespace, *words):
    return ("ip", "netns", "exec", namespace, *words)


def sysfs(namespace, interface, name, value):
    run(*in_namespace(namespace, "sh", "-c", f"echo {value} > /sys/class/net/{interface}/{name}"))


def steer(namespace, interface, cpu):
    """Receive processing outside of NAPI: on that core (RPS); None: on the sender's."""
    sysfs(namespace, interface, "queues/rx-0/rps_cpus", f"{0 if cpu is None else 1 << cpu:x}")


def _autogroup():
    try:
        with open(AUTOGROUP, encoding="ascii") as file:
            return file.read().strip() == "1"
    except OSError:
        return False


GROUP_NICE = -19 if _autogroup() else 0
# On a machine with other work: the device as real-time tasks, the worker before the NAPI threads.
# Ratios stay what they are on a quiet machine, since a woken worker runs next there as well.
realtime = False
NAPI_PRIORITY, WORKER_PRIORITY = 1, 2


def prefer(*words):
    """The command, run before whatever else the machine does if the device is."""
    return ("chrt", "--fifo", str(NAPI_PRIORITY), *words) if realtime else words


def spawn(*words, **options):
    """Starts a program in a session, and so a scheduling group, of its own."""
    process = subprocess.Popen(words, text=True, start_new_session=True, **options)
    if GROUP_NICE:
        with open(f"/proc/{process.pid}/autogroup", "w", encoding="ascii") as file:
            file.write(str(GROUP_NICE))
    return process


class Helper:
    """A program of the rig that answers commands with lines of JSON."""

    def __init__(self, *words):
        self.words = words
        self.process = spawn(*words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._answer()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise RigError(f"{' '.join(self.words)}: ended with {self.process.wait()}")
        return json.loads(line)

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            self.process.wait()


class Rig:
    def __init__(self, build, work):
        self.build, self.work = build, work
        self.sink = None

    def program(self, name):
        return os.path.join(self.build, name)

    def build_network(self, sink=True):
        """Without the sink the far end is a host like others."""
        self.remove()
        for namespace in (GEN_NS, DUT_NS, SINK_NS):
            run("ip", "netns", "add", namespace)
            run("ip", "-n", namespace, "link", "set", "lo", "up")
        self._pair(GEN_NS, GEN_IF, DUT_NS, IN_IF)
        self._pair(SINK_NS, SINK_IF, DUT_NS, OUT_IF)
        for key in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            run(*in_namespace(DUT_NS, "sysctl", "-qw", f"{key}=1"))
        # 100,000 IPv6 routes must not meet a limit.
        run(*in_namespace(DUT_NS, "sysctl", "-qw", "net.ipv6.route.max_size=1000000"))
        for interface, number, peer in ((IN_IF, 0, GEN_IF), (OUT_IF, 1, SINK_IF)):
            four, six = f"198.18.{number}", f"2001:2:0:{number + 1}:"
            run("ip", "-n", DUT_NS, "addr", "add", f"{four}.1/24", "dev", interface)
            run("ip", "-n", DUT_NS, "addr", "add", f"{six}:1/64", "dev", interface, "nodad")
            for address in (f"{four}.2", f"{six}:2"):
                run("ip", "-n", DUT_NS, "neigh", "replace", address, "lladdr", MACS[peer],
                    "dev", interface, "nud", "permanent")
        if sink:
            self.open_sink()

    def open_sink(self):
        self.sink = Helper(*in_namespace(SINK_NS, "taskset", "-c", str(RIG_CPU),
                                         self.program("rig_sink"), SINK_IF,
                                         TRANSLATED))
        self.defer_sink()

    def close_sink(self):
        """Without it the far end is a host like others."""
        self.undefer_sink()
        self.sink.close()
        self.sink = None

    def _pair(self, outer_ns, outer, inner_ns, inner):
        run("ip", "link", "add", outer, "netns", outer_ns, "address", MACS[outer],
            "numtxqueues", "1", "numrxqueues", "1", "type", "veth",
            "peer", "name", inner, "netns", inner_ns, "address", MACS[inner],
            "numtxqueues", "1", "numrxqueues", "1")
        for namespace, interface in ((outer_ns, outer), (inner_ns, inner)):
            # No router solicitations or DAD among the counted frames.
            run(*in_namespace(namespace, "sysctl", "-qw",
                              f"net.ipv6.conf.{interface}.accept_ra=0",
                              f"net.ipv6.conf.{interface}.accept_dad=0"))
            run("ip", "-n", namespace, "link", "set", interface, "up")

    def defer_sink(self):
        """Lets a timer on core 0 poll the sink: the last core to poll keeps the timer."""
        sysfs(SINK_NS, SINK_IF, "napi_defer_hard_irqs", 1000000000)
        sysfs(SINK_NS, SINK_IF, "gro_flush_timeout", 50000)

    @staticmethod
    def undefer_sink():
        sysfs(SINK_NS, SINK_IF, "napi_defer_hard_irqs", 0)
        sysfs(SINK_NS, SINK_IF, "gro_flush_timeout", 0)
        time.sleep(0.01)

    def prime_sink(self):
        """Sends a few frames to the sink from core 0, so that its NAPI is there from now on. Where
        a stray frame (a multicast report) has brought it to another core, it must first end: while
        its timer runs, nobody else wakes it. Such a frame may come in between again."""
        targets = os.path.join(self.work, "prime.txt")
        with open(targets, "w", encoding="ascii") as file:
            file.write(NEXT_HOP[4] + "\n")
        for _ in range(PRIME_TRIES):
            self.undefer_sink()
            self.defer_sink()
            before = self.sink.ask("read")["per_cpu"]
            run(*in_namespace(DUT_NS, *self.generator_words(OUT_IF, targets, SOURCE[4], 64),
                              "--frames", str(PRIME_FRAMES)))
            time.sleep(0.05)
            seen = [b - a for a, b in zip(before, self.sink.ask("read")["per_cpu"])]
            if seen[RIG_CPU] >= PRIME_FRAMES and sum(seen) == seen[RIG_CPU]:
                return
        raise RigError(f"the sink is not polled on core {RIG_CPU}")

    def generator_words(self, interface, targets, source, size):
        return (self.program("rig_generator"),
                "--interface", interface, "--targets", targets, "--source", source,
                "--source-mac", MACS[GEN_IF], "--gateway-mac", MACS[IN_IF],
                "--size", str(size), "--cpu", str(RIG_CPU))

    def start_generator(self, load):
        words = self.generator_words(GEN_IF, load.targets, SOURCE[load.family], load.size)
        return Helper(*in_namespace(GEN_NS, *words, "--rate", str(load.rate),
                                    *getattr(load, "generator_options", ())))

    def remove(self):
        if self.sink:
            self.sink.close()
            self.sink = None
        for namespace in (GEN_NS, DUT_NS, SINK_NS):
            # A driver that was killed leaves programs behind; these namespaces are the rig's own.
            for pid in run("ip", "netns", "pids", namespace, check=False).split():
                os.kill(int(pid), signal.SIGKILL)
            run("ip", "netns", "del", namespace, check=False)


def napi_threads(interfaces=(IN_IF, OUT_IF)):
    """The kernel threads that poll these interfaces: the device's."""
    names = tuple(f"napi/{interface}-" for interface in interfaces)
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/comm", encoding="ascii") as file:
                name = file.read().strip()
        except OSError:
            continue
        if name.startswith(names):
            found.append(int(pid))
    return found


def confine_napi(interfaces, nice=GROUP_NICE, namespace=DUT_NS, cpu=DUT_CPU):
    """Moves the interfaces' NAPIs into threads of their own on one core."""
    for interface in interfaces:
        sysfs(namespace, interface, "threaded", 0)
        sysfs(namespace, interface, "threaded", 1)
    threads = napi_threads(interfaces)
    if len(threads) < len(interfaces):
        raise RigError(f"{len(threads)} NAPI threads for {len(interfaces)} interfaces")
    for pid in threads:
        os.sched_setaffinity(pid, {cpu})
        os.setpriority(os.PRIO_PROCESS, pid, nice)
        if realtime:
            make_realtime(pid, NAPI_PRIORITY)


def make_realtime(thread, priority):
    os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(priority))
