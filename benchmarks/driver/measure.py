"""One measurement: a device under one load for some seconds."""

import dataclasses
import time

from rig import DUT_CPU, RIG_CPU


# More of the sink's frames than this on the device's core: the measurement is done again.
ASTRAY, TRIES = 0.01, 3


@dataclasses.dataclass
class Sample:
    """What one repetition showed; rates in frames per second, shares from 0 to 1."""
    rate: float            # frames that arrived with the expected TTL
    offered: float         # frames the generator made
    good_share: float      # of the frames that arrived: those with the expected TTL
    core_busy: float       # of the device's core, from /proc/stat
    device_busy: float     # of that core, by the device's own threads
    sink_astray: float     # of the sink's frames: those polled on the device's core
    worker_busy: float = 0.0  # of the device's core, by the device's threads in user space

    @property
    def per_core(self):
        """Frames per second of the device's own CPU time: what others took is left out."""
        return self.rate / self.device_busy if self.device_busy else 0.0


def core_times(cpu):
    with open("/proc/stat", encoding="ascii") as file:
        for line in file:
            if line.startswith(f"cpu{cpu} "):
                ticks = [int(word) for word in line.split()[1:9]]
                return sum(ticks), ticks[3] + ticks[4]
    raise LookupError(f"no cpu{cpu} in /proc/stat")


def thread_ns(threads):
    total = 0
    for thread in threads:
        try:
            with open(f"/proc/{thread}/schedstat", encoding="ascii") as file:
                total += int(file.read().split()[0])
        except OSError:
            pass  # the thread ended; what it used is little
    return total


def _snapshot(bench, generator, device):
    threads, own = device.threads(), device.own_threads()  # finding them takes a while
    return {"sink": bench.sink.ask("read"), "generator": generator.ask("read"),
            "core": core_times(DUT_CPU), "at_ns": time.monotonic_ns(),
            "thread_ns": thread_ns(threads), "worker_ns": thread_ns(own)}


def measure(bench, device, load, seconds, warm_up):
    """`load` has targets (a file), family, size, rate and perhaps generator_options. The device is
    already forwarding. Measures again while the sink was at the device's expense."""
    for _ in range(TRIES):
        sample = _measure_once(bench, device, load, seconds, warm_up)
        if sample.sink_astray <= ASTRAY:
            break
    return sample


def _measure_once(bench, device, load, seconds, warm_up):
    bench.prime_sink()
    generator = bench.start_generator(load)
    try:
        time.sleep(warm_up)
        before = _snapshot(bench, generator, device)
        time.sleep(seconds)
        after = _snapshot(bench, generator, device)
    finally:
        generator.close()
    return _compare(before, after, device.expected)


def window_rates(bench, device, load, seconds, warm_up, window=0.05):
    """Rates of short windows: on a machine with other work the best ones show what is possible."""
    bench.prime_sink()
    generator = bench.start_generator(load)
    rates = []
    try:
        time.sleep(warm_up)
        last = bench.sink.ask("read")
        for _ in range(int(seconds / window)):
            time.sleep(window)
            now = bench.sink.ask("read")
            frames = now[device.expected] - last[device.expected]
            rates.append(frames / (now["time_ns"] - last["time_ns"]) * 1e9)
            last = now
    finally:
        generator.close()
    return rates


def _compare(before, after, expected):
    sink, was = after["sink"], before["sink"]
    seconds = (sink["time_ns"] - was["time_ns"]) / 1e9
    arrived = {key: sink[key] - was[key]
               for key in ("forwarded", "untouched", "other", "translated")}
    total = arrived["forwarded"] + arrived["untouched"] + arrived["other"]
    per_cpu = [b - a for a, b in zip(was["per_cpu"], sink["per_cpu"])]
    generator = {key: after["generator"][key] - before["generator"][key]
                 for key in ("time_ns", "sent")}
    elapsed_ns = after["at_ns"] - before["at_ns"]
    core, idle = (after["core"][i] - before["core"][i] for i in (0, 1))
    return Sample(
        rate=arrived[expected] / seconds,
        offered=generator["sent"] / (generator["time_ns"] / 1e9),
        good_share=arrived[expected] / total if total else 0.0,
        core_busy=1 - idle / core if core else 0.0,
        device_busy=(after["thread_ns"] - before["thread_ns"]) / elapsed_ns,
        worker_busy=(after["worker_ns"] - before["worker_ns"]) / elapsed_ns,
        sink_astray=1 - per_cpu[RIG_CPU] / total if total else 0.0)
