"""What the files share whose tests have one router: each of them has a fixture of its module's,
router(), that yields a Rig, the Sluice that runs there, and whatever else it likes."""

import pytest


@pytest.fixture
def rig(router):
    return router[0]


@pytest.fixture
def sluice(router):
    """After each test every packet must be accounted for. What else must hold then, a file says in
    a fixture sluice(sluice) of its own."""
    yield router[1]
    router[1].check_accounts()
