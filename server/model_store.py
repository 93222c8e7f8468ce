"""The models in memory: those that are served, leased to each request, and those that they took over from."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

from server.cache import CacheCounts
from server.follower import Follower
from server.lease import Lease
from server.loader import Loader, yield_to_others
from server.memory import free_memory
from server.served import ServedModel, now
from server.settings import ServerSettings
from server.slot import Slot
from server.status import UnavailableError, VersionNotServedError
from server.store_status import Counts, ModelState, ModelStatus, RegistryStatus, StoreStatus
from server.traffic import Target, Traffic
from server.webhook import Webhook
from widedeep.errors import ConfigError, WideDeepError

logger = logging.getLogger(__name__)


class ModelStore:
    """Holds a slot for each target. Requests lease the slots' models, so that others can take their place under them.

    All of it belongs to the event loop's thread; what blocks runs in a thread of the loader, one thing at a time.
    """

    def __init__(self, settings: ServerSettings, pinned: str = "", lock: str = "") -> None:
        """
        pinned  the version that has the largest share to begin with, in place of what the settings name
        lock    file by which those who load take turns; empty: nobody else does
        """
        self._begin_pinned = pinned
        self._lock = lock
        self._settings = settings
        self._traffic = Traffic.of(settings.model, settings.shadow)
        self._thread = ThreadPoolExecutor(1, "loader", initializer=yield_to_others)
        self._slots: dict[Target, Slot] = {}
        self._main: Slot | None = None  # None until everything has been started
        self._retiring: list[ServedModel] = []
        self._gone = Counts()  # of slots that are closed
        self._cache_counts = CacheCounts()
        self._webhook: Webhook | None = None
        self._stopped = False

    async def start(self) -> ServedModel:
        """Find, load and warm up the models and serve them; then follow their aliases.

        Raises  RegistryError, TrackingError, BundleError, DeviceError: there is no model for the largest share
                ConfigError: the webhook's address cannot be had
        """
        if self._settings.webhook_port and self._traffic.main.is_registered:
            self._webhook = await Webhook.listening(self._settings, self._wake)
        await self.apply(self._settings)
        assert self._main is not None
        assert self._main.current is not None
        return self._main.current

    async def stop(self) -> None:
        """Follow no longer. What is loaded goes on answering those who hold it."""
        if self._webhook:
            await self._webhook.close()
        self._stopped = True
        for slot in list(self._slots.values()):
            await slot.follower.stop()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def reload(self) -> None:
        """Look at the registry now, and serve what it says.

        Raises  ConfigError: a file is served;  RegistryError, TrackingError, BundleError, DeviceError: it cannot be
                served, and what was is served on
        """
        self._registered()
        failures = []
        for slot in self._slots.values():
            try:
                await slot.follower.look()
            except WideDeepError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    async def pin(self, version: str) -> None:
        """Have this version in place of what the largest share's alias means, until `unpin`.  Raises  as `reload`"""
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
        return self._main.follower.pinned if self._main else self._begin_pinned

    async def apply(self, settings: ServerSettings) -> None:
        """Take on other settings: first load what is new of the traffic, then let it answer, all at once.

        Raises  what `start` raises; ConfigError: the largest share has no model;  UnavailableError: it has stopped.
                Nothing has changed then
        """
        traffic = Traffic.of(settings.model, settings.shadow)
        new = [target for target in traffic.targets if target not in self._slots]
        try:
            for target in new:
                await self._open(target, settings, required=target == traffic.main)
            if self._slots[traffic.main].current is None:
                raise ConfigError(
                    f"{traffic.main} cannot have the largest share: it has no model yet. See ListModels for why."
                )
        except BaseException:
            for target in new:
                if target in self._slots:
                    await self._close(target)
            raise
        self._traffic, self._main = traffic, self._slots[traffic.main]
        for target in [target for target in self._slots if target not in traffic.targets]:
            await self._close(target)
        self._slots = {target: self._slots[target] for target in traffic.targets}
        for slot in self._slots.values():
            slot.apply(settings)

    @property
    def is_loading(self) -> bool:
        """The loader's thread is at work, which cannot be interrupted."""
        return any(slot.follower.is_busy for slot in self._slots.values())

    def lease(self, user_id: str = "", request_id: str = "", version: str = "") -> Lease:
        """Raises  what `acquire` raises, on entry"""
        return Lease(self, user_id, request_id, version)

    def acquire(self, user_id: str = "", request_id: str = "", version: str = "") -> ServedModel:
        """The model that answers a request. It stays in memory until it is given back with `release`, once for each
        `acquire`.

        version  the request's wish: the number of a version that is held now; empty: by the shares
        Raises   UnavailableError: nothing is loaded yet;  VersionNotServedError
        """
        model = self.main()
        if version:
            model = self._held(version)
        elif len(self._traffic.shares) > 1:
            model = self._slots[self._traffic.target_of(user_id, request_id)].current or model
        model.leases += 1
        return model

    def acquire_shadow(self, answered: ServedModel) -> ServedModel | None:
        """As `acquire`, the model to compare with, if there is one and `answered` is what it is compared to."""
        if self._traffic.shadow is None or self._main is None or answered is not self._main.current:
            return None
        model = self._slots[self._traffic.shadow].current
        if model is not None:
            model.leases += 1
        return model

    def release(self, model: ServedModel) -> None:
        model.leases -= 1
        if not model.leases and model in self._retiring:
            self._free(model)

    @property
    def current(self) -> ServedModel | None:
        """The model with the largest share."""
        return self._main.current if self._main else None

    def main(self) -> ServedModel:
        """As `current`.  Raises  UnavailableError: nothing is loaded yet"""
        model = self._main.current if self._main else None
        if model is None:
            raise UnavailableError("The server is loading its model. Try again in some seconds.")
        return model

    def status(self) -> StoreStatus:
        traffic = self._traffic
        models, others = [], [_status(model) for model in self._retiring]
        for target, slot in self._slots.items():
            others += slot.follower.models()
            if slot.current or self._main:  # else it is only being loaded
                models.append(slot.status(traffic.shares.get(target, 0.0), target == traffic.shadow))
        models += sorted(others, key=lambda model: model.since, reverse=True)
        return StoreStatus(models, self._registry(), self._counts(), self._cache_counts)

    def _registry(self) -> RegistryStatus | None:
        """Of the largest share, with what is wrong of any."""
        if not self._traffic.main.is_registered or not self._slots:
            return None
        first, *others = (slot.follower.status() for slot in self._slots.values())
        error = next((status.error for status in (first, *others) if status.error), "")
        reachable = all(status.reachable for status in (first, *others))
        return dataclasses.replace(first, reachable=reachable, error=error)

    def _counts(self) -> Counts:
        """Of all slots, those that are gone included."""
        counts = [self._gone, *(slot.follower.counts for slot in self._slots.values())]
        return Counts(*(sum(column) for column in zip(*map(dataclasses.astuple, counts), strict=True)))

    def _registered(self) -> Follower:
        """Of the largest share.  Raises  ConfigError: it is a file;  UnavailableError: nothing is loaded yet"""
        if not self._traffic.main.is_registered:
            raise ConfigError(
                f"--model {self._settings.model} is a file, which has no versions to choose from. "
                "Start the server with models:/NAME@ALIAS."
            )
        self.main()
        assert self._main is not None
        return self._main.follower

    def _held(self, version: str) -> ServedModel:
        """Raises  VersionNotServedError"""
        loaded = self._loaded()
        found = next((model for model in loaded if model.version == version), None)
        if found is None:
            raise VersionNotServedError(version, ", ".join(dict.fromkeys(model.version for model in loaded)))
        return found

    def _loaded(self) -> list[ServedModel]:
        return [slot.current for slot in self._slots.values() if slot.current]

    async def _open(self, target: Target, settings: ServerSettings, required: bool) -> None:
        """Load what a target means, and follow it.

        Raises  what `start` raises, if it is required;  UnavailableError: stopped meanwhile
        """
        pinned = self._begin_pinned if self._main is None and required else ""
        loader = Loader(settings, target, self._cache_counts, self._lock)
        slot = Slot(target, settings, loader, self._thread, self._loaded, self._retire, pinned)
        self._slots[target] = slot
        try:
            await slot.start()
        except Exception as error:
            if required:
                raise
            logger.error("%s has no model yet, so the largest share answers in its place: %s", target, error)
        if self._stopped:
            raise UnavailableError("The server is stopping.")
        slot.follow()

    async def _close(self, target: Target) -> None:
        slot = self._slots.pop(target)
        await slot.close()
        gone, counts = self._gone, slot.follower.counts
        gone.reloads += counts.reloads
        gone.refused += counts.refused
        gone.failures += counts.failures

    def _wake(self) -> None:
        for slot in self._slots.values():
            slot.follower.wake()

    def _retire(self, model: ServedModel) -> None:
        """Let go of a model that is served no longer, as soon as its last lease ends."""
        model.since = now()
        self._retiring.append(model)
        if not model.leases:
            self._free(model)

    def _free(self, model: ServedModel) -> None:
        """Off the event loop: to take a large model apart holds up requests."""
        self._retiring.remove(model)
        threading.Thread(target=_take_apart, args=(model,), name="free").start()


def _take_apart(model: ServedModel) -> None:
    yield_to_others()
    del model.recommender  # frames of the last requests may still hold the rest
    free_memory()


def _status(model: ServedModel) -> ModelStatus:
    state = ModelState.RETIRING
    return ModelStatus(model.name, model.version, model.alias, state, model.since, leases=model.leases)
