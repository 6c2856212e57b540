"""A task goes on inside the call that sets what it waits for, and no other way of waiting ends differently than a future's."""

import asyncio
import contextvars

import pytest

from fumibako.net.wakeup import Wakeup

_who = contextvars.ContextVar("who", default="nobody")


async def _waiting(seen: list[object]) -> tuple[Wakeup[int], asyncio.Task[None]]:
    """A task that waits, and notes how that ends."""
    wakeup: Wakeup[int] = Wakeup(asyncio.get_running_loop())

    async def wait() -> None:
        _who.set("the waiting task")
        try:
            seen.append(await wakeup)
        except (asyncio.CancelledError, OSError) as error:
            seen.append(type(error))
        seen.append(_who.get())

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    return wakeup, task


async def _outside_a_task(call, *arguments) -> None:
    """As the event loop calls a protocol."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def run() -> None:
        try:
            call(*arguments)
            done.set_result(None)
        except BaseException as error:
            done.set_exception(error)

    asyncio.get_running_loop().call_soon(run)
    await done


@pytest.mark.parametrize(("how", "given", "seen"), [
    ("set_result", 7, 7),
    ("set_exception", ConnectionResetError(), ConnectionResetError),
])
async def test_the_task_goes_on_before_the_call_returns(how, given, seen):
    ended: list[object] = []
    wakeup, task = await _waiting(ended)

    def set_it() -> None:
        getattr(wakeup, how)(given)
        assert ended == [seen, "the waiting task"]      # in a context of its own
        assert asyncio.current_task() is None

    await _outside_a_task(set_it)
    assert task.done()
    assert _who.get() == "nobody"


async def test_while_another_task_runs_it_goes_on_behind_it():
    ended: list[object] = []
    wakeup, task = await _waiting(ended)
    wakeup.set_result(7)
    assert not ended
    await task
    assert ended == [7, "the waiting task"]


async def test_what_is_set_first_counts():
    ended: list[object] = []
    wakeup, task = await _waiting(ended)
    wakeup.set_result(7)
    wakeup.set_exception(OSError())
    wakeup.set_result(8)
    await task
    assert ended[0] == 7


async def test_a_task_that_is_cancelled_hears_so_and_not_what_comes_later():
    ended: list[object] = []
    wakeup, task = await _waiting(ended)
    task.cancel()
    assert wakeup.done()
    await _outside_a_task(wakeup.set_result, 7)
    await task
    assert ended[0] is asyncio.CancelledError


async def test_cancelled_behind_the_answer_is_cancelled_all_the_same():
    ended: list[object] = []
    wakeup, task = await _waiting(ended)
    wakeup.set_result(7)        # on its way, as this task runs
    task.cancel()
    await task
    assert ended[0] is asyncio.CancelledError


async def test_what_is_set_before_anybody_waits_is_at_hand():
    wakeup: Wakeup[int] = Wakeup(asyncio.get_running_loop())
    wakeup.set_result(7)
    assert await wakeup == 7


async def test_a_deadline_ends_the_wait():
    wakeup: Wakeup[int] = Wakeup(asyncio.get_running_loop())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await wakeup
    assert wakeup.done()


async def test_an_exception_of_the_task_stays_in_it():
    wakeup: Wakeup[int] = Wakeup(asyncio.get_running_loop())

    async def fail() -> None:
        await wakeup
        raise ValueError("of the task")

    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    await _outside_a_task(wakeup.set_result, 7)
    with pytest.raises(ValueError, match="of the task"):
        await task
