"""What a user can mend is told in one line, and numbers with their nouns. The lowest floor."""

__all__ = ["UserError", "counted"]


class UserError(ValueError):
    """Something the user can mend: its text is one clear line that says what is wrong and what to do."""


def counted(count: int, thing: str) -> str:
    """A number with its noun: "1 photo", "1,234 photos"."""
    return f"{count:,} {thing}" + ("" if count == 1 else "s")
