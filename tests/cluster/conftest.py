"""The cluster that the tests in this folder share; each restores what it kills."""

from collections.abc import Iterator

import pytest

from tests.support.cluster import Cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Three nodes, of which a test may kill one that it restarts."""
    with Cluster() as cluster:
        yield cluster
