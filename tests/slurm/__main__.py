"""`make slurm`: a real Slurm of four small nodes, until Ctrl-C."""

from __future__ import annotations

import signal
import sys

from .cluster import MiniSlurm, SlurmFailedError, why_not


def main() -> int:
    reason = why_not()
    if reason is not None:
        print(f"slurm: cannot be started here: {reason}", file=sys.stderr)
        return 1
    stops = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    # Blocked, so that one that comes while the daemons start or stop is taken in its turn.
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    try:
        with MiniSlurm() as slurm:
            print(slurm.run("sinfo"), end="")
            print("In another shell, as root:")
            print(f"  export SLURM_CONF={slurm.conf}")
            print("Ctrl-C stops it, with all its jobs.", flush=True)
            signal.sigwait(stops)
    except SlurmFailedError as error:
        print(f"slurm: {error}", file=sys.stderr)
        return 1
    print("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
