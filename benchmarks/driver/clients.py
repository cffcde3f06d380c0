"""Real clients: iperf3 through the device's masquerade, both ends on core 0, the device on core 1.
The kernel is given what it is good at: TCP segments of 64 KB, which it forwards whole."""

import dataclasses
import itertools
import json
import signal
import time
from subprocess import DEVNULL, PIPE

import firewall
import rig
from hosts import CLIENT, SERVER, Hosts
from measure import core_times, thread_ns
from rig import GEN_NS, RIG_CPU, SINK_NS, RigError, in_namespace, run

STREAMS, DIRECTIONS = (1, 8), ("upload", "download")
PEERS = {"as they come": False, "GRO on": True}


@dataclasses.dataclass
class Transfer:
    gbits: float
    device_busy: float  # of a core, by the device's threads
    hosts_core: float   # how busy the hosts' core was, with everything


def cases():
    for peers, streams, direction in itertools.product(PEERS, STREAMS, DIRECTIONS):
        yield peers, streams, direction


def transfers(bench, device, peers, seconds):
    """{(streams, direction): Transfer} with the device started once. The sink must be closed."""
    found = {}
    firewall.load_rules(firewall.home_router())
    firewall.forget_flows()
    device.start()
    try:
        with Hosts(PEERS[peers]), _Server():
            for streams, direction in itertools.product(STREAMS, DIRECTIONS):
                found[streams, direction] = _transfer(device, streams, direction,
                                                                seconds)
    finally:
        device.stop()
        firewall.load_rules("")
        firewall.forget_flows()
    return found


class _Server:
    def __enter__(self):
        self._process = rig.spawn(*in_namespace(SINK_NS, "taskset", "-c", str(RIG_CPU), "iperf3",
                                                "--server", "--forceflush"), stdout=PIPE,
                                  stderr=DEVNULL)
        for line in self._process.stdout:
            if "listening" in line:
                return self
        raise RigError("iperf3 does not listen")

    def __exit__(self, *_):
        self._process.send_signal(signal.SIGTERM)
        self._process.communicate()


def _transfer(device, streams, direction, seconds):
    words = ["iperf3", "--client", SERVER, "--bind", CLIENT, "--parallel", str(streams), "--time",
             str(seconds), "--omit", "1", "--json"]
    if direction == "download":
        words.append("--reverse")
    threads = device.threads()
    before = time.monotonic_ns(), thread_ns(threads), *core_times(RIG_CPU)
    text = run(*in_namespace(GEN_NS, "taskset", "-c", str(RIG_CPU), *words), check=False)
    after = time.monotonic_ns(), thread_ns(threads), *core_times(RIG_CPU)
    said = json.loads(text or "{}")
    if "error" in said or "end" not in said:
        raise RigError(f"iperf3: {said.get('error', 'no result')}")
    elapsed, spent, core, idle = (b - a for a, b in zip(before, after))
    return Transfer(said["end"]["sum_received"]["bits_per_second"] / 1e9, spent / elapsed,
                    1 - idle / core)
