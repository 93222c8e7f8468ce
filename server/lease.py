"""A request's hold on the model that answers it."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from server.served import ServedModel

if TYPE_CHECKING:
    from server.model_store import ModelStore


class Lease:
    """`with store.lease() as model:`: from a request's first look at the model to its last."""

    __slots__ = ("_model", "_request_id", "_store", "_user_id", "_version")

    def __init__(self, store: ModelStore, user_id: str, request_id: str, version: str) -> None:
        self._store = store
        self._user_id = user_id
        self._request_id = request_id
        self._version = version

    def __enter__(self) -> ServedModel:
        self._model = self._store.acquire(self._user_id, self._request_id, self._version)
        return self._model

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._store.release(self._model)
