"""Stores for tests of jobs. A test module takes it in with `pytest_plugins`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from experiment_runs import empty_store, in_store, make_template
from mlflow.tracking import MlflowClient


@pytest.fixture(scope="session")
def store_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_template(tmp_path_factory.mktemp("template"))


@pytest.fixture
def store(store_template: Path, tmp_path: Path) -> Iterator[MlflowClient]:
    """An empty store in the working directory of this test."""
    with in_store(empty_store(store_template, tmp_path)) as client:
        yield client


@pytest.fixture(scope="module")
def shared_store(store_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowClient]:
    """One store for the tests of a module, which build on one another's versions."""
    with in_store(empty_store(store_template, tmp_path_factory.mktemp("store"))) as client:
        yield client
