"""Threads: bounded, cancellable, and passwords in a lane of their own."""

import asyncio
import threading

import pytest

from fumibako.net.offload import PASSWORD_QUEUE, PASSWORD_THREADS, Offload, Overloaded


@pytest.fixture
def offload():
    lanes = Offload()
    yield lanes
    lanes.close()


async def test_results_and_errors_come_back(offload):
    assert await offload.run(pow, 2, 10) == 1024
    assert await offload.run(int, "ff", base=16) == 255
    assert await offload.run_password(threading.current_thread) is not threading.current_thread()
    with pytest.raises(ZeroDivisionError):
        await offload.run(divmod, 1, 0)


async def test_passwords_run_two_at_a_time_and_are_refused_beyond_the_queue(offload):
    gate, running, most = threading.Event(), [], []

    def hash_password():
        running.append(1)
        most.append(len(running))
        gate.wait(10)
        running.pop()

    tasks = [asyncio.create_task(offload.run_password(hash_password)) for _ in range(PASSWORD_THREADS + PASSWORD_QUEUE)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="password"):
        await offload.run_password(hash_password)
    assert await offload.run(pow, 2, 2) == 4        # the other lane is not held up
    gate.set()
    await asyncio.gather(*tasks)
    assert max(most) <= PASSWORD_THREADS
    assert await offload.run_password(pow, 2, 3) == 8


async def test_a_cancelled_caller_leaves_and_its_place_comes_free(offload):
    gate = threading.Event()
    tasks = [asyncio.create_task(offload.run_password(gate.wait, 10)) for _ in range(PASSWORD_THREADS + PASSWORD_QUEUE)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    gate.set()
    for _ in range(PASSWORD_QUEUE):
        assert await offload.run_password(pow, 2, 3) == 8


async def test_after_close_nothing_runs():
    lanes = Offload()
    lanes.close()
    for _ in range(3):
        with pytest.raises(RuntimeError):
            await lanes.run(pow, 2, 2)
