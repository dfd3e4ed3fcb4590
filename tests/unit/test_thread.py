"""A question to sync code, asked where no event loop runs and where one does."""

import threading

import pytest
from asgiref.sync import async_to_sync
from django.db import connections

from channels_groups.thread import ask


async def answer():
    return 42


def test_without_a_loop_it_is_asked_in_the_same_thread():
    assert ask(threading.get_ident) == threading.get_ident()
    assert ask(async_to_sync(answer)) == 42


async def test_where_a_loop_runs_it_is_asked_in_another_thread():
    assert ask(threading.get_ident) != threading.get_ident()
    assert ask(async_to_sync(answer)) == 42


async def test_errors_are_the_callers():
    with pytest.raises(ZeroDivisionError):
        ask(lambda: 1 / 0)


async def test_database_connections_of_the_thread_are_closed(monkeypatch):
    closed = []
    monkeypatch.setattr(
        connections, "close_all", lambda: closed.append(threading.get_ident())
    )
    asked = ask(threading.get_ident)
    assert closed == [asked]
