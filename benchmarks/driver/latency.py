"""Round trips of single datagrams through the device's masquerade, while other flows load it with a
tenth of what the kernel can forward. Client, reflector and their receive processing are on
core 0."""

import dataclasses
import json

import firewall
import rig
from hosts import CLIENT, SERVER, Hosts
from rig import GEN_NS, RIG_CPU, SINK_NS, Helper, in_namespace, run

SAMPLES, PORT, FLOWS, SHARE = 5000, 4002, 100, 0.1


@dataclasses.dataclass
class RoundTrips:
    """Microseconds; `load` in packets per second, and how much of it arrived."""
    p50: float
    p90: float
    p99: float
    p999: float
    lost: int
    load: float
    arrived: float


def round_trips(bench, device, load):
    firewall.load_rules(firewall.home_router())
    firewall.forget_flows()
    device.start()
    bench.undefer_sink()
    try:
        # The sink's NAPI, too, is a thread here: a timer's period would be all one sees.
        with Hosts(gro=True, threads=True):
            return _ask(bench, load)
    finally:
        bench.defer_sink()
        device.stop()
        firewall.load_rules("")
        firewall.forget_flows()


def _ask(bench, load):
    pinned = rig.prefer("taskset", "-c", str(RIG_CPU), bench.program("rtt_probe"))
    reflector = Helper(*in_namespace(SINK_NS, *pinned, "reflect", SERVER, str(PORT)))
    try:
        before = bench.sink.ask("read")
        text = run(*in_namespace(GEN_NS, *pinned, "ask", CLIENT, SERVER, str(PORT), "--samples",
                                 str(SAMPLES), "--load", str(int(load)), "--flows", str(FLOWS)))
        after = bench.sink.ask("read")
    finally:
        reflector.close()
    said = json.loads(text)
    arrived = after["translated"] - before["translated"]
    return RoundTrips(*(said[f"p{name}_ns"] / 1e3 for name in ("50", "90", "99", "999")),
                      lost=said["lost"], load=said["load"],
                      arrived=arrived / said["sent"] if said["sent"] else 0.0)
