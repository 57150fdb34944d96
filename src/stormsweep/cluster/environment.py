"""What worker processes must find in their environment when they begin."""

from __future__ import annotations

#: Variables in which OpenMP, BLAS libraries and TensorFlow look for their number of threads.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
)
#: What every worker needs, whatever it trains with.
OWN_MODULES = ("distributed.nanny", "cryptography.x509", "stormsweep.cluster.worker")


def thread_environment(threads_per_worker: int) -> dict[str, str]:
    """Return the variables that worker processes must begin with."""
    threads = dict.fromkeys(_THREAD_VARIABLES, str(threads_per_worker))
    return threads | {
        "TF_NUM_INTEROP_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        # Until a worker has its log file, what it says goes to the user's terminal.
        "DASK_LOGGING__DISTRIBUTED": "warning",
    }
