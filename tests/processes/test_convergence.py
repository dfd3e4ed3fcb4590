"""All views become right, whatever was lost; a hundred seeds: tests/convergence."""

import pytest

from tests.convergence.world import World
from tests.helpers import layers


@pytest.mark.parametrize("layer, first", [("core", 11), ("pubsub", 4)])
async def test_every_view_converges(layer, first, own_redis, tmp_path):
    layers.wait_until_seasoned(own_redis)
    async with World(own_redis.url, tmp_path, layer, clients=24) as world:
        for seed in (first, first + 1):
            # A machine that does other things meanwhile gets more than two seconds.
            result = await world.play(seed, orders=60, within=10)
            assert result.wrong == [], str(result)
