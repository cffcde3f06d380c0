"""A row of the table from a guest's console: row.py LOG CASE KERNEL DEVICE QEMU-STATUS."""

import json
import sys


def find(value, key):
    """The first value of `key` anywhere in parsed JSON."""
    if isinstance(value, dict):
        if key in value:
            return value[key]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            found = find(item, key)
            if found is not None:
                return found
    return None


def main():
    path, _, kernel, device, status = sys.argv[1:]
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = [line.strip("\r\n") for line in file]
    shown = {}
    for line in lines:
        if line.startswith("VM JSON "):
            shown = json.loads(line[len("VM JSON "):])
    results = [line for line in lines if line.startswith("VM RESULT ")]
    words = results[-1].split()[4:] if results else ["fail", f"no result (QEMU ended with {status})"]
    mode = find(shown, "mode") or "–"
    zero_copy = find(shown, "zero_copy")
    copies = "–" if zero_copy is None else "zero-copy" if zero_copy in (True, "on") else "copy"
    carried = [line.split()[2:] for line in lines if line.startswith("VM TIERS ")]
    in_xdp = "–"
    if carried and carried[-1]:
        xdp, *others = map(int, carried[-1])
        in_xdp = f"{xdp / max(1, xdp + sum(others)):.0%}"
    cells = (kernel, device, mode, copies, in_xdp, words[0], " ".join(words[1:]) or "–")
    print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
