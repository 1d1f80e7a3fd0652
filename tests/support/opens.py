"""What a program opens, by Python's own audit events: tests see it, and can answer as a system does, by an error."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from tests.support.kills import WRITING

_watchers: list[Callable[[Path, bool], object]] = []


def _hook(event: str, details: tuple) -> None:
    if event == "open" and isinstance(details[0], str | bytes | os.PathLike):
        for watcher in [*_watchers]:
            watcher(Path(os.fsdecode(details[0])), bool(details[2] & WRITING))


@cache
def _listen() -> None:
    "Once: a hook can't be taken away any more."
    sys.addaudithook(_hook)


@contextmanager
def watched_opens(watcher: Callable[[Path, bool], object]) -> Iterator[None]:
    """Inside, watcher(path, to_write) is called before any file is opened, in every thread; what it raises, `open` raises.

    It must expect to be called again by what it opens itself.
    """
    _listen()
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)
