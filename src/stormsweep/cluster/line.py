"""A line to each worker: a task goes straight there, and what came of it straight back.

Dask starts the workers, knows which of them live, and encrypts. Its scheduler is made for graphs:
it keeps a state for every task, and some nine messages about each pass between four parties. Tasks
here wait for nothing but an idle worker, and the driver knows who is: one message out and one back
is all they need.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from distributed.comm import connect
from distributed.core import send_recv
from distributed.protocol import pickle

_OPERATION = "stormsweep-work"
#: A worker that is gone is found by the scheduler within this time, in seconds.
_GRACE_SECONDS = 10.0

Answer = Callable[[Any, BaseException | None], None]


def answer_the_line(worker: Any) -> None:
    """Have a worker (`distributed.Worker`) carry out what comes over its line, one at a time."""

    async def carry_out(work: bytes) -> bytes:
        done: bytes = await asyncio.get_running_loop().run_in_executor(
            worker.executors["default"], _carry_out, work
        )
        return done

    worker.handlers[_OPERATION] = carry_out


def _carry_out(work: bytes) -> bytes:
    try:
        function, argument = pickle.loads(work)
        return pack((function(argument), None))
    except BaseException as error:
        try:
            answer = pack((None, error))
            pickle.loads(answer)
        except Exception:
            answer = pack((None, RuntimeError(repr(error))))
        return answer


def pack(value: Any) -> bytes:
    """Return a value as it goes over a line; functions of the user's own script go whole."""
    packed: bytes = pickle.dumps(value)
    return packed


def unpack(packed: bytes) -> Any:
    """Return what `pack` was given; only for what came over a line."""
    return pickle.loads(packed)


class Lines:
    """The driver's end of the lines.

    Parameters
    ----------
    client : distributed.Client
        Whose event loop and certificates are used.
    lives : callable
        Whether the scheduler still counts on the worker at an address.
    """

    def __init__(self, client: Any, lives: Callable[[str], bool]) -> None:
        self._client, self._lives = client, lives
        #: By address, which no two worker processes share. Only the event loop touches them.
        self._open: dict[str, Any] = {}
        self._closing = False

    def ask(
        self, address: str, function: Callable[[Any], Any], argument: Any, answer: Answer
    ) -> None:
        """Have a worker call a function.

        Parameters
        ----------
        address : str
            The worker's.
        function, argument : callable, object
            What it is to call; both are pickled.
        answer : callable
            Given, in the event loop, what the function returned and None, or None and what it
            raised. Never called when the worker is lost first: the scheduler tells that. A worker
            that lives but cannot be reached is restarted, and so lost.
        """
        work = pack((function, argument))
        self._client.loop.add_callback(self._ask, address, work, answer)

    def close(self) -> None:
        """Stop caring about lines that break."""
        self._closing = True

    def hang_up(self, address: str) -> None:
        """Forget the line to a worker that is gone; in the event loop."""
        line = self._open.pop(address, None)
        if line is not None:
            line.abort()

    async def _ask(self, address: str, work: bytes, answer: Answer) -> None:
        try:
            line = self._open.get(address)
            if line is None:
                line = await connect(address, **self._client.connection_args)
                self._open[address] = line
            packed = await send_recv(line, op=_OPERATION, work=work)
        except Exception:
            self.hang_up(address)
            await self._restart(address)
            return
        answer(*_unpacked(packed))

    async def _restart(self, address: str) -> None:
        """Restart a worker that nobody misses: only the line to it broke."""
        if not self._closing:
            await asyncio.sleep(_GRACE_SECONDS)
        if not self._closing and self._lives(address):
            await self._client.scheduler.restart_workers(
                workers=[address],
                timeout=_GRACE_SECONDS,
                wait_for_workers=False,
                on_error="return",
                stimulus_id="line-broken",
            )


def _unpacked(packed: bytes) -> tuple[Any, BaseException | None]:
    try:
        value: tuple[Any, BaseException | None] = pickle.loads(packed)
        return value
    except Exception as error:
        return None, error
