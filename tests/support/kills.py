"""Kills at events: a process that dies by SIGKILL as it is about to change a file, on any machine and under any load.

What a killed process leaves behind depends on what it had written by then and on nothing else. So all moments are tried
when it dies at its first change of a file, at its second, and so on until it comes to its end.
"""

import itertools
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable

from tests.support.processes import context

CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate")  # names of Python's audit events
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def killed_at_change(number: int, folder: str | os.PathLike, work: Callable, *arguments: object) -> bool:
    """Runs `work` in a process that is killed at its change `number`, from 0, of a file in `folder`; whether it was.

    It was not when `work` came to its end before. A temporary file (".part") that was about to be renamed loses its
    second half, as if the kill had struck while it was being written.
    """
    process = context.Process(target=_dying_at, args=(number, os.fspath(folder), work, arguments))
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), "it failed by itself: see its traceback above"
    return process.exitcode != 0


def _dying_at(number: int, folder: str, work: Callable, arguments: tuple) -> None:
    "Runs `work` under an audit hook, which Python calls before every change of a file."
    numbers = itertools.count()

    def hook(event: str, details: tuple) -> None:
        if not (event in CHANGES or event == "open" and details[2] & WRITING):
            return
        path = details[0]
        if isinstance(path, int) or os.path.isabs(path) and not os.fspath(path).startswith(folder):
            return  # what is relative is so to a folder below: shutil.rmtree's way
        if next(numbers) == number:
            if event == "os.rename" and ".part" in os.path.basename(path) and os.path.isfile(path):
                os.truncate(path, os.path.getsize(path) // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    multiprocessing.set_start_method("fork", force=True)  # or the locks of progress bars would be reported as left over
    sys.addaudithook(hook)
    work(*arguments)
