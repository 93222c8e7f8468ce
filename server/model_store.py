"""The models in memory: the served one, leased to each request, and those that it took over from."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

from server.follower import Follower
from server.loader import Loader, free_memory, yield_to_others
from server.served import ServedModel, now
from server.settings import ServerSettings
from server.status import UnavailableError
from server.store_status import ModelState, ModelStatus, StoreStatus
from server.webhook import Webhook
from widedeep.errors import ConfigError, WideDeepError

logger = logging.getLogger(__name__)


class Lease:
    """`with store.lease() as model:`: from a request's first look at the model to its last."""

    __slots__ = ("_model", "_store")

    def __init__(self, store: ModelStore) -> None:
        self._store = store

    def __enter__(self) -> ServedModel:
        self._model = self._store.acquire()
        return self._model

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._store.release(self._model)


class ModelStore:
    """Holds the served model. Requests lease it, so that another can take its place under them.

    All of it belongs to the event loop's thread; what blocks runs in a thread of the loader.
    """

    def __init__(self, settings: ServerSettings, pinned: str = "", lock: str = "") -> None:
        """
        pinned  the version to begin with, in place of what the settings name
        lock    file by which those who load take turns; empty: nobody else does

        Raises  ConfigError: a models:/ URI of another form
        """
        self._settings = settings
        self._loader = Loader(settings, lock)
        self._thread = ThreadPoolExecutor(1, "loader", initializer=yield_to_others)
        self._follower = Follower(self, self._loader, self._thread, settings.poll_seconds, pinned)
        self._current: ServedModel | None = None
        self._retiring: list[ServedModel] = []
        self._webhook: Webhook | None = None

    async def start(self) -> ServedModel:
        """Find, load and warm up the model and serve it; then follow its alias.

        Raises  RegistryError, TrackingError, BundleError, DeviceError: there is nothing to serve
                ConfigError: the webhook's address cannot be had
        """
        if not self._loader.is_registered:
            loop = asyncio.get_running_loop()
            self.serve(await loop.run_in_executor(self._thread, self._loader.load_file))
        else:
            if self._settings.webhook_port and self._loader.alias:
                self._webhook = await Webhook.listening(self._settings, self._follower.wake)
            await self._follower.start()
        assert self._current is not None
        return self._current

    async def stop(self) -> None:
        """Follow no longer. What is loaded goes on answering those who hold it."""
        if self._webhook:
            await self._webhook.close()
        await self._follower.stop()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def reload(self) -> None:
        """Look at the registry now, and serve what it says.

        Raises  ConfigError: a file is served;  RegistryError, TrackingError, BundleError, DeviceError: it cannot be
                served, and what was is served on
        """
        await self._registered().look()

    async def pin(self, version: str) -> None:
        """Serve this version, and follow no alias until `unpin`.  Raises  as `reload`"""
        await self._registered().pin(version)

    async def unpin(self) -> None:
        """Follow again. If that cannot be served, the status says so.  Raises  ConfigError: a file is served"""
        follower = self._registered()
        follower.pinned = ""
        with contextlib.suppress(WideDeepError):  # logged, and in the status
            await follower.look()

    @property
    def pinned(self) -> str:
        """The version that it is pinned to, if it is."""
        return self._follower.pinned

    @property
    def is_loading(self) -> bool:
        """The loader's thread is at work, which cannot be interrupted."""
        return self._follower.is_busy

    def lease(self) -> Lease:
        """Raises  UnavailableError, on entry: nothing is loaded yet"""
        return Lease(self)

    def acquire(self) -> ServedModel:
        """The served model. It stays in memory until it is given back with `release`, once for each `acquire`.

        Raises  UnavailableError: nothing is loaded yet
        """
        model = self._current
        if model is None:
            raise UnavailableError("The server is loading its model. Try again in some seconds.")
        model.leases += 1
        return model

    def release(self, model: ServedModel) -> None:
        model.leases -= 1
        if not model.leases and model is not self._current:
            self._free(model)

    @property
    def current(self) -> ServedModel | None:
        return self._current

    def serve(self, model: ServedModel) -> None:
        """From now on requests get `model`. The one before lives until its last lease ends."""
        before, self._current = self._current, model
        model.since = now()
        logger.info("serving %s", model)
        if before is None:
            return
        before.since = now()
        self._retiring.append(before)
        if not before.leases:
            self._free(before)

    def status(self) -> StoreStatus:
        follower = self._follower
        models = [] if self._current is None else [_status(self._current, ModelState.SERVING)]
        others = [*(_status(model, ModelState.RETIRING) for model in self._retiring), *follower.models()]
        models += sorted(others, key=lambda model: model.since, reverse=True)
        return StoreStatus(models, follower.status() if self._loader.is_registered else None, follower.counts)

    def _registered(self) -> Follower:
        if not self._loader.is_registered:
            raise ConfigError(
                f"--model {self._settings.model} is a file, which has no versions to choose from. "
                "Start the server with models:/NAME@ALIAS."
            )
        return self._follower

    def _free(self, model: ServedModel) -> None:
        """Off the event loop: to take a large model apart holds up requests."""
        self._retiring.remove(model)
        threading.Thread(target=_take_apart, args=(model,), name="free").start()


def _take_apart(model: ServedModel) -> None:
    yield_to_others()
    del model.recommender  # frames of the last requests may still hold the rest
    free_memory()


def _status(model: ServedModel, state: ModelState) -> ModelStatus:
    return ModelStatus(model.name, model.version, model.alias, state, model.since, leases=model.leases)
