"""The bundle: a whole Recommender in one .pth of tensors and plain Python.

It loads with torch.load(weights_only=True), so nothing in it can run code, and it needs no data set. Its keys:

    format, version   "widedeep.bundle", 2
    config, chosen    the recipe: settings, and what validation decided
    about             data set, digest, metrics, run: plain facts for people
    processor         ids, titles, genres, years, names of the user features
    histories         what each user did: offsets, item_index, rating, liked
    state             the network's state_dict
    probe             a few questions with their answers; files of older versions have none

With a processor file beside it, `processor` is in that file as JSON, and `processor_digest` ties the two.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from widedeep.config import Config, from_dict, to_dict
from widedeep.errors import BundleError, ConfigError
from widedeep.features import FeatureProcessor, ItemTable
from widedeep.files import load_tensors, write_atomically
from widedeep.histories import Histories
from widedeep.model import WideDeepNet
from widedeep.probe import Probe
from widedeep.training import Chosen
from widedeep.vocabulary import Vocabulary

if TYPE_CHECKING:
    from widedeep.recommender import Recommender

FORMAT = "widedeep.bundle"
VERSION = 3
DIGEST_TAG = "bundle_sha256"  # of a registered version: what its bundle's SHA-256 must be

MISFITS = (  # what comes of values that are not what `save` wrote
    ArithmeticError,
    AttributeError,
    ConfigError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class Parts:
    """What a bundle holds, on the CPU."""

    net: WideDeepNet
    processor: FeatureProcessor
    histories: Histories
    config: Config
    chosen: Chosen
    about: dict[str, Any]
    probe: Probe | None


def save(recommender: Recommender, path: Path, processor_path: Path | None) -> None:
    histories = recommender.histories.to("cpu")
    content: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "config": to_dict(recommender.config),
        "chosen": recommender.chosen.to_dict(),
        "about": plain(recommender.about),
        "histories": {
            "offsets": histories.offsets,
            "item_index": histories.item_index,
            "rating": histories.rating,
            "liked": histories.liked,
        },
        "state": {name: value.cpu() for name, value in recommender.net.state_dict().items()},
        "probe": Probe.of(recommender).to_plain(),
    }
    processor = _processor_to_plain(recommender.processor)
    if processor_path is None:
        content["processor"] = processor
    else:
        text = json.dumps({"format": FORMAT, "version": VERSION, **processor}).encode()
        content["processor_digest"] = hashlib.sha256(text).hexdigest()
        write_atomically(processor_path, lambda file: file.write(text))
    write_atomically(path, lambda file: torch.save(content, file))


def load(path: Path, processor_path: Path | None) -> Parts:
    """Raises  BundleError"""
    content = load_tensors(path, "a model file")
    if content.get("format") != FORMAT:
        raise BundleError(
            f"{path} is not a model of widedeep: it holds {', '.join(map(str, list(content)[:5])) or 'nothing'}. "
            "Give a file that Recommender.save wrote."
        )
    if content.get("version") != VERSION:
        raise BundleError(
            f"{path} is of bundle version {content.get('version')}; this widedeep reads version {VERSION}. "
            "Save it again with a matching widedeep."
        )
    try:
        return _parts(content, _processor_part(content, path, processor_path))
    except MISFITS as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise BundleError(f"{path} is damaged: its parts do not fit together ({reason}).") from error


def _processor_part(content: dict[str, Any], path: Path, processor_path: Path | None) -> dict[str, Any]:
    if processor_path is None:
        if "processor" not in content:
            raise BundleError(
                f"{path} was saved with its processor in a second file. Give the path of that, too."
            )
        stored: dict[str, Any] = content["processor"]
        return stored
    try:
        text = processor_path.read_bytes()
    except OSError as error:
        raise BundleError(f"Could not read {processor_path}: {error.strerror}.") from error
    if hashlib.sha256(text).hexdigest() != content.get("processor_digest"):
        raise BundleError(
            f"{processor_path} does not belong to {path}: give the pair that was saved together."
        )
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def _parts(content: dict[str, Any], stored: dict[str, Any]) -> Parts:
    config = from_dict(Config, content["config"])
    processor = _processor_from_plain(stored, content["state"]["user_features"])
    net = WideDeepNet.from_state(
        config.model, processor.warm_count, processor.item_table.genres, content["state"]
    )
    histories = Histories(**content["histories"])
    if net.item_count != processor.item_count or len(histories) != processor.user_count:
        raise ValueError(
            f"its network is for {net.item_count} items, its vocabulary has {processor.item_count}; "
            f"{len(histories)} histories for {processor.user_count} users"
        )
    if not histories.fit(processor.item_count):
        raise ValueError(
            "its histories name items that are not in its vocabulary, or end beyond their entries"
        )
    about = content["about"]
    if not isinstance(about, dict):
        raise TypeError(f"its about is no dictionary: {about!r:.40}")
    stored_probe = content.get("probe")
    probe = (
        None
        if stored_probe is None
        else Probe.from_plain(stored_probe, processor.user_count, processor.warm_count)
    )
    return Parts(net, processor, histories, config, Chosen.from_dict(content["chosen"]), about, probe)


def _processor_to_plain(processor: FeatureProcessor) -> dict[str, Any]:
    table = processor.item_table
    return {
        "users": processor.users.ids.tolist(),
        "items": processor.items.ids.tolist(),
        "warm_count": processor.warm_count,
        "titles": table.titles,
        "genre_names": table.genre_names,
        "genres": [row.nonzero().squeeze(1).tolist() for row in table.genres],
        "years": table.years.tolist(),
        "user_feature_names": processor.user_feature_names,
        "like_threshold": processor.like_threshold,
    }


def _processor_from_plain(stored: dict[str, Any], user_features: torch.Tensor) -> FeatureProcessor:
    genres = torch.zeros(len(stored["titles"]), len(stored["genre_names"]), dtype=torch.bool)
    for row, columns in enumerate(stored["genres"]):
        genres[row, columns] = True
    table = ItemTable(
        stored["titles"], stored["genre_names"], genres, torch.tensor(stored["years"], dtype=torch.int32)
    )
    return FeatureProcessor(
        users=Vocabulary(_ids(stored["users"])),
        items=Vocabulary(_ids(stored["items"])),
        warm_count=stored["warm_count"],
        item_table=table,
        user_features=user_features,
        user_feature_names=stored["user_feature_names"],
        like_threshold=stored["like_threshold"],
    )


def _ids(values: list[Any]) -> np.ndarray:
    return np.array(values, dtype=np.int64 if isinstance(values[0], int) else object)


def plain(value: Any) -> Any:
    """Numbers of numpy and tuples as plain Python, which is all that a bundle may hold."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float, str):  # a subclass, such as torch's version, is an object to the loader
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(f"a bundle holds plain values only, got {type(value).__name__}")
