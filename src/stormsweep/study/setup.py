"""What a worker does before its first task: open the data, find the builder, set the engine up."""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass, field
from pathlib import Path

from stormsweep.cluster import machine, station
from stormsweep.errors import ModelError, RunError
from stormsweep.models.build import Builder, check_builder, find_builder
from stormsweep.models.checksum import checksum
from stormsweep.study.cases import open_all
from stormsweep.training.engine import Engine
from stormsweep.training.seeds import seed32
from stormsweep.work import TaskOrder

_NO_GPU = (
    "JAX sees no GPU on {node}, although the site asks for some (gres): install '.[gpu]' "
    "there, see what nvidia-smi says in a job, or choose a site without GPUs"
)
_NO_GPU_HERE = (
    "JAX sees no GPU, although CUDA_VISIBLE_DEVICES or nvidia-smi names one: install '.[gpu]', or "
    "set JAX_PLATFORMS=cpu to train on the cores"
)


@dataclass(frozen=True, slots=True)
class Question:
    """What a worker is asked at first.

    Attributes
    ----------
    build : str
        The builder, ``package.module:function`` or ``file.py:function``.
    names : list of str
        Names of all hyperparameters.
    threads : int
        The worker's compute threads.
    engine, precision : str
        As in `TaskOrder`.
    packing : bool
        As in `TaskOrder`.
    data, fingerprint, turned : str
        As in `TaskOrder`: where what tasks will need lies.
    test : bool
        Whether they will need the test part too.
    seed : int
        The study's.
    """

    build: str
    names: list[str]
    threads: int
    engine: str
    precision: str
    packing: bool
    data: str
    fingerprint: str
    turned: str
    test: bool
    seed: int


@dataclass(frozen=True, slots=True)
class Welcome:
    """What a worker says once it is set up.

    Attributes
    ----------
    problem : str
        What is wrong with the builder, or with the node's GPU, in one line; empty: nothing.
    model : str
        SHA-256 of the builder's code: `stormsweep.models.checksum`.
    device : str
        What it computes on, where that is not simply the processor.
    processor : str
        The machine's, by its name.
    gpu : bool
        Whether that is a GPU.
    emulated : str
        What it computes in without having instructions for it, in a sentence; empty: nothing.
    """

    problem: str
    model: str
    device: str = ""
    processor: str = field(default_factory=machine.processor)
    emulated: str = ""
    gpu: bool = False


def welcome(question: Question) -> Welcome:
    """Set a worker up: open the data, import what trains, find the model's builder.

    Raises
    ------
    DataAwayError
        If the data cannot be opened where the worker is.
    """
    open_all(question.data, question.fingerprint, question.turned, question.test)
    _engine(question.threads, question.engine, question.precision, question.packing)
    try:
        function, model = builder_of(question.build, question.seed, question.precision)
        check_builder(function, question.names)
    except ModelError as error:
        return Welcome(str(error), "")
    if question.engine != "jax":
        return Welcome("", model, emulated=emulated(question.engine, question.precision))
    from stormsweep.training.keras_jax import device, on_gpu

    here = station.here()
    if here.gpu and not on_gpu():
        return Welcome(_NO_GPU.format(node=here.node) if here.node else _NO_GPU_HERE, "")
    print(f"training with Keras on JAX on {device()}", flush=True)
    return Welcome("", model, device(), gpu=on_gpu())


def emulated(engine: str, precision: str) -> str:
    """Say, in a sentence, that this machine's processor emulates a precision; empty: it does not.

    Parameters
    ----------
    engine, precision : str
        As in `TaskOrder`.
    """
    if engine != "tensorflow" or precision != "bfloat16":
        return ""
    # Where nothing is known of the processor, nothing is said of it.
    if machine.computes_bfloat16() or not machine.instruction_sets():
        return ""
    return (
        f"{machine.processor()} has no instructions for bfloat16: training takes many times as "
        'long as in "float32"'
    )


@functools.cache
def builder_of(build: str, seed: int, precision: str = "float32") -> tuple[Builder, str]:
    """Import a builder once: what is edited later counts for workers that start later.

    Layers that its module makes compute in the study's precision, as those of the builder do.

    Parameters
    ----------
    build, seed : str, int
        As of `builder_and_checksum`; it returns the same.
    precision : str
        As in `TaskOrder`.

    Raises
    ------
    ModelError
        If it cannot be imported, or its module clears Keras's precision.
    """
    from stormsweep.training.policy import precision_of_layers

    try:
        with precision_of_layers(precision):
            return builder_and_checksum(build, seed)
    except RunError as error:
        raise ModelError(f"model.build: when {build} is imported, {error}") from None


def builder_and_checksum(build: str, seed: int) -> tuple[Builder, str]:
    """Import a builder; return it and the SHA-256 of its code, empty where there is no file.

    What its module makes when it is imported (an initializer without a seed, say) draws from the
    study's seed: else every worker process would train another model. The engine is set up before.

    Parameters
    ----------
    build : str
        As in `Question`.
    seed : int
        The study's.

    Raises
    ------
    ModelError
        If it cannot be imported.
    """
    from stormsweep.training.randomness import seeded

    with seeded(seed32(seed, 0, "import")):
        function = find_builder(build)
    return function, checksum(build, file_of(function))


def file_of(function: Builder) -> Path | None:
    """Return the file that a function stands in; None for what is none (a partial, an object)."""
    try:
        source = inspect.getsourcefile(inspect.unwrap(function))
    except (TypeError, ValueError, OSError):
        return None
    return Path(source) if source else None


def engine_for(order: TaskOrder) -> Engine:
    """Return the engine that carries out a task."""
    return _engine(order.threads, order.engine, order.precision, order.packing)


@functools.cache
def _engine(threads: int, engine: str, precision: str, packing: bool) -> Engine:
    """Return this process's engine, set up when first asked for; packing is TensorFlow's only."""
    if engine == "jax":
        from stormsweep.training import keras_jax

        keras_jax.configure(threads)
        return keras_jax.JaxEngine(precision)
    from stormsweep.training.keras_tf import KerasEngine, configure

    configure(threads)
    return KerasEngine(precision, packing)
