"""Sluice's services beside haproxy and dnsdist on the kernel: `benchmarks/run.sh --services`.

    connections   a request on a connection of its own, 64 at a time
    requests      on 64 connections that stay open
    bulk          one stream, either way, with the hosts' offloads off and on
    latency       of requests at half of what haproxy can do
    dns           queries through udp_proxy and through dnsdist: a session for each, and for each client
    memory        of a connection on which nothing happens
"""

import contextlib
import dataclasses
import itertools
import re
import statistics

import report
import service_ends as ends
from servers import DNS, SESSIONS, Dnsdist, Haproxy, HaproxySplice, SluiceServer

SLUICE, HAPROXY = SluiceServer.name, Haproxy.name
IDLE = 8000  # a process of this machine may have some 20,000 descriptors
HALF = 0.5
_FEW = 512  # connections for those that make the load


@dataclasses.dataclass(frozen=True)
class Case:
    """`aim`: of the ratio of the work per second of the server's core; None: only reported."""
    name: str
    what: str
    unit: str
    scale: float
    others: tuple
    aim: float | None
    sample: object  # (bench, server, seconds) -> Work
    offloads: bool = False  # the hosts'


def _bulk_cases():
    for offloads, direction in itertools.product((False, True), ("upload", "download")):
        state = "on" if offloads else "off"
        yield Case(f"bulk-{state}-{direction}", f"one stream, {direction}, hosts' offloads {state}",
                   "Gbit/s", 1e9, (Haproxy, HaproxySplice), None if offloads else 1.2,
                   lambda bench, server, seconds, direction=direction:
                   ends.bulk(server, seconds, direction), offloads)


CASES = [Case("connections", "new connections", "thousand/s", 1e3, (Haproxy,), 3.0,
              lambda bench, server, seconds: ends.http(server, seconds, close=True)),
         Case("requests", f"requests on {ends.CONNECTIONS} connections", "thousand/s", 1e3,
              (Haproxy,), 2.0,
              lambda bench, server, seconds: ends.http(server, seconds, close=False)),
         *_bulk_cases(),
         Case("dns", "DNS queries, a session for each", "thousand/s", 1e3, (Dnsdist,), 3.0, ends.dns),
         Case("dns-sessions", "DNS queries, of clients with a session each", "thousand/s", 1e3,
              (Dnsdist,), 3.0, lambda bench, server, seconds:
              ends.dns(bench, server, seconds,
                       SESSIONS if isinstance(server, SluiceServer) else DNS))]


def compare(bench, options):
    """Returns (works, latencies, memory), each empty where it is not asked for."""
    works = {case.name: _works(bench, options, case) for case in CASES
             if re.search(options.cases, case.name)}
    times, memory = {}, {}
    rate = 0.0
    if re.search(options.cases, "latency"):
        rate = HALF * _capacity(bench, options, works)
        print(f"latency at {rate:.0f} requests/s", flush=True)
        for _, kind in itertools.product(range(options.repetitions), (Haproxy, SluiceServer)):
            times.setdefault(kind.name, []).append(_latency(bench, kind(bench), rate, options))
    if re.search(options.cases, "memory"):
        print(f"memory of {IDLE} idle connections", flush=True)
        memory = {HAPROXY: _haproxy_memory(bench), SLUICE: _sluice_memory(bench)}
        for name, found in memory.items():
            print(f"  {name:15s} {found['process']:.0f} bytes of its own, {found['kernel']:.0f} of "
                  "the kernel's", flush=True)
    return works, (rate, times), memory


def _works(bench, options, case):
    """{server: [Work]}"""
    print(case.name, flush=True)
    kinds = (*case.others, SluiceServer)
    found = {kind.name: [] for kind in kinds}
    for _, kind in itertools.product(range(options.repetitions), kinds):
        server = kind(bench)
        with ends.network(bench, server, case.offloads):
            work = case.sample(bench, server, options.seconds)
        found[kind.name].append(work)
        print(f"  {kind.name:15s} {work.rate / case.scale:8.2f} {case.unit}, server's core "
              f"{work.core:.0%}, own {work.own:.0%}, hosts' core {work.hosts_core:.0%}; per core "
              f"{work.per_core / case.scale:.2f}, failed {work.failed}"
              f"{', disturbed' if work.disturbed else ''}", flush=True)
    return found


def _capacity(bench, options, works):
    """Requests per second that haproxy could serve here, and its hosts ask for."""
    found = works.get("requests", {}).get(HAPROXY)
    if not found:
        server = Haproxy(bench)
        with ends.network(bench, server):
            found = [ends.http(server, options.seconds, close=False)]
    return statistics.median(work.rate for work in found)


def _latency(bench, server, rate, options):
    with ends.network(bench, server, moderated=False):
        one = ends.latencies(bench, server, rate, options.seconds)
    print(f"  {server.name:15s} p50 {one.p50:.0f} us, p99 {one.p99:.0f} us, p99.9 {one.p999:.0f} us, "
          f"server's core {one.core:.0%}, own {one.own:.0%}, lost {one.lost}", flush=True)
    return one


def _haproxy_memory(bench):
    """Its own, and of what the kernel's objects grew: of four sockets, two are its."""
    server = Haproxy(bench)
    with ends.network(bench, server):
        ends.http(server, 1, close=False)  # what only the first connection needs is there
        before = ends.resident(server), ends.slab()
        with ends.idle_connections(bench, IDLE):
            after = ends.resident(server), ends.slab()
    own, kernel = ((b - a) / IDLE for a, b in zip(before, after))
    return {"process": own, "kernel": kernel / 2}


def _sluice_memory(bench):
    """The room for connections is had at the start. So: what one with room for these, and with these, is
    larger by than one with hardly any room."""
    sizes = []
    for limit, idle in ((_FEW, 0), (2 * IDLE + _FEW, IDLE)):
        server = SluiceServer(bench)
        server.limits = f"limits:\n  connections: {limit}\n"
        with ends.network(bench, server):
            ends.http(server, 1, close=False)
            with ends.idle_connections(bench, idle) if idle else contextlib.nullcontext():
                sizes.append(ends.resident(server))
    return {"process": (sizes[1] - sizes[0]) / IDLE, "kernel": 0.0}


# --- What it comes to -----------------------------------------------------------------------------


def write(options, about, works, latency, memory):
    """Returns the Markdown."""
    summary = [_summarise(case, works[case.name]) for case in CASES if works.get(case.name)]
    aims = _aims(summary, latency, memory)
    text = (_head(about) + _aims_table(aims) + _works_table(summary) + _latency_table(*latency) +
            _memory_table(memory))
    data = {"about": about, "cases": summary, "aims": aims,
            "latency": {"rate": latency[0], "servers": _plain(latency[1])}, "memory": memory}
    return report.write_files(options.output, "services", data, text)


def _plain(by_server):
    return {name: [dataclasses.asdict(one) for one in many] for name, many in by_server.items()}


def _summarise(case, found):
    medians = {name: statistics.median(work.per_core for work in many)
               for name, many in found.items()}
    best = max((kind.name for kind in case.others), key=medians.get)
    ratio = report.paired_ratio(*([work.per_core for work in found[name]]
                                  for name in (SLUICE, best)))
    return {"case": case.name, "what": case.what, "unit": case.unit, "scale": case.scale,
            "against": best, "ratio": ratio, "aim": case.aim, "per_core": medians,
            "servers": _plain(found)}


def _head(about):
    return (f"Medians of {about['repetitions']} × {about['seconds']:g} s, one core "
            f"({about['cpu']}), kernel {about['kernel']}, {about['date']}.\n\n")


def _aims(summary, latency, memory):
    """[(what, against, aim, found, met or None)]"""
    aims = []
    for case in summary:
        aim = case["aim"]
        aims.append({"what": f"{case['what']}, per second of the core", "against": case["against"],
                     "aim": "reported" if aim is None else f"≥ {aim:g} ×",
                     "found": f"{case['ratio']:.2f} ×",
                     "met": None if aim is None else case["ratio"] >= aim})
    rate, times = latency
    if times:
        ratio = report.paired_ratio(*([one.p99 for one in times[name]]
                                      for name in (SLUICE, HAPROXY)))
        aims.append({"what": f"p99 of requests at {rate / 1e3:.1f} thousand/s", "against": HAPROXY,
                     "aim": "≤ 1 ×", "found": f"{ratio:.2f} ×", "met": ratio <= 1})
    if memory:
        size = sum(memory[SLUICE].values())
        aims.append({"what": "memory of an idle connection",
                     "against": f"{HAPROXY}: {sum(memory[HAPROXY].values()) / 1024:.1f} KiB",
                     "aim": "≤ 2 KiB", "found": f"{size / 1024:.2f} KiB", "met": size <= 2048})
    return aims


def _aims_table(aims):
    lines = ["| what | against | aim | sluice | |", "|---|---|---:|---:|---|"]
    for aim in aims:
        met = {None: "", True: "met", False: "not met"}[aim["met"]]
        lines.append(f"| {aim['what']} | {aim['against']} | {aim['aim']} | {aim['found']} | {met} |")
    return "\n".join(lines) + "\n"


def _works_table(summary):
    if not summary:
        return ""
    lines = ["", "What each did, how busy its core was and how much of that were its own threads "
             "(\"disturbed\": others had a share of it), how busy the core of clients and backend "
             "was, and what that is per second of the server's core.", "",
             "| case | server | done | range | unit | core busy | own | hosts' core | per core | "
             "failed |", "|---|---|---:|---:|---|---:|---:|---:|---:|---:|"]
    for case in summary:
        for name, many in case["servers"].items():
            works = [ends.Work(**one) for one in many]
            rates = [work.rate / case["scale"] for work in works]
            rate, core, own, hosts = (statistics.median(values) for values in (
                rates, *([getattr(work, field) for work in works]
                         for field in ("core", "own", "hosts_core"))))
            disturbed = " (disturbed)" if any(work.disturbed for work in works) else ""
            lines.append(
                f"| {case['case']} | {name} | {rate:.2f} | {min(rates):.2f}–{max(rates):.2f} | "
                f"{case['unit']} | {core:.0%}{disturbed} | {own:.0%} | {hosts:.0%} | "
                f"{case['per_core'][name] / case['scale']:.2f} | "
                f"{sum(work.failed for work in works)} |")
    return "\n".join(lines) + "\n"


def _latency_table(rate, times):
    if not times:
        return ""
    lines = ["", f"Latencies at {rate:.0f} requests per second on {ends.CONNECTIONS} connections (half "
             "of what haproxy did above), from when each was due, microseconds.", ""]
    lines += report.latency_lines(
        "server", times, "core busy",
        lambda many: f"{statistics.median(one.core for one in many):.0%}")
    return "\n".join(lines) + "\n"


def _memory_table(memory):
    if not memory:
        return ""
    lines = ["", f"Memory per idle connection, of {IDLE}, with both its ends; bytes.", "",
             "| server | of the process | of the kernel's objects |", "|---|---:|---:|"]
    lines += [f"| {name} | {found['process']:.0f} | {found['kernel']:.0f} |"
              for name, found in memory.items()]
    return "\n".join(lines) + "\n"
