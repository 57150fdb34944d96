"""Losing these: a Ctrl-C that is printed as a warning and then forgotten."""

from __future__ import annotations

import gc
import os
import signal
import threading

import pytest

from stormsweep.study import interruption


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


# What is lost is what this is about.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_in_a_callback_of_the_garbage_collector_is_not_lost() -> None:
    def callback(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            interrupt()

    before = signal.getsignal(signal.SIGINT)
    with interruption.heard():
        gc.callbacks.append(callback)
        try:
            gc.collect()  # Python says "Exception ignored", and goes on.
        finally:
            gc.callbacks.remove(callback)
        with pytest.raises(KeyboardInterrupt):
            interruption.check()
        interruption.check()  # Once for each.
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_that_is_raised_as_usual_is_not_raised_again_later() -> None:
    with pytest.raises(KeyboardInterrupt), interruption.heard():
        interrupt()
    interruption.check()


def test_other_threads_change_no_signal() -> None:
    seen = []

    def work() -> None:
        before = signal.getsignal(signal.SIGINT)
        with interruption.heard():
            seen.append(signal.getsignal(signal.SIGINT) is before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True]
