"""How figures look, and how they are saved: for a paper's column, in vectors, colour-blind safe."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.textpath
import matplotlib.ticker
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from stormsweep.report.drawing import markup

#: One and two columns of a journal's page, in inches (89 mm and 183 mm).
NARROW, WIDE = 3.5, 7.2
#: Okabe and Ito's colours, told apart with any colour vision; yellow left out, too pale for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
BLUE, RED, GREY, PALE = COLOURS[0], COLOURS[1], "#6B6B6B", "#C9C9C9"
#: The files of a figure, with what else stands in them; pixels per inch, enough for print.
_KINDS: dict[str, dict[str, Any]] = {"png": {}, "pdf": {"CreationDate": None}}
_DPI = 300
#: Height of the note at the foot and of a row of the legend, in inches.
_FOOT, _ROW = 0.19, 0.165

_SETTINGS: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.title_fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "legend.columnspacing": 1.4,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.edgecolor": "#333333",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.6,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.minor.visible": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    # TrueType, which publishers ask for, instead of Type 3; text in the page's drawings as
    # outlines, so that they look alike on a machine without the font.
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "stormsweep",
    # What users call their hyperparameters is not mathematics: a dollar is a dollar.
    "text.parse_math": False,
    "text.usetex": False,
}


@dataclass(frozen=True)
class Picture:
    """A figure with its words.

    Attributes
    ----------
    name : str
        Of its files.
    title, caption : str
        What it shows, and how to read it.
    figure : matplotlib.figure.Figure
        The drawing.
    data : DataFrame
        The numbers that are drawn, one row a mark: they go to ``<name>.csv`` beside the figure.
    live : callable, optional
        Returns the figure as readers can zoom into it and point at it (`live.Live`), or None.
        Called where a page is written, on which it takes the drawing's place for those who have
        JavaScript.
    """

    name: str
    title: str
    caption: str
    figure: Any
    data: pd.DataFrame
    live: Callable[[], Any] | None = None

    @property
    def wide(self) -> bool:
        """Whether it takes two columns."""
        return bool(self.figure.get_figwidth() > 1.5 * NARROW)


@contextmanager
def look() -> Iterator[None]:
    """Draw and save in the project's style inside this block; settings are as before after it."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        yield


def new_figure(width: float, height: float, note: str = "") -> Any:
    """Return an empty figure whose layout leaves room for a note at its foot.

    Parameters
    ----------
    width, height : float
        Size in inches, without the note and the legend above, which add their own.
    note : str
        What stands at the foot, such as that the data are synthetic.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    if note:
        figure.text(0.995, 0.0, note, ha="right", va="bottom", color=GREY)
        _grow(figure, _FOOT)
    return figure


def _grow(figure: Any, by: float) -> None:
    """Make a figure higher, and keep the room for the note at its foot."""
    figure.set_figheight(figure.get_figheight() + by)
    if figure.texts:
        share = _FOOT / figure.get_figheight()
        figure.texts[0].set_y(0.12 * share)
        figure.get_layout_engine().set(rect=(0, share, 1, 1 - share))


def plain_ticks(axis: Any, values: list[float], labels: list[str]) -> None:
    """Put ticks at these values only, with these labels."""
    axis.set_ticks(values, labels=labels)
    axis.set_minor_locator(mpl.ticker.NullLocator())


def legend_above(figure: Any, handles: list[Any], labels: list[str], title: str = "") -> None:
    """Put the legend above all axes, where it covers nothing; the figure grows by its rows."""
    if not handles:
        return
    # A leading underscore would hide the entry.
    labels = [f" {text}" if text.startswith("_") else text for text in labels]
    room = figure.get_figwidth() * 72 - 12
    widths = [_text_width(text) + 34 for text in labels]
    columns = next(
        (n for n in range(len(labels), 1, -1) if sum(map(max, _split(widths, n))) <= room), 1
    )
    figure.legend(
        handles,
        labels,
        title=title or None,
        ncols=columns,
        loc="outside upper center",
        borderpad=0.2,
    )
    _grow(figure, _ROW * (math.ceil(len(labels) / columns) + bool(title)) + 0.06)


def _text_width(text: str) -> float:
    """Return the width of a text in points, as the figures set it."""
    if not text.strip():
        return 0.0
    path = mpl.textpath.TextPath((0, 0), text, size=8, usetex=False)
    return float(path.get_extents().width)


def _split(widths: list[float], columns: int) -> list[list[float]]:
    """Return the entries of each column, as matplotlib fills them."""
    return [part.tolist() for part in np.array_split(widths, columns)]


def save(picture: Picture, folder: Path) -> str:
    """Write ``<name>.png``, ``.pdf`` and ``.csv`` to `folder`; return the drawing as markup.

    The files are the same to the byte for the same journal and versions: they carry no date.
    """
    folder.mkdir(parents=True, exist_ok=True)
    picture.data.to_csv(folder / f"{picture.name}.csv", index=False)
    figure = picture.figure
    # Laid out once; every later drawing takes the places as they are. (One font in all figures, for
    # a like reason: embedding a font takes longer than drawing.)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for kind, more in _KINDS.items():
        metadata = {"Title": picture.title, **more}
        figure.savefig(folder / f"{picture.name}.{kind}", dpi=_DPI, metadata=metadata)
    drawing = io.BytesIO()
    figure.savefig(drawing, format="svg", metadata={"Date": None})
    words = f"{picture.title}. {picture.caption}"
    pixels = (folder / f"{picture.name}.png").read_bytes()
    return markup(drawing.getvalue().decode("utf-8"), picture.name, words, pixels)
