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
