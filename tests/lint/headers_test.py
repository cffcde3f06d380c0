"""Every header compiles alone, and its guard is its path.

A header that some source file includes first is proved by the build itself; only the others are
compiled here, without generating code.
"""

import os
import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from source_tree import SOURCE, USERSPACE, files, includes, shown

COMPILER = shlex.split(os.environ.get("SLUICE_CXX", "g++"))
BINARY = Path(os.environ.get("SLUICE_BINARY", SOURCE / "build"))


def headers():
    return [str(path.relative_to(USERSPACE)) for path in files("userspace/**/*.h")]


def included_first():
    first = set()
    for path in files("userspace/**/*.cc", "tests/**/*.cc"):
        found = includes(path)
        if found and found[0][1]:
            first.add(found[0][2])
    return first


def compile_alone(header):
    command = [*COMPILER, "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-x", "c++",
               f"-I{USERSPACE}", f"-I{SOURCE}", f"-I{BINARY}/bpf/skel",
               "-isystem/usr/include/libnl3",
               '-DSLUICE_VERSION="lint"', "-"]
    # Twice, since a guard that does not guard shows only then.
    code = f'#include "{header}"\n#include "{header}"\n'
    return subprocess.run(command, input=code, text=True, capture_output=True, timeout=300,
                          check=False)


def test_headers_compile_alone():
    alone = [header for header in headers() if header not in included_first()]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        results = pool.map(compile_alone, alone)
    failed = [f"{header}:\n{done.stderr}" for header, done in zip(alone, results)
              if done.returncode != 0]
    assert not failed, "\n".join(failed)


def test_a_source_file_includes_its_own_header_first():
    wrong = []
    for path in files("userspace/**/*.cc"):
        header = str(path.relative_to(USERSPACE).with_suffix(".h"))
        found = includes(path)
        if header in headers() and found[0][2] != header:
            wrong.append(shown(path))
    assert not wrong


def guard_of(path):
    root = USERSPACE if path.is_relative_to(USERSPACE) else SOURCE
    words = str(path.relative_to(root).with_suffix("")).replace("/", "_")
    words = "".join(c if c.isalnum() else "_" for c in words)
    return f"SLUICE_{words.upper()}_H_"


def test_guards_are_paths():
    wrong = []
    for path in files("userspace/**/*.h", "tests/**/*.h", "benchmarks/**/*.h"):
        lines = path.read_text(encoding="utf-8").splitlines()
        code = [line for line in lines if line.startswith("#")]
        guard = guard_of(path)
        if code[:2] != [f"#ifndef {guard}", f"#define {guard}"] or \
                lines[-1] != f"#endif  // {guard}":
            wrong.append(f"{shown(path)}: wants {guard}")
    assert not wrong, "\n".join(wrong)


def test_headers_say_what_they_are_for():
    wrong = [shown(path) for path in files("userspace/**/*.h")
             if not path.read_text(encoding="utf-8").startswith("// ")]
    assert not wrong
