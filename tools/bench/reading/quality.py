"""The quality of reading: over 400 rendered pictures of thirteen kinds, beside RapidOCR and the plain reference.

Needs the fonts of ``tools/bench/reading/fonts.py``, which Debian packages; says which are missing. Pictures and what
was read of them are kept in ~/.cache/immich-bento/reading-quality, and a run that broke off goes on there: delete the
folder to read anew.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.bench.reading.drawings import KINDS, Drawing, drawings
from tools.bench.reading.fonts import FONTS, missing
from tools.bench.reading.readers import READERS
from tools.bench.reading.scores import Score, mean, score
from tools.bench.report import Cell, Table, progress

CACHE = Path("~/.cache/immich-bento/reading-quality")
_WITHOUT_TEXT = "photos without text"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--folder", type=Path, default=CACHE, help=f"for pictures and what was read (default: {CACHE})")
    parser.add_argument("--first", type=int, default=0, help="number of each kind's first picture (0); others: from 38")
    parser.add_argument("--anew", choices=[*READERS], help="read all pictures anew with this reader")


def run(options: argparse.Namespace) -> list[Table]:
    """Render what is not there, read what was not read, and return the tables."""
    lacking = missing()
    if lacking:
        raise SystemExit(f"Fonts are missing. Install them: apt-get install {' '.join(lacking)}")
    folder = options.folder.expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    pictures = drawings(options.first)
    for drawing in pictures:
        path = folder / f"{drawing.name}.picture"
        if not path.is_file() or path.read_bytes() != drawing.data:
            for stale in folder.glob(f"{drawing.name}.*.json"):
                stale.unlink()
            path.write_bytes(drawing.data)
    for name in READERS:
        if options.anew == name:
            for stale in folder.glob(f"*.{name}.json"):
                stale.unlink()
        progress(f"{name} reads {len(pictures)} pictures")
        subprocess.run([sys.executable, "-m", "tools.bench.reading.readers", name, str(folder)], check=True)
    return tables(pictures, folder)


def tables(pictures: Sequence[Drawing], folder: Path) -> list[Table]:
    """Return the tables over what all readers have read in ``folder``."""
    read = {
        name: {one.name: json.loads((folder / f"{one.name}.{name}.json").read_text()) for one in pictures}
        for name in READERS
    }
    scores: dict[tuple[str, str], list[Score]] = {}
    for name, said in read.items():
        for one in pictures:
            scores.setdefault((name, one.kind), []).append(score(one.lines, said[one.name]))
    written = [kind for kind in KINDS if kind != _WITHOUT_TEXT]

    def by_kind(title: str, part: str, note: str) -> Table:
        rows: list[tuple[Cell, ...]] = [
            (kind, *(f"{mean(scores[name, kind], part):.3f}" for name in READERS)) for kind in written
        ]
        everything = [[one for kind in written for one in scores[name, kind]] for name in READERS]
        rows.append(("all", *(f"{mean(one, part):.3f}" for one in everything)))
        return Table(title, ("kind", *READERS), tuple(rows), note)

    false: list[tuple[Cell, ...]] = [
        (name, f"{sum(one.false_lines for one in found) / len(found):.2f}", sum(one.false_lines for one in found))
        for name, found in ((name, scores[name, _WITHOUT_TEXT]) for name in READERS)
    ]
    blanks: list[tuple[Cell, ...]] = [
        (
            name,
            f"{sum(one.blanks_read for one in read_by) / max(1, sum(one.blanks for one in read_by)):.3f}",
            f"{sum(one.blanks_added for one in read_by) / max(1, sum(one.joins for one in read_by)):.3f}",
        )
        for name, read_by in ((name, scores[name, "blanks"]) for name in READERS)
    ]
    count = sum(one.kind == _WITHOUT_TEXT for one in pictures)
    fonts = tuple((font.name, font.foundry, font.package, font.licence) for font in FONTS)
    return [
        by_kind("Character accuracy", "accuracy", "1 less edit distance by length, over all lines of a kind"),
        by_kind(
            "Box recall", "recall", "share of lines whose ink is covered by 0.8, and whose box overlaps by 0.25 (IoU)"
        ),
        by_kind("Order", "order", "share of neighbouring lines, both read, that come in their order"),
        Table(
            "Blanks between Chinese and letters or digits (of the kind of this name)",
            ("reader", "blanks read", "blanks where none is"),
            tuple(blanks),
            "in lines whose characters were all read right",
        ),
        Table(f"False lines on {count} photos without text", ("reader", "lines per photo", "lines"), tuple(false)),
        Table("Fonts", ("font", "foundry", "Debian package", "licence"), fonts),
    ]
