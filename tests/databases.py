"""A PostgreSQL server of Debian's package, in a folder of its own, on a free port of this machine."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from ports import free_port

SECONDS = 60
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")  # nothing here outlives its test


@dataclass
class Postgres:
    """A server that runs."""

    port: int
    tools: Path
    folder: Path

    def url(self, database: str, driver: str = "psycopg") -> str:
        return f"postgresql+{driver}://widedeep@127.0.0.1:{self.port}/{database}"

    def create(self, database: str) -> str:
        """A new database; its address."""
        self._do("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "widedeep", database)
        return self.url(database)

    def start(self) -> None:
        options = " ".join(
            [
                f"-p {self.port}",
                f"-k {self.folder}",
                "-c listen_addresses=127.0.0.1",
                *(f"-c {setting}" for setting in FAST),
            ]
        )
        log = self.folder / "log"
        self._do("pg_ctl", "-D", str(self.folder / "data"), "-l", str(log), "-o", options, "-w", "start")

    def stop(self) -> None:
        """At once, as when the machine loses power."""
        self._do("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "-w", "stop")

    def _do(self, tool: str, *arguments: str) -> None:
        """As a user that PostgreSQL, which refuses to be root, agrees to be."""
        user = "postgres" if os.getuid() == 0 else None
        with tempfile.TemporaryFile(
            "w+"
        ) as output:  # a pipe would stay open in the server that pg_ctl starts
            done = subprocess.run(
                [str(self.tools / tool), *arguments],
                user=user,
                cwd=self.folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=SECONDS,
                check=False,
            )
            output.seek(0)
            said = output.read()
        assert done.returncode == 0, f"{tool} {' '.join(arguments)}: {said}"


def tools() -> Path | None:
    """The folder of initdb and its like, of the newest version there is."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda file: int(file.parts[-3]))
    found = debian[-1] if debian else shutil.which("initdb")
    return Path(found).parent if found else None


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A server that runs until the block is left; without the package the test is skipped."""
    where = tools()
    if where is None:
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))  # a socket's path must be short
    if os.getuid() == 0:
        account = pwd.getpwnam("postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)
    server = Postgres(free_port(), where, folder)
    try:
        server._do(
            "initdb", "-D", str(folder / "data"), "-U", "widedeep", "-A", "trust", "-E", "UTF8", "--no-sync"
        )
        server.start()
        try:
            yield server
        finally:
            if (folder / "data" / "postmaster.pid").exists():
                server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
