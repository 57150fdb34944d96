"""The timeline of a simulated study, drawn as that of a real one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stormsweep.errors import UserError
from stormsweep.files import replacing
from stormsweep.records import Entry
from stormsweep.report import style
from stormsweep.report.material import Material
from stormsweep.report.timeline import timeline_picture

_FORMS = ("png", "pdf", "svg")


def form_of(path: Path) -> str:
    """Return the form of a picture by its name, also before there is anything to draw.

    Raises
    ------
    UserError
        If the form is unknown, or there is no such folder.
    """
    form = path.suffix.lstrip(".").lower()
    if form not in _FORMS:
        raise UserError(f"--timeline: given {str(path)!r}; must end in .png, .pdf or .svg")
    if not path.parent.is_dir():
        raise UserError(f"--timeline: given {str(path)!r}; there is no folder {path.parent}")
    return form


def write_timeline(entries: Sequence[Entry], path: Path) -> None:
    """Draw the timeline of a journal that was simulated.

    Parameters
    ----------
    entries : sequence of Entry
        As `stormsweep.scaling.simulated_journal.journal` makes it.
    path : Path
        The picture's file; its name's end says in what form.

    Raises
    ------
    UserError
        If the form is unknown, or nothing was simulated.
    """
    form = form_of(path)
    with style.look():
        picture = timeline_picture(Material(entries))
        if picture is None:
            raise UserError("--timeline: nothing is left to train, so there is nothing to draw")
        # No study was run for it, and whoever sees it must know.
        picture.figure.text(0.01, 0.01, "simulated", ha="left", va="bottom", color="#666666")
        with replacing(path) as beside:
            picture.figure.savefig(beside, format=form, dpi=300)
