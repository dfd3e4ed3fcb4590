"""Waiting in time, and being cancelled meanwhile."""

import asyncio
import socket
import sys
import time

import pytest

from channels_groups.deadline import in_time


async def test_an_answer_in_time():
    assert await in_time(asyncio.sleep(0, "answer"), 5) == "answer"


async def test_an_error_in_time():
    async def fail():
        await asyncio.sleep(0)
        raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        await in_time(fail(), 5)


@pytest.mark.parametrize("seconds", [0.01, 0, -1])
async def test_what_takes_too_long_is_cancelled(seconds):
    ended = []

    async def hang():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    call = asyncio.ensure_future(hang())
    await asyncio.sleep(0)
    with pytest.raises(asyncio.TimeoutError):
        await in_time(call, seconds)
    assert ended == [True]


async def test_a_caller_that_is_cancelled_cancels_the_call():
    ended = []

    async def hang():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    caller = asyncio.create_task(in_time(hang(), 5))
    await asyncio.sleep(0.01)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended == [True]


@pytest.mark.parametrize("outcome", ["answer", LookupError("nobody hears of it")])
async def test_a_cancellation_that_comes_with_the_answer_is_kept(outcome):
    """Which asyncio.wait_for() of Python 3.10 and 3.11 does not do."""
    answer = asyncio.get_running_loop().create_future()
    caller = asyncio.create_task(in_time(answer, 5))
    await asyncio.sleep(0)
    if isinstance(outcome, Exception):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller


async def test_an_answer_that_is_there_when_a_blocked_loop_goes_on():
    reader, writer = await asyncio.open_connection(sock=_answering_socket())
    call = asyncio.create_task(in_time(reader.readexactly(1), 0.01))
    await asyncio.sleep(0)
    time.sleep(0.05)
    assert await call == b"!"
    writer.close()
    await writer.wait_closed()


def _answering_socket():
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.send(b"!")
    return ours


async def test_a_limit_within_a_limit():
    """Only the outer one has passed, and only it is told of."""
    outer = asyncio.create_task(in_time(in_time(asyncio.Event().wait(), 60), 0.01))
    with pytest.raises(asyncio.TimeoutError):
        await outer
    assert not outer.cancelled()


async def test_what_answers_when_it_is_cancelled():
    """The answer counts, and the caller is not cancelled any more."""

    async def hang():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "answer"

    assert await in_time(hang(), 0.01) == "answer"
    if sys.version_info >= (3, 11):
        assert not asyncio.current_task().cancelling()


async def test_a_caller_that_is_cancelled_when_it_is_late_is_cancelled():
    ended = asyncio.Event()

    async def hang():
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
            await asyncio.sleep(0)

    caller = asyncio.create_task(in_time(hang(), 0.01))
    await ended.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller


async def test_many_limits_at_once():
    calls = [in_time(asyncio.sleep(0.02, n), 5) for n in range(100)]
    late = [in_time(asyncio.Event().wait(), 0.01) for _ in range(100)]
    results = await asyncio.gather(*calls, *late, return_exceptions=True)
    assert results[:100] == list(range(100))
    assert {type(result) for result in results[100:]} == {asyncio.TimeoutError}
