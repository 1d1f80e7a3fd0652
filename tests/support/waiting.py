"""Waiting for what another process or thread does: for the event itself, never for a time that should be enough."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def wait_for(happened: Callable[[], Value], what: str, seconds: float = 600) -> Value:
    "The first true value of `happened`, asked twenty times a second; `seconds` is a guard against hanging alone."
    end = time.monotonic() + seconds
    while not (value := happened()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come in {seconds:.0f} seconds")
        time.sleep(0.05)
    return value


def wait_for_rest(ask: Callable[[], Value], what: str) -> Value:
    "The first true value of `ask` that five questions in a row are answered with: what flickers has come to rest."
    answers: list[Value] = []

    def rests() -> Value | bool:
        answers.append(ask())
        return answers[-5:] == 5 * answers[-1:] and answers[-1]

    return wait_for(rests, what)
