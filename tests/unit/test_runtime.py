"""What a process has one of."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from imserver.runtime import one_a_process

THREADS = 8


def test_threads_that_ask_at_the_same_time_get_the_same_one() -> None:
    made: list[object] = []
    is_being_made, all_have_asked = threading.Event(), threading.Event()
    all_ask = threading.Barrier(THREADS)

    @one_a_process
    def get_it(_name: str) -> object:
        is_being_made.set()
        assert all_have_asked.wait(10)
        made.append(object())
        return made[-1]

    def ask_too() -> object:
        all_ask.wait(10)
        return get_it("same")

    with ThreadPoolExecutor(THREADS) as pool:
        first = pool.submit(get_it, "same")
        assert is_being_made.wait(10)
        others = [pool.submit(ask_too) for _ in range(THREADS - 1)]
        all_ask.wait(10)
        all_have_asked.set()
        got = {future.result(10) for future in [first, *others]}

    assert got == set(made)
    assert len(made) == 1


def test_there_is_one_for_each_argument() -> None:
    @one_a_process
    def get_it(name: str) -> list[str]:
        return [name]

    assert get_it("a") is get_it("a")
    assert get_it("b") == ["b"]


def test_one_that_needs_another_is_made_after_it() -> None:
    @one_a_process
    def get_it(depth: int) -> list[object]:
        return [get_it(depth - 1)] if depth else []

    assert get_it(2) == [[[]]]
    assert get_it(2)[0] is get_it(1)
