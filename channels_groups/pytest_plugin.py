"""Fixtures for pytest, which finds them by itself where the library is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Iterator

import pytest

if TYPE_CHECKING:
    from .testing import GroupEvents
    from .testing import isolated_groups as IsolatedGroups


@pytest.fixture
def isolated_groups() -> Iterator[IsolatedGroups]:
    """Groups of the test's own, in memory: see channels_groups.testing."""
    from .testing import isolated_groups

    with isolated_groups() as groups:
        yield groups


@pytest.fixture
def group_events() -> Iterator[GroupEvents]:
    """All signals of the test: see capture_group_events in channels_groups.testing."""
    from .testing import capture_group_events

    with capture_group_events() as events:
        yield events
