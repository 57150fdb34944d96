"""The sections of a study's report, in their order: what each shows, made from the journal."""

from __future__ import annotations

from stormsweep.report import (
    advice,
    answer,
    audit,
    cases,
    groups,
    learning,
    mattered,
    provenance,
    scaling,
    scores,
    tables,
    tested_words,
    timeline,
    timings,
    verification,
    words,
)
from stormsweep.report.material import Material
from stormsweep.report.parts import Part, Section, Table, gather
from stormsweep.results import facts

MOST_CONFIGURATIONS = 100


def _answer(material: Material) -> Part:
    value, interval = answer.score_line(material)
    return Part(
        pictures=gather(material, scores.best_picture),
        more={
            "look": material.summary,
            "metric": words.capital(material.metric_label),
            "headline": answer.headline(material),
            "fixed": answer.fixed(material),
            "score": value,
            "interval": interval,
            "sure": answer.how_sure(material),
            "no_skill": answer.no_skill(material),
            "costs": answer.costs(material),
            "scores": tables.score_rows(material),
        },
    )


def _verification(material: Material) -> Part | None:
    found = material.tested
    if found is None:
        return None
    threshold_header, thresholds = tested_words.threshold_rows(found)
    group_header, group_rows = tested_words.group_rows(found)
    return Part(
        pictures=gather(
            material, verification.curve_pictures, groups.group_picture, cases.case_picture
        ),
        more={
            "warning": tested_words.warning(found),
            "remarks": tested_words.remarks(material, found),
            "scores": tested_words.score_rows(found),
            "threshold_header": threshold_header,
            "thresholds": thresholds,
            "group_header": group_header,
            "groups": group_rows,
        },
    )


def _audit(material: Material) -> Part | None:
    if material.audit is None:
        return None
    note = (
        "The same models on their validation folds and on the test part, which none of them "
        "trained on; the 95 % interval counts the spread over folds and the sampling error of the "
        "test part. The test part differs from the validation by itself: the study's own row "
        "shows how much."
    )
    table = Table("audit", "", audit.HEADER, audit.rows(material.audit), numeric_from=2)
    return Part([note], gather(material, audit.audit_picture), [table])


def _scores(material: Material) -> Part | None:
    pictures = gather(material, scores.score_pictures)
    return Part(pictures=pictures) if pictures else None


def _configurations(material: Material) -> Part:
    header, rows, _ = tables.configuration_rows(material, MOST_CONFIGURATIONS)
    fronted = "front" in material.configurations.columns
    front = " and ".join(map(words.score_label, material.study.objectives if fronted else ()))
    return Part(
        more={
            "header": header,
            "rows": rows,
            "configurations": len(material.configurations),
            "front": front,
            "planned": material.summary.configurations_planned,
        }
    )


def _learning(material: Material) -> Part | None:
    pictures = gather(material, learning.learning_picture)
    return Part(pictures=pictures) if pictures else None


def _time(material: Material) -> Part | None:
    pictures = gather(
        material,
        timeline.timeline_picture,
        timings.breakdown_picture,
        timings.train_time_picture,
    )
    return Part(pictures=pictures) if pictures else None


def _cost(material: Material) -> Part:
    header = ["Session", "Begun", "Length", "Host (site)", "Workers", "Tasks", "Busy", "Outcome"]
    times, sessions = tables.time_rows(material), provenance.sessions(material)
    known = [
        Table(
            "worker-time",
            "Where the time went",
            ["Part", "Worker time", "Share"],
            times,
            style="total",
            files=False,
        ),
        Table("sessions", "Sessions", header, sessions, numeric_from=99, files=False),
    ]
    said = [] if sessions else ["No session is on record."]
    return Part(said, tables=[table for table in known if table.rows])


def _failures(material: Material) -> Part:
    return Part(
        more={
            "failures": provenance.failures(material),
            "in_all": len(material.failures),
            "finished": material.summary.finished,
            "refused": facts.refused(material.entries),
        }
    )


def _data(material: Material) -> Part:
    return Part(
        more={"data": provenance.data(material), "folds": provenance.folds(material)},
    )


def _provenance(material: Material) -> Part:
    study = material.study
    begun = [
        ("Begun with Stormsweep", study.version),
        ("Strategy", study.strategy),
        ("Seed", str(study.seed)),
    ]
    return Part(
        more={
            "facts_of_study": begun,
            "environment": provenance.flat(material.environment),
            "study_file": material.study_file,
            "directory": "" if material.directory is None else str(material.directory),
            "tested": material.tested is not None,
        }
    )


#: A section whose maker returns None is left out; one with nothing to tell apart from words,
#: figures and tables needs no template of its own.
SECTIONS: list[Section] = [
    Section("answer", "The answer", _answer, "answer.html"),
    Section("advice", "What to ask for next time", advice.section, "advice.html"),
    Section("verification", "Verification on the test set", _verification, "verification.html"),
    Section("audit", "What the protocol flatters", _audit),
    Section("scores", "Scores over the space", _scores),
    Section("mattered", "What mattered", mattered.section),
    Section("configurations", "Configurations", _configurations, "configurations.html"),
    Section("learning", "Learning curves", _learning),
    Section("time", "Workers and time", _time),
    Section("scaling", "Scaling", scaling.section),
    Section("cost", "Cost", _cost),
    Section("failures", "Failures", _failures, "failures.html"),
    Section("data", "Data", _data, "data.html"),
    Section("provenance", "Environment and provenance", _provenance, "provenance.html"),
]
