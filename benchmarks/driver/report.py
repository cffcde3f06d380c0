"""Results as JSON, as a Markdown table and as a plot (SVG)."""

import dataclasses
import json
import os
import statistics

METRICS = ("rate", "offered", "good_share", "core_busy", "device_busy", "worker_busy",
           "sink_astray", "per_core")
# What is divided by what.
RATIOS = (("sluice", "bare"), ("sluice", "drop"), ("sluice", "kernel"))
# More of the device's core than this used by others: the row says so.
DISTURBED = 0.08
COLOURS = {"kernel": "#8a8f98", "bare": "#e0a458", "drop": "#e0a458", "xdp": "#e0a458",
           "sluice": "#2f7ed8", "sluice-off": "#9dc3ee", "sluice-on": "#2f7ed8"}


def summarise(results, pairs=RATIOS, metric="rate"):
    """{case: {device: [Sample]}} -> plain data: medians, ranges, paired ratios of the metric."""
    cases = []
    for case, by_device in results.items():
        devices = {name: _device(samples) for name, samples in by_device.items()}
        cases.append({"case": case, "devices": devices,
                      "ratios": _ratios(by_device, pairs, metric)})
    return cases


def _device(samples):
    found = {metric: statistics.median(getattr(s, metric) for s in samples) for metric in METRICS}
    rates = [s.rate for s in samples]
    found.update(lowest=min(rates), highest=max(rates),
                 samples=[{**dataclasses.asdict(s), "per_core": s.per_core} for s in samples])
    return found


def _ratios(by_device, pairs, metric):
    return {f"{one}/{other}": paired_ratio([getattr(s, metric) for s in by_device[one]],
                                           [getattr(s, metric) for s in by_device[other]])
            for one, other in pairs if one in by_device and other in by_device}


def paired_ratio(ones, others):
    """The median of the ratios within each repetition, which drift together."""
    return statistics.median(a / b if b else 0.0 for a, b in zip(ones, others))


def markdown(cases, about, metric="rate", unit="", what_else=""):
    lines = [f"Frames of {about['size']} bytes, millions of packets per second{unit}, medians of "
             f"{about['repetitions']} × {about['seconds']:g} s, one core ({about['cpu']}), kernel "
             f"{about['kernel']}, {about['date']}.", ""]
    names = list(dict.fromkeys(name for case in cases for name in case["devices"]))
    ratios = list(dict.fromkeys(name for case in cases for name in case["ratios"]))
    lines += ["| case | " + " | ".join(names + ratios) + " |",
              "|---|" + "---:|" * len(names + ratios)]
    for case in cases:
        cells = [f"{case['devices'][name][metric] / 1e6:.2f}" if name in case["devices"] else "–"
                 for name in names]
        cells += [f"{case['ratios'][name]:.2f}" if name in case["ratios"] else "–"
                  for name in ratios]
        lines.append(f"| {case['case']} | " + " | ".join(cells) + " |")
    lines += ["", "How each was measured: the range of the repetitions, what the generator "
              "offered, how busy the device's core was and how much of that was the device, and "
              "the share of the frames arriving that had been forwarded properly (TTL or hop limit "
              f"63{what_else or '; the bare forwarder leaves 64'}).", "",
              "| case | device | M packets/s | range | offered | core busy | by device | proper |",
              "|---|---|---:|---:|---:|---:|---:|---:|"]
    for case in cases:
        for name, found in case["devices"].items():
            lines.append(_detail(case["case"], name, found))
    return "\n".join(lines) + "\n"


def _detail(case, name, found):
    disturbed = found["core_busy"] - found["device_busy"] > DISTURBED
    return (f"| {case} | {name} | {found['rate'] / 1e6:.2f} | {found['lowest'] / 1e6:.2f}–"
            f"{found['highest'] / 1e6:.2f} | {found['offered'] / 1e6:.1f} | "
            f"{found['core_busy']:.0%} | {found['device_busy']:.0%}"
            f"{' (disturbed)' if disturbed else ''} | {found['good_share']:.2%} |")


def svg(cases, about, title="Forwarding", metric="rate"):
    names = list(dict.fromkeys(name for case in cases for name in case["devices"]))
    top = max((sample[metric] for case in cases for found in case["devices"].values()
               for sample in found["samples"]), default=1) / 1e6
    top = max(top, 0.01)
    bar, gap, left, base, height = 20, 26, 46, 300, 250
    group = bar * len(names) + gap
    width = left + group * len(cases) + 20
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} 400" '
           'font-family="sans-serif" font-size="11">',
           f'<rect width="{width}" height="400" fill="white"/>',
           f'<text x="{left}" y="20" font-size="14">{title}, one core, {about["size"]}-byte '
           f'frames (M packets/s, kernel {about["kernel"]})</text>']
    step = next(s for s in (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 50) if top / s <= 8 or s == 50)
    for i in range(int(top / step) + 1):
        y = base - height * i * step / top
        out.append(f'<line x1="{left}" x2="{width - 10}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
                   f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{i * step:g}</text>')
    for number, case in enumerate(cases):
        x = left + gap / 2 + number * group
        for name in names:
            if name in case["devices"]:
                out.append(_bar(x, base, height / top, bar, name,
                                case["devices"][name], metric))
            x += bar
        middle = left + gap / 2 + number * group + bar * len(names) / 2
        out.append(f'<text transform="translate({middle:.1f},{base + 12}) rotate(25)">'
                   f'{case["case"]}</text>')
    for number, name in enumerate(names):
        x = left + number * 90
        out.append(f'<rect x="{x}" y="30" width="12" height="12" fill="{_colour(name)}"/>'
                   f'<text x="{x + 17}" y="40">{name}</text>')
    return "\n".join(out) + "\n</svg>\n"


def _colour(name):
    return COLOURS.get(name, "#6b4fa0")


def _bar(x, base, scale, bar, name, found, metric):
    values = [sample[metric] for sample in found["samples"]]
    rate, low, high = (value / 1e6 * scale for value in (found[metric], min(values), max(values)))
    middle = x + bar / 2
    return (f'<rect x="{x + 1:.1f}" y="{base - rate:.1f}" width="{bar - 2}" height="{rate:.1f}" '
            f'fill="{_colour(name)}"/><line x1="{middle:.1f}" x2="{middle:.1f}" '
            f'y1="{base - low:.1f}" y2="{base - high:.1f}" stroke="#333"/>')


def write(directory, results, about, name="forwarding", title="Forwarding", more=None):
    """`more`: (plain data for the JSON, Markdown) of what is no rate."""
    cases = summarise(results)
    data, text = more or ({}, "")
    return write_files(directory, name, {"about": about, "cases": cases, **data},
                       markdown(cases, about) + text, svg(cases, about, title))


def write_files(directory, name, data, text, picture=None):
    os.makedirs(directory, exist_ok=True)
    contents = {f"{name}.json": json.dumps(data, indent=1) + "\n", f"{name}.md": text}
    if picture is not None:
        contents[f"{name}.svg"] = picture
    for file_name, content in contents.items():
        with open(os.path.join(directory, file_name), "w", encoding="utf-8") as file:
            file.write(content)
    return text


def latency_lines(what, by_name, title, more, digits=0):
    """The lines of a table with a row for each name: medians of the percentiles, all that was lost,
    and what `more` says of the row's repetitions, under its title."""
    lines = [f"| {what} | p50 | p90 | p99 | p99.9 | lost | {title} |", "|---|" + "---:|" * 6]
    for name, many in by_name.items():
        cells = [f"{statistics.median(getattr(one, field) for one in many):.{digits}f}"
                 for field in ("p50", "p90", "p99", "p999")]
        lines.append(f"| {name} | " + " | ".join(cells) +
                     f" | {sum(one.lost for one in many)} | {more(many)} |")
    return lines


def changes_markdown(changes):
    """{case: {device: [(total, of nft)]}} as a table."""
    lines = ["", "Time from the start of the command to the last packet that was judged by the old "
             "rules, and of that what `nft` itself took (medians, milliseconds).", "",
             "| change | device | in force after | nft | after nft |", "|---|---|---:|---:|---:|"]
    for case, by_device in changes.items():
        for device, times in by_device.items():
            total, of_nft = (statistics.median(t[i] for t in times) * 1e3 for i in (0, 1))
            later = statistics.median(t[0] - t[1] for t in times) * 1e3
            lines.append(f"| {case} | {device} | {total:.1f} | {of_nft:.1f} | {later:.1f} |")
    return "\n".join(lines) + "\n"


def update_readme(path, table, picture=None, name="forwarding", title="Forwarding rates"):
    """Puts the table, below its picture if there is one, between the README's markers."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    shown = f"![{title}]({picture})\n\n" if picture else ""
    with open(path, encoding="utf-8") as file:
        before, rest = file.read().split(begin)
    after = rest.split(end)[1]
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"{before}{begin}\n{shown}{table}{end}{after}")
