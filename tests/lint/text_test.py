"""Sizes and words: small files, nothing left for later, no test switched off."""

import re

from source_tree import files, shown

CODE = tuple(f"{folder}/**/*{suffix}" for folder in ("userspace", "bpf", "tests", "benchmarks")
             for suffix in (".h", ".cc", ".c"))
SCRIPTS = ("tests/**/*.py", "tests/**/*.sh", "deploy/*.sh", "benchmarks/**/*.py",
           "benchmarks/**/*.sh")
TABLES = ("userspace/**/*.inc",)
BUILD = ("CMakeLists.txt", "*/CMakeLists.txt", "*/*/CMakeLists.txt")

MOST_LINES = 600
# Put together, so that this file does not hold them itself.
LEFT_FOR_LATER = re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX|HA" r"CK)\b")


def numbered(*patterns):
    for path in files(*patterns):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            yield path, number, line


def test_no_file_is_long():
    long = {shown(path): count for path in files(*CODE, *SCRIPTS)
            if (count := len(path.read_text(encoding="utf-8").splitlines())) > MOST_LINES}
    assert not long


def test_nothing_is_left_for_later():
    wrong = [f"{shown(path)}:{number}: {line.strip()}"
             for path, number, line in numbered(*CODE, *SCRIPTS, *TABLES, *BUILD)
             if LEFT_FOR_LATER.search(line)]
    assert not wrong, "\n".join(wrong)


def test_no_test_is_skipped_or_switched_off():
    calls = re.compile(r"GTEST_" r"SKIP|\bDISABLED" r"_|pytest\.mark\.(" r"skip|xfail)|"
                       r"pytest\.skip" r"\(")
    wrong = [f"{shown(path)}:{number}: {line.strip()}"
             for path, number, line in numbered("tests/**/*.cc", "tests/**/*.h", "tests/**/*.py")
             if calls.search(line)]
    assert not wrong, "\n".join(wrong)


def test_no_white_space_at_line_ends_and_no_tabs():
    wrong = [f"{shown(path)}:{number}" for path, number, line in numbered(*CODE, *SCRIPTS, *TABLES)
             if line != line.rstrip() or "\t" in line]
    assert not wrong, "\n".join(wrong)
