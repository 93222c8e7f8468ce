"""Which device and which precision: found, or as asked for."""

from __future__ import annotations

import contextlib

import torch

from widedeep.errors import ConfigError, DeviceError


def resolve_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one, else MPS, else the CPU.

    Raises  DeviceError: the named device is not usable here
    """
    usable = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if usable[kind]))
    kind, _, number = name.partition(":")
    if kind not in usable or (number and not number.isdecimal()):
        raise ConfigError(f"device must be auto, cpu, cuda, cuda:N or mps; got {name!r}.")
    if not usable[kind] or (kind == "cuda" and number and int(number) >= torch.cuda.device_count()):
        there = ", ".join(kind for kind, there in usable.items() if there)
        reason = (
            " This torch is built without CUDA."
            if kind == "cuda" and torch.version.cuda is None
            else f" torch.cuda.device_count() is {torch.cuda.device_count()}."
            if kind == "cuda"
            else ""
        )
        raise DeviceError(f"device={name} is not usable here (usable: {there}).{reason} Use --device auto.")
    return torch.device(name)


def resolve_precision(name: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 on a CUDA device that has it, else float32."""
    if name == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager[object]:
    """Mixed precision; nothing at all for float32."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)
