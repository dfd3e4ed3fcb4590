"""The errors: what they are and what they say."""

import pytest
from channels.exceptions import DenyConnection

from channels_groups import exceptions

ERRORS = [
    exceptions.GroupError,
    exceptions.GroupRejected,
    exceptions.GroupFull,
    exceptions.ConnectionClosed,
    exceptions.StoreUnavailable,
]


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_says_what_it_is(error):
    assert isinstance(error(), exceptions.GroupError)
    assert str(error()) == error.__doc__.partition("\n")[0]
    assert str(error("in words of its own")) == "in words of its own"


def test_a_rejection_denies_the_connection():
    assert issubclass(exceptions.GroupRejected, DenyConnection)
    assert issubclass(exceptions.GroupFull, exceptions.GroupRejected)
    assert not issubclass(exceptions.StoreUnavailable, DenyConnection)
    assert not issubclass(exceptions.ConnectionClosed, DenyConnection)
