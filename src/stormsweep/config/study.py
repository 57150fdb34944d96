"""The study file: every table, every key, every default."""

from __future__ import annotations

import datetime as dt
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    Tag,
    field_validator,
    model_validator,
)

from stormsweep.config.kinds import (
    GROUPED_SPLITS,
    ONE_WAY_SPLITS,
    STORM_KEYS,
    STORM_SOURCES,
    TABLE_SOURCES,
)
from stormsweep.config.space_checks import (
    check_constraints,
    check_search,
    check_strategy,
)
from stormsweep.config.walltimes import walltime_seconds

Scalar = StrictBool | StrictInt | StrictFloat | StrictStr
Choice = Scalar | list[Scalar]

#: Higher is better, or lower.
METRICS: dict[str, Literal["maximize", "minimize"]] = {
    "roc_auc": "maximize",
    "average_precision": "maximize",
    "accuracy": "maximize",
    "brier_skill_score": "maximize",
    "csi": "maximize",
    "f1": "maximize",
    "brier_score": "minimize",
    "loss": "minimize",
}
#: Values that a score cannot leave.
BOUNDS: dict[str, tuple[float, float]] = dict.fromkeys(METRICS, (0.0, 1.0)) | {
    "brier_skill_score": (-math.inf, 1.0),
    "loss": (0.0, math.inf),
}
#: What storms are predicted for unless another target is named: strong rotation.
_ROTATION = "RVORT1_MAX_future"


def cases_of(source: str) -> str:
    """Return what the cases of a source are called, which is one of `DataTable.source`.

    Examples
    --------
    >>> cases_of("twin"), cases_of("csv"), cases_of("mine.py:load")
    ('patches', 'cases', 'cases')
    """
    return "patches" if source in STORM_SOURCES else "cases"


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a number")
    return value


def _date(value: Any) -> Any:
    if isinstance(value, dt.datetime) or not isinstance(value, dt.date | str):
        raise ValueError("must be a date such as 2015-01-01")
    return value


def _count_or_auto(value: Any) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if not whole and value != "auto":
        raise ValueError('must be a whole number from 1, or "auto"')
    return value


def _walltime(value: object) -> object:
    if isinstance(value, dt.time):
        raise ValueError(f'must be in quotes: "{value.isoformat()}"')
    if not isinstance(value, str):
        raise ValueError('must be a text in quotes, such as "04:00:00" or "1-00:00:00"')
    walltime_seconds(value)
    return value


def _yes_no_auto(value: Any) -> Any:
    if not isinstance(value, bool) and value not in ("auto", "across"):
        raise ValueError('must be true, false, "auto" or "across"')
    return value


Count = Annotated[StrictInt, BeforeValidator(_no_bool), Field(ge=1)]
CountOrAuto = Annotated[int | Literal["auto"], BeforeValidator(_count_or_auto)]
Real = Annotated[float, BeforeValidator(_number)]
Walltime = Annotated[StrictStr, BeforeValidator(_walltime)]


class Table(BaseModel):
    """A table of a TOML file: unknown keys are refused, values do not change."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class StudyTable(Table):
    """``[study]``: what the study is called and what its randomness starts from."""

    name: Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    """Name of the study and of its directory under ``runs/``."""
    seed: Annotated[StrictInt, BeforeValidator(_no_bool), Field(ge=0, lt=2**32)] = 0
    """Initial weights, batch order, folds and the twin follow from it."""
    keep_checkpoints: StrictBool = True
    """Keep the last checkpoint of every run: a study that grows goes on from it. ``false`` saves
    the disk; more epochs are then trained from the start. Halvings keep them in any case: they go
    on with the best."""


class DataTable(Table):
    """``[data]``: where the cases come from, what is predicted from what."""

    source: StrictStr = "twin"
    """``twin``, ``ncar-storms``, ``csv``, ``npz``, or a function ``package.module:function``."""
    path: Path | None = None
    """Folder of storm files, or a file, folder or pattern of tables, relative to the study file;
    the twin needs none."""
    patches: Annotated[StrictInt, Field(ge=100)] = 6000
    """How many storm patches the twin has."""
    inputs: Annotated[list[StrictStr], Field(min_length=1)] | None = None
    """Storms: weather fields, or else columns of the tables, by name or pattern (``*_mean``).
    csv: columns or patterns of columns; npz: one array. Unset: ``REFL_COM_curr``, ``U10_curr`` and
    ``V10_curr`` for storms, ``inputs`` for npz; csv needs it."""
    target: StrictStr | None = None
    """The variable, column or array that is predicted. Unset: ``RVORT1_MAX_future`` for storms,
    ``labels`` for npz; csv needs it."""
    label_from: Literal["mask", "patch"] = "mask"
    """Storms: greatest target value over the storm's own cells (as in 2019) or the whole patch."""
    threshold: Real | None = None
    """The event is a target above this. Unset: 0.005 (s-1) for ``RVORT1_MAX_future`` of storms, but
    for none of their other targets; else the target is 0 or 1 already."""
    event: Literal[">", ">="] = ">"
    """Whether a target equal to the threshold is an event (``>=``) or not (``>``)."""
    first_date: Annotated[dt.date, BeforeValidator(_date)] | None = None
    """Storms: runs before this date are left out."""
    last_date: Annotated[dt.date, BeforeValidator(_date)] | None = None
    """Storms: runs after this date are left out."""
    missing: Literal["refuse", "drop"] = "refuse"
    """Storms with missing values in what is read of them: an error, or left out and counted."""
    groups: dict[StrictStr, StrictStr] = {}
    """csv, npz: names of groups, each a column (array) or ``file:REGEX`` on the file's name."""
    vectors: dict[StrictStr, Annotated[list[StrictStr], Field(min_length=2, max_length=2)]] = {}
    """Images of npz and functions: pairs of channels that are the x and y components of a vector;
    where patches are turned, these turn with them."""
    test_from: Annotated[dt.date, BeforeValidator(_date)] | None = None
    """Cases of this date and later are the test set, not touched by the search. Unset: 2015-01-01
    for storms; else `test_fraction` says what is kept."""
    test_fraction: Annotated[Real, Field(ge=0, lt=1)] = 0.0
    """Without dates: share of the cases kept as the test set: whole groups of ``group_by``, or
    single cases where that is ``none``; these are like those of their group that train."""
    cache: Path = Path("data")
    """Folder for the twin's files and for prepared arrays, relative to the folder in which the
    command is given."""

    @field_validator("source")
    @classmethod
    def _known_source(cls, value: str) -> str:
        if value not in STORM_SOURCES + TABLE_SOURCES and ":" not in value:
            raise ValueError('must be "twin", "ncar-storms", "csv", "npz" or "module:function"')
        return value

    @model_validator(mode="after")
    def _defaults(self) -> DataTable:
        if self.source in STORM_SOURCES:
            storm_defaults: dict[str, Any] = {
                "inputs": ["REFL_COM_curr", "U10_curr", "V10_curr"],
                "target": _ROTATION,
                "test_from": dt.date(2015, 1, 1),
            }
            if self.target in (None, _ROTATION):
                # In s-1: of other targets it would be another event altogether.
                storm_defaults["threshold"] = 0.005
            for key, value in storm_defaults.items():
                if getattr(self, key) is None:
                    object.__setattr__(self, key, value)
        return self

    @model_validator(mode="after")
    def _storms_only(self) -> DataTable:
        for key in STORM_KEYS if self.source not in STORM_SOURCES else ():
            if getattr(self, key) not in (None, "refuse"):
                raise ValueError(
                    f"data.{key}: is for storms; source is {self.source!r}, where rows are chosen "
                    "before Stormsweep sees them; remove it"
                )
        if self.vectors and self.source == "csv":
            raise ValueError("data.vectors: is for images; rows of tables are none; remove it")
        if self.first_date and self.last_date and self.last_date < self.first_date:
            raise ValueError(
                f"data.last_date: given {self.last_date}; must not be before data.first_date, "
                f"{self.first_date}"
            )
        return self


class BalanceTable(Table):
    """``[balance]``: how the rare class is given weight in training."""

    method: Literal["none", "oversample", "undersample", "class-weight", "repeat"] = "none"
    """Random over- or undersampling by index, weights in the loss, or every case of the rare class
    `repeats` times more (as in 2019)."""
    ratio: Annotated[Real, Field(gt=0, le=1)] = 1.0
    """Minority to majority after balancing; ``repeat`` has no use for it."""
    repeats: Count = 18
    """``repeat``: how often each case of the rare class is appended to the cases."""
    scope: Literal["training-folds", "before-split"] = "training-folds"
    """``before-split`` balances before the folds are made, as in 2019: copies of a case may then be
    in the training and the validation of a fold, which flatters the score."""


class AugmentTable(Table):
    """``[augment]``: training patches turned at random; what is scored is never turned."""

    method: Literal["physical", "2019-ahead", "2019-on-the-fly"] = "physical"
    """``physical`` turns the wind vectors with the image. The two ways of the 2019 scripts, for
    comparison: every patch by 2 degrees with zeros in the corners; up to 5 degrees and mirrored at
    random; both leave the winds as they are."""
    rotate_degrees: Annotated[Real, Field(ge=0, le=180)] = 0.0
    """Largest rotation of a patch, either way, drawn evenly; 0 is none. Corners are reflected."""
    flip: StrictBool = False
    """Mirror patches at random, west to east. Refused for storms: a mirror image turns cyclonic
    rotation into anticyclonic, and the label would no longer be true."""
    flip_anyway: StrictBool = False
    """Mirror storms all the same."""
    when: Literal["on-the-fly", "ahead"] = "on-the-fly"
    """Another rotation in every epoch, inside the compiled program; or `copies` rotations of each
    patch made once, on disk, one of which (or the patch itself) each epoch takes."""
    copies: Count = 4
    """``ahead``: rotated versions of each patch on disk."""

    @model_validator(mode="after")
    def _fixed_by_name(self) -> AugmentTable:
        if self.method == "physical":
            return self
        if self.rotate_degrees or self.flip:
            key = "rotate_degrees" if self.rotate_degrees else "flip"
            raise ValueError(
                f"augment.{key}: given {getattr(self, key)!r} beside method = {self.method!r}, "
                'which fixes it; remove it, or use method = "physical"'
            )
        when: Any = self.method.removeprefix("2019-")
        if "when" in self.model_fields_set and self.when != when:
            raise ValueError(
                f"augment.when: given {self.when!r} beside method = {self.method!r}; remove it"
            )
        object.__setattr__(self, "when", when)
        return self


class ModelTable(Table):
    """``[model]``: who builds the model, and what stays fixed in it."""

    build: StrictStr = "stormsweep.models:storm_cnn"
    """``package.module:function`` or ``file.py:function``, relative to the study file."""
    parameters: dict[StrictStr, Choice] = {}
    """Hyperparameters that are not searched; ``batch_size`` and ``epochs`` may stand here too:
    unless they do, or are searched, they are 128 and 10."""

    @field_validator("build")
    @classmethod
    def _has_function(cls, value: str) -> str:
        module, _, function = value.rpartition(":")
        if not module or not function.isidentifier():
            raise ValueError('must be "package.module:function" or "file.py:function"')
        return value


class Choices(Table):
    """A list of the space that holds under a condition: ``{values = [0.5, 0.9], when = {...}}``."""

    values: Annotated[list[Choice], Field(min_length=1)]
    """The values."""
    when: Annotated[dict[StrictStr, list[Choice]], Field(min_length=1)]
    """Other hyperparameters and the values at which this one is there: ``{optimizer = ["sgd"]}``;
    all of them must hold. Elsewhere the builder is called without it."""


class Range(Table):
    """A range of the space: ``{low = 1e-4, high = 1e-1, log = true}``."""

    low: Real
    """Smallest value."""
    high: Real
    """Greatest value."""
    log: StrictBool = False
    """Draw uniformly in the logarithm."""
    integer: StrictBool = False
    """Draw whole numbers, both ends included."""
    when: dict[StrictStr, list[Choice]] = {}
    """As in a list with a condition."""

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if not self.low < self.high:
            raise ValueError("low must be below high")
        if self.log and self.low <= 0:
            raise ValueError("a log range must begin above 0")
        if self.integer and (self.low != int(self.low) or self.high != int(self.high)):
            raise ValueError("an integer range must begin and end with whole numbers")
        return self


def _check_values(key: str, values: Any) -> None:
    if not isinstance(values, list):
        raise ValueError(
            f"{key}: given {values!r}; must be a list of values, "
            "or a range such as {low = 1e-4, high = 1e-1, log = true}"
        )
    if not values:
        raise ValueError(f"{key}: given []; must have at least one value")
    for index, value in enumerate(values):
        parts = value if isinstance(value, list) else [value]
        if not all(_is_scalar(part) for part in parts):
            raise ValueError(
                f"{key}: given {value!r} in the list; "
                "must be a finite number, a text, true, false, or a list of these"
            )
        if any(value == other and type(value) is type(other) for other in values[:index]):
            raise ValueError(f"{key}: given {value!r} twice; must be different values")


def _kind(given: Any) -> str:
    """Tell what a line of the space means to be, so that mistakes are those of one kind only."""
    if isinstance(given, dict | Table):
        return "<values>" if isinstance(given, Choices) or "values" in dict(given) else "<range>"
    return "<list>"


Searched = Annotated[
    Annotated[list[Choice], Tag("<list>")]
    | Annotated[Choices, Tag("<values>")]
    | Annotated[Range, Tag("<range>")],
    Discriminator(_kind),
]


def _is_scalar(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, bool | int | str)


class SearchTable(Table):
    """``[search]``: which configurations are tried, and what the best is best in."""

    strategy: StrictStr = "grid"
    """``grid`` tries every combination; ``random`` draws `trials` of them, ``sobol`` spreads them
    evenly. ``tpe``, ``cma-es``, ``gp`` and ``nsga2`` learn from the scores where to look next
    (Optuna's). ``halving``, ``hyperband`` and ``asha`` begin many trials of `sampler` and go on
    with the best of them; or the name of a plug-in."""
    metric: StrictStr = "roc_auc"
    """The score that ranks configurations."""
    objectives: list[StrictStr] = []
    """``nsga2``: the scores that are traded off against each other, `metric` among them. Unset:
    `metric` alone."""
    trials: Count = 20
    """How many configurations are tried at most; a grid has as many as it has."""
    sampler: StrictStr = "random"
    """``halving``, ``hyperband``, ``asha``: the strategy that proposes what is begun."""
    reduction: Annotated[StrictInt, BeforeValidator(_no_bool), Field(ge=2)] = 3
    """``halving``, ``hyperband``, ``asha``: one of so many trials goes on from each milestone."""
    first_folds: Count | None = None
    """``halving``, ``hyperband``, ``asha``: folds on which trials are first scored, before the
    best of them are scored on all; unset: all folds at once."""
    known: Path | None = None
    """Points whose scores are known, for strategies that learn: a file that ``stormsweep import``
    wrote, or the directory of an earlier study. Their scores must be of the same metric on like
    data; the study keeps a copy."""
    constraints: list[StrictStr] = []
    """What must hold among hyperparameters, such as ``"filters * layers <= 256"``."""
    space: dict[StrictStr, Searched] = {}
    """Hyperparameters: a list of values each, or a range (not for a grid). A study that was begun
    may grow: more values, wider ranges, more trials; only what is new is trained."""

    @field_validator("strategy")
    @classmethod
    def _known_strategy(cls, value: str) -> str:
        check_strategy(value)
        return value

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, value: str) -> str:
        if value not in METRICS:
            raise ValueError(f"must be one of {', '.join(METRICS)}")
        return value

    @field_validator("space", mode="before")
    @classmethod
    def _sound_space(cls, space: Any) -> Any:
        for name, values in space.items() if isinstance(space, dict) else ():
            if isinstance(values, dict):
                if isinstance(values.get("values"), list):
                    _check_values(f"search.space.{name}.values", values["values"])
            elif not isinstance(values, Table):
                _check_values(f"search.space.{name}", values)
        return space

    @model_validator(mode="after")
    def _sound(self) -> SearchTable:
        check_search(self)
        return self


class ValidationTable(Table):
    """``[validation]``: how the training part is split."""

    folds: Annotated[StrictInt, BeforeValidator(_no_bool), Field(ge=2)] = 3
    """Number of folds of a round."""
    rounds: Count = 1
    """How often the training part is split anew; raising it adds folds to a study that was begun.
    ``chronological`` and ``consecutive`` have one round."""
    split: (
        Literal[
            "grouped", "stratified-grouped", "chronological", "stratified", "k-fold", "consecutive"
        ]
        | None
    ) = None
    """``grouped``: no group of `group_by` is on both sides of a fold; ``stratified-grouped``: with
    the share of events alike, too; ``chronological``: earlier groups train, later ones validate.
    Without regard to groups: ``stratified``, ``k-fold`` (at random) and ``consecutive`` (rows as
    they stand: the folds that the 2019 scripts really had). Unset: ``grouped``, or ``stratified``
    where `group_by` is ``none``."""
    group_by: StrictStr = ""
    """Name of the group, such as ``run_date`` or ``track``, or ``none``. Unset: ``none`` for
    ``stratified``, ``k-fold``, ``consecutive`` and for tables (csv, npz) without ``data.groups``,
    else ``run_date``."""

    @property
    def grouped(self) -> bool:
        """Whether no group is on both sides of a fold."""
        return self.split in GROUPED_SPLITS

    @property
    def total(self) -> int:
        """Folds of all rounds together: on how many each configuration is trained."""
        return self.folds * self.rounds


class EngineTable(Table):
    """``[engine]``: what trains."""

    use: Literal["tensorflow", "jax"] = "tensorflow"
    """``tensorflow`` trains on the processor, ``jax`` on a GPU, each worker on one of its own; it
    comes with ``pip install -e '.[gpu]'`` in the checkout."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """``bfloat16`` computes in mixed precision; weights stay float32. It pays where processors have
    instructions for it, which ``stormsweep doctor`` tells; others take many times as long."""
    packing: StrictBool = True
    """``tensorflow``: convolutions with few channels compute neighbouring cells together: faster,
    and the same up to rounding. ``false``: in float32, the weights of Keras's own ``fit``, to the
    bit."""
    bundle: CountOrAuto = "auto"
    """``jax``: how many runs at most are trained together in one program; they may differ in
    learning rate and fold only. ``auto``: as many as fit into memory, up to 64; 1: none."""

    @model_validator(mode="after")
    def _bundles_on_jax(self) -> EngineTable:
        if self.bundle != "auto" and self.use != "jax":
            raise ValueError(
                f"engine.bundle: given {self.bundle} beside use = {self.use!r}; bundles are for "
                'use = "jax"; remove it'
            )
        return self


class SiteChoice(Table):
    """``[site]``: where the work runs."""

    use: StrictStr = "local"
    """``local``, or a name from sites.toml."""
    workers: CountOrAuto = 2
    """Worker processes. ``auto``: as many as fill the cores this process may use. With the engine
    ``jax`` the default is ``auto``: one for each GPU, or one where there is none."""
    threads_per_worker: CountOrAuto = 1
    """Compute threads of each worker; scores are the same to the bit for one number of threads.
    ``auto``, or left out where `workers` is ``auto``: a short trial of some layouts finds the
    fastest, and the study keeps it; beside a number of workers: their share of the cores. With the
    engine ``jax`` the default is ``auto``: the share of the cores."""
    pin: Annotated[StrictBool | Literal["auto", "across"], BeforeValidator(_yes_no_auto)] = "auto"
    """Keep each worker on cores of its own, of one memory node where possible. ``auto``: where the
    study fills all the cores it may use, so that two smaller studies do not meet on the same.
    ``across``: on cores of all memory nodes alike, only to measure what that costs (`scale`)."""
    nodes: Count | None = None
    """Nodes of a site of a cluster, instead of what sites.toml says."""
    walltime: Walltime | None = None
    """Time of a job on a site of a cluster, such as ``"01:30:00"``: at most the site's own."""
    memory_gb: Annotated[Real, Field(gt=0)] | None = None
    """Memory a worker may take before it is stopped; none: its share of the machine's memory."""

    @model_validator(mode="after")
    def _threads_go_with_workers(self) -> SiteChoice:
        if self.workers == "auto" and "threads_per_worker" not in self.model_fields_set:
            object.__setattr__(self, "threads_per_worker", "auto")
        return self

    @property
    def layout(self) -> tuple[int, int]:
        """Workers, and threads of each, of a layout that is decided.

        Raises
        ------
        ValueError
            If it is not.
        """
        if self.workers == "auto" or self.threads_per_worker == "auto":
            raise ValueError("the layout is not decided yet")
        return self.workers, self.threads_per_worker


def _check_counts(key: str, values: Any) -> None:
    if isinstance(values, Choices):
        key, values = f"{key}.values", values.values
    if isinstance(values, Range):
        if not values.integer or values.low < 1:
            raise ValueError(f"{key}: must be whole numbers from 1; set integer = true")
        return
    for value in values if isinstance(values, list) and key.startswith("search.") else [values]:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{key}: given {value!r}; must be a whole number from 1")


class StudyFile(Table):
    """A whole study file."""

    study: StudyTable
    data: DataTable = DataTable()
    balance: BalanceTable = BalanceTable()
    augment: AugmentTable = AugmentTable()
    model: ModelTable = ModelTable()
    search: SearchTable = SearchTable()
    validation: ValidationTable = ValidationTable()
    engine: EngineTable = EngineTable()
    site: SiteChoice = SiteChoice()

    @model_validator(mode="after")
    def _validation_defaults(self) -> StudyFile:
        split, group = self.validation.split, self.validation.group_by
        whole = split is None or split in GROUPED_SPLITS
        if not group:
            groups = self.data.groups
            if whole and groups and "run_date" not in groups:
                raise ValueError(
                    f"validation.group_by: must be given, one of {', '.join(groups)} or none"
                )
            plain = not whole or (self.data.source in TABLE_SOURCES and not groups)
            group = "none" if plain else "run_date"
        split = split or ("stratified" if group == "none" else "grouped")
        if (split in GROUPED_SPLITS) != (group != "none"):
            needs = "needs a group" if group == "none" else "knows no groups"
            raise ValueError(
                f"validation.group_by: is {group!r}, but validation.split = {split!r} {needs}; "
                f"must be {'the name of a group' if group == 'none' else 'none'}"
            )
        if split in ONE_WAY_SPLITS and self.validation.rounds > 1:
            raise ValueError(
                f"validation.rounds: given {self.validation.rounds}; must be 1 with "
                f"validation.split = {split!r}, which splits in one way only"
            )
        filled = self.validation.model_copy(update={"group_by": group, "split": split})
        # What the file says nothing of stays known as such: refusals tell the two apart.
        filled.model_fields_set.intersection_update(self.validation.model_fields_set)
        object.__setattr__(self, "validation", filled)
        return self

    @model_validator(mode="after")
    def _layout_on_jax(self) -> StudyFile:
        keys = {"workers", "threads_per_worker"} - self.site.model_fields_set
        if self.engine.use == "jax" and keys:
            # Cores say nothing of how many workers there should be where GPUs compute.
            site = self.site.model_copy(update=dict.fromkeys(keys, "auto"))
            object.__setattr__(self, "site", site)
        return self

    @model_validator(mode="after")
    def _turned_ahead_on_jax(self) -> StudyFile:
        augment = self.augment
        turns = augment.rotate_degrees or augment.flip or augment.method != "physical"
        if self.engine.use == "jax" and turns and augment.when == "on-the-fly":
            raise ValueError(
                "augment.when: is 'on-the-fly', which the engine jax does not do; must be 'ahead', "
                'or engine.use = "tensorflow"'
            )
        return self

    @model_validator(mode="after")
    def _true_labels(self) -> StudyFile:
        augment = self.augment
        if augment.flip and self.data.source in STORM_SOURCES and not augment.flip_anyway:
            raise ValueError(
                "augment.flip: given True; a mirror image turns cyclonic rotation into "
                "anticyclonic, so that the label of a storm would no longer be true; remove it, or "
                "set augment.flip_anyway = true"
            )
        return self

    @model_validator(mode="after")
    def _consistent(self) -> StudyFile:
        both = set(self.search.space) & set(self.model.parameters)
        if both:
            raise ValueError(
                f"model.parameters.{min(both)}: is also in search.space; keep one of the two"
            )
        for name in ("batch_size", "epochs"):
            if name in self.search.space:
                _check_counts(f"search.space.{name}", self.search.space[name])
            if name in self.model.parameters:
                _check_counts(f"model.parameters.{name}", self.model.parameters[name])
        folds, first = self.validation.total, self.search.first_folds
        if first is not None and first > folds:
            raise ValueError(
                f"search.first_folds: given {first}; must be at most {folds}, the folds of "
                "[validation]"
            )
        from stormsweep.config.growth import DEFAULTS

        check_constraints(self.search, DEFAULTS | self.model.parameters)
        return self
