"""Turns are limited in number, and given in the order in which they were asked for."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from runners.turns import CoreTurns


def test_no_more_than_the_number_compute_at_once() -> None:
    turns, guard, now, most = CoreTurns(2), threading.Lock(), 0, 0

    def work(_: int) -> None:
        nonlocal now, most
        with turns:
            with guard:
                now += 1
                most = max(most, now)
            time.sleep(0.002)
            with guard:
                now -= 1

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(40)))
    assert most == 2
    with turns, turns:
        assert True, "both are free again"


def test_who_asks_again_right_after_a_turn_does_not_overtake_who_waits() -> None:
    turns, order = CoreTurns(1), []

    def greedy() -> None:
        for _ in range(3):
            with turns:
                order.append("greedy")

    def patient() -> None:
        with turns:
            order.append("patient")

    with turns:
        threads = [threading.Thread(target=greedy), threading.Thread(target=patient)]
        for number, thread in enumerate(threads, 1):
            thread.start()
            while len(turns._waiting) < number:
                time.sleep(0.001)
    for thread in threads:
        thread.join(10)
    assert order == ["greedy", "patient", "greedy", "greedy"]


def test_a_turn_ends_with_an_error() -> None:
    turns = CoreTurns(1)
    for _ in range(2):
        try:
            with turns:
                raise ValueError
        except ValueError:
            pass
    assert turns._free == 1
