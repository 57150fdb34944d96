"""The peers, and Stormsweep beside them: which script, in which environment, in which words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tool:
    """One row of the table.

    Attributes
    ----------
    name : str
        For ``--only``, and in the results.
    script : str
        File in this folder.
    label : str
        In the table.
    environment : str
        Name of the requirements file and the virtual environment; empty: Stormsweep's own, whose
        packages are all that is needed.
    arguments : tuple of str
        After the data folder and the file to write.
    threads : int
        Compute threads of each process.
    two_processes : bool
        Whether two processes train side by side.
    """

    name: str
    script: str
    label: str
    environment: str = ""
    arguments: tuple[str, ...] = ()
    threads: int = 1
    two_processes: bool = True


#: What the others are compared with.
OURS = "stormsweep-float32"
OURS_BFLOAT16 = "stormsweep-bfloat16"

TOOLS = (
    Tool(
        "2019-way",
        "by_2019_way.py",
        "the 2019 way: Dask over batch sizes, GridSearchCV inside",
    ),
    Tool("scikit-learn", "by_scikit_learn.py", "scikit-learn GridSearchCV, n_jobs 2"),
    Tool("dask-ml", "by_dask_ml.py", "Dask-ML GridSearchCV", "dask-ml"),
    Tool("optuna", "by_optuna.py", "Optuna, two processes", "optuna"),
    Tool(
        "keras-tuner",
        "by_keras_tuner.py",
        "Keras Tuner, one process of two threads",
        "keras-tuner",
        threads=2,
        two_processes=False,
    ),
    Tool("ray-tune", "by_ray_tune.py", "Ray Tune", "ray-tune"),
    Tool("deephyper", "by_deephyper.py", "DeepHyper", "deephyper"),
    Tool("echo", "by_echo.py", "ECHO (NCAR), two echo-run", "echo"),
    Tool(OURS, "by_stormsweep.py", "Stormsweep, float32", arguments=("float32",)),
    Tool(OURS_BFLOAT16, "by_stormsweep.py", "Stormsweep, bfloat16", arguments=("bfloat16",)),
)
