"""The tables of reasons and metrics hold what the code uses, and nothing else."""

import re

import pytest

from source_tree import USERSPACE, files, table, xdp_reasons

REASONS = {"DropReason": ("SLUICE_DROP", "base/drop_reasons.inc"),
           "PuntReason": ("SLUICE_PUNT", "base/punt_reasons.inc")}
METRICS = "telemetry/metrics.inc"


def code_outside(*excluded):
    return "\n".join(path.read_text(encoding="utf-8")
                     for path in files("userspace/**/*.h", "userspace/**/*.cc")
                     if path.parent.relative_to(USERSPACE).parts[0] not in excluded)


@pytest.mark.parametrize("enum", REASONS)
def test_every_reason_is_given_somewhere(enum):
    code = code_outside("base")
    unused = [name for name, _, _ in table(*REASONS[enum])
              if not re.search(rf"\b{enum}::{name}\b", code)]
    assert not unused


@pytest.mark.parametrize("enum", REASONS)
def test_reasons_have_one_label_and_a_text(enum):
    rows = table(*REASONS[enum])
    labels = [label for _, label, _ in rows]
    assert len(set(labels)) == len(labels)
    for name, label, text in rows:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", label), name
        assert re.fullmatch(r'".{8,}"', text), name


def test_every_metric_is_filled():
    code = code_outside("base")
    unused = [name for name, _, _ in table("SLUICE_METRIC", METRICS)
              if not re.search(rf"\bMetric::{name}\b", code)]
    assert not unused


def test_every_reason_of_xdp_is_given_by_the_program():
    rows = xdp_reasons()
    assert {action for _, action, _, _ in rows} <= {"redirect", "forward", "pass", "drop"}
    assert len({label for _, _, label, _ in rows}) == len(rows)
    programs = "\n".join(path.read_text(encoding="utf-8")
                         for path in files("bpf/*.c", "bpf/include/*.h")
                         if path.name != "abi.h")
    assert not [name for name, _, _, _ in rows
                if not re.search(rf"\bSLUICE_XDP_{name}\b", programs)]
