"""For all unit tests: none knows what another one has taught the process."""

import pytest

from korch.resources import kinds


@pytest.fixture(autouse=True)
def _no_custom_kinds() -> None:
    """Custom kinds are known to the whole process; each test begins without those of the tests before."""
    kinds.keep_only(())
