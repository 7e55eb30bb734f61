"""Takes the pictures of a report for docs/report.md, of streams of the four kinds, in the real browser.

Run by hand: PYTHONPATH=tests python tests/agent/report/make_pictures.py
"""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path

from click.testing import CliRunner
from PIL import Image

from browser import Browser
from pcs_agent.cli import main
from stream_kinds import WINDOW, write_kinds

PICTURES = Path(__file__).resolve().parents[3] / "docs" / "pictures"
HEIGHT = 1_750
COLORS = 128
"""Enough for the page's few, and a third of the bytes."""


def make_pictures() -> None:
    """Write one picture for each width."""
    with tempfile.TemporaryDirectory() as folder, Browser() as browser:
        os.chdir(folder)
        write_kinds(Path(folder))
        names = [f"{kind}.npy" for kind in ("looping", "healthy", "drifting", "truncated")]
        done = CliRunner().invoke(main, ["report", *names, "--window", str(WINDOW), "-o", "report.html"])
        assert done.exit_code == 0, done.output
        for width in (1_280, 390):
            look = browser.look(Path("report.html").resolve().as_uri(), width=width, picture=True)
            image = Image.open(io.BytesIO(look.picture)).crop((0, 0, width, HEIGHT))
            path = PICTURES / f"report-{width}.png"
            image.convert("RGB").quantize(COLORS, Image.Quantize.MAXCOVERAGE).save(path, optimize=True)
            print(path.name, path.stat().st_size)


if __name__ == "__main__":
    make_pictures()
