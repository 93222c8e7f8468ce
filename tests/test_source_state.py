"""What is kept of a source with uncommitted changes, in a repository made for it."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from experiments.source_state import ROOT, SourceState, state


def git(folder: Path, *words: str) -> bytes:
    who = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
    return subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, check=True).stdout


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A repository with a package of the right name and a page, all committed."""
    package = tmp_path / "widedeep"
    package.mkdir()
    (package / "model.py").write_text("layers = 2\n")
    (package / "table.bin").write_bytes(bytes(range(256)))
    (tmp_path / "README.md").write_text("one\n")
    (tmp_path / ".gitignore").write_text("made.py\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "begin")
    return tmp_path


def test_a_clean_source_is_its_commit(source: Path) -> None:
    (source / "ratings.csv").write_text("user,item\n1,2\n")
    found = state(source)
    assert found == SourceState(commit=git(source, "rev-parse", "HEAD").decode().strip())
    assert len(str(found)) == 40
    assert not found.dirty


def test_changes_and_new_modules_are_in_the_diff(source: Path) -> None:
    (source / "widedeep" / "model.py").write_text("layers = 3\n")
    (source / "widedeep" / "new.py").write_text("new = True\n")
    (source / "widedeep" / "made.py").write_text("ignored = True\n")
    (source / "ratings.csv").write_text("user,item\n1,2\n")
    git(source, "add", "widedeep/model.py")  # staged or not
    before = git(source, "status", "--porcelain")
    found = state(source)
    assert str(found).endswith("-dirty")
    assert found.new_files == ("widedeep/new.py",)
    assert "-layers = 2\n+layers = 3\n" in found.diff
    assert "+new = True\n" in found.diff
    assert "ignored" not in found.diff
    assert "user,item" not in found.diff, "data are not source"
    assert git(source, "status", "--porcelain") == before, "the index is as it was"
    git(source, "stash", "--quiet", "--include-untracked")
    subprocess.run(["git", "apply"], cwd=source, input=found.diff.encode(), check=True)
    assert state(source).sha256 == found.sha256, "the diff makes the same source again"


def test_the_same_changes_make_the_same_digest_and_others_another(source: Path) -> None:
    model = source / "widedeep" / "model.py"
    model.write_text("layers = 3\n")
    first = state(source).sha256
    git(source, "config", "diff.noprefix", "true")
    git(source, "config", "diff.context", "0")
    assert state(source).sha256 == first
    model.write_text("layers = 4\n")
    assert state(source).sha256 not in (first, "")


def test_binary_files_are_named_and_told_apart(source: Path) -> None:
    table = source / "widedeep" / "table.bin"
    table.write_bytes(bytes(reversed(range(256))))
    found = state(source)
    assert "Binary files a/widedeep/table.bin and b/widedeep/table.bin differ" in found.diff
    table.write_bytes(bytes(256))
    assert state(source).sha256 != found.sha256


def test_a_long_diff_is_cut_and_says_so(source: Path) -> None:
    (source / "widedeep" / "model.py").write_text("".join(f"line = {number}\n" for number in range(1000)))
    whole, short = state(source), state(source, kept_bytes=2000)
    assert (whole.cut, short.sha256) == (0, whole.sha256)
    assert hashlib.sha256(whole.diff.encode()).hexdigest() == whole.sha256
    kept, last = short.diff.rsplit("\n", 2)[:2]
    assert whole.diff.startswith(kept)
    assert last == f"# cut here: {short.cut:,} of {len(whole.diff):,} bytes are left out"
    assert len(kept) <= 2000
    assert short.to_dict()["diff_cut_bytes"] == short.cut > 0


def test_a_source_that_git_does_not_know_has_no_state(
    source: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    bare = tmp_path_factory.mktemp("bare")
    (bare / "widedeep").mkdir()
    assert state(bare) == SourceState()
    installed = source / "lib" / "site-packages"  # in a repository of something else
    (installed / "widedeep").mkdir(parents=True)
    (installed / "widedeep" / "model.py").write_text("layers = 2\n")
    (source / "README.md").write_text("two\n")
    assert state(installed) == SourceState()
    assert "+two" in state(source).diff


def test_this_source_is_known() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("needs a clone of the repository")
    assert len(state(ROOT).commit) == 40


def test_what_git_cannot_say_is_equal_to_nothing(source: Path) -> None:
    (source / "widedeep" / "model.py").write_text("layers = 3\n")
    blob = git(source, "rev-parse", "HEAD:widedeep/model.py").decode().strip()
    (source / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    found = state(source)
    assert found.commit
    assert "git did not say" in found.diff
    assert state(source).sha256 != found.sha256
