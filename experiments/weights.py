"""The weights of an evaluated model in one word: equal for two trainings that came out the same, bit for bit."""

from __future__ import annotations

import hashlib

import torch

from widedeep.recommender import Recommender

WEIGHTS_TAG = "weights_sha256"  # of a run: those of the model that its test figures are of


def weights_digest(model: Recommender) -> str:
    """SHA-256 of the network's tensors by name, with their types and shapes."""
    state = hashlib.sha256()
    for name, value in sorted(model.net.state_dict().items()):
        state.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        state.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()
