"""Several processes train one model, each on its part of every batch; torchrun starts them.

    torchrun --nproc-per-node 2 -m experiments train --dataset ml-latest-small --checkpoint model.ckpt

Or in a script of one's own that torchrun starts, where all processes come to the same model:

    with distributed.join():
        recommender, result = Recommender.fit(config, data, parts.train, parts.validation)

All processes hold all weights and go through the same random numbers, so the loss curve is that of one process
with the same batch size, up to the order of additions. What is solved and not trained, and what is judged on the
validation part, the first process does alone, with the threads of all that wait for it on its machine.
"""

from __future__ import annotations

import importlib
import io
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import Any, ClassVar, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from widedeep.device import resolve_device
from widedeep.errors import ConfigError, DeviceError, TrainingError
from widedeep.launch import Member, has_ended, launched, store_of

Value = TypeVar("Value")

STEP_TIMEOUT = timedelta(minutes=10)  # for a process that runs and does not come to the others' step
WAITING_TIMEOUT = timedelta(days=1)  # for what the first does alone; that it has died is seen at once
SEEN_WITHIN = 2.0  # seconds from a broken connection until a process that has ended is seen to have


@dataclass(frozen=True)
class Part:
    """The rows start:stop of the `total` of a batch: those that one process takes."""

    start: int
    stop: int
    total: int

    @property
    def rows(self) -> slice:
        return slice(self.start, self.stop)


class World:
    """The processes that train together, as one of them sees them; by itself it is alone."""

    _joined: ClassVar[World]

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        """rank  of this process, 0 for the first;  size  how many there are"""
        self.rank = rank
        self.size = size
        self._members: list[Member] = []  # by rank
        self._waiting: Any = None

    @staticmethod
    def current() -> World:
        """The one that was joined."""
        return World._joined

    def part(self, total: int) -> Part:
        """This process's rows of a batch of `total`; parts differ by one row at most."""
        return Part(total * self.rank // self.size, total * (self.rank + 1) // self.size, total)

    def first(self, work: Callable[[], Value]) -> Value:
        """What `work` returns in the first process, in all of them; the others wait.

        work    to return plain Python and tensors; others get the tensors on the CPU
        Raises  TrainingError: a process is gone
        """
        if self.size == 1:
            return work()
        if self.rank:
            return cast(Value, self._received())
        with self.all_threads():
            value = work()
        stream = io.BytesIO()
        torch.save(value, stream)
        content = torch.frombuffer(stream.getbuffer(), dtype=torch.uint8)
        with self.answering():
            dist.broadcast(torch.tensor([len(content)]), 0, group=self._waiting)
            dist.broadcast(content, 0, group=self._waiting)
        return value

    def _received(self) -> Any:
        length = torch.zeros(1, dtype=torch.int64)
        with self.answering():
            dist.broadcast(length, 0, group=self._waiting)
            content = torch.empty(int(length), dtype=torch.uint8)
            dist.broadcast(content, 0, group=self._waiting)
        return torch.load(io.BytesIO(content.numpy().data), map_location="cpu", weights_only=True)

    def of_first(self, value: Tensor) -> Tensor:
        """The first process's `value`, on the device of this one's."""
        return self.first(value.detach).to(value.device)

    @torch.no_grad()
    def share(self, module: nn.Module) -> None:
        """Give all processes the parameters and buffers of the first one's `module`; buffers may differ in shape."""
        if self.size == 1:
            return
        for owner in module.modules():
            for parameter in owner.parameters(recurse=False):
                parameter.copy_(self.of_first(parameter))
            for name, buffer in list(owner.named_buffers(recurse=False)):
                setattr(owner, name, self.of_first(buffer))

    def sum(self, value: Tensor) -> Tensor:
        """The sum over the processes, in place, the same bits in all of them."""
        if self.size > 1:
            with self.answering():
                dist.all_reduce(value)
        return value

    def gather(self, value: Tensor) -> Tensor:
        """(size, *value.shape): the values of all processes, which have one shape."""
        found = value.new_empty(self.size * value.numel())
        with self.answering():
            dist.all_gather_single(found, value.reshape(-1))
        return found.view(self.size, *value.shape)

    @contextmanager
    def all_threads(self) -> Iterator[None]:
        """For what this process does while the others on its machine wait; OMP_WAIT_POLICY has to be passive."""
        own = torch.get_num_threads()
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        # threads that spin while they wait take ten times as long where anything else is at work
        sleeping = os.environ.get("OMP_WAIT_POLICY", "").lower() == "passive"
        together = own * int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if sleeping and self.size > 1 else own
        torch.set_num_threads(max(own, min(cores, together)))
        try:
            yield
        finally:
            torch.set_num_threads(own)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Turns what torch.distributed raises into TrainingError."""
        try:
            yield
        except RuntimeError as error:
            raise self.lost(str(error)) from error

    def gone(self) -> list[int]:
        """Ranks of the processes of this machine that have ended; none leaves before all are done."""
        return [
            rank
            for rank, member in enumerate(self._members)
            if rank != self.rank and member.is_beside(self._members[self.rank]) and has_ended(member.process)
        ]

    def lost(self, reason: str) -> TrainingError:
        """The error for a process that does not answer. SIGTERM, which torchrun sends now, is ignored from here on:
        what is under way after the error has half a minute for its end."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        deadline = time.monotonic() + SEEN_WITHIN
        while not (gone := self.gone()) and time.monotonic() < deadline:
            time.sleep(0.05)
        who = " and ".join(f"{rank} (process id {self._members[rank].process})" for rank in gone)
        what = (
            f"Rank {who} of the {self.size} processes has ended before the training did."
            if gone
            else f"One of the {self.size} processes no longer answers ({_first_line(reason)}).{self._elsewhere()}"
        )
        return TrainingError(
            f"{what} Look for its own message; one that the system killed, as when memory is short, leaves none. "
            "With --checkpoint FILE the training goes on where it was: start it again with --resume, or let "
            "torchrun --max-restarts N do so."
        )

    def _elsewhere(self) -> str:
        """A sentence on the machines whose processes are not seen from here; empty if there is none."""
        own = self._members[self.rank] if self._members else None
        others = {member.machine for member in self._members if own and not member.is_beside(own)}
        if own is None or not others:
            return ""
        return f" None on this machine ({own.machine}) has ended: it is one on {', '.join(sorted(others))}."


World._joined = World()


@contextmanager
def join(device: str = "auto", timeout: timedelta = STEP_TIMEOUT) -> Iterator[World]:
    """Be one of the processes that torchrun has started, until the end of the block; alone where it has not.

    device   as in TrainConfig: on CUDA each process takes the device of its rank on the machine
    timeout  how long the others wait for a process that is there and does not come
    Raises   ConfigError, DeviceError: not for several processes; TrainingError: not all have come
    """
    rank, size = launched()
    if size == 1:
        yield World.current()
        return
    cuda = _take_device(device)
    # it holds for ever the group that it finds when it is imported, as by the first optimizer: now it finds none
    importlib.import_module("torch.distributed.nn.functional")
    world = World(rank, size)
    with world.answering():
        dist.init_process_group(
            "nccl" if cuda else "gloo",
            store=store_of(rank, size, timeout),
            rank=rank,
            world_size=size,
            timeout=timeout,
        )
        world._waiting = dist.new_group(backend="gloo", timeout=WAITING_TIMEOUT)
        own = torch.tensor(Member.own().to_list())
        members = [torch.empty_like(own) for _ in range(size)]
        dist.all_gather(members, own, group=world._waiting)
    world._members = [Member.from_list(member.tolist()) for member in members]
    World._joined = world
    try:
        with _sigterm_of_torchrun(world):
            yield world
            world.first(lambda: None)  # nobody leaves before the first has done what it does alone
    finally:
        World._joined = World()
    # gloo's threads end with the last who has their group, and one that frees a tensor while the interpreter is taken
    # down aborts the process
    world._waiting = None
    dist.destroy_process_group()


@contextmanager
def alone() -> Iterator[None]:
    """Be one process for the length of the block, as for work that `World.first` does."""
    joined = World._joined
    World._joined = World()
    try:
        yield
    finally:
        World._joined = joined


def _take_device(name: str) -> bool:
    """Whether it is CUDA, whose device of this rank is current then."""
    device = resolve_device(name)
    if device.type == "mps":
        raise DeviceError("Several processes cannot train on device=mps. Use --device cpu.")
    if device.type == "cpu":
        return False
    if device.index is not None:
        raise ConfigError(
            f"device={name} is one device for all processes. Use --device cuda: each takes its own."
        )
    local, devices = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local >= devices:
        raise DeviceError(
            f"There are more processes on this machine than its {devices} CUDA devices. "
            f"Use torchrun --nproc-per-node {devices}, or --device cpu."
        )
    torch.cuda.set_device(local)
    return True


@contextmanager
def _sigterm_of_torchrun(world: World) -> Iterator[None]:
    """By SIGTERM torchrun ends the others when one has died: then the error says so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ended(number: int, frame: FrameType | None) -> None:
        if world.gone():
            raise world.lost("")
        if callable(before):
            before(number, frame)
        else:
            signal.signal(number, before or signal.SIG_DFL)
            os.kill(os.getpid(), number)

    before = signal.signal(signal.SIGTERM, ended)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is ended:
            signal.signal(signal.SIGTERM, before)


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0][:200] if text.strip() else "no reason given"
