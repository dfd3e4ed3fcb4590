"""What is told of oneself is refused where it is told, or goes wherever it has to."""

import json

import pytest

from channels_groups.facts import MARGIN, MOST, check_info, check_limit


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return {"deep": value}


def test_info_that_is_admitted_can_be_written_where_the_stack_is_higher():
    accepted = 0
    for depth in range(1, 4000):
        try:
            check_info(nested(depth))
        except TypeError as error:
            assert "deep" in str(error)
            break
        except ValueError:  # More than 8 KiB: where Python has no limit below.
            break
        accepted = depth
    assert accepted > 500

    def write(frames):
        return write(frames - 1) if frames else json.dumps(nested(accepted))

    assert json.loads(write(MARGIN - 5)) == nested(accepted)


@pytest.mark.parametrize(
    "limit, checked", [(None, None), (0, 0), (3, 3), (-5, 0), (10**30, MOST)]
)
def test_limits(limit, checked):
    assert check_limit(limit) == checked


@pytest.mark.parametrize("limit", ["3", 3.0, True, b"3", [3]])
def test_what_is_no_limit(limit):
    with pytest.raises(TypeError, match=f"not {type(limit).__name__}"):
        check_limit(limit)
