"""Marks that many tests share."""

from __future__ import annotations

from functools import partial

import pytest

#: Values of a test's parameters that are tried among the slow tests only (`make test-slow`): others
#: of the same test, which are tried every time, have most of what they could find.
slow = partial(pytest.param, marks=pytest.mark.slow)
