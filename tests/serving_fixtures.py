"""One server for all tests that only ask it something. A test module takes it in with `pytest_plugins`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import Running, running, save_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="session")
def server(bundle: Path) -> Iterator[Running]:
    with running(bundle) as started:
        yield started


@pytest.fixture(scope="session")
def stub(server: Running) -> Iterator[Any]:
    with server.stub() as found:
        yield found
