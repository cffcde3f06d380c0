"""The sources as the lint tests see them."""

import os
import re
from pathlib import Path

SOURCE = Path(os.environ.get("SLUICE_SOURCE", Path(__file__).resolve().parents[2]))
USERSPACE = SOURCE / "userspace"

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+(["<])([^">]+)[">]', re.MULTILINE)


def files(*patterns):
    """Paths below the source directory, sorted; patterns as for Path.glob."""
    found = sorted(path for pattern in patterns for path in SOURCE.glob(pattern)
                   if path.is_file())
    assert found, patterns
    return found


def includes(path):
    """[(line, quoted, header)] of a C or C++ file."""
    text = path.read_text(encoding="utf-8")
    return [(text.count("\n", 0, match.start()) + 1, match.group(1) == '"', match.group(2))
            for match in INCLUDE.finditer(text)]


def shown(path):
    return str(path.relative_to(SOURCE))


def table(macro, name):
    """[(enumerator, label, rest)] of one of userspace's .inc tables."""
    text = (USERSPACE / name).read_text(encoding="utf-8")
    rows = re.findall(rf'^{macro}\((k\w+), "([^"]*)", (.*)\)$', text, re.MULTILINE)
    assert len(rows) == len(re.findall(rf"^{macro}\(", text, re.MULTILINE)) > 5
    return rows


def xdp_reasons():
    """[(enumerator, action, label, text)] of the XDP program."""
    abi = (SOURCE / "bpf/include/abi.h").read_text(encoding="utf-8")
    abi = re.sub(r"\s*\\\n", "\n", abi)
    rows = re.findall(r'^  X\((\w+),\s*"(\w+)",\s*"(\w+)",\s*"([^"]+)"\)', abi, re.MULTILINE)
    assert len(rows) == len(re.findall(r"^  X\(", abi, re.MULTILINE)) > 5
    return rows
