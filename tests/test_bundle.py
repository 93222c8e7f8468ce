from __future__ import annotations

import json
import os
import pickle
import resource
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from widedeep import Query, Recommender
from widedeep.bundle import plain
from widedeep.errors import BundleError

QUERIES = [Query(user_id=1), Query(history=[2, 4, 6]), Query(user_id="nobody")]


def test_one_file(trained: Recommender, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    trained.save(path)
    loaded = Recommender.load(path, device="cpu")
    assert loaded.rank(QUERIES) == trained.rank(QUERIES)
    assert np.array_equal(loaded.score(1, [1, 2, 3]), trained.score(1, [1, 2, 3]))
    assert loaded.config == trained.config
    assert loaded.chosen == trained.chosen
    assert loaded.about == trained.about
    assert loaded.item_titles([1, 2]) == trained.item_titles([1, 2])
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_two_files(trained: Recommender, tmp_path: Path) -> None:
    path, processor = tmp_path / "model.pth", tmp_path / "processor.json"
    trained.save(path, processor)
    assert json.loads(processor.read_text())["like_threshold"] == 4.0
    assert Recommender.load(path, processor, device="cpu").rank(QUERIES) == trained.rank(QUERIES)
    with pytest.raises(BundleError, match="processor in a second file"):
        Recommender.load(path)
    processor.write_text(processor.read_text().replace("Film 1", "Film One"))
    with pytest.raises(BundleError, match="does not belong to"):
        Recommender.load(path, processor)
    with pytest.raises(BundleError, match="Could not read"):
        Recommender.load(path, tmp_path / "missing.json")


def test_it_loads_where_nothing_but_torch_numpy_and_pandas_is(trained: Recommender, tmp_path: Path) -> None:
    trained.save(tmp_path / "model.pth")
    code = (
        "import sys; from widedeep import Recommender\n"
        f"print(Recommender.load({str(tmp_path / 'model.pth')!r}).recommend(1).item_ids)\n"
        "assert not {'mlflow', 'optuna', 'grpc', 'sklearn', 'matplotlib'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(trained.recommend(1).item_ids)
    assert done.stderr == ""


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_nothing_foreign_is_loaded_or_run(trained: Recommender, tmp_path: Path) -> None:
    path, sprung = tmp_path / "model.pth", tmp_path / "sprung"
    trained.save(path)
    content = torch.load(path, weights_only=True)
    told = content["histories"]
    foreign: list[tuple[str, object]] = [
        ("holds Python objects", {**content, "about": Trap(sprung)}),
        ("not a model of widedeep", {"state_dict": content["state"]}),
        ("bundle version 99", {**content, "version": 99}),
        ("it holds a list", [1, 2]),
        (
            "parts do not fit together",
            {name: value for name, value in content.items() if name != "histories"},
        ),
        ("parts do not fit together", {**content, "config": {**content["config"], "colour": 1}}),
        (
            f"{path} is damaged: .*its network is for",
            {**content, "processor": {**content["processor"], "users": [1, 2]}},
        ),
        ("parts do not fit together", {**content, "processor": {**content["processor"], "items": []}}),
        ("its about is no dictionary: 'x'", {**content, "about": "x"}),
        (
            "its histories name items",
            {**content, "histories": {**told, "item_index": told["item_index"] + 999}},
        ),
        (
            "its histories name items",
            {**content, "histories": {**told, "item_index": told["item_index"][1:]}},
        ),
        ("its histories name items", {**content, "histories": {**told, "offsets": told["offsets"] * 2}}),
    ]
    for words, value in foreign:
        torch.save(value, path)
        with pytest.raises(BundleError, match=words):
            Recommender.load(path)
    path.write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(BundleError, match="not a model file"):
        Recommender.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Trap(sprung)))
    with pytest.raises(BundleError):
        Recommender.load(path)
    assert not sprung.exists()


def test_a_damaged_file_is_refused(trained: Recommender, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    trained.save(path)
    whole = path.read_bytes()
    for cut in (0, 10, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:cut])
        with pytest.raises(BundleError, match="not a model file"):
            Recommender.load(path)
    with pytest.raises(BundleError, match="does not exist"):
        Recommender.load(tmp_path / "nothing.pth")
    with pytest.raises(BundleError, match="does not exist"):
        Recommender.load(tmp_path / ("x" * 300))
    with pytest.raises(BundleError, match="is a folder"):
        Recommender.load(tmp_path)


def test_a_full_disk_leaves_the_old_file(trained: Recommender, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(b"the old one")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        with pytest.raises(BundleError, match="Could not write"):
            trained.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(BundleError, match="Could not write"):
        trained.save(tmp_path / "missing" / "model.pth")


def test_plain_values_only() -> None:
    assert plain({"a": np.float32(0.5), 1: (np.int64(2), None, True)}) == {"a": 0.5, "1": [2, None, True]}
    with pytest.raises(TypeError, match="plain values only"):
        plain({"a": object()})
