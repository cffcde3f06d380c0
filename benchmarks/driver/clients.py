"""Real clients: iperf3 through the device's masquerade, both ends on core 0, the device on core 1.
The kernel is given what it is good at: TCP segments of 64 KB, which it forwards whole."""

import dataclasses
import itertools
import json
import signal
from subprocess import DEVNULL, PIPE

import firewall
import rig
from hosts import CLIENT, SERVER, Hosts
from measure import core_times
from rig import DUT_CPU, GEN_NS, RIG_CPU, SINK_NS, RigError, in_namespace, run

STREAMS, DIRECTIONS = (1, 8), ("upload", "download")
PEERS = {"as they come": False, "GRO on": True}


@dataclasses.dataclass
class Transfer:
    gbits: float
    device_core: float  # how busy the device's core was
    hosts_core: float


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
                found[streams, direction] = _transfer(streams, direction, seconds)
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


def _transfer(streams, direction, seconds):
    words = ["iperf3", "--client", SERVER, "--bind", CLIENT, "--parallel", str(streams), "--time",
             str(seconds), "--omit", "1", "--json"]
    if direction == "download":
        words.append("--reverse")
    before = [core_times(cpu) for cpu in (DUT_CPU, RIG_CPU)]
    text = run(*in_namespace(GEN_NS, "taskset", "-c", str(RIG_CPU), *words), check=False)
    after = [core_times(cpu) for cpu in (DUT_CPU, RIG_CPU)]
    said = json.loads(text or "{}")
    if "error" in said or "end" not in said:
        raise RigError(f"iperf3: {said.get('error', 'no result')}")
    busy = [1 - (b[1] - a[1]) / (b[0] - a[0]) for a, b in zip(before, after)]
    return Transfer(said["end"]["sum_received"]["bits_per_second"] / 1e9, *busy)
