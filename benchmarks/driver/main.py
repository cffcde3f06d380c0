"""Measures forwarding by the kernel, a bare AF_XDP forwarder and Sluice, in turn, on one core.

Started by benchmarks/run.sh. Each repetition of a case runs every device once, so what the machine
does meanwhile hits all of them; what counts are the ratios within one run."""

import argparse
import datetime
import fcntl
import itertools
import os
import platform
import re
import signal
import sys
import tempfile

import devices
import firewall
import in_memory
import io_study
import loads
import offload
import profile_core
import report
import rig
import services
from measure import measure
from rig import RIG_CPU, Rig, RigError

LOCK = "/run/lock/sluice-benchmarks"
HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def parse_arguments():
    parser = argparse.ArgumentParser(prog="benchmarks/run.sh", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--devices", help="comma-separated; kernel,bare,sluice, or with --offload "
                        "xdp,kernel,sluice-off,sluice-on")
    parser.add_argument("--cases", default="", metavar="REGEX",
                        help="only cases whose name matches, such as ipv4-10000dst-100000routes")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--size", type=int, default=64, help="bytes of a frame")
    parser.add_argument("--rate", type=int, default=0, help="packets per second offered; 0: all")
    parser.add_argument("--quick", action="store_true", help="one short repetition")
    parser.add_argument("--profile", action="store_true", help="perf profiles of the device's core")
    parser.add_argument("--realtime", action="store_true",
                        help="run the device as real-time tasks, on a machine with other work")
    parser.add_argument("--firewall", action="store_true",
                        help="measure rules and NAT instead of plain forwarding")
    parser.add_argument("--offload", action="store_true",
                        help="measure the flow tier instead of plain forwarding")
    parser.add_argument("--services", action="store_true",
                        help="measure proxies instead of plain forwarding")
    parser.add_argument("--memory", action="store_true", help="measure code in memory instead")
    parser.add_argument("--study", nargs="?", const="", metavar="REGEX",
                        help="measure variations of the bare forwarder instead")
    parser.add_argument("--output", help="directory; default benchmarks/results for a full run")
    options = parser.parse_args()
    known = devices.OFFLOAD if options.offload else devices.ALL
    options.devices = options.devices.split(",") if options.devices else list(known)
    unknown = set(options.devices) - set(known)
    if unknown:
        parser.error(f"unknown devices: {', '.join(sorted(unknown))}")
    if options.quick:
        options.repetitions, options.seconds = 1, min(options.seconds, 1.5)
    # A partial run must not replace the committed table.
    options.publish = not (options.output or options.quick or options.cases or options.profile
                           or options.realtime or options.rate or options.size != 64
                           or len(options.devices) < len(known))
    if not options.output:
        options.output = (os.path.join(HERE, "results") if options.publish
                          else os.path.join(options.build, "benchmark-results"))
    return options


def all_loads(options):
    for family, routes, destinations in itertools.product((4, 6), (10, 100000), (1, 10000)):
        load = loads.Load(family, destinations, routes, options.size, options.rate)
        if re.search(options.cases, load.name):
            yield load


def one_sample(bench, device, load, options):
    device.start()
    try:
        sample = measure(bench, device, load, options.seconds, warm_up=0.5)
        if options.profile:
            profile_core.profile(bench, device, load, options.output)
    finally:
        device.stop()
    tell(device, sample)
    return sample


def tell(device, sample):
    print(f"  {device.name:10s} {sample.rate / 1e6:6.3f} M/s of {sample.offered / 1e6:.1f} offered, "
          f"core {sample.core_busy:.0%}, device {sample.device_busy:.0%}, "
          f"proper {sample.good_share:.2%}", flush=True)
    if sample.sink_astray > 0.01:
        print(f"  (the sink ran on the device's core for {sample.sink_astray:.0%} of its frames)")


def about_run(options):
    return {"kernel": platform.release(), "cpu": cpu_model(), "size": options.size,
            "repetitions": options.repetitions, "seconds": options.seconds,
            "date": datetime.date.today().isoformat(), "offered_rate": options.rate}


def compare(bench, options):
    tested = [devices.ALL[name](bench) for name in options.devices]
    for device in tested:
        if not device.available():
            raise RigError(f"{device.name}: not built in {options.build}")
    results = {}
    for load in all_loads(options):
        print(load.name, flush=True)
        installed = loads.install(load, bench.work)
        samples = results[load.name] = {device.name: [] for device in tested}
        for _ in range(options.repetitions):
            for device in tested:
                samples[device.name].append(one_sample(bench, device, installed, options))
        loads.remove(load.family)
    table = report.write(options.output, results, about_run(options))
    if options.publish:
        report.update_readme(os.path.join(HERE, "README.md"), table, "results/forwarding.svg")
    print("\n" + table)
    print(f"Written to {options.output}: forwarding.md, forwarding.json, forwarding.svg")


def compare_firewall(bench, options):
    """The rates, then the time that changes take."""
    loads_made = [load for load in firewall.make_loads(bench, options.size, options.rate)
                  if re.search(options.cases, load.name)]
    results, changes = {}, {}
    with firewall.Network():
        for load in loads_made:
            results[load.name] = _in_turn(bench, options, load, firewall.sample,
                                          [devices.ALL[name](bench) for name in options.devices])
        early = firewall.early_load(bench, options.size, options.rate)
        if re.search(options.cases, early.name):
            tested = [devices.ALL[name](bench) for name in options.devices if name != "bare"]
            if "bare" in options.devices:
                tested.insert(0, firewall.DropDevice(bench))
            results[early.name] = _in_turn(bench, options, early, firewall.early_sample, tested)
        plain, big, with_set, element = firewall.change_rulesets()
        for name, before, commands in (("10,000 new rules", plain, big),
                                       ("one of 100,000 elements", with_set, element)):
            if not re.search(options.cases, name):
                continue
            found = changes[name] = {}
            for _, device in itertools.product(range(options.repetitions), options.devices):
                if device != "bare":
                    found.setdefault(device, []).append(firewall.time_of_change(
                        bench, devices.ALL[device](bench), before, commands))
                    print(f"  {name}, {device}: {found[device][-1][0] * 1e3:.1f} ms, of which nft "
                          f"{found[device][-1][1] * 1e3:.1f}", flush=True)
    more = {"changes": changes}, report.changes_markdown(changes)
    table = report.write(options.output, results, about_run(options), "firewall",
                         "Firewall and NAT", more)
    if options.publish:
        report.update_readme(os.path.join(HERE, "README.md"), table, "results/firewall.svg",
                             "firewall", "Firewall and NAT rates")
    print("\n" + table)
    print(f"Written to {options.output}: firewall.md, firewall.json, firewall.svg")


def compare_offload(bench, options):
    found = offload.compare(bench, options, tell)
    table = offload.write(options, about_run(options), *found)
    if options.publish:
        report.update_readme(os.path.join(HERE, "README.md"), table, "results/offload.svg", "offload",
                             "Rates of the flow tier")
    print("\n" + table)
    print(f"Written to {options.output}: offload.md, offload.json, offload.svg")


def compare_services(bench, options):
    table = services.write(options, about_run(options), *services.compare(bench, options))
    if options.publish:
        report.update_readme(os.path.join(HERE, "README.md"), table, name="services")
    print("\n" + table)
    print(f"Written to {options.output}: services.md, services.json")


def measure_memory(bench, options):
    table = in_memory.write(options, about_run(options), in_memory.measure(bench))
    if options.publish:
        report.update_readme(os.path.join(HERE, "README.md"), table, name="memory")
    print("\n" + table)
    print(f"Written to {options.output}: memory.md, memory.json")


def _in_turn(bench, options, load, sample, tested):
    print(load.name, flush=True)
    samples = {device.name: [] for device in tested}
    for _, device in itertools.product(range(options.repetitions), tested):
        if not device.available():
            raise RigError(f"{device.name}: not built in {options.build}")
        one = sample(bench, device, load, options.seconds)
        tell(device, one)
        samples[device.name].append(one)
    return samples


def study(bench, options):
    load = loads.install(loads.Load(4, 10000, 10, options.size, options.rate), bench.work)
    print("| variation | M packets/s, good windows | ratio to plain | ratio of medians |\n"
          "|---|---:|---:|---:|")
    for name, varied, plain, ratio, _ in io_study.study(bench, load, options.repetitions,
                                                        options.study):
        print(f"| {name} | {varied / 1e6:.2f} | {varied / plain:.2f} | {ratio:.2f} |", flush=True)


def cpu_model():
    with open("/proc/cpuinfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.machine()


def end_by_signal(number, _):
    sys.exit(128 + number)


def _lock():
    """Two runs at once would measure each other, and take each other's namespaces away."""
    os.makedirs(os.path.dirname(LOCK), exist_ok=True)
    lock = open(LOCK, "w", encoding="ascii")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit("error: another benchmark is running")
    return lock


def main():
    options = parse_arguments()
    if (os.cpu_count() or 1) < 2:
        sys.exit("error: two cores are needed, one for the rig and one for the device")
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, end_by_signal)
    lock = _lock()  # held until the end
    os.sched_setaffinity(0, {RIG_CPU})
    rig.realtime = options.realtime
    with lock, tempfile.TemporaryDirectory(prefix="sluice-bench-") as work:
        bench = Rig(options.build, work)
        try:
            if options.memory:
                return measure_memory(bench, options)
            bench.build_network()
            if options.study is not None:
                study(bench, options)
            elif options.offload:
                compare_offload(bench, options)
            elif options.firewall:
                compare_firewall(bench, options)
            elif options.services:
                compare_services(bench, options)
            else:
                compare(bench, options)
        except RigError as error:
            sys.exit(f"error: {error}")
        finally:
            bench.remove()


if __name__ == "__main__":
    main()
