"""Puts figures, tables and pages into a run.

A figure that cannot be drawn is a bug, and a training that is lost for it is a worse one. So what goes wrong in drawing
is said, written into the run, and passed over: here and nowhere else. WIDEDEEP_FIGURES in the environment may be
strict, then it is raised, or off, then nothing is drawn.
"""

from __future__ import annotations

import os
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import TypeAlias

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from experiments.figures.style import DPI
from experiments.progress import Console
from experiments.tracking import Run
from widedeep.errors import ConfigError, TrackingError

MODE = "WIDEDEEP_FIGURES"
MODES = ("", "strict", "off")
Drawn: TypeAlias = Figure | str | pd.DataFrame | None


class Album:
    """Of one run."""

    def __init__(self, run: Run, console: Console) -> None:
        """Raises  ConfigError: WIDEDEEP_FIGURES is something else"""
        self.mode = os.environ.get(MODE, "")
        if self.mode not in MODES:
            raise ConfigError(f"{MODE} must be strict, off or empty, got {self.mode!r}.")
        self.run = run
        self.console = console

    def add(self, path: str, draw: Callable[[], Drawn], dpi: float = DPI) -> None:
        """Log what `draw` gives: a figure (.png), a page (.html) or a table (.json); None where there is nothing.

        dpi     of a figure
        Raises  TrackingError: the store is away; with WIDEDEEP_FIGURES=strict, whatever `draw` raises
        """
        if self.mode == "off":
            return
        started = time.monotonic()
        try:
            self._log(draw(), path, dpi)
        except TrackingError:
            raise
        except Exception as error:
            if self.mode == "strict":
                raise
            self._failed(path, error)
        self.run.seconds["figures"] = self.run.seconds.get("figures", 0.0) + time.monotonic() - started

    def _log(self, drawn: Drawn, path: str, dpi: float) -> None:
        if isinstance(drawn, Figure):
            self._picture(drawn, path, dpi)
        elif isinstance(drawn, pd.DataFrame):
            self.run.table(drawn, path)
        elif drawn is not None:
            self.run.text(drawn, path)

    def _picture(self, figure: Figure, path: str, dpi: float) -> None:
        """As a PNG of at most 256 colours, which is a third of the size and looks the same."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / PurePath(path).name
            figure.savefig(file, dpi=dpi)
            with Image.open(file) as picture:
                few = picture.convert("RGB").quantize(
                    256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE
                )
            few.save(file, optimize=True)
            self.run.file(file, str(PurePath(path).parent))
        self.run.pictures.add(path)

    def _failed(self, path: str, error: Exception) -> None:
        where = str(PurePath(path).with_suffix(".failed.txt"))
        self.console.loud(
            f"{path} could not be drawn: {type(error).__name__}: {error}\nThe job goes on. See {where} of the run."
        )
        self.run.text("".join(traceback.format_exception(error)), where)
        self.run.tags({"figures.failed": "true"})
