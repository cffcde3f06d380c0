"""What each choice of an AF_XDP program is worth: variations of the bare forwarder, each measured
right after the plain one, as ratios of such pairs. `benchmarks/run.sh --study [REGEX]`."""

import re
import statistics

import rig
from devices import BareDevice
from measure import window_rates
from rig import DUT_NS, IN_IF, OUT_IF, in_namespace, run

SECONDS, WARM_UP = 1.2, 0.2

# name -> (options of bare_forwarder, how the rig differs)
VARIATIONS = {
    "plain again (noise)": ([], {}),
    "rings 512": (["--ring", "512"], {}),
    "rings 1024": (["--ring", "1024"], {}),
    "rings 4096": (["--ring", "4096"], {}),
    "rings 2048, fill level 256": (["--fill", "256"], {}),
    "rings 2048, fill level 512": (["--fill", "512"], {}),
    "rings 2048, fill level 1024": (["--fill", "1024"], {}),
    "frames 8192": (["--frames", "8192"], {}),
    "frames 65536": (["--frames", "65536"], {}),
    "frames 65536, fifo": (["--frames", "65536", "--fifo"], {}),
    "fifo": (["--fifo"], {}),
    "chunk 4096": (["--chunk", "4096"], {}),
    "unaligned, stride 2112": (["--stride", "2112"], {}),
    "unaligned, stride 2112, fill 512": (["--stride", "2112", "--fill", "512"], {}),
    "batch 16": (["--batch", "16"], {}),
    "batch 32": (["--batch", "32"], {}),
    "batch 128": (["--batch", "128"], {}),
    "batch 256": (["--batch", "256"], {}),
    "batch 256, kick every 32": (["--batch", "256", "--kick-every", "32"], {}),
    "batch 256, budget 256": (["--batch", "256", "--budget", "256"], {}),
    "budget 64": (["--budget", "64"], {}),
    "budget 2048": (["--budget", "2048"], {}),
    "send buffer 4 MiB": (["--send-buffer", "4194304"], {}),
    "send buffer 4 MiB, budget 2048, batch 256": (
        ["--send-buffer", "4194304", "--budget", "2048", "--batch", "256"], {}),
    "multi-buffer": (["--multi-buffer"], {}),
    "spin": (["--spin"], {}),
    "NAPI nice 0": ([], {"yield": 0}),
    "NAPI nice +5": ([], {"yield": 5}),
    "NAPI nice +15": ([], {"yield": 15}),
    "NAPI nice +19": ([], {"yield": 19}),
    "NAPI not threaded (on the sender's core)": ([], {"threaded": False}),
    "pfifo on the outgoing veth": ([], {"qdisc": True}),
    "spin, NAPI nice 0": (["--spin"], {"yield": 0}),
}


class Variation(BareDevice):
    def __init__(self, bench, options, how):
        super().__init__(bench, options)
        self.how = how
        self.napi_nice = min(19, rig.GROUP_NICE + how.get("yield", rig.NAPI_YIELD))

    def start(self):
        if self.how.get("qdisc"):
            run("tc", "-n", DUT_NS, "qdisc", "replace", "dev", OUT_IF, "root", "pfifo")
        super().start()

    def _confine(self):
        if self.how.get("threaded", True):
            super()._confine()
        else:
            for interface in (IN_IF, OUT_IF):
                rig.sysfs(DUT_NS, interface, "threaded", 0)

    def stop(self):
        said = super().stop()
        if self.how.get("qdisc"):
            run(*in_namespace(DUT_NS, "tc", "qdisc", "del", "dev", OUT_IF, "root"))
        return said


def _windows(bench, load, options, how):
    device = Variation(bench, options, how)
    device.start()
    try:
        return window_rates(bench, device, load, SECONDS, WARM_UP), device.stop()
    finally:
        device.stop()


def _high(rates):
    """The rate that the best tenth of the windows reaches."""
    return statistics.quantiles(rates, n=10)[-1]


def study(bench, load, repetitions, pattern):
    """Yields (name, rate in good windows, the same for plain, median ratio, what it said)."""
    for name, (options, how) in VARIATIONS.items():
        if not re.search(pattern, name):
            continue
        plain, varied, ratios, said = [], [], [], {}
        for _ in range(repetitions):
            base, _ = _windows(bench, load, [], {})
            rates, said = _windows(bench, load, options, how)
            ratios.append(statistics.median(rates) / statistics.median(base))
            plain += base
            varied += rates
        yield name, _high(varied), _high(plain), statistics.median(ratios), said
