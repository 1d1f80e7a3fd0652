"""What users are told: in one line what they can mend, numbers with their nouns, how far the work is. The lowest floor."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm.auto import tqdm
from tqdm.std import tqdm as text_bar

__all__ = ["UserError", "counted", "progress_bar"]


class UserError(ValueError):
    """Something the user can mend: its text is one clear line that says what is wrong and what to do."""


def counted(count: int, thing: str) -> str:
    """A number with its noun: "1 photo", "1,234 photos"."""
    return f"{count:,} {thing}" + ("" if count == 1 else "s")


class _Lines(text_bar):
    """A bar whose states stand one below the other, as plain lines; where any was shown, the last one is too."""

    last_shown: int | None = None

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if msg is None:  # else the line is to be cleared
            self.last_shown = self.n
            print(self, file=self.fp, flush=True)

    def close(self) -> None:
        if self.last_shown not in (None, self.n):
            self.display()
        super().close()


def progress_bar(items: Iterable | None = None, shown: bool = True, pause: float = 60.0, **options: Any) -> tqdm:
    """tqdm's bar with its options, a widget in a notebook; where stderr is a file, a line each `pause` seconds instead.

    None where it is not to be `shown`, and without stderr: in a service, or on Windows without a console.
    """
    shown = shown and sys.stderr is not None
    if not shown or sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel"):
        return tqdm(items, disable=not shown, **options)
    return _Lines(items, leave=False, mininterval=pause, maxinterval=pause, **options | {"delay": pause})
