#!/usr/bin/env python3
"""The long run: random rulesets, a hundred packets each, through the kernel and through Sluice.

  sudo SLUICE_BIN=build/sluice /usr/bin/python3 tests/differential/firewall/long_run.py
      --rulesets 1000 --seed 1          100,000 packets over 1,000 rulesets (the default)
      --packets 100                     of each ruleset
      --replay FILE                     a scenario that a failure has left behind
      --keep-going                      do not stop at the first difference
      --against kernel                  the kernel with itself, to try the harness

A difference is made small: rules, chains, tables, parts of rules and packets that it does not need
are left out. What remains is printed and saved as a file for --replay. Exit status 1: they differ.
"""

import argparse
import os
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(HERE), HERE]

# pylint: disable=wrong-import-position
import generator  # noqa: E402
import play  # noqa: E402
from twins import AGAINST_KERNEL, Twins  # noqa: E402


def report(twins, scenario, seed, found):
    """Makes the scenario small, saves it and tells all about it."""
    small = play.shrink(twins, scenario)
    again = play.fails(twins, small)
    if not again:
        small, again = scenario, found
    handle, path = tempfile.mkstemp(prefix=f"sluice-differs-{seed}-", suffix=".json")
    os.close(handle)
    play.save(path, small, seed)
    lines = [f"seed {seed}: the two sides differ", *again, "with the ruleset",
             play.ruleset_text(small, twins.round), "and the packets",
             *(f"  {event}" for event in small["events"]), "of the flows",
             *(f"  {number}: {flow}" for number, flow in enumerate(small["flows"])),
             f"again: tests/differential/firewall/long_run.py --replay {path}"]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rulesets", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--packets", type=int, default=100)
    parser.add_argument("--replay", metavar="FILE")
    parser.add_argument("--keep-going", action="store_true")
    parser.add_argument("--against", choices=("sluice", "kernel"),
                        default="kernel" if AGAINST_KERNEL else "sluice")
    options = parser.parse_args()
    twins = Twins(against_kernel=options.against == "kernel")
    try:
        if options.replay:
            failed = replay(twins, options.replay)
        else:
            failed = run(twins, options)
    finally:
        status, said = twins.close()
    if status != 0:
        sys.exit(f"Sluice ended with status {status}:\n{said}")
    sys.exit(1 if failed else 0)


def replay(twins, path):
    scenario = play.load(path)
    found = play.run(twins, scenario)
    print(play.ruleset_text(scenario, twins.round))
    print("\n".join(found) or "both did the same")
    return bool(found)


def run(twins, options):
    start, packets, out, rules, hit, failed = time.monotonic(), 0, 0, 0, 0, []
    for seed in range(options.seed, options.seed + options.rulesets):
        scenario = generator.scenario(seed, options.packets)
        found = play.run(twins, scenario)
        if found:
            failed.append(seed)
            print(report(twins, scenario, seed, found), flush=True)
            if not options.keep_going:
                break
            continue
        packets += len(scenario["events"])
        out += len(twins.kernel.frames)
        counts = twins.kernel.counts().values()
        rules += len(counts)
        hit += sum(1 for count in counts if count[0])
    print(f"seeds {options.seed} to {seed}: {packets} packets in, {out} out, {rules} rules, {hit} "
          f"of them matched something; {len(failed)} rulesets differ {failed or ''}; "
          f"{time.monotonic() - start:.0f} s")
    return failed


if __name__ == "__main__":
    main()
