"""A search under way: what the strategy proposes, what is on record, what is to be done."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from stormsweep.errors import JournalError
from stormsweep.records import CandidateProposed, Entry, Record, SearchBegun, SplitScored
from stormsweep.results.journal import JournalWriter
from stormsweep.search.proposals import Outcome, Proposal
from stormsweep.sweepcv.candidates import Chooser, Parameters
from stormsweep.sweepcv.fingerprint import fingerprint
from stormsweep.sweepcv.tasks import SplitTask

log = logging.getLogger(__name__)

#: Beside the journal, while the process of the search works on a task itself: which one.
TRYING = "trying.json"
#: Means of the scores over the splits, turned so that more is better; empty: there are none.
Merits = Callable[[Sequence[SplitScored]], tuple[float, ...]]
#: What a search must have in common with what is on record, and what to say where it has not.
_MUST_FIT = {
    "estimator": "the estimator or its parameters are not those",
    "data": "X, y, or what else was passed to fit, is not that",
    "splits": "the splits of cv are not those (does cv shuffle without a random_state?)",
    "scoring": "the scoring is not that",
}


class Memory(Protocol):
    """Where a search writes down what happened."""

    #: Candidates (by key) and splits that took the process with them that worked on them.
    deadly: set[tuple[str, int]]

    def append(self, *records: Record) -> None:
        """Append records, and return when they are kept."""

    def trying(self, key: str, split: int) -> AbstractContextManager[None]:
        """Remember, should this process die meanwhile, what it worked on."""


class NoMemory:
    """A search without a directory keeps nothing."""

    def __init__(self) -> None:
        self.deadly: set[tuple[str, int]] = set()

    def append(self, *records: Record) -> None:
        """Do nothing."""

    def trying(self, key: str, split: int) -> AbstractContextManager[None]:
        """Do nothing."""
        return contextlib.nullcontext()


class OnRecord:
    """The journal of a search's directory.

    Parameters
    ----------
    path : Path
        The file; made if missing.

    Raises
    ------
    JournalError
        If it is damaged, or a study's.
    """

    def __init__(self, path: Path) -> None:
        #: The first session, and the events of the sessions of each search, in order.
        self.first: SearchBegun | None = None
        self._events: dict[str, list[CandidateProposed | SplitScored]] = {}
        self._seeds: dict[str, int] = {}
        self._search = ""
        #: The last good score of each candidate and split.
        self.scored: dict[tuple[str, int], SplitScored] = {}
        self.deadly: set[tuple[str, int]] = set()
        self._path, self._trying = path, path.with_name(TRYING)
        self._journal = JournalWriter(path, self._told)
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            said = json.loads(self._trying.read_text(encoding="utf-8"))
            self.deadly.add((str(said["key"]), int(said["split"])))

    def _told(self, entry: Entry) -> None:
        match entry.record:
            case SearchBegun() as begun:
                self.first = self.first or begun
                self._search = begun.search
            case CandidateProposed() | SplitScored() as event if self.first is not None:
                self._events.setdefault(self._search, []).append(event)
                if isinstance(event, SplitScored) and event.sound:
                    self.scored[event.key, event.split] = event
                elif isinstance(event, SplitScored) and event.lost:
                    self.deadly.add((event.key, event.split))
            case _:
                raise JournalError(
                    f"directory: {self._path} is the journal of a study; give a search a directory "
                    "of its own"
                )

    def begin(self, begun: SearchBegun) -> list[CandidateProposed | SplitScored]:
        """Begin a session; return what happened in earlier ones of the same search.

        Raises
        ------
        JournalError
            If what is on record is of another estimator, other data, splits or scoring.
        """
        if self.first is not None:
            for name, what in _MUST_FIT.items():
                if self.first.about[name] != begun.about[name]:
                    raise JournalError(
                        f"directory: {self._path.parent} holds another search: {what}; choose "
                        "another directory, or remove it"
                    )
        self._journal.append(begun)
        return self._events.get(begun.search, [])

    def append(self, *records: Record) -> None:
        """Append records, and return when they are on the disk."""
        if records:
            self._journal.append(*records)

    @contextlib.contextmanager
    def trying(self, key: str, split: int) -> Iterator[None]:
        """Leave a note that stays where this process dies, and not where anything is raised."""
        # On a full disk it is the journal that says so.
        with contextlib.suppress(OSError):
            self._trying.write_text(json.dumps({"key": key, "split": split}), encoding="utf-8")
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                self._trying.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()


class Search:
    """The candidates of a search and their scores, as far as they have come.

    Parameters
    ----------
    chooser : Chooser
        Proposes candidates.
    splits : int
        Splits of the cross-validation.
    merits : callable
        What the strategy is told of a candidate.
    memory : Memory
        Where what happens is written down.
    trained : bool
        Whether scores on the training side are asked for.
    """

    def __init__(
        self, chooser: Chooser, splits: int, merits: Merits, memory: Memory, trained: bool
    ) -> None:
        self._chooser, self._splits, self._merits = chooser, splits, merits
        self._memory, self._trained = memory, trained
        self._candidates: list[Parameters] = []
        self._proposals: list[Proposal] = []
        self._keys: list[str] = []
        self._scored: list[dict[int, SplitScored]] = []
        #: What the strategy goes by: the last of each split, failed or lacking what is asked for.
        self._seen: list[dict[int, SplitScored]] = []
        #: Candidates that the strategy was told of, and whether they have scores.
        self._told: dict[int, bool] = {}
        self._queue: deque[SplitTask] = deque()
        self._known: dict[tuple[str, int], SplitScored] = {}
        self._done = 0

    def replay(
        self,
        events: Iterable[CandidateProposed | SplitScored],
        known: dict[tuple[str, int], SplitScored],
    ) -> None:
        """Take in what is on record; call it first.

        Parameters
        ----------
        events : iterable of record
            What happened in earlier sessions of this very search, in order. A proposal that would
            not come now (another version of what proposes) ends that: what follows is found in
            `known` or done again.
        known : dict
            Scores of candidates (by key) and splits, of other searches in the same directory too.
        """
        usable = {place: scored for place, scored in known.items() if self._usable(scored)}
        waiting: dict[int, Proposal] = {}
        for event in events:
            if isinstance(event, CandidateProposed):
                if event.trial < len(self._candidates):
                    continue
                if event.trial not in waiting:
                    waiting = {each.trial: each for each in self._chooser.strategy.propose()}
                proposal = waiting.pop(event.trial, None)
                if proposal is None or self._key(proposal) != event.key:
                    break
                self._begin(proposal)
            elif event.trial < len(self._candidates):
                if self._usable(event):
                    self._scored[event.trial][event.split] = event
                self._note(event)
        self._known = usable
        for trial in range(len(self._candidates)):
            self._enqueue(trial)

    def next(self) -> SplitTask | None:
        """Return the next task; None: nothing until others come back, or nothing more at all."""
        while not self._queue:
            proposals = self._chooser.strategy.propose()
            if not proposals:
                return None
            self._memory.append(
                *(
                    CandidateProposed(
                        each.trial,
                        self._key(each),
                        {n: _written(v) for n, v in self._chooser.parameters(each).items()},
                    )
                    for each in proposals
                )
            )
            for proposal in proposals:
                self._begin(proposal)
                self._enqueue(proposal.trial)
        return self._queue.popleft()

    def deadly(self, task: SplitTask) -> bool:
        """Tell whether a task took a process with it before: then it is for a worker, alone."""
        return (task.key, task.split) in self._memory.deadly

    def trying(self, task: SplitTask) -> AbstractContextManager[None]:
        """Remember a task that this process does itself, should it die meanwhile."""
        return self._memory.trying(task.key, task.split)

    def again(self, task: SplitTask) -> None:
        """Put a task that came to nothing back, to be the next."""
        self._queue.appendleft(task)

    def take(self, *scored: SplitScored) -> None:
        """Take in results: keep them, then tell the strategy."""
        self._done += len(scored)
        self._keep(scored)

    @property
    def done(self) -> int:
        """Tasks done in this session."""
        return self._done

    @property
    def left(self) -> int:
        """Tasks that are not done, at most."""
        have = sum(map(len, self._scored))
        return max(self.tasks - have, len(self._queue))

    @property
    def tasks(self) -> int:
        """All tasks, at most."""
        return self._chooser.most * self._splits

    @property
    def kept(self) -> int:
        """Tasks whose results will not be asked for again."""
        return sum(self._usable(one) for own in self._scored for one in own.values())

    @property
    def waiting(self) -> int:
        """Tasks in the queue."""
        return len(self._queue)

    def results(self) -> tuple[list[Parameters], list[SplitScored]]:
        """Return the candidates in the order of their numbers, and their scores, split by split."""
        scored = [own[split] for own in self._scored for split in range(self._splits)]
        return list(self._candidates), scored

    def _keep(self, scored: Sequence[SplitScored]) -> None:
        for each in scored:
            self._scored[each.trial][each.split] = each
        # Ctrl-C comes out of here, when they are on record: they count as kept then.
        self._memory.append(*scored)
        for each in scored:
            self._note(each)

    def _key(self, proposal: Proposal) -> str:
        if isinstance(self._memory, NoMemory):
            # Nothing is looked up: values that have no fingerprint may be searched, too.
            return str(proposal.trial)
        return fingerprint(self._chooser.parameters(proposal))

    def _usable(self, scored: SplitScored) -> bool:
        """Tell whether a result says all that is asked for."""
        return scored.sound and (scored.train_scores is not None or not self._trained)

    def _begin(self, proposal: Proposal) -> None:
        assert proposal.trial == len(self._candidates)
        self._proposals.append(proposal)
        self._candidates.append(self._chooser.parameters(proposal))
        self._keys.append(self._key(proposal))
        self._scored.append({})
        self._seen.append({})
        self._chooser.strategy.take(proposal)

    def _enqueue(self, trial: int) -> None:
        """Queue what is not known of a candidate; take in what is."""
        key, known = self._keys[trial], []
        for split in range(self._splits):
            if split in self._scored[trial]:
                continue
            found = self._known.get((key, split))
            if found is not None:
                # The same candidate was proposed before, by this search or another.
                known.append(dataclasses.replace(found, trial=trial))
            else:
                parameters, most = self._candidates[trial], self._chooser.most
                self._queue.append(SplitTask(trial, key, split, parameters, most))
        if known:
            self._keep(known)

    def _note(self, event: SplitScored) -> None:
        """Tell the strategy of a candidate when the last of its splits is there.

        Once; where it failed, again if it is tried again and has scores.
        """
        trial, seen = event.trial, self._seen[event.trial]
        seen[event.split] = event
        if len(seen) < self._splits or self._told.get(trial):
            return
        whole = [seen[split] for split in range(self._splits) if not seen[split].error]
        merits = self._merits(whole) if len(whole) == self._splits else ()
        usable = merits if all(map(math.isfinite, merits)) else ()
        if trial in self._told and not usable:
            return
        self._told[trial] = bool(usable)
        proposal = self._proposals[trial]
        self._chooser.strategy.take(Outcome(trial, proposal.epochs, proposal.folds, usable))


def _written(value: Any) -> str:
    """Return a value as Python writes it; NumPy's numbers as Python's own."""
    return repr(value.item() if isinstance(value, np.generic) else value)


def mean_scores(scored: Sequence[SplitScored], names: Sequence[str]) -> tuple[float, ...]:
    """Return what a strategy is told of a candidate: the means of the scores that count."""
    scores = []
    for each in scored:
        own = each.test_scores
        own = own if isinstance(own, dict) else {"score": own}
        # What `error_score` stands for is no score.
        scores.append({n: np.nan if f"test_{n}" in each.unscored else v for n, v in own.items()})
    wanted = [name for name in names if name in scores[0]] or list(scores[0])[:1]
    return tuple(float(np.mean([own.get(name, np.nan) for own in scores])) for name in wanted)


def say_what_is_kept(directory: str | os.PathLike[str] | None, kept: int, tasks: int) -> None:
    """Say, where Ctrl-C ends a search with a directory, what need not be done again."""
    if directory is not None:
        log.warning(
            "interrupted: %d of %d fits are kept in %s; the same script goes on from there",
            kept,
            tasks,
            directory,
        )
