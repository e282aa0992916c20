"""What makes the ring cheap: everything imported and collected lives to the end, so the garbage
collector need not look at it again and again while thousands of small tests run."""

from __future__ import annotations

import gc

import pytest

NEW_OBJECTS = 20_000
"""As many are made before the youngest generation is collected. With Python's 700 it happens during
every test."""


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS)
