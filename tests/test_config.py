from __future__ import annotations

import dataclasses
import json

import pytest

from widedeep.config import Config, DataConfig, ModelConfig, TrainConfig, from_dict, to_dict
from widedeep.errors import ConfigError


def test_survives_json() -> None:
    config = Config(
        DataConfig(split="time"), ModelConfig(hidden=(7, 5), deep_share=0.25), TrainConfig(epochs=3)
    )
    assert from_dict(Config, json.loads(json.dumps(to_dict(config)))) == config


def test_field_names_are_unique_across_the_dataclasses() -> None:
    names = [
        field.name for cls in (DataConfig, ModelConfig, TrainConfig) for field in dataclasses.fields(cls)
    ]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("cls", "name", "text", "value"),
    [
        (ModelConfig, "hidden", "64,32", (64, 32)),
        (ModelConfig, "deep_share", "none", None),
        (ModelConfig, "deep_share", "0.5", 0.5),
        (TrainConfig, "epochs", "1e2", 100),
        (TrainConfig, "learning_rate", "1e-3", 0.001),
        (TrainConfig, "seed", "9007199254740993", 9007199254740993),
        (DataConfig, "like_threshold", "3", 3.0),
    ],
)
def test_reads_text(cls: type, name: str, text: str, value: object) -> None:
    assert getattr(from_dict(cls, {name: text}), name) == value


@pytest.mark.parametrize(
    ("cls", "settings", "words"),
    [
        (TrainConfig, {"epochs": "many"}, "epochs must be a whole number, got 'many'"),
        (TrainConfig, {"epochs": "2.5"}, "epochs must be a whole number"),
        (TrainConfig, {"epochs": "inf"}, "epochs must be a whole number"),
        (TrainConfig, {"epochs": -1}, "epochs must be from 0"),
        (TrainConfig, {"batch_size": 0}, "batch_size must be from 1"),
        (TrainConfig, {"learning_rate": "nan"}, "learning_rate must be from"),
        (TrainConfig, {"device": "gpu"}, "device must be one of auto, cpu, cuda, mps"),
        (TrainConfig, {"resume": "maybe"}, "resume must be true or false"),
        (TrainConfig, {"resume": True}, "name the file with --checkpoint"),
        (TrainConfig, {"epoch": 3}, "no field 'epoch'"),
        (ModelConfig, {"hidden": "64;32"}, "hidden must be whole numbers with commas"),
        (ModelConfig, {"hidden": ""}, "hidden needs widths above 0"),
        (ModelConfig, {"hidden": "64,0"}, "hidden needs widths above 0"),
        (ModelConfig, {"hidden": "1e9"}, "hidden needs widths above 0, at most 65536"),
        (ModelConfig, {"dropout": 1.0}, "dropout must be from 0"),
        (ModelConfig, {"deep_share": 2}, "deep_share must be from 0 to 1"),
        (DataConfig, {"split": "magic"}, "split must be one of user-time"),
        (DataConfig, {"like_threshold": "inf"}, "like_threshold must be a finite number"),
        (DataConfig, {"test_fraction": 1.0}, "test_fraction must be from 0 to 0.9"),
    ],
)
def test_refuses(cls: type, settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        from_dict(cls, settings)


def test_refuses_when_built_by_hand_too() -> None:
    with pytest.raises(ConfigError, match="epochs must be a whole number"):
        TrainConfig(epochs=1.5)  # type: ignore[arg-type]
