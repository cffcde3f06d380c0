"""--long: as many random packets as a night is worth; --seed N: the packets of an earlier run."""

import os

import pytest

from rig import Rig


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", default="SLUICE_DIFF_LONG" in os.environ)
    parser.addoption("--seed", type=int, default=int(os.environ.get("SLUICE_DIFF_SEED", "1")))


@pytest.fixture(scope="module")
def rig(request):
    """A pair of topologies for the tests of a file, which may name what it needs beyond the base:
    SYSCTLS (a dict), SETUP (ip(8) lines) and SLUICE (more of its configuration)."""
    module = request.module
    try:
        made = Rig(getattr(module, "SYSCTLS", None), getattr(module, "SETUP", ()),
                   getattr(module, "SLUICE", ""))
    except (OSError, RuntimeError) as error:
        pytest.exit(f"no topologies to test with: {error}", returncode=1)
    yield made
    finish(made)


@pytest.fixture
def rig_with():
    """rig_with(sysctls, setup): a pair of topologies for one test."""
    made = []

    def make(sysctls=None, setup=()):
        made.append(Rig(sysctls, setup))
        return made[-1]

    yield make
    for rig_made in made:
        finish(rig_made)


def finish(rig_made):
    status, said = rig_made.close()
    assert status == 0, f"Sluice ended with status {status}:\n{said}"
