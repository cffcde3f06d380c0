"""Where the device's core spends its time: `perf` over some seconds of load, if it works here."""

import os
import shutil
import subprocess
import sys
import time

from rig import DUT_CPU

SECONDS = 2


def profile(bench, device, load, directory):
    """Writes profile-CASE-DEVICE.txt; says so and goes on if perf is missing or does not fit."""
    if not shutil.which("perf"):
        print("  no profile: perf is not installed (Debian: linux-perf)", file=sys.stderr)
        return
    os.makedirs(directory, exist_ok=True)
    data = os.path.join(bench.work, "perf.data")
    generator = bench.start_generator(load)
    try:
        time.sleep(0.5)
        recorded = subprocess.run(
            ["perf", "record", "-q", "-g", "-F", "999", "-C", str(DUT_CPU), "-o", data, "sleep",
             str(SECONDS)], capture_output=True, text=True, check=False)
    finally:
        generator.close()
    if recorded.returncode != 0:
        print(f"  no profile: {recorded.stderr.strip()}", file=sys.stderr)
        return
    shown = ""
    for children, title in (("--no-children", "by symbol"), ("--children", "with callees")):
        done = subprocess.run(
            ["perf", "report", "-i", data, "--stdio", children, "-g", "none", "--percent-limit",
             "0.5", "--sort", "comm,dso,symbol"], capture_output=True, text=True, check=False)
        shown += f"# {load.name}, {device.name}, {title}\n" + done.stdout
    path = os.path.join(directory, f"profile-{load.name}-{device.name}.txt")
    with open(path, "w", encoding="utf-8") as file:
        file.write(shown)
    print(f"  profile: {path}")
