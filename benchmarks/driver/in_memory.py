"""Code without I/O, with Google Benchmark (micro/), each on core 1: `benchmarks/run.sh --memory`."""

import dataclasses
import json
import statistics
import subprocess

import report
from rig import DUT_CPU, RigError

REPETITIONS = 3


@dataclasses.dataclass(frozen=True)
class Row:
    """`value` makes the figure of one of Google Benchmark's results; `most`, `least`: the aim."""
    what: str
    program: str
    case: str
    unit: str
    value: object
    most: float | None = None
    least: float | None = None
    alone: bool = False  # each repetition in a process of its own


def _counter(*names):
    return lambda found: sum(found[name] for name in names)


def _ns_each(found):
    return 1e9 / found["items_per_second"]


def _time(unit_ns):
    scale = {"ns": 1, "us": 1e3, "ms": 1e6}
    return lambda found: found["real_time"] * scale[found["time_unit"]] / unit_ns


def _stages():
    for case, what in (("BM_StageParse", "parsing"), ("BM_StageLookup", "FIB lookup"),
                       ("BM_StageDecide", "the route's decision"),
                       ("BM_StageNeighborAndRewrite", "neighbour and rewriting"),
                       ("BM_StagePartialChecksumTest", "is its checksum partial")):
        yield Row(f"IPv4 forwarding, of that: {what}", "pipeline_bench", case, "cycles",
                  _counter("cycles_per_packet"))


ROWS = [
    Row("IPv4 forwarding, 1,000,000 routes, random destinations", "pipeline_bench",
        "BM_Forward/ipv4/routes:1000000/destinations:524288", "ns per packet",
        _ns_each, most=60),
    Row("IPv4 forwarding, 10 routes, one destination", "pipeline_bench",
        "BM_Forward/ipv4/routes:10/destinations:1", "ns per packet", _ns_each),
    *_stages(),
    Row("FIB of 1,000,000 IPv4 routes", "fib_bench", "Batch<Fib4>/1000000/0", "MiB",
        _counter("extent_MiB", "control_MiB"), most=64),
    Row("connection tracking, NAT and forwarding, 1,000,000 flows in random order", "firewall_bench",
        "BM_Established/flows:1000000", "ns per packet", _ns_each, most=150),
    Row("the same, 10,000 flows", "firewall_bench", "BM_Established/flows:10000", "ns per packet",
        _ns_each),
    Row("new flows with NAT", "firewall_bench", "BM_New/iterations:3", "thousand per second",
        lambda found: found["items_per_second"] / 1e3, least=500),
    Row("a tracked connection", "flow_bench", "Memory/1000000/iterations:1", "bytes",
        _counter("B_per_flow"), most=256, alone=True),
    Row("10 linear rules", "filter_bench", "LinearRules/rules:10/index:0", "ns", _time(1)),
    Row("10,000 linear rules", "filter_bench", "LinearRules/rules:10000/index:1", "ns", _time(1)),
    Row("10,000 rules are compiled", "filter_bench", "CompileRules/rules:10000", "ms", _time(1e6)),
    Row("a flow is promoted to XDP, 100,000 of them", "promotion_bench", "BM_Promote/flows:100000",
        "ns", _ns_each, most=1000),
    Row("a TCP connection: connect, request, answer, close, both ends", "transport_bench",
        "ConnectRequestClose", "µs", _time(1e3), most=5),
    Row("the same through tcp_proxy, all four ends", "services_bench", "ProxyConnectRequestClose",
        "µs", _time(1e3)),
    Row("a request and its answer through tcp_proxy, all four ends", "services_bench",
        "ProxyRequest", "ns", _time(1)),
]


def _run(bench, row):
    processes, repetitions = (REPETITIONS, 1) if row.alone else (1, REPETITIONS)
    return [value for _ in range(processes) for value in _values(bench, row, repetitions)]


def _values(bench, row, repetitions):
    words = ["taskset", "-c", str(DUT_CPU), bench.program(row.program),
             f"--benchmark_filter=^{row.case}$", "--benchmark_format=json",
             f"--benchmark_repetitions={repetitions}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RigError(f"{row.program}: {done.stderr.strip()}")
    found = [one for one in json.loads(done.stdout or '{"benchmarks": []}')["benchmarks"]
             if one.get("run_type") == "iteration"]
    if not found:
        raise RigError(f"{row.program} has no {row.case}")
    for one in found:
        if one.get("error_occurred"):
            raise RigError(f"{row.case}: {one['error_message']}")
    return [row.value(one) for one in found]


def _met(row, value):
    if row.most is not None:
        return value <= row.most
    return None if row.least is None else value >= row.least


def measure(bench):
    """[{what, ..., values, median, met}]"""
    rows = []
    for row in ROWS:
        values = _run(bench, row)
        median = statistics.median(values)
        rows.append({"what": row.what, "program": row.program, "case": row.case, "unit": row.unit,
                     "values": values, "median": median, "most": row.most, "least": row.least,
                     "met": _met(row, median)})
        print(f"  {row.what}: {median:.4g} {row.unit}", flush=True)
    return rows


def write(options, about, rows):
    """Returns the Markdown."""
    lines = [f"Medians of {REPETITIONS} runs, one core ({about['cpu']}), {about['date']}.", "",
             "| what | measured | range | aim | | by |", "|---|---:|---:|---:|---|---|"]
    for row in rows:
        aim = (f"≤ {row['most']:g}" if row["most"] is not None else
               f"≥ {row['least']:g}" if row["least"] is not None else "")
        met = {None: "", True: "met", False: "not met"}[row["met"]]
        lines.append(f"| {row['what']} | {row['median']:.3g} {row['unit']} | "
                     f"{min(row['values']):.3g}–{max(row['values']):.3g} | {aim} | {met} | "
                     f"`{row['program']} --benchmark_filter='^{row['case']}$'` |")
    text = "\n".join(lines) + "\n"
    return report.write_files(options.output, "memory", {"about": about, "rows": rows}, text)
