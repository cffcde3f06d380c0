"""Hosts around a router running Sluice, for the end-to-end tests: what they all share.

A Rig is deploy/rig.sh's: namespaces NAME-router, NAME-h1, NAME-h2 ... joined by veth pairs with
Linux' default offloads. Host I has 10.77.I.2 and fd77:0:0:I::2; the router's end of its veth pair
is called after the host. A Sluice is the real program, run in the router. Nothing here sleeps for a
fixed time: wait_for() waits for a condition, and fails when it does not come.
"""

import contextlib
import ctypes
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request

import yaml

SOURCE = os.environ["SLUICE_SOURCE"]
SLUICE = os.environ["SLUICE_BIN"]
RIG = os.path.join(SOURCE, "deploy/rig.sh")
METRICS_PORT = 9470

# Asked to end, as by timeout(1): pytest cleans up as it does after Ctrl-C.
signal.signal(signal.SIGTERM, signal.default_int_handler)

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_rig_numbers = itertools.count()


def run(*command, check=True, timeout=60, **options):
    """Runs a command; when it fails, the test fails with what it said."""
    options.setdefault("stdin", None if "input" in options else subprocess.DEVNULL)
    if options["stdin"] is None:
        del options["stdin"]
    options.setdefault("text", True)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=timeout, check=False, **options)
    if check:
        assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}"
    return done


def wait_for(condition, what="", seconds=10):
    """Waits until condition() is true, and returns what it returned."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        # `what` may be a function, to tell how things stand when it is too late.
        assert time.monotonic() < end, what() if callable(what) else f"not in time: {what}"
        time.sleep(0.02)


@contextlib.contextmanager
def inside(namespace):
    """This thread in another network namespace; a socket made here belongs there for good."""
    def enter(file):
        if _libc.setns(file.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    with open("/proc/thread-self/ns/net", "rb") as home:
        with open(f"/run/netns/{namespace}", "rb") as there:
            enter(there)
        try:
            yield
        finally:
            enter(home)


class Rig:
    """Use it as a context manager; at the end every process in the namespaces is gone too."""

    def __init__(self, hosts=2, queues=1):
        """`hosts`: how many, or their names."""
        self.name = f"e2e{os.getpid()}-{next(_rig_numbers)}"
        self.hosts = ([f"h{i}" for i in range(1, hosts + 1)] if isinstance(hosts, int)
                      else list(hosts))
        # Short, since the path of a Unix socket must be.
        self.directory = tempfile.mkdtemp(prefix="sluice-e2e-")
        self._queues = queues
        self._processes = []

    def __enter__(self):
        run(RIG, "up", "--name", self.name, "--hosts", ",".join(self.hosts),
            "--queues", str(self._queues))
        return self

    def __exit__(self, *_):
        for process in self._processes:
            self.end(process)
        run(RIG, "down", "--name", self.name, check=False)
        shutil.rmtree(self.directory)

    def namespace(self, host):
        return f"{self.name}-{host}"

    def path(self, name):
        return os.path.join(self.directory, name)

    def write(self, name, content):
        path = self.path(name)
        with open(path, "wb" if isinstance(content, bytes) else "w") as file:
            file.write(content)
        return path

    def run(self, host, *command, **options):
        return run("ip", "netns", "exec", self.namespace(host), *command, **options)

    def start(self, host, *command, log=None):
        """Starts a process that the rig ends at the latest with itself; `log` names its output."""
        log = log or f"{host}-{os.path.basename(command[0])}-{len(self._processes)}.log"
        with open(self.path(log), "wb") as output:
            process = subprocess.Popen(["ip", "netns", "exec", self.namespace(host), *command],
                                       stdin=subprocess.DEVNULL, stdout=output,
                                       stderr=subprocess.STDOUT)
        process.log_path = self.path(log)
        self._processes.append(process)
        return process

    @staticmethod
    def end(process):
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
        return process.wait()

    def listening(self, host, port, kind="tcp"):
        flag = "-Hltn" if kind == "tcp" else "-Hlun"
        return bool(self.run(host, "ss", flag, f"sport = :{port}").stdout.strip())

    def serve(self, host, port, *command, kind="tcp"):
        """Starts a server, and returns when it listens."""
        process = self.start(host, *command)
        def ready():
            assert process.poll() is None, self.read_log(process)
            return self.listening(host, port, kind)
        wait_for(ready, f"{command[0]} listens on port {port}")
        return process

    @staticmethod
    def read_log(process):
        with open(process.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def links(self, host="router"):
        return json.loads(self.run(host, "ip", "-j", "-d", "link", "show").stdout)

    def link(self, name, host="router"):
        return next((link for link in self.links(host) if link["ifname"] == name), None)

    def left_behind(self):
        """What of Sluice is in the router: XDP programs on interfaces, punt devices."""
        return [link["ifname"] for link in self.links()
                if "xdp" in link or re.fullmatch(r"slu\d+", link["ifname"])]

    def ping(self, host, address, *options, count=3, check=True):
        """Ends when `count` have been answered; answered() tells whether they are the first."""
        return self.run(host, "ping", "-n", "-c", str(count), "-i", "0.05", "-w", "10", *options,
                        address, check=check)

    def can_ping(self, host, address, *options):
        return self.run(host, "ping", "-n", "-c", "1", "-W", "1", *options, address,
                        check=False).returncode == 0

    def add_pair(self, host, queues=1):
        """A (new) veth pair for a host, with the addresses that deploy/rig.sh gives it."""
        i = self.hosts.index(host) + 1
        count = ["numtxqueues", str(queues), "numrxqueues", str(queues)]
        run("ip", "link", "add", "name", host, "netns", self.namespace("router"), *count,
            "type", "veth", "peer", "name", "eth0", "netns", self.namespace(host), *count)
        self.batch("router", f"address add 10.77.{i}.1/24 dev {host}",
                   f"address add fd77:0:0:{i}::1/64 dev {host} nodad", f"link set {host} up")
        self.batch(host, f"address add 10.77.{i}.2/24 dev eth0",
                   f"address add fd77:0:0:{i}::2/64 dev eth0 nodad", "link set eth0 up",
                   f"route add default via 10.77.{i}.1",
                   f"-6 route add default via fd77:0:0:{i}::1")

    def batch(self, host, *lines, check=True):
        """Commands for ip(8). With "-6" in front of one, the family of that command."""
        plain = [line for line in lines if not line.startswith("-6 ")]
        six = [line[3:] for line in lines if line.startswith("-6 ")]
        for flags, commands in (([], plain), (["-6"], six)):
            if commands:
                run("ip", *flags, "-n", self.namespace(host), "-batch", "-", check=check,
                    input="\n".join(commands) + "\n")

    def sysctl(self, host, *settings):
        self.run(host, "sysctl", "-q", "-w", *settings)

    def set_mtu(self, mtu):
        for host in self.hosts:
            self.run("router", "ip", "link", "set", host, "mtu", str(mtu))
            self.run(host, "ip", "link", "set", "eth0", "mtu", str(mtu))


class Metrics:
    """One scrape."""

    _LINE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)

    def __init__(self, text):
        self.series = [(name, dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value))
                       for name, labels, value in self._LINE.findall(text)]

    def get(self, name, **labels):
        """The sum of all series of this name with these labels."""
        return int(sum(value for series, have, value in self.series
                       if series == name and labels.items() <= have.items()))

    def unaccounted(self):
        """By interface, what the conservation law does not explain; {} when it holds."""
        interfaces = {have["interface"] for name, have, _ in self.series
                      if name == "sluice_received_packets_total"}
        assert interfaces
        result = {}
        for interface in interfaces:
            term = {name: self.get(f"sluice_{name}", interface=interface)
                    for name in ("received_packets_total", "forwarded_packets_total",
                                 "local_packets_total", "punted_packets_total",
                                 "dropped_packets_total", "merged_packets_total", "held_packets")}
            difference = 2 * term["received_packets_total"] - sum(term.values())
            if difference != 0:
                result[interface] = (difference, term)
        return result

    def missing_frames(self):
        """Frames that are neither free nor in a ring nor held."""
        in_use = sum(self.get("sluice_frames", state=state) for state in ("fill", "tx", "held", "sockets"))
        return self.get("sluice_table_used", table="frames") - in_use


class Sluice:
    """`sluice run` in a rig's router. Interfaces are names, or mappings as in the configuration."""

    def __init__(self, rig, interfaces=None, name="sluice", **sections):
        self.rig = rig
        self.namespace = rig.namespace("router")
        self.config = rig.path(f"{name}.yaml")
        self.control = rig.path(f"{name}.sock")
        self.process = None
        self.configure(interfaces or rig.hosts, **sections)
        self._name = name
        self._runs = 0

    def __enter__(self):
        return self if self.process else self.start()

    def __exit__(self, kind, *_):
        if self.process.poll() is None:
            status = self.stop()
            if kind is None:
                assert status == 0, self.log()

    def configure(self, interfaces, **sections):
        listed = [{"name": i} if isinstance(i, str) else i for i in interfaces]
        with open(self.config, "w", encoding="utf-8") as file:
            yaml.safe_dump({"interfaces": listed, **sections}, file)

    def start(self, *wrapper, wait=True):
        """`wrapper`: a command that runs the program, such as setpriv with its options."""
        self._runs += 1
        command = [*wrapper, SLUICE, "run", "--config", self.config, "--control", self.control]
        self.process = self.rig.start("router", *command, log=f"{self._name}{self._runs}.log")
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self):
        def ready():
            assert self.process.poll() is None, f"{self.process.returncode}\n{self.log()}"
            return self.cli("wait-ready", "--timeout", "1").returncode == 0
        wait_for(ready, lambda: f"not ready: {self.log()}", seconds=30)

    def cli(self, *arguments):
        return run(SLUICE, "--control", self.control, *arguments, check=False)

    def show(self, what, *options):
        done = self.cli("show", what, "--json", *options)
        assert done.returncode == 0, done.stdout
        return json.loads(done.stdout)

    def interface(self, name):
        return next((i for i in self.show("interfaces") if i["name"] == name), None)

    def wait_interface(self, name, state="up"):
        wait_for(lambda: (self.interface(name) or {}).get("state") == state,
                 lambda: f"{name} is not {state}: {self.interface(name)}\n{self.log()}", seconds=30)

    def route_to(self, address):
        """The route that Sluice takes to an address, or None."""
        return next(iter(self.show("routes", "--destination", address)["routes"]), None)

    def metrics(self):
        with inside(self.namespace):
            with urllib.request.urlopen(f"http://127.0.0.1:{METRICS_PORT}/metrics",
                                        timeout=10) as page:
                return Metrics(page.read().decode())

    def get(self, name, **labels):
        return self.metrics().get(name, **labels)

    def check_accounts(self):
        """Waits for rest: then the conservation law holds and no frame is missing."""
        last = []
        def balanced():
            last[:] = [self.metrics()]
            return not last[0].unaccounted() and last[0].missing_frames() == 0
        wait_for(balanced, lambda: f"unaccounted: {last[0].unaccounted()}, "
                                   f"missing frames: {last[0].missing_frames()}")

    def log(self):
        return self.rig.read_log(self.process)

    def cpu_seconds(self):
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def hang_up(self):
        self.process.send_signal(signal.SIGHUP)

    def kill(self):
        self.process.kill()
        self.process.wait(timeout=20)

    def stop(self):
        self.process.terminate()
        return self.process.wait(timeout=20)


def input_chain(*rules):
    """A chain for nft that lets in what a careful machine does, and what the rules accept."""
    return "\n".join(("chain input {", "type filter hook input priority filter; policy drop;",
                      'iifname "lo" accept', "ct state established,related accept",
                      "ct state invalid drop", "meta l4proto { icmp, ipv6-icmp } accept",
                      *rules, "}\n"))


@contextlib.contextmanager
def growing(sluice, name, by=1, **labels):
    """A counter must have grown by at least `by` when the block ends."""
    before = sluice.get(name, **labels)
    yield
    wait_for(lambda: sluice.get(name, **labels) - before >= by, f"{name}{labels} grows by {by}")


def answered(output, count=3):
    """Whether ping's first `count` packets were answered, in order. (A late reply is not a lost
    one: ping then sends more than `count`, so its summary does not tell.)"""
    replies = [int(number) for number in re.findall(r"bytes from .* icmp_seq=(\d+)", output)]
    return replies[:count] == list(range(1, count + 1))


def pinged(output):
    """(sent, received) of ping's summary."""
    sent, received = re.search(r"(\d+) packets transmitted, (\d+) received", output).groups()
    return int(sent), int(received)
