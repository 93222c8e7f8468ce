"""What torchrun tells the processes that it has started, and where they find one another."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import timedelta

from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

NAME_BYTES = 64  # of a machine; Linux allows no more


@dataclass(frozen=True)
class Member:
    """One of the processes, as the others have to know it.

    machine  its name, which another machine may have, too
    node     torchrun's number of the machine; 0 without it
    process  its id, on its machine
    """

    machine: str
    node: int
    process: int

    @classmethod
    def own(cls) -> Member:
        return cls(socket.gethostname(), int(os.environ.get("GROUP_RANK", "0")), os.getpid())

    def is_beside(self, other: Member) -> bool:
        """Whether it can be seen from the other one if it has ended."""
        return (self.machine, self.node) == (other.machine, other.node)

    def to_list(self) -> list[int]:
        """(2 + NAME_BYTES) numbers, to send."""
        return [self.node, self.process, *self.machine.encode()[:NAME_BYTES].ljust(NAME_BYTES, b"\0")]

    @classmethod
    def from_list(cls, values: list[int]) -> Member:
        return cls(bytes(values[2:]).rstrip(b"\0").decode(errors="replace"), values[0], values[1])


def launched() -> tuple[int, int]:
    """rank and number of processes, as torchrun says; 0 and 1 without it."""
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys():
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def restarts() -> int:
    """How often torchrun has started the processes again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def store_of(rank: int, size: int, timeout: timedelta) -> Store:
    """Where the processes find one another.

    torchrun keeps one for all its restarts, with the addresses of the processes before in it, which the new ones may
    take for each other's. So each restart has names of its own. On several machines the counts of restarts differ,
    and all have the same names.
    """
    kept = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(address, port, size, is_master=rank == 0 and not kept, timeout=timeout)
    count = restarts() if os.environ.get("GROUP_WORLD_SIZE", "1") == "1" else 0
    return PrefixStore(f"widedeep.{count}", store)


def has_ended(process: int) -> bool:
    """Whether the process of that id, on this machine, is no more."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    try:
        with open(f"/proc/{process}/stat") as file:  # one that ended is a zombie until its parent has seen it
            return file.read().rpartition(")")[2].split()[0] in ("Z", "X")
    except OSError:
        return False
