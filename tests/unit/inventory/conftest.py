from collections.abc import Iterator

import pytest

from tests.unit.inventory.inventory_oracle import Oracle


@pytest.fixture(scope="session")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Oracle]:
    pytest.importorskip("ansible", reason="ansible-core is the oracle of these tests: pip install -e '.[dev]'")
    oracle = Oracle(tmp_path_factory.mktemp("ansible"))
    yield oracle
    oracle.close()
