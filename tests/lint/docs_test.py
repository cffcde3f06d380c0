"""The documentation's links lead somewhere, and what it repeats from the code is what the code says."""

import re

import pytest

from doc_tables import DOCUMENTS, TABLES, renewed, used
from source_tree import SOURCE, files, shown

MARKDOWN = files("*.md", "*/README.md", "*/*/README.md")


def read(name):
    return (SOURCE / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", MARKDOWN, ids=shown)
def test_links_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)", text)
    wrong = [link for link in links
             if not re.match(r"https?://", link) and not (path.parent / link).exists()]
    assert not wrong


@pytest.mark.parametrize("path", MARKDOWN, ids=shown)
def test_anchors_exist(path):
    text = path.read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
    wrong = [anchor for anchor in re.findall(r"\]\(#([^)\s]+)\)", text) if anchor not in anchors]
    assert not wrong


@pytest.mark.parametrize("name", DOCUMENTS)
def test_tables_are_what_the_code_says(name):
    text = read(name)
    assert renewed(text) == text, "run tests/lint/doc_tables.py"


def test_every_table_is_shown():
    shown_tables = [table for name in DOCUMENTS for table in used(read(name))]
    assert sorted(shown_tables) == sorted(TABLES)


def test_named_metrics_exist():
    metrics = set(re.findall(r'^SLUICE_METRIC\(\w+, "(\w+)"',
                             read("userspace/telemetry/metrics.inc"), re.MULTILINE))
    named = {name for document in DOCUMENTS
             for name in re.findall(r"\bsluice_[a-z0-9_]+_(?:total|packets|used|limit|divergence|"
                                    r"resyncs|stalled|frames|neighbors)\b", read(document))}
    assert named and named <= metrics


def test_named_configuration_keys_exist():
    """`limits.NAME` in the documentation is a key of config/full.yaml."""
    keys = set(re.findall(r"^  (\w+):", read("config/full.yaml").split("\nlimits:")[1]
                          .split("\nlinux:")[0], re.MULTILINE))
    named = {name for document in DOCUMENTS
             for name in re.findall(r"\blimits\.(\w+)", read(document))}
    assert named and named <= keys


RFC_TESTS = files("tests/unit/transport/*_test.cc", "tests/sim/transport/*_test.cc")


def test_tests_of_the_table_of_rfcs_exist():
    """`Suite.Case` or `Suite.*` in README's table under Transport."""
    cases = {f"{suite}.{case}" for path in RFC_TESTS for suite, case in re.findall(
        r"^TEST(?:_[FP])?\((\w+), (\w+)\)", path.read_text(encoding="utf-8"), re.MULTILINE)}
    rows = read("README.md").split("\n## Transport\n")[1].split("\n| RFC |")[1].split("\n\n")[0]
    named = re.findall(r"`(\w+\.(?:\w+|\*))`", rows)
    assert len(named) > 30
    suites = {case.split(".")[0] + ".*" for case in cases}
    assert not [name for name in named if name not in cases | suites]


@pytest.mark.parametrize("path", RFC_TESTS, ids=shown)
def test_tests_of_rfcs_say_which_rule(path):
    """Above each TEST(RfcN, ...) is a comment that names an RFC or a section."""
    lines = path.read_text(encoding="utf-8").splitlines()
    silent = []
    for number, line in enumerate(lines):
        if re.match(r"TEST(_[FP])?\(Rfc\d", line):
            first = number
            while lines[first - 1].startswith("//"):
                first -= 1
            if not re.search(r"RFC \d|[Ss]ection \d", " ".join(lines[first:number])):
                silent.append(f"{number + 1}: {line}")
    assert not silent
