"""The flow tier: packets of flows that have proved themselves, rewritten and redirected inside XDP,
beside a bare XDP forwarder, the kernel, and Sluice's workers. `benchmarks/run.sh --offload`.

    masquerade        10,000 flows through a home router's ruleset, each seen in both directions
    new flows         every packet begins a flow, as in firewall.py: XDP carries none of it, and
                      the tier must not slow the workers down
    plain             10,000 destinations with 10 and 100,000 routes, IPv4 and IPv6, no ruleset
    transfers         iperf3 through the masquerade
    round trips       of single datagrams, beside a tenth of the load that the kernel can forward
"""

import dataclasses
import itertools
import re
import statistics

import clients
import devices
import firewall
import latency
import loads
import report
from measure import measure
from rig import RigError

ON, OFF = devices.SluiceOffload.name, devices.SluiceWorkers.name
RATIOS = ((ON, "xdp"), (ON, "kernel"), (ON, OFF), (OFF, "kernel"))
MASQUERADE = "masquerade-10000flows"
NEW_FLOWS = "masquerade-1000rules-newflows"
# (what, case, what is divided by what, at least)
AIMS = [("masquerade against bare XDP, which translates nothing", MASQUERADE, (ON, "xdp"), 1.0),
        ("masquerade against the kernel's", MASQUERADE, (ON, "kernel"), 4.0),
        ("new flows, which stay with the workers, against sluice-off", NEW_FLOWS, (ON, OFF), 0.95)]
AIMS += [(f"plain, IPv{family}, 100,000 routes, against the kernel",
          f"ipv{family}-10000dst-100000routes", (ON, "kernel"), 2.5) for family in (4, 6)]
NO_TIER = ("This build does not know `flow_offload`, so there is nothing in the place of "
           "**sluice-on**.")
# The generator, which shares a core with the sink, does not fill a core that forwards inside XDP;
# so what counts is the device's own time.
METRIC, UNIT = "per_core", " of the device's own CPU time"
WHAT_ELSE = "; after a masquerade also the outer address, except of xdp"
# Flows are promoted a few packets after they are established, in batches.
WARM_UP = 2.0


def compare(bench, options, tell):
    """Everything, device after device in each repetition. Returns (data, Markdown, picture)."""
    tested = [devices.OFFLOAD[name](bench) for name in options.devices]
    missing = [device.name for device in tested if not device.available()]
    if set(missing) - {ON}:
        raise RigError(f"{', '.join(missing)}: not built in {options.build}")
    if missing:
        print(NO_TIER)
    tested = [device for device in tested if device.name not in missing]
    results = _rates(bench, options, tested, tell)
    hosts = [device for device in tested if device.name != "xdp"]
    transfers = _transfers(bench, options, hosts)
    trips = _round_trips(bench, options, hosts, results)
    return results, transfers, trips, missing


def _in_turn(options, name, tested, sample, tell):
    """{device: [Sample]}, or nothing if the case is not asked for."""
    if not re.search(options.cases, name):
        return {}
    print(name, flush=True)
    found = {device.name: [] for device in tested}
    for _, device in itertools.product(range(options.repetitions), tested):
        found[device.name].append(sample(device))
        tell(device, found[device.name][-1])
    return {name: found}


def _rates(bench, options, tested, tell):
    results = {}
    with firewall.Network():
        made = {load.name: load for load in firewall.make_loads(bench, options.size, options.rate)}
        for name in (MASQUERADE, NEW_FLOWS):
            results |= _in_turn(options, name, tested, lambda device, load=made[name]:
                                firewall.sample(bench, device, load, options.seconds,
                                                assured=True, warm_up=WARM_UP), tell)
    for family, routes in itertools.product((4, 6), (10, 100000)):
        load = loads.Load(family, firewall.FLOWS, routes, options.size, options.rate)
        if re.search(options.cases, load.name):
            installed = loads.install(load, bench.work)
            results |= _in_turn(options, load.name, tested, lambda device, installed=installed:
                                _plain_sample(bench, device, installed, options.seconds), tell)
            loads.remove(family)
    return results


def _plain_sample(bench, device, load, seconds):
    device.start()
    try:
        return measure(bench, device, load, seconds, WARM_UP)
    finally:
        device.stop()


def _with_kernel(tested, kernel):
    """With this kind of kernel instead of the other."""
    return [kernel if device.name == kernel.name else device for device in tested]


def _transfers(bench, options, tested):
    """{(peers, streams, direction): {device: [Transfer]}}"""
    found = {}
    if not re.search(options.cases, "transfers"):
        return found
    print("transfers", flush=True)
    tested = _with_kernel(tested, devices.KernelSteered(bench))
    bench.close_sink()
    try:
        with firewall.Network():
            for _, peers, device in itertools.product(range(options.repetitions), clients.PEERS,
                                                      tested):
                seconds = max(1, round(min(options.seconds, 4)))
                for (streams, direction), one in clients.transfers(
                        bench, device, peers, seconds).items():
                    found.setdefault((peers, streams, direction), {}).setdefault(
                        device.name, []).append(one)
                    print(f"  {device.name:10s} peers' offloads {peers}, {streams} stream(s), "
                          f"{direction}: {one.gbits:.2f} Gbit/s, device's core "
                          f"{one.device_core:.0%}, hosts' core {one.hosts_core:.0%}", flush=True)
    finally:
        bench.open_sink()
    return found


def _round_trips(bench, options, tested, results):
    """(load in packets per second, {device: [RoundTrips]})"""
    found = {}
    if not re.search(options.cases, "roundtrips"):
        return 0.0, found
    print("round trips", flush=True)
    with firewall.Network():
        load = latency.SHARE * _kernel_capacity(bench, options, results)
        tested = [devices.KernelInline(bench),
                  *_with_kernel(tested, devices.KernelBothWays(bench))]
        for _, device in itertools.product(range(options.repetitions), tested):
            one = latency.round_trips(bench, device, load)
            found.setdefault(device.name, []).append(one)
            print(f"  {device.name:13s} p50 {one.p50:.1f} us, p99 {one.p99:.1f} us, "
                  f"{one.load:.0f} packets/s, of which {one.arrived:.2%} arrived, "
                  f"{one.lost} lost", flush=True)
    return load, found


def _kernel_capacity(bench, options, results):
    samples = results.get(MASQUERADE, {}).get("kernel")
    if not samples:
        load = firewall.make_loads(bench, options.size, 0)[0]
        samples = [firewall.sample(bench, devices.KernelDevice(bench), load, options.seconds)]
    return statistics.median(sample.rate for sample in samples)


# --- What it comes to -----------------------------------------------------------------------------


def write(options, about, results, transfers, trips, missing):
    """Returns the Markdown."""
    cases = report.summarise(results, RATIOS, METRIC)
    aims = _aims(cases, trips, missing)
    text = ""
    if cases:
        text = report.markdown(cases, about, METRIC, UNIT, WHAT_ELSE) + _workers_table(cases)
    text += _transfers_table(transfers) + _trips_table(*trips) + _aims_table(aims)
    if missing:
        text = f"{NO_TIER}\n\n{text}"
    data = {"about": about, "cases": cases, "missing": missing,
            "transfers": [{"peers": key[0], "streams": key[1], "direction": key[2],
                           "devices": _plain(value)} for key, value in transfers.items()],
            "round_trips": {"load": trips[0], "devices": _plain(trips[1])},
            "aims": aims}
    return report.write_files(options.output, "offload", data, text,
                              report.svg(cases, about, "Flow tier, of own CPU time", METRIC))


def _plain(by_device):
    return {name: [dataclasses.asdict(one) for one in many] for name, many in by_device.items()}


def _workers_table(cases):
    rows = [f"| {case['case']} | {name} | {found['worker_busy']:.0%} |"
            for case in cases for name, found in case["devices"].items() if name in (ON, OFF)]
    if not rows:
        return ""
    head = ["", "How much of the device's core the workers and the control thread took: what the "
            "flow tier carries never gets there.", "", "| case | device | in user space |",
            "|---|---|---:|"]
    return "\n".join(head + rows) + "\n"


def _transfers_table(transfers):
    if not transfers:
        return ""
    names = list(dict.fromkeys(name for found in transfers.values() for name in found))
    ratios = [(one, "kernel") for one in (ON, OFF) if one in names and "kernel" in names]
    lines = ["", "TCP through the masquerade (iperf3, both ends on the other core), Gbit/s; in "
             "brackets how busy the device's core and the hosts' core were.", "",
             "| peers' offloads | streams | direction | " +
             " | ".join(names + [f"{one}/{other}" for one, other in ratios]) + " |",
             "|---|---:|---|" + "---:|" * len(names + ratios)]
    for (peers, streams, direction), found in transfers.items():
        cells = []
        for name in names:
            gbits, device, hosts = (statistics.median(getattr(one, field) for one in found[name])
                                    for field in ("gbits", "device_core", "hosts_core"))
            cells.append(f"{gbits:.2f} ({device:.0%}, {hosts:.0%})")
        for one, other in ratios:
            cells.append("{:.2f}".format(report.paired_ratio(*([t.gbits for t in found[name]]
                                                               for name in (one, other)))))
        lines.append(f"| {peers} | {streams} | {direction} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _trips_table(load, trips):
    if not trips:
        return ""
    lines = ["", f"Round trips of {latency.SAMPLES} datagrams per repetition through the "
             f"masquerade, beside {load / 1e3:.0f} thousand packets per second of {latency.FLOWS} "
             "other flows (a tenth of what the kernel forwards), microseconds, medians of the "
             "repetitions.", ""]
    lines += report.latency_lines(
        "device", trips, "load that arrived",
        lambda many: f"{statistics.median(one.arrived for one in many):.2%}", digits=1)
    return "\n".join(lines) + "\n"


def _aims(cases, trips, missing):
    by_name = {case["case"]: case["ratios"] for case in cases}
    aims = []
    for what, case, (one, other), least in AIMS:
        if case in by_name:
            aims.append({"what": what, "aim": f"≥ {least:.2f} ×",
                         "found": by_name[case].get(f"{one}/{other}"), "at_least": least})
    times = trips[1]
    if times:
        found = None
        if ON in times and "kernel" in times:
            found = report.paired_ratio(*([one.p99 for one in times[name]]
                                          for name in (ON, "kernel")))
        aims.append({"what": "p99 round trip at a tenth of the load, against the kernel's",
                     "aim": "≤ 1.00 ×", "found": found, "at_most": 1.0})
    for aim in aims:
        aim["why_not"] = None if aim["found"] is not None else (
            "this build has no flow tier" if ON in missing else "not in this run")
    return aims


def _aims_table(aims):
    if not aims:
        return ""
    lines = ["", "| what | aim | found | |", "|---|---:|---:|---|"]
    for aim in aims:
        found = aim["found"]
        if found is None:
            lines.append(f"| {aim['what']} | {aim['aim']} | – | {aim['why_not']} |")
            continue
        met = found >= aim["at_least"] if "at_least" in aim else found <= aim["at_most"]
        lines.append(f"| {aim['what']} | {aim['aim']} | {found:.2f} × | "
                     f"{'met' if met else 'not met'} |")
    return "\n".join(lines) + "\n"
