"""The audit: how much a leaky protocol flatters the score, against cases that no training saw."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stormsweep.config.kinds import STORM_SOURCES
from stormsweep.config.study import SearchTable, StudyFile
from stormsweep.data.prepared import Part
from stormsweep.errors import DataError, StudyFileError
from stormsweep.files import within_group, write_json
from stormsweep.records import RunFailed
from stormsweep.results.facts import planned_configurations
from stormsweep.study.held_out import check_test_part, leak
from stormsweep.study.protocol import check_metric, flaws, folds_of, protocol_of
from stormsweep.study.study import Study
from stormsweep.work import Hyperparameters, identity

if TYPE_CHECKING:
    import pandas as pd

    from stormsweep.study.watching import Watcher


@dataclass(frozen=True, slots=True)
class Variant:
    """One protocol of an audit.

    Attributes
    ----------
    name, title : str
        Of its folder, and in words.
    file : StudyFile
        The study of one configuration under this protocol.
    """

    name: str
    title: str
    file: StudyFile


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found.

    Attributes
    ----------
    directory : Path
        Where it lies: a folder for each configuration, in it a study's directory for each protocol.
    configuration : dict
        The hyperparameters that all protocols trained.
    table : DataFrame
        From `stormsweep.results.audit.flattery`.
    failed : list of RunFailed
        Runs that failed.
    """

    directory: Path
    configuration: Hyperparameters
    table: pd.DataFrame
    failed: list[RunFailed]


def variants(study: StudyFile, configuration: Hyperparameters) -> list[Variant]:
    """Return the protocols that an audit compares.

    The study's own comes first; where that is not honest, an honest one follows. Then come random
    folds (training and validation share groups), balancing before random folds (they share copies)
    and the protocol of the 2019 scripts as it was coded. One that equals an earlier one is left
    out.

    Parameters
    ----------
    study : StudyFile
        The study.
    configuration : dict
        The hyperparameters that all train, ``batch_size`` and ``epochs`` included.
    """
    # What the study's own strategy is told besides would be refused of a grid.
    one = SearchTable(
        metric=study.search.metric,
        space={name: [value] for name, value in configuration.items()},
    )
    base = study.model_copy(
        update={"search": one, "model": study.model.model_copy(update={"parameters": {}})}
    )

    def with_protocol(validation: dict[str, Any], balance: dict[str, Any]) -> StudyFile:
        return base.model_copy(
            update={
                "validation": base.validation.model_copy(update=validation),
                "balance": base.balance.model_copy(update=balance),
            }
        )

    inside = {"scope": "training-folds"}
    at_random = {"split": "stratified", "group_by": "none"}
    sampled = study.balance.method in ("oversample", "repeat")
    first = {"scope": "before-split"} | ({} if sampled else {"method": "oversample"})
    asked = [Variant("study", "as the study says", base)]
    dated = study.data.source in STORM_SOURCES or "run_date" in study.data.groups
    if flaws(study) and dated:
        honest = with_protocol({"split": "grouped", "group_by": "run_date"}, inside)
        asked.append(Variant("grouped", "folds by run date", honest))
    asked.append(Variant("random-folds", "random folds", with_protocol(at_random, inside)))
    asked.append(
        Variant(
            "balanced-first", "oversampled before random folds", with_protocol(at_random, first)
        )
    )
    coded = with_protocol(
        {"split": "consecutive", "group_by": "none", "folds": 3, "rounds": 1},
        {"method": "repeat", "repeats": 18, "scope": "before-split"},
    )
    # Its last fold holds events only, on which ranking scores mean nothing.
    coded = coded.model_copy(
        update={"search": coded.search.model_copy(update={"metric": "accuracy"})}
    )
    asked.append(Variant("2019-as-coded", "2019 as coded", coded))
    kept: dict[Any, Variant] = {}
    for variant in asked:
        kept.setdefault(protocol_of(variant.file), variant)
    return list(kept.values())


@within_group()
def audit(study: Study, configuration: str | None = None, watcher: Watcher | None = None) -> Audit:
    """Train one configuration under the study's protocol and under leaky ones.

    Every fold's model is scored on its validation and on the test part, which no protocol trains
    on. What was trained before is not trained again. A protocol that the data do not allow is left
    out, and said.

    Parameters
    ----------
    study : Study
        The study; it need not have been run.
    configuration : str, optional
        Id of the configuration, as `Study.results` has it; by default the best on record, else the
        first of those with the most epochs.
    watcher : Watcher, optional
        Shown what goes on.

    Returns
    -------
    Audit

    Raises
    ------
    StudyFileError
        If there is no such configuration.
    DataError
        If the study has no test part or one of a single class, or its own protocol cannot be
        carried out.
    """
    from stormsweep.results.audit import FILE, FOLDER, flattery
    from stormsweep.study.watching import Silent

    watcher = watcher or Silent()
    study.check_meant()
    chosen = _configuration(study, configuration)
    data = study.prepare(watcher)
    if not data.manifest["parts"]["test"]["count"]:
        raise DataError(
            f"{study.path}: data.test_from: not given; an audit compares with a test part"
        )
    check_test_part(data.summary(), study.path)
    drawn = data.manifest["split"].get("group", "none")
    if why := leak(study.file.data, data.manifest["groups"], drawn):
        watcher.note(
            f"The test part is not of unseen cases: {why}; what protocols flatter comes out too "
            "small."
        )
    # One layout for all protocols: their scores are to be compared.
    listed = possible(variants(study.without_trial().file, chosen), data.part("train"), watcher)
    directory = study.directory / FOLDER
    place = directory / identity(chosen)
    failed: list[RunFailed] = []
    studies = [Study(one.file, study.path, place / one.name, audited=data) for one in listed]
    for number, (variant, each) in enumerate(zip(listed, studies, strict=True), start=1):
        watcher.note(f"protocol {number} of {len(listed)}: {variant.title}")
        failed += each.run(watcher).failed
    write_json(
        directory / FILE,
        {
            "study": study.file.study.name,
            "metric": study.file.search.metric,
            "configuration": chosen,
            "folder": place.name,
            "synthetic": data.synthetic,
            "source": study.file.data.source,
            "protocols": {variant.name: variant.title for variant in listed},
        },
    )
    table = flattery({v.title: s.entries() for v, s in zip(listed, studies, strict=True)})
    return Audit(directory, chosen, table, failed)


def possible(asked: list[Variant], part: Part, watcher: Watcher) -> list[Variant]:
    """Leave out protocols that the data do not allow, and say so.

    Parameters
    ----------
    asked : list of Variant
        The study's own protocol first.
    part : Part
        The training part.
    watcher : Watcher
        Told what is left out.

    Raises
    ------
    DataError
        If the data do not allow the study's own protocol.
    """
    kept = []
    for variant in asked:
        try:
            rows = folds_of(part, variant.file)
            check_metric(part, rows, variant.file.search.metric)
        except DataError as error:
            if variant is asked[0]:
                raise
            # What to do about it is said to whoever asks for such a protocol.
            watcher.note(f"left out: {variant.title}, which these data do not allow ({error.what})")
        else:
            kept.append(variant)
    return kept


def _configuration(study: Study, wanted: str | None) -> Hyperparameters:
    # What a strategy that learns asked for stands on record only.
    planned = planned_configurations(study.entries()) if study.journal_path.is_file() else {}
    planned |= {identity(values): values for values in study.plan().configurations}
    if wanted is not None:
        if wanted not in planned:
            raise StudyFileError(
                f"--configuration: given {wanted!r}; must be one of the ids that "
                "`stormsweep results` lists, such as " + next(iter(planned))
            )
        return planned[wanted]
    if study.journal_path.is_file() and (best := study.summary().best) is not None:
        return best.hyperparameters
    return max(planned.values(), key=lambda values: values["epochs"])
