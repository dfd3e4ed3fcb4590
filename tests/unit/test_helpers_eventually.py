"""eventually() and its async twin."""

import itertools

import pytest

from tests.helpers.eventually import aeventually, eventually


def test_it_returns_the_first_true_value():
    assert eventually(iter([0, None, "here"]).__next__) == "here"


def test_it_waits_for_a_value_even_a_false_one():
    assert eventually(iter([["a"], []]).__next__, equals=[]) == []


def test_failure_shows_the_last_value():
    with pytest.raises(AssertionError, match=r"not 5 within 0.05 s; at last it was 4"):
        eventually(lambda: 4, equals=5, timeout=0.05)


def test_failure_shows_the_last_exception_that_was_ignored():
    with pytest.raises(AssertionError, match="at last it raised KeyError"):
        eventually(lambda: {}["a"], timeout=0.05, ignoring=(KeyError,))


def test_other_exceptions_come_through_at_once():
    with pytest.raises(ZeroDivisionError):
        eventually(lambda: 1 / 0)


async def test_the_async_twin_takes_async_and_sync_probes():
    numbers = itertools.count()

    async def probe():
        return next(numbers)

    assert await aeventually(probe, equals=3) == 3
    assert await aeventually(lambda: next(numbers), equals=6) == 6
    with pytest.raises(AssertionError, match="not true within"):
        await aeventually(lambda: [], timeout=0.05)
