"""The command line: every field is a flag, and every mistake gets one readable answer."""

from __future__ import annotations

import dataclasses
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from experiment_runs import ROOT, TINY, in_subprocess, run, subprocess_environment, words
from mlflow.tracking import MlflowClient

from experiments import flags
from experiments.commands import COMMANDS
from experiments.flags import Parser, add_fields, config_from, field_comments, section_from
from experiments.jobs import BatchConfig, JobConfig
from experiments.study_config import StudyConfig
from widedeep.config import Config, DataConfig, ModelConfig, TrainConfig
from widedeep.errors import ConfigError

pytest_plugins = ["experiment_fixtures"]
FIELDS = [
    (cls, field)
    for cls in (DataConfig, ModelConfig, TrainConfig, JobConfig, StudyConfig)
    for field in dataclasses.fields(cls)
]
OTHER = {bool: "true", int: "7", float: "0.5", str: "some"}


def parsed(*arguments: str) -> dict[str, str]:
    parser = Parser()
    for cls in (DataConfig, ModelConfig, TrainConfig, JobConfig, StudyConfig):
        add_fields(parser, cls)
    return vars(parser.parse_args(arguments))


@pytest.mark.parametrize("name", [field.name for _, field in FIELDS])
def test_every_field_is_a_flag_in_dashes_and_in_underscores(name: str) -> None:
    assert parsed(f"--{name.replace('_', '-')}", "some") == {name: "some"}
    assert parsed(f"--{name}", "some") == {name: "some"}
    assert parsed(f"--{name}=some") == {name: "some"}


def test_flags_reach_the_configuration() -> None:
    given = parsed(
        "--batch_size", "64", "--hidden", "32,16", "--resume", "--checkpoint", "c", "--split", "time"
    )
    config = config_from(given)
    assert config.train.batch_size == 64
    assert config.model.hidden == (32, 16)
    assert config.train.resume is True
    assert config.data.split == "time"
    assert config.model.embedding_dim == ModelConfig().embedding_dim


def test_flags_replace_single_values_of_a_recipe() -> None:
    base = Config(model=ModelConfig(wide_l2=77.0, embedding_dim=8))
    config = config_from(parsed("--embedding-dim", "4"), base)
    assert (config.model.wide_l2, config.model.embedding_dim) == (77.0, 4)


def test_a_configuration_can_be_typed_again() -> None:
    config = Config(
        DataConfig(dataset="ml-1m", data_dir="my data", test_fraction=0.3),
        ModelConfig(hidden=(8, 4), deep_share=0.25, dropout=0.123456789),
        TrainConfig(checkpoint="c", resume=True),
    )
    typed = flags.as_flags(config)
    assert "--data-dir 'my data'" in typed
    assert "--hidden 8,4" in typed
    assert config_from(parsed(*shlex.split(typed))) == config
    assert flags.as_flags(Config()) == ""


def test_help_is_the_comment_beside_the_field() -> None:
    comments = field_comments(DataConfig)
    assert comments["like_threshold"].startswith("liked = rating at or above")
    assert "user_col" not in comments  # it has none, and must not get that of the next field
    done = in_subprocess(["experiments", "train", "--help"], ROOT)
    assert "of users and items in the like head; default: 32" in " ".join(done.stdout.split())


def test_help_does_not_wait_for_heavy_imports() -> None:
    code = (
        "import sys; from experiments.cli import main\n"
        "try: main(['main', '--help'])\n"
        "except SystemExit: pass\n"
        "bad = {'mlflow', 'optuna', 'matplotlib'} & set(sys.modules); assert not bad, bad"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["main", "--learning-rat", "1"], "There is no flag --learning-rat. Did you mean --learning-rate?"),
        (["main", "--wide_l3=2"], "There is no flag --wide_l3. Did you mean --wide-l2?"),
        (["main", "stray"], "'stray' belongs to no flag"),
        (["trian"], "There is no command 'trian'. Did you mean train?"),
        ([], "required: COMMAND"),
        (["main", "--trials", "many"], "trials must be a whole number, got 'many'"),
        (["main", "--trials", "0"], "trials must be from 1 to"),
        (["main", "--epochs", "2.5"], "epochs must be a whole number, got '2.5'"),
        (["main", "--learning-rate", "nan"], "learning_rate must be from"),
        (["main", "--refit", "maybe"], "refit must be true or false, got 'maybe'"),
        (["main", "--gate", "open"], "gate must be one of auto, better, not-worse, strict; got 'open'"),
        (["main", "--on-drift", "stop"], "on_drift must be one of refuse, warn, ignore; got 'stop'"),
        (["main", "--max-lost", "2"], "max_lost must be from 0 to 1, got 2"),
        (
            ["validate", "--dataset", "synthetic", "--on-drift", "ignore", "--against", "x"],
            "leave out --against",
        ),
        (["validate", "--dataset", "synthetic", "--against", "x"], "--against x is no file"),
        (["main", "--register", "a/b"], "register must be a plain name"),
        (["main", "--alias", "v3"], "alias must be a plain name"),
        (["main", "--split", "none"], "split=none leaves nothing to judge"),
        (["main", "--test-fraction"], "expected one argument"),
        (["train", "--alias", "champion"], "--alias champion needs --register NAME"),
        (["train", "--trials", "3"], "There is no flag --trials"),
        (["promote"], "promote needs either --version N or --rollback"),
        (["promote", "--version", "2", "--rollback"], "promote needs either --version N or --rollback"),
        (["promote", "--version", "first"], "version must be a whole number, got 'first'"),
        (["recommend", "--k", "0"], "k must be from 1 to 1000, got 0"),
        (["recommend", "--out", "recs.xlsx"], "out must end in .parquet or .csv"),
        (["validate", "--dataset", "ml-1b"], "There is no data set 'ml-1b'"),
        (["validate", "--dataset", "ml-1m", "--data-dir", "/nowhere"], "/nowhere"),
    ],
)
def test_a_mistake_is_answered_with_one_message(arguments: list[str], said: str) -> None:
    done = run(*arguments)
    assert done.status == 2
    assert said in done.err
    assert done.err.startswith("error: ")
    assert "Traceback" not in done.err


def test_an_error_in_a_process_of_its_own_has_no_traceback(tmp_path: Path) -> None:
    done = in_subprocess(["experiments", "main", "--dataset", "ml-1m", "--data-dir", "nowhere"], tmp_path)
    assert done.returncode == 2
    assert "error: " in done.stderr
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_command_says_what_it_does() -> None:
    for name, command in COMMANDS.items():
        assert f"python -m experiments {name}" in command.text
        assert command.help


def test_names_of_fields_are_unique_so_that_flags_are() -> None:
    names = [field.name for _, field in FIELDS]
    assert len(names) == len(set(names))


def test_none_is_how_a_name_is_left_out() -> None:
    job = section_from({"register": "none", "alias": ""}, JobConfig)
    assert (job.register, job.alias) == ("", "")


def test_values_of_a_batch_are_checked() -> None:
    with pytest.raises(ConfigError, match="user_batch must be from 1"):
        section_from({"user_batch": "0"}, BatchConfig)
    assert flags.is_true("force", "TRUE")


def test_serve_is_the_server(tmp_path: Path) -> None:
    done = in_subprocess(["experiments", "serve", "--help"], tmp_path)
    assert done.returncode == 0
    assert "--max-k" in done.stdout


def test_ctrl_c_ends_the_run_as_killed_and_registers_nothing(store: MlflowClient, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "experiments", "main", *words(TINY | {"trials": "1000"})]
    environment = subprocess_environment(MLFLOW_TRACKING_URI=os.environ["MLFLOW_TRACKING_URI"])
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "(1 of 1000)" in line:
                break
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
        process.send_signal(signal.SIGTERM)  # as mlflow run does on top
        rest = process.stderr.read()
        assert process.wait(30) == 130
    assert "interrupted" in rest
    assert "Traceback" not in rest
    experiment = store.get_experiment_by_name("widedeep")
    runs = store.search_runs([experiment.experiment_id], "tags.job = 'main'")
    assert [found.info.status for found in runs] == ["KILLED"]
    said = runs[0].data.tags["mlflow.note.content"]
    assert "nothing was registered. The best so far is trial" in said
    assert f"`--study main-{runs[0].info.run_id[:8]}`" in said
    assert not store.search_registered_models()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_written_is_said(store: MlflowClient, tmp_path: Path) -> None:
    del store
    command = [sys.executable, "-m", "experiments", "validate", "--dataset", "synthetic"]
    environment = subprocess_environment(MLFLOW_TRACKING_URI=os.environ["MLFLOW_TRACKING_URI"])
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert "No space left on device. Make room" in done.stderr
    assert "Traceback" not in done.stderr
