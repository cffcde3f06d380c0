"""--rulesets N: as many random rulesets; --seed S: of other seeds. SLUICE_DIFF_AGAINST=kernel
compares the kernel with itself."""

import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
for path in (os.path.dirname(HERE), HERE):
    if path not in sys.path:
        sys.path.insert(0, path)

from twins import Twins  # noqa: E402  pylint: disable=wrong-import-position


def pytest_addoption(parser):
    parser.addoption("--rulesets", type=int, default=int(os.environ.get("SLUICE_DIFF_RULESETS",
                                                                        "150")))
    try:
        parser.addoption("--seed", type=int, default=int(os.environ.get("SLUICE_DIFF_SEED", "1")))
    except ValueError:
        pass  # the folder above has it too, when both are run


def finish(made):
    status, said = made.close()
    assert status == 0, f"Sluice ended with status {status}:\n{said}"


@pytest.fixture(scope="module")
def twins(request):
    """Two routers for the tests of a file, which may name SYSCTLS (a dict) and SETUP (ip(8) lines)
    of its own, and CONFIG (YAML) and NAPI."""
    made = Twins(getattr(request.module, "SYSCTLS", None), getattr(request.module, "SETUP", ()),
                 config=getattr(request.module, "CONFIG", ""),
                 napi=getattr(request.module, "NAPI", False))
    yield made
    finish(made)


@pytest.fixture
def twins_with():
    """twins_with(sysctls, setup, config=YAML): two routers for one test."""
    made = []

    def make(sysctls=None, setup=(), **more):
        made.append(Twins(sysctls, setup, **more))
        return made[-1]

    yield make
    for one in made:
        finish(one)


@pytest.fixture(scope="module", params=["off", "auto"])
def chosen(request):
    """(two routers, whether XDP carries flows) for a file's choices of flow_offload beside "on"."""
    made = Twins(config=f"flow_offload: {request.param}\n", napi=True)
    yield made, request.param != "off"
    finish(made)
