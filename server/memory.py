"""What the process holds: by the C library's heap, by Python's garbage collector, and by models that are let go."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import traceback

M_ARENA_MAX = -8  # malloc.h of glibc


def keep_one_heap() -> None:
    """Have all threads take memory from one heap (glibc; nothing happens elsewhere). Before there are threads.

    glibc gives threads heaps of their own, of which it does not give back what is free at their ends: 10 to 40 MiB
    stayed after some loads of a model of 100 and went after others. An arena limit in the environment stands.
    """
    if sys.platform == "linux" and "MALLOC_ARENA_MAX" not in os.environ:
        set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has no such
        if set_option is not None:
            set_option(M_ARENA_MAX, 1)


def settle() -> None:
    """Take what is there now, which stays, from what the garbage collector goes through.

    That takes 0.1 s, in which all threads stand still, and would come again every few seconds under load.
    """
    gc.collect()
    gc.freeze()


def let_go(error: BaseException | None) -> None:
    """Clear the frames that an error came through: they hold the refused model until the collector comes by."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def free_memory() -> None:
    """Give what a model has left back to the device and to the system."""
    import torch  # not where the parent of workers takes this module

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc keeps what was freed; musl has no such
        if trim is not None:
            trim(0)
