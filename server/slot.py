"""What one target serves: the model of an alias, which follows it, or of a version or a file, which stays."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable
from concurrent.futures import Executor

from server.follower import Follower
from server.loader import Loader
from server.registry import Found
from server.served import ServedModel, now
from server.settings import ServerSettings
from server.store_status import ModelState, ModelStatus
from server.traffic import Target

logger = logging.getLogger(__name__)


class Slot:
    """Belongs to the event loop's thread; what blocks runs in the loader's."""

    def __init__(
        self,
        target: Target,
        settings: ServerSettings,
        loader: Loader,
        thread: Executor,
        loaded: Callable[[], list[ServedModel]],
        retire: Callable[[ServedModel], None],
        pinned: str = "",
    ) -> None:
        """
        loaded  the models of all slots: two of the same version share what is loaded
        retire  takes a model that is served no longer
        pinned  the version to begin with, in place of what the target means
        """
        self.target = target
        self.current: ServedModel | None = None
        self.since = now()
        self._loader = loader
        self._thread = thread
        self._loaded = loaded
        self._retire = retire
        self.follower = Follower(self, self._loader, thread, settings.poll_seconds, pinned)

    async def start(self) -> None:
        """Find, load and warm up the model.

        Raises  RegistryError, TrackingError, BundleError, DeviceError: there is nothing to serve
        """
        if self.target.is_registered:
            await self.follower.start()
        else:
            loop = asyncio.get_running_loop()
            self.serve(await loop.run_in_executor(self._thread, self._loader.load_file))

    def follow(self) -> None:
        """From now on, where the target is an alias: have what it moves to, too."""
        if self.target.alias:
            self.follower.follow()

    async def close(self) -> None:
        """Follow no longer, and serve no longer. Who holds the model has it until the end."""
        await self.follower.stop()
        if self.current is not None:
            before, self.current = self.current, None
            self._retire(before)

    def apply(self, settings: ServerSettings) -> None:
        self._loader.settings = settings
        self.follower.poll_every(settings.poll_seconds)

    def serve(self, model: ServedModel) -> None:
        """From now on requests get `model`. The one before lives until its last lease ends."""
        before, self.current = self.current, model
        model.since = now()
        logger.info("serving %s", model)
        if before is not None:
            self._retire(before)

    def twin(self, found: Found) -> ServedModel | None:
        """This version as this slot would serve it, if another has it loaded."""
        for model in self._loaded():
            if found.digest and (model.version, model.digest) == (found.version, found.digest):
                return dataclasses.replace(model, alias=found.alias, from_cache=False, leases=0, since=now())
        return None

    def status(self, share: float, is_shadow: bool) -> ModelStatus:
        """Of the model that answers or, where there is none, of its absence."""
        name, alias = self.target.name, self.target.alias
        if self.current is None:
            refused = next((model.reason for model in self.follower.models() if model.reason), "")
            why = self.follower.status().error or refused
            return ModelStatus(name, "", alias, ModelState.ABSENT, self.since, why, 0, share, is_shadow)
        model = self.current
        state = ModelState.SERVING if share or not is_shadow else ModelState.SHADOW
        return ModelStatus(
            name, model.version, model.alias, state, model.since, "", model.leases, share, is_shadow
        )
