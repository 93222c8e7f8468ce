"""The file of tokens and its command."""

from __future__ import annotations

import logging
import os
import re
import stat
import time
from pathlib import Path

import pytest
from serving import eventually

from server import tokens
from server.tokens import TokenFile, digest_of, main
from widedeep.errors import ConfigError

DIGEST = digest_of("wd_x").hex()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens.txt"


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(arguments)
    said = capsys.readouterr()
    return status, said.out, said.err


def test_a_new_token_is_printed_once_and_kept_as_a_digest(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = [
        command(capsys, "new", "--name", "shop", "--scope", "serve", "--expires", "90d", "--file", str(file)),
        command(
            capsys, "new", "--name", "shop", "--scope", "serve,admin", "--rate", "5", "--file", str(file)
        ),
    ]
    first, second = (out.strip() for _, out, _ in made)
    assert [status for status, _, _ in made] == [0, 0]
    assert first != second
    assert re.fullmatch(r"wd_[A-Za-z0-9_-]{43}", first)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    text = file.read_text()
    assert first not in text
    assert second not in text
    held = TokenFile(file)
    one, two = held.get(digest_of(first)), held.get(digest_of(second))
    assert one is not None
    assert two is not None
    assert (one.name, two.name, one.scopes, two.scopes) == ("shop", "shop", {"serve"}, {"serve", "admin"})
    assert (one.rate, two.rate) == (None, 5.0)
    assert abs(one.expires - time.time() - 90 * 86_400) < 600
    assert held.get(digest_of(first + "x")) is None

    status, out, _ = command(capsys, "list", "--file", str(file))
    assert status == 0
    assert [line.split()[:3] for line in out.splitlines()[1:]] == [
        ["shop", "serve", digest_of(first).hex()[:12]],
        ["shop", "admin,serve", digest_of(second).hex()[:12]],
    ]


def test_a_line_is_added_to_what_is_there(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(f"# ours\n\nold serve {DIGEST} expires=2020-01-31")  # no newline at its end
    file.chmod(0o640)
    status, *_ = command(capsys, "new", "--name", "new", "--scope", "admin", "--file", str(file))
    assert status == 0
    assert file.read_text().startswith("# ours\n\nold serve")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640, "whose group may read it stays able to"
    _, out, _ = command(capsys, "list", "--file", str(file))
    assert re.search(r"^old .*2020-01-31 00:00 \(expired\)$", out, re.MULTILINE)
    assert re.search(r"^new +admin .*never$", out, re.MULTILINE)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("shop", "wants a name, scopes and a SHA-256 digest"),
        (f"a/b serve {DIGEST}", "letters, digits"),
        (f"shop read {DIGEST}", "scopes are serve and admin"),
        (f"shop serve, {DIGEST}", "scopes are serve and admin"),
        ("shop serve wd_secret", "not a SHA-256 digest"),
        (f"shop serve {DIGEST} expires=soon", "a time is like 90d"),
        (f"shop serve {DIGEST} rate=0", "a rate is above 0"),
        (f"shop serve {DIGEST} rate=nan", "a rate is above 0"),
        (f"shop serve {DIGEST} rate=x", "float"),
        (f"shop serve {DIGEST} colour=red", "got 'colour'"),
        ("# nothing but a comment", "holds no token"),
    ],
)
def test_files_that_are_no_good(file: Path, line: str, text: str) -> None:
    file.write_text(f"{line}\n")
    with pytest.raises(ConfigError, match=re.escape(text)) as caught:
        TokenFile(file)
    assert "wd_secret" not in str(caught.value), "a token by mistake is not written into a log"


def test_what_the_command_refuses(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*arguments: str) -> str:
        status, out, error = command(capsys, *arguments, "--file", str(file))
        assert (status, out) == (2, "")
        return error

    assert "scopes are serve and admin" in said("new", "--name", "a", "--scope", "all")
    assert "a name has" in said("new", "--name", "a/b", "--scope", "serve")
    assert "cannot be made" in said("new", "--name", "a b", "--scope", "serve")
    assert "a time is like" in said("new", "--name", "a", "--scope", "serve", "--expires", "later")
    assert "cannot be read" in said("list")
    assert not file.exists()
    file.write_text("broken\n")
    assert "Line 1" in said("new", "--name", "a", "--scope", "serve")
    assert file.read_text() == "broken\n"


def test_changes_of_the_file_are_seen_and_a_bad_one_changes_nothing(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = digest_of(tokens.new(file, "shop", "serve"))
    held = TokenFile(file)
    assert held.get(first)
    second = digest_of(tokens.new(file, "shop", "serve"))
    assert eventually(lambda: held.get(second)), "another is added"
    assert held.get(first)

    good = file.read_text()
    with caplog.at_level(logging.ERROR):
        file.write_text("oops\n")
        assert eventually(lambda: held.get(first) and "the old tokens stay" in caplog.text)
        assert held.get(second)
    replaced = file.with_suffix(".new")
    replaced.write_text("\n".join(line for line in good.splitlines() if first.hex() not in line))
    os.replace(replaced, file)
    assert eventually(lambda: held.get(first) is None), "the old one is taken out"
    assert held.get(second)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True), (0o620, True)])
def test_a_file_that_others_can_read_or_change(
    file: Path, mode: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    tokens.new(file, "shop", "serve")
    file.chmod(mode)
    TokenFile(file)
    assert ("chmod 600" in caplog.text) is warned
