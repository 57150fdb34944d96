"""The compiled programs that a worker keeps: those used last, as long as they are few and small."""

from __future__ import annotations

import gc
import math
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

#: Programs kept; each holds a graph, some ten megabytes, and a model's variables. Strategies that
#: drop trials early go back and forth between structures, and compile anew what was given up.
PROGRAMS_KEPT = 8
#: Bytes of all their variables; what the latest needs is kept whatever it is.
_ROOM = 1 << 30


class Kept:
    """Programs by what runs must have in common to share one, the one used last at the end.

    Parameters
    ----------
    clear : callable, optional
        Called when programs were given up, to free what else there is of them.
    """

    def __init__(self, clear: Callable[[], None] = lambda: None) -> None:
        self._clear = clear
        self._programs: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._dropped = 0

    def __len__(self) -> int:
        return len(self._programs)

    def find(self, key: Hashable | None) -> Any:
        """Return the program of a key, from now on the one used last; None where there is none."""
        if key is None or key not in self._programs:
            return None
        self._programs.move_to_end(key)
        return self._programs[key][0]

    def keep(self, key: Hashable | None, program: Any, model: keras.Model) -> None:
        """Keep a program, and give up those that were not used for longest where they are many.

        Parameters
        ----------
        key : hashable or None
            None: no other run can take it over, or it is kept already, with another model; this
            model goes with its run.
        program : object
            The program.
        model : keras.Model
            Its model, whose variables and optimizer it holds.
        """
        if key is None:
            self._dropped += 1
        else:
            self._programs[key] = program, held_bytes(model)
            self._programs.move_to_end(key)
        while len(self._programs) > PROGRAMS_KEPT or (
            len(self._programs) > 1 and sum(size for _, size in self._programs.values()) > _ROOM
        ):
            self._programs.popitem(last=False)
            self._dropped = PROGRAMS_KEPT
        if self._dropped >= PROGRAMS_KEPT:
            self.clean()

    def clean(self) -> None:
        """Free what was given up since the last time, if anything was."""
        if self._dropped:
            self._dropped = 0
            # Keras models and graphs are full of cycles; without this, memory grows.
            gc.collect()
            self._clear()


def held_bytes(model: keras.Model) -> int:
    """Return about how many bytes a model's variables and its optimizer's take."""
    variables = [*model.variables, *model.optimizer.variables]
    return sum(4 * math.prod(variable.shape) for variable in variables)
