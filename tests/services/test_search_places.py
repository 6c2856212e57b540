"""Searches take turns: one of an account, a few of a process, and a queue that ends."""

import asyncio

import pytest

from fumibako.services.search_places import Crowded, SearchPlaces


class Hall:
    """Searches that run until they are let go; who began, in order."""

    def __init__(self, turns):
        self.turns, self.began, self.gates = turns, [], {}

    def ask(self, group, account, name):
        self.gates[name] = asyncio.Event()
        return group.create_task(self.run(account, name))

    async def run(self, account, name):
        async with self.turns.turn(account):
            self.began.append(name)
            await self.gates[name].wait()

    async def end(self, *names):
        for name in names:
            self.gates[name].set()
        await settle()


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


async def test_an_account_has_one_place_and_the_others_have_theirs():
    hall = Hall(SearchPlaces(at_once=2))
    async with asyncio.TaskGroup() as group:
        for name in ("a1", "a2", "a3"):
            hall.ask(group, 1, name)
        hall.ask(group, 2, "b1")
        hall.ask(group, 3, "c1")
        await settle()
        assert hall.began == ["a1", "b1"]       # of the greedy one, one
        await hall.end("a1")
        assert hall.began == ["a1", "b1", "c1"]     # who waited longest for a place
        await hall.end("b1", "c1", "a2", "a3")
    assert hall.began == ["a1", "b1", "c1", "a2", "a3"]
    assert not hall.turns._present and not hall.turns._lines


async def test_the_queue_of_an_account_ends():
    hall = Hall(SearchPlaces(waiting=1))
    async with asyncio.TaskGroup() as group:
        hall.ask(group, 1, "a1")
        hall.ask(group, 1, "a2")
        await settle()
        with pytest.raises(Crowded):
            await hall.run(1, "a3")
        hall.ask(group, 2, "b1")
        await settle()
        assert hall.began == ["a1", "b1"]
        await hall.end("a1", "a2", "b1")


async def test_who_waits_too_long_or_hangs_up_leaves_no_gap():
    hall = Hall(SearchPlaces(at_once=1, wait_s=0.05))
    async with asyncio.TaskGroup() as group:
        hall.ask(group, 1, "a1")
        await settle()
        gone = hall.ask(group, 1, "a2")
        waits = asyncio.create_task(hall.run(2, "b0"))
        await settle()
        gone.cancel()
        with pytest.raises(Crowded):
            await hall.run(1, "a3")
        assert gone.cancelled()
        with pytest.raises(Crowded):
            await hall.run(3, "c1")
        await asyncio.wait([waits])
        assert isinstance(waits.exception(), Crowded)
        await hall.end("a1")
        hall.ask(group, 2, "b1")
        await settle()
        assert hall.began == ["a1", "b1"]
        await hall.end("b1")
    assert not hall.turns._present and not hall.turns._lines
