"""What the process that workers are forked from imports last (see `forked`); it alone does.

What is imported by now is never collected: workers would look through all of it (a third of a
second each time), and write to the memory that they share.
"""

from __future__ import annotations

import gc

gc.freeze()
gc.enable()
