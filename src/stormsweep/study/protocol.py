"""The protocol of a study: how the training part is split, balanced and turned; does it leak?"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from stormsweep.config.kinds import STORM_SOURCES
from stormsweep.data.balance import balance
from stormsweep.data.folds import Split, folds
from stormsweep.data.prepared import Part
from stormsweep.data.split import UnknownGroupError, as_date, unknown_group
from stormsweep.errors import DataError
from stormsweep.study.held_out import leak, telling
from stormsweep.work import Augmentation, Protocol

if TYPE_CHECKING:
    from stormsweep.config.study import AugmentTable, StudyFile

#: Metrics that cases of one class alone can be scored with.
_ONE_CLASS_METRICS = ("accuracy", "loss", "brier_score")


def protocol_of(study: StudyFile) -> Protocol:
    """Return the protocol that a study file asks for."""
    validation, balancing = study.validation, study.balance
    return Protocol(
        folds=validation.folds,
        split=str(validation.split),
        group_by=validation.group_by,
        balance=balancing.method,
        ratio=balancing.ratio,
        repeats=balancing.repeats,
        before_split=balancing.scope == "before-split",
        augmentation=_augmentation(study.augment),
        seed=study.study.seed,
        rounds=validation.rounds,
    )


def _augmentation(table: AugmentTable) -> Augmentation | None:
    if table.method == "2019-ahead":
        return Augmentation(table.method, 2.0, flip=False, copies=1)
    if table.method == "2019-on-the-fly":
        return Augmentation(table.method, 5.0, flip=True, copies=0)
    if not table.rotate_degrees and not table.flip:
        return None
    copies = table.copies if table.when == "ahead" else 0
    return Augmentation(table.method, table.rotate_degrees, table.flip, copies)


def flaws(study: StudyFile, manifest: Mapping[str, Any] | None = None) -> list[str]:
    """Say what makes the validation of a study other than honest, one line each.

    Parameters
    ----------
    study : StudyFile
        The study.
    manifest : mapping, optional
        Of its prepared data; without it, groups that a function brings are not known.

    Returns
    -------
    list of str
        Empty where no copy, no group and, for storms, no track and no run date is on both sides
        of a fold or of the test part's border, and what is scored is in its natural balance.
    """
    validation, method, found = study.validation, study.balance.method, []
    first = study.balance.scope == "before-split"
    split = f'validation.split = "{validation.split}"'
    if first and method in ("oversample", "repeat") and not validation.grouped:
        found.append(
            f'balance.scope = "before-split" with {split}: copies of one case are in the training '
            "and in the validation of a fold"
        )
    if first and method in ("oversample", "repeat", "undersample"):
        found.append(
            'balance.scope = "before-split": the validation is balanced too, so that CSI, average '
            "precision and Brier score are not those of the natural frequency of events"
        )
    groups: Collection[str] = study.data.groups
    drawn_by = validation.group_by
    if manifest is not None:
        groups, drawn_by = manifest["groups"], manifest["split"].get("group", "none")
    elif study.data.source in STORM_SOURCES:
        groups = ("run_date", "track")
    if not validation.grouped and groups:
        found.append(f"{split}: cases of one {telling(groups)} are on both sides of a fold")
    elif "run_date" in groups and validation.group_by != "run_date":
        found.append(
            f'validation.group_by = "{validation.group_by}": other cases of the same run date '
            "are on the other side of a fold"
        )
    if leaking := leak(study.data, groups, drawn_by):
        found.append(leaking)
    return found


def why_no_skill(
    study: StudyFile, cases: int, events: int, skill: float, on_test: bool = False
) -> str:
    """Say why probabilities are worse than climatology, where balancing is a reason.

    Parameters
    ----------
    study : StudyFile
        The study.
    cases, events : int
        Of the training part, before balancing.
    skill : float
        The Brier skill score.
    on_test : bool
        It is that of the test part, else of the validation folds.

    Returns
    -------
    str
        Empty where there is skill, or training gave events no more weight than they have.
    """
    table = study.balance
    flattered = table.scope == "before-split" and not on_test
    rare = table.method == "repeat" or events < table.ratio * (cases - events)
    # Not a number is not below 0 either.
    if table.method == "none" or flattered or not rare or 2 * events >= cases or not skill < 0:
        return ""
    return (
        f"The Brier skill score is below 0. A reason: the classes were balanced for training "
        f"(balance.method = {table.method!r}), which makes the probability of the event higher "
        "than it is frequent. Scores of rank alone (ROC AUC, average precision) do not mind."
    )


@dataclass(frozen=True, slots=True)
class FoldRows:
    """One fold, as row numbers of the training part.

    Attributes
    ----------
    train : ndarray of int64, shape (m,)
        After balancing: rows may stand there several times.
    validation : ndarray of int64, shape (v,)
        In their natural balance.
    class_weight : tuple of float or None
        Weights of the classes 0 and 1 in the loss.
    climatology : float
        Event frequency of the training side before balancing.
    natural : int
        Rows of the training side before balancing (after it, where that comes first).
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    class_weight: tuple[float, float] | None
    climatology: float
    natural: int


def fold_rows(part: Part, protocol: Protocol) -> list[FoldRows]:
    """Split and balance the training part, all rounds; the same numbers in every process.

    Parameters
    ----------
    part : Part
        The training part.
    protocol : Protocol
        How.

    Raises
    ------
    DataError
        If the groups do not exist or are too few, the part or a fold has one class only, or there
        are more rounds than ways to split.
    """
    count, events = len(part.labels), int(part.labels.sum())
    if events in (0, count):
        # No way to split would help: folds are not to blame.
        raise DataError(
            f"data: the training part has {'events only' if events else 'no event'} "
            f"({events} events in {count} cases)",
            "use another data.threshold or data.target",
        )
    groups = None
    if protocol.group_by != "none":
        if protocol.group_by not in part.groups:
            raise unknown_group(protocol.group_by, part.groups)
        groups = part.groups[protocol.group_by]
        if protocol.split == "chronological":
            groups = _in_time(groups, part.group_labels[protocol.group_by], protocol.group_by)
    if protocol.before_split:
        return _balanced_first(part, groups, protocol)
    made = _folds(part.labels, groups, protocol)
    return [
        _fold(part, train, validation, protocol, number)
        for number, (train, validation) in enumerate(made)
    ]


def folds_of(part: Part, study: StudyFile) -> list[FoldRows]:
    """Split and balance the training part as a study file asks for; see `fold_rows`."""
    with default_group_said(study):
        return fold_rows(part, protocol_of(study))


@contextlib.contextmanager
def default_group_said(study: StudyFile) -> Iterator[None]:
    """Say so where the group that data do not have is the default: the file has no such key."""
    try:
        yield
    except UnknownGroupError as error:
        if "group_by" in study.validation.model_fields_set:
            raise
        raise DataError(error.unset) from None


def whole_part(part: Part, protocol: Protocol) -> FoldRows:
    """Return the whole training part, balanced: what a final model is trained on.

    With class weights or without balancing every row stands there once. The draw has the number of
    the fold after the first round, however many rounds there are: the same best configuration makes
    the same final model. Its validation is the part itself.
    """
    rows = np.arange(len(part.labels))
    balanced, weight = _balance(rows, part.labels, protocol, protocol.folds)
    return FoldRows(balanced, rows, weight, float(np.mean(part.labels)), len(rows))


def _in_time(codes: NDArray[Any], labels: Sequence[str], group_by: str) -> NDArray[Any]:
    """Return codes that ascend in time: labels are dates, or begin with one as tracks do.

    Raises
    ------
    DataError
        If a label holds no date.
    """
    dates = [as_date(label) or as_date(label[:8]) for label in labels]
    for label, date in zip(labels, dates, strict=True):
        if date is None:
            raise DataError(
                f'validation.split: given "chronological"; {label!r} of the group {group_by!r} is '
                "no date such as 2015-05-29 or 20150529; use a group of dates in "
                "validation.group_by"
            )
    order = sorted(range(len(labels)), key=lambda code: (dates[code], labels[code]))
    place = np.empty(len(labels), np.int64)
    place[order] = np.arange(len(labels))
    ascending: NDArray[np.int64] = place[codes]
    return ascending


def whole_rows(part: Part, protocol: Protocol) -> NDArray[np.int64]:
    """Return the rows of `whole_part`, shape (m,)."""
    return whole_part(part, protocol).train


def _folds(
    labels: NDArray[Any], groups: NDArray[Any] | None, protocol: Protocol
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    split = cast(Split, protocol.split)
    return folds(labels, groups, protocol.folds, protocol.seed, split, protocol.rounds)


def _balance(
    rows: NDArray[np.int64], labels: NDArray[Any], protocol: Protocol, number: int
) -> tuple[NDArray[np.int64], tuple[float, float] | None]:
    return balance(
        rows,
        labels,
        protocol.balance,
        protocol.ratio,
        protocol.seed,
        number,
        protocol.repeats,
    )


def _fold(
    part: Part,
    train: NDArray[np.int64],
    validation: NDArray[np.int64],
    protocol: Protocol,
    number: int,
) -> FoldRows:
    balanced, weight = _balance(train, part.labels, protocol, number)
    climatology = float(np.mean(part.labels[train]))
    return FoldRows(balanced, validation, weight, climatology, len(train))


def _balanced_first(part: Part, groups: NDArray[Any] | None, protocol: Protocol) -> list[FoldRows]:
    """Balance, then split what came of it: copies of a case are split as if they were others."""
    rows, weight = _balance(np.arange(len(part.labels)), part.labels, protocol, protocol.folds)
    labels = part.labels[rows]
    made = _folds(labels, None if groups is None else groups[rows], protocol)
    return [
        FoldRows(rows[train], rows[held], weight, float(np.mean(labels[train])), len(train))
        for train, held in made
    ]


def check_metric(part: Part, rows: Sequence[FoldRows], metric: str) -> None:
    """Refuse a metric that has no value on the validation of a fold.

    Raises
    ------
    DataError
        If a fold validates on one class only and the metric needs both.
    """
    if metric in _ONE_CLASS_METRICS:
        return
    for number, fold in enumerate(rows):
        events = int(part.labels[fold.validation].sum())
        if events in (0, len(fold.validation)):
            raise DataError(
                f"search.metric: given {metric!r}, which needs both classes; the validation of "
                f"fold {number} (of 0 to {len(rows) - 1}) has {events} events in "
                f"{len(fold.validation)} cases",
                f"must be one of {', '.join(_ONE_CLASS_METRICS)}, or validation.split another than "
                '"consecutive"',
            )


def fold_sizes(part: Part, rows: list[FoldRows], group_by: str) -> list[dict[str, Any]]:
    """Return what the journal says of the folds (`records.StudyBegun.fold_sizes`)."""
    return [
        {
            "train": fold.natural,
            "train_positives": round(fold.climatology * fold.natural),
            "epoch_patches": len(fold.train),
            "validation": len(fold.validation),
            "validation_positives": int(part.labels[fold.validation].sum()),
            "groups": len(np.unique(part.groups[group_by][fold.validation]))
            if group_by != "none"
            else 0,
        }
        for fold in rows
    ]
