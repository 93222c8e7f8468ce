"""Follows the registry: looks where the alias points, and has what it points to loaded and served."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Protocol, TypeVar

from server.backoff import Backoff, Pause
from server.loader import Loader
from server.memory import free_memory, let_go
from server.registry import Found
from server.served import ServedModel, now
from server.store_status import Counts, ModelState, ModelStatus, RegistryStatus
from widedeep.errors import RegistryError, TrackingError, WideDeepError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

REFUSED_WAIT = 600.0  # seconds until a refused version is tried again, if nothing about it changes
ANSWER_WAIT = 30.0  # seconds without an answer after which the registry counts as away
REFUSED_KEPT = 5  # refusals that are remembered for the status


class Holder(Protocol):
    """Where loaded models go."""

    @property
    def current(self) -> ServedModel | None: ...

    def serve(self, model: ServedModel) -> None: ...

    def twin(self, found: Found) -> ServedModel | None:
        """This very version, if it is in memory for another alias."""


class Follower:
    """Finds the first model of a target, then follows its alias or keeps to a pin. To be used from one event loop."""

    def __init__(
        self, holder: Holder, loader: Loader, thread: Executor, poll_seconds: float, pinned: str = ""
    ) -> None:
        """
        thread  a single one, in which everything that blocks is done
        pinned  the version to begin with, in place of what the loader was told
        """
        self.pinned = pinned
        self.counts = Counts()
        self._holder = holder
        self._loader = loader
        self._thread = thread
        self._poll = poll_seconds
        self._woken = asyncio.Event()
        self._turn = asyncio.Lock()  # one look or pin after the other
        self._task: asyncio.Task[None] | None = None
        self._running = False
        self._answered_at: float | None = None
        self._lookup_error = ""  # the registry is away
        self._files_error = ""  # the files of the version are away
        self._absence = ""  # the registry has no such alias
        self._lookups = Backoff(poll_seconds)
        self._downloads = Backoff(poll_seconds)
        self._pause: Pause | None = None
        self._loading: ModelStatus | None = None
        self._refused: list[ModelStatus] = []

    async def start(self) -> None:
        """Serve the version that is asked for or, if it cannot be had, the last good one in the cache.

        Raises  RegistryError, TrackingError, BundleError, DeviceError: neither can be served
        """
        async with self._turn:
            try:
                model = await self._load(await self._find())
            except RegistryError:
                raise
            except WideDeepError as error:
                cached = await self._last_good()
                if cached is None:
                    raise
                logger.error("%s\n%s from the cache is served in its place", error, cached)
                model = cached
            self._holder.serve(model)

    def follow(self) -> None:
        """Look again and again, from now on."""
        self._task = asyncio.create_task(self._follow())

    def poll_every(self, seconds: float) -> None:
        if seconds != self._poll:
            self._poll = seconds
            self._lookups, self._downloads = Backoff(seconds), Backoff(seconds)
            self.wake()

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.wait({self._task})

    def wake(self) -> None:
        """Look now."""
        self._woken.set()

    async def look(self) -> None:
        """Look now, also at what was refused before, and serve it.

        Raises  RegistryError, TrackingError, BundleError, DeviceError: it cannot be served; what was is served on
        """
        async with self._turn:
            self._pause = None
            found = await self._find()
            if not self._is_served(found):
                self._take(await self._load(found))

    async def pin(self, version: str) -> None:
        """Serve this version and follow no alias, until `pinned` is empty again.

        Raises  as `look`; all is as before then
        """
        async with self._turn:
            found: Found = await self._in_thread(self._loader.find, version)
            if not self._is_served(found):
                pause = self._pause
                try:
                    self._take(await self._load(found))
                finally:
                    self._pause = pause  # that of the alias, which this version is not
            self.pinned = version
            logger.info("pinned to %s", found.uri)

    @property
    def is_busy(self) -> bool:
        return self._running

    def status(self) -> RegistryStatus:
        current = self._holder.current
        return RegistryStatus(
            following=bool(self._loader.target.alias) and not self.pinned,
            reachable=not (self._lookup_error or self._files_error),
            error=self._lookup_error or self._files_error or self._absence,
            seconds_since_answer=-1.0 if self._answered_at is None else time.monotonic() - self._answered_at,
            from_cache=current is not None and current.from_cache,
        )

    def models(self) -> list[ModelStatus]:
        """What is being loaded, and what was refused last."""
        return [*([self._loading] if self._loading else []), *self._refused]

    async def _follow(self) -> None:
        wait = self._poll
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), wait)
            self._woken.clear()
            try:
                async with self._turn:
                    wait = await self._look()
            except Exception:
                logger.exception("the alias could not be followed this time")
                wait = self._lookups.next()

    async def _look(self) -> float:
        """Look once, and load what is new. Seconds until the next look."""
        try:
            found = await self._find()
        except TrackingError:
            return self._lookups.next()
        except RegistryError:
            return self._poll
        if self._is_served(found):
            self._pause, self._files_error = None, ""
            return self._poll
        if self._pause and self._pause.found != found:
            self._pause = None
            self._downloads.reset()
        if self._pause and time.monotonic() < self._pause.until:
            return self._poll
        try:
            model = await self._load(found)
        except TrackingError:
            self._pause = Pause(found, time.monotonic() + self._downloads.next())
            return self._poll
        except Exception:
            return self._poll
        if await self._is_back():
            logger.info("%s is not served: the alias has moved back meanwhile", model)
            return self._poll
        self._take(model)
        return 0.0  # the alias may have moved on while this one was loaded

    def _take(self, model: ServedModel) -> None:
        if self._holder.current is not None:
            self.counts.reloads += 1  # before other threads can see the model
        self._holder.serve(model)
        self._refused = [refused for refused in self._refused if refused.version != model.version]

    async def _find(self) -> Found:
        """Raises  TrackingError, RegistryError"""
        overdue = asyncio.get_running_loop().call_later(ANSWER_WAIT, self._overdue)
        try:
            found: Found = await self._in_thread(self._loader.find, self.pinned)
        except TrackingError as error:
            self.counts.failures += 1
            if not self._lookup_error:
                logger.warning("%s What is loaded is served on.", error)
            self._lookup_error = str(error)
            raise
        except RegistryError as error:
            self._answered()
            if not self._absence:
                logger.warning("%s What is loaded is served on.", error)
            self._absence = str(error)
            raise
        finally:
            overdue.cancel()
        self._answered()
        self._absence = ""
        return found

    def _overdue(self) -> None:
        """A thread that waits for an answer cannot be told to stop: say so, and wait on."""
        self._lookup_error = f"The registry has not answered for {ANSWER_WAIT:g} s."
        logger.warning("%s What is loaded is served on.", self._lookup_error)

    async def _load(self, found: Found) -> ServedModel:
        """Raises  TrackingError: its files are away; anything else: it was refused"""
        self._loading = ModelStatus(found.name, found.version, found.alias, ModelState.LOADING, now())
        try:
            model: ServedModel = await self._in_thread(self._loader.load, found, self._holder.twin(found))
        except TrackingError as error:
            self.counts.failures += 1
            if not self._files_error:
                logger.warning("%s What is loaded is served on.", error)
            self._files_error = str(error)
            raise
        except Exception as error:
            self._refuse(found, error)
            let_go(error)
            await self._in_thread(free_memory)
            raise
        finally:
            self._loading = None
        self._files_error = ""
        return model

    def _refuse(self, found: Found, error: Exception) -> None:
        expected = isinstance(error, WideDeepError)
        logger.error("%s is refused: %s", found.uri, error, exc_info=None if expected else error)
        self.counts.refused += 1
        self._files_error = ""
        self._pause = Pause(found, time.monotonic() + REFUSED_WAIT)
        reason = str(error) if expected else repr(error)
        status = ModelStatus(found.name, found.version, found.alias, ModelState.REFUSED, now(), reason)
        others = [refused for refused in self._refused if refused.version != found.version]
        self._refused = [status, *others][:REFUSED_KEPT]

    async def _last_good(self) -> ServedModel | None:
        try:
            model: ServedModel | None = await self._in_thread(self._loader.load_cached)
        except WideDeepError as error:
            logger.error("nor can the cached version be served: %s", error)
            return None
        return model

    async def _is_back(self) -> bool:
        """The alias is on the served version again."""
        try:
            return self._is_served(await self._find())
        except (TrackingError, RegistryError):
            return False

    def _is_served(self, found: Found) -> bool:
        current = self._holder.current
        if current is None or current.version != found.version:
            return False
        if found.digest and found.digest != current.digest:
            return False  # a model of the same name and number was registered anew
        current.from_cache, current.alias = False, found.alias  # a pin has none
        return True

    def _answered(self) -> None:
        if self._lookup_error:
            logger.info("the registry answers again")
        self._lookup_error = ""
        self._answered_at = time.monotonic()
        self._lookups.reset()

    async def _in_thread(self, function: Callable[..., Result], *arguments: object) -> Result:
        self._running = True
        job = self._thread.submit(function, *arguments)
        job.add_done_callback(self._done)
        return await asyncio.wrap_future(job)

    def _done(self, _: object) -> None:
        self._running = False
