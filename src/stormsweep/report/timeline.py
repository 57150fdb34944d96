"""The timeline of a study: what each worker did when."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd

from stormsweep.report import spans, words
from stormsweep.report.axes import places, scale_of
from stormsweep.report.material import Material
from stormsweep.report.spans import Mark, Spans
from stormsweep.report.style import BLUE, COLOURS, RED, Picture


def timeline_picture(material: Material) -> Picture | None:
    """Show what each worker did when; pauses between sessions are cut out."""
    tasks, sessions = material.tasks, material.sessions
    if tasks.empty or sessions.empty:
        return None
    clock = Clock(sessions)
    data = _data(material, clock)
    shown = _spans(material, clock, data)
    caption = _caption(material, clock, shown.what)
    closer = f"{caption} Draw a box, or move the window beneath, to look closer; point at a bar."
    return Picture(
        "timeline",
        "Timeline of the workers",
        caption,
        spans.drawn(shown),
        data,
        lambda: spans.live(shown, closer),
    )


class Clock:
    """Instants as seconds at work: the sessions laid end to end."""

    def __init__(self, sessions: pd.DataFrame) -> None:
        self.shifts: dict[int, float] = {}
        self.pauses: list[tuple[float, float]] = []
        self.length, ended = 0.0, None
        for row in sessions.to_dict("records"):
            if ended is not None:
                self.pauses.append((self.length, max(row["begun"] - ended, 0.0)))
            self.shifts[int(row["session"])] = self.length - row["begun"]
            self.length += row["seconds"]
            ended = row["ended"]
        self.length = self.length or 1.0

    def at(self, session: pd.Series[Any], instant: pd.Series[Any]) -> pd.Series[float]:
        """Return the seconds at work at instants of sessions."""
        first = next(iter(self.shifts.values()))
        return instant + session.map(self.shifts).fillna(first)


def _data(material: Material, clock: Clock) -> pd.DataFrame:
    """Return one row a task: from when to when, since the study began, pauses cut out."""
    tasks = material.tasks
    names = [column for name, column in material.columns.items() if name != "epochs"]
    frame = tasks[["worker", "session", "run", "fold", *names, "from_epoch", "to_epoch"]].copy()
    frame["begun_seconds"] = clock.at(tasks["session"], tasks["started"])
    frame["ended_seconds"] = frame["begun_seconds"] + tasks["stopped"] - tasks["started"]
    own = ["waited", "train_seconds", "bundle", "paused"]
    return frame.assign(**{name: tasks[name] for name in own})


def _spans(material: Material, clock: Clock, data: pd.DataFrame) -> Spans:
    tasks = material.tasks
    workers = sorted({*tasks["worker"], *material.workers["worker"]}, key=spans.natural)
    codes, colours, texts, what = _colours(material)
    columns = {name: column for name, column in material.columns.items() if name != "epochs"}
    head = tasks[["open_seconds", "build_seconds", "compile_seconds"]].sum(axis=1)
    bars = tasks[
        ["worker", *columns.values(), "run", "fold", "from_epoch", "to_epoch", "patches_per_second"]
    ].assign(
        begun=data["begun_seconds"],
        ended=data["ended_seconds"],
        head=head * tasks["bundle"],
        train=tasks["train_seconds"] * tasks["bundle"],
        code=codes,
    )
    # Runs of a bundle have their times in common, and one bar.
    once = ~tasks.duplicated(["session", "worker", "started"])
    varied = {name: column for name, column in columns.items() if name in material.varied}
    return Spans(
        bars[once],
        workers,
        clock.length,
        colours,
        texts,
        what,
        varied or columns,
        _marks(material, clock, set(workers)),
        clock.pauses,
        material.synthetic_note,
        material.cases,
    )


def _colours(material: Material) -> tuple[Any, list[str], list[str], str]:
    """Return the code of each task's colour, the colours and their texts: by batch size first."""
    tasks = material.tasks
    # Colours are those of a whole bar, so of what the runs of a bundle have in common.
    mixed = {"epochs", "learning_rate"} if tasks["bundle"].max() > 1 else {"epochs"}
    names = [n for n in ("batch_size", *material.varied) if n in material.varied and n not in mixed]
    for name in names:
        scale = scale_of(material, name, tasks[material.columns[name]])
        if 1 < len(scale.values) <= len(COLOURS) - 1:
            # From dark to light in the order of the values, even in grey print.
            ramp = mpl.colormaps["viridis"](np.linspace(0.05, 0.95, len(scale.values)))
            order = {scale.place(value): code for code, value in enumerate(scale.values)}
            keys = places(scale, tasks[material.columns[name]])
            codes = np.array([order[key] for key in keys])
            texts = [words.short(words.value(value), 20) for value in scale.values]
            hexes = [mpl.colors.to_hex(colour) for colour in ramp]
            return codes, hexes, texts, f"Training, by {words.label(name)}"
    return np.zeros(len(tasks), dtype=int), [BLUE.lower()], ["training"], ""


def _marks(material: Material, clock: Clock, workers: set[str]) -> list[Mark]:
    """Return failures and repeated tasks."""
    marks = []
    crossed, triangle = "\N{BALLOT BOX WITH X}", "\N{BLACK DOWN-POINTING TRIANGLE}"
    failed, lost = "run failed", "task lost and repeated"
    for table, text, marker, live, sign, colour in (
        (material.failures, failed, "X", "square_x", crossed, RED.lower()),
        (material.retries, lost, "v", "inverted_triangle", triangle, "#e69f00"),
    ):
        known = table[table["worker"].isin(workers)]
        if len(known):
            at = clock.at(known["session"], known["time"]).tolist()
            reasons = known["reason"].astype(str).tolist()
            own = known["worker"].tolist()
            marks.append(Mark(text, marker, live, sign, colour, own, at, reasons))
    return marks


def _caption(material: Material, clock: Clock, what: str) -> str:
    text = "Each bar is a task of a worker; where there is none, it waits."
    if material.tasks["bundle"].max() > 1:
        text = (
            "Each bar is what a worker did at one go, often a bundle of runs (up to "
            f"{material.tasks['bundle'].max()}) that were trained together; where there is "
            "none, it waits."
        )
    if what:
        text += f" Colour: {what[0].lower()}{what[1:]}; grey: what a task does besides training."
    if material.tasks["paused"].any():
        text += " A task that was paused when its worker's time was over has several bars."
    if clock.pauses:
        total = sum(pause for _, pause in clock.pauses)
        text += (
            f" Dashed lines: the driver was stopped ({words.duration(total)} in all), and the "
            "study went on later."
        )
    outside = material.failures
    outside = outside[~outside["worker"].isin(list(material.workers["worker"]))]
    if len(outside):
        text += f" {words.count(len(outside), 'failure')} without a worker not shown."
    return text
