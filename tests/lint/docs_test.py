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
