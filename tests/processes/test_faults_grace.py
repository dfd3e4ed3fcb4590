"""GRACE under faults: who is back in time has never been away."""

from websockets.exceptions import InvalidStatus

from tests.helpers.client import connect
from tests.helpers.eventually import aeventually

from .laboratory import check, end, leaves, pause, visitors

GRACE = {"GROUP_GRACE": "6"}


async def guests_of(node, *names):
    """Connect one to a room of its own and one to a room of many for each name."""
    rooms = [(name, room) for name in names for room in ("red", f"alone {name}")]
    return [await connect(node, room, f"{name} {room}").open() for name, room in rooms]


async def come_back(clients, node):
    """Connect who has gone once more, elsewhere; each is the same member as before."""
    back = [await connect(node, one.room, one.name).open() for one in clients]
    assert [one.id for one in back] == [one.id for one in clients]
    return back


async def admitted(former, node):
    """Try to connect once more, as long as the store is not there again."""

    async def open():
        return await connect(node, former.room, former.name).open()

    return await aeventually(open, ignoring=(InvalidStatus,))


async def close(clients, redis):
    """Close some, and wait until all of them linger."""
    for client in clients:
        await client.close()
    with redis.client() as client:
        due = "demo:groups:due"
        await aeventually(lambda: client.zcard(due), equals=len(clients), timeout=30)


async def let_linger(cluster, redis, stay, node, *names):
    """Connect guests and let them go; return them, and how many events there were."""
    guests = await guests_of(node, *names)
    await check(cluster, [*stay, *guests])
    before = len(cluster.events())
    await close(guests, redis)
    return guests, before


async def expired(cluster, clients):
    """Wait until these have left, each once and as expired."""
    ids = sorted(client.id for client in clients)

    def who():
        return sorted(event["id"] for event in leaves(cluster, "expired"))

    await aeventually(who, equals=ids, timeout=30)


async def test_reload_and_deploy(cluster, own_redis):
    """Not one event for any who come back, to the same process or another."""
    one, two, three = cluster.start("daphne", "uvicorn", "daphne", env=GRACE)
    async with visitors([three], each=2) as stay:
        guests = [*await guests_of(one, "ann"), *await guests_of(two, "bob")]
        await check(cluster, [*stay, *guests])
        before = len(cluster.events())
        await close(guests, own_redis)
        guests = [
            *await come_back(guests[:2], two),
            *await come_back(guests[2:], one),
        ]
        await check(cluster, [*stay, *guests])
        one.terminate()
        guests[2:] = await come_back(guests[2:], three)
        await check(cluster, [*stay, *guests])
        two.terminate()
        guests[:2] = await come_back(guests[:2], three)
        await check(cluster, [*stay, *guests])
        assert len(cluster.events()) == before
        await close(guests, own_redis)
        await expired(cluster, guests)
    await end(cluster, own_redis)


async def go_on(clients, node):
    """Connect anew in the place of connections that nobody has seen the end of."""
    new = [connect(node, one.room, one.name) for one in clients]
    for client, former in zip(new, clients):
        client.url += f"&group_former={former.id}"
        await client.open()
    assert [one.id for one in new] == [one.id for one in clients]
    return new


async def test_back_before_the_end_was_seen(cluster, own_redis):
    """The former process works, is frozen, or is killed: not one event for them."""
    one, two, three = cluster.start("daphne", "uvicorn", "daphne", env=GRACE)
    async with visitors([three], each=2) as stay:
        guests = await guests_of(one, "ann", "bob")
        await check(cluster, [*stay, *guests])
        before, old = len(cluster.events()), guests
        guests = await go_on(guests, two)
        for client in old:
            assert (await client.wait_closed())[0] == 1000
        guests = await go_on(guests, one)
        one.freeze()
        guests = await go_on(guests, two)
        # Evicted, it had none of them; nor has it when it is back.
        with own_redis.client() as client:
            nodes = "demo:groups:leases"
            await aeventually(lambda: client.zcard(nodes), equals=2, timeout=30)
        one.thaw()
        await aeventually(lambda: "lost its lease" in one.log, timeout=30)
        await check(cluster, [*stay, *guests])
        two.freeze()
        guests = await go_on(guests, three)
        two.kill()
        await check(cluster, [*stay, *guests])
        assert len(cluster.events()) == before
        await close(guests, own_redis)
        await expired(cluster, guests)
    await end(cluster, own_redis)


async def test_killed_while_they_linger(cluster, own_redis):
    """They outlive their process: who is not back in time leaves once."""
    one, two = cluster.start("uvicorn", "daphne", env=GRACE)
    async with visitors([two], each=2) as stay:
        guests = await guests_of(one, "ann", "bob")
        lost = await guests_of(one, "cat")
        await check(cluster, [*stay, *guests, *lost])
        await close(guests, own_redis)
        before = len(cluster.events())
        one.kill()
        back = await come_back(guests[:2], two)
        await aeventually(lambda: len(leaves(cluster, "lost")) == len(lost), timeout=30)
        # One room was destroyed.
        await aeventually(lambda: len(cluster.events()), equals=before + 3)
        await expired(cluster, guests[2:])
        await check(cluster, [*stay, *back])
        await close(back, own_redis)
    await end(cluster, own_redis)


async def test_store_emptied_while_they_linger(cluster, own_redis):
    """They are written back, wherever they are resumed meanwhile."""
    one, two = cluster.start("daphne", "uvicorn", env=GRACE)
    async with visitors([one, two], each=2) as stay:
        about = cluster, own_redis, stay
        guests, before = await let_linger(*about, one, "ann", "bob", "cat")
        back = await come_back(guests[:2], two)
        own_redis.flush()
        back += await come_back(guests[2:4], two)
        assert len(cluster.events()) == before
        await expired(cluster, guests[4:])
        await check(cluster, [*stay, *back])
        await close(back, own_redis)
    await end(cluster, own_redis)


async def test_the_next_process_finds_who_lingers(cluster, own_redis):
    """The last process is told to stop, and does not wait for them."""
    (one,) = cluster.start("uvicorn", env=GRACE)
    guests = await guests_of(one, "ann", "bob")
    await check(cluster, guests)
    before = len(cluster.events())
    await close(guests[2:], own_redis)
    one.terminate()
    (two,) = cluster.start("daphne", env=GRACE)
    back = await come_back(guests[:2], two)
    assert len(cluster.events()) == before
    await expired(cluster, guests[2:])
    await check(cluster, back)
    await close(back, own_redis)
    await end(cluster, own_redis)


async def test_store_restarted_while_they_linger(cluster, own_redis):
    """The store is back with its data: they are resumed, or expire once."""
    one, two = cluster.start("daphne", "uvicorn", env=GRACE)
    async with visitors([one, two], each=2) as stay:
        about = cluster, own_redis, stay
        guests, before = await let_linger(*about, one, "ann", "bob", "cat")
        own_redis.save()
        own_redis.kill()
        own_redis.start()
        back = [await admitted(one, two) for one in guests[:4]]
        assert [one.id for one in back] == [one.id for one in guests[:4]]
        assert len(cluster.events()) == before
        await expired(cluster, guests[4:])
        await check(cluster, [*stay, *back])
        await close(back, own_redis)
    await end(cluster, own_redis)


async def test_store_away_for_longer_than_the_grace(cluster, own_redis):
    """Who could not come back in time has left, once, when the store is there again."""
    one, two = cluster.start("daphne", "uvicorn", env=GRACE)
    async with visitors([one, two], each=2) as stay:
        guests, _ = await let_linger(cluster, own_redis, stay, one, "ann", "bob")
        own_redis.pause()
        await pause(int(GRACE["GROUP_GRACE"]) + 1)
        own_redis.resume()
        await expired(cluster, guests)
        await check(cluster, stay)
    await end(cluster, own_redis)


async def test_cut_off_while_they_linger(cluster, own_redis, proxy):
    """Whoever held them may be taken for dead: they outlive it, and its return."""
    (one,) = cluster.start("daphne", env=GRACE)
    (two,) = cluster.start("uvicorn", env=GRACE, redis_url=proxy.url)
    async with visitors([one, two], each=2) as stay:
        guests, before = await let_linger(cluster, own_redis, stay, two, "ann", "bob")
        proxy.drop()
        back = await come_back(guests[:2], one)
        assert len(cluster.events()) == before
        await aeventually(lambda: len(leaves(cluster, "lost")) == 2, timeout=30)
        proxy.heal()
        await expired(cluster, guests[2:])
        await check(cluster, [*stay, *back])
        await close(back, own_redis)
    await end(cluster, own_redis)
