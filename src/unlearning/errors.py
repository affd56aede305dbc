"""The one exception that is meant for the reader."""

from collections.abc import Iterable

MOST_TOLD, MOST_CHARACTERS = 20, 400  # mistakes at once, and of each


class StudyError(Exception):
    """A mistake in settings, files or machine, told without a traceback: what is wrong, where, and what mends it."""


def refuse(mistakes: Iterable[str]) -> None:
    """Raise a StudyError of these mistakes, a line each: at most 20, then a count. None: nothing is raised."""
    lines = [" ".join(message.split()) for message in mistakes]
    told = [m if len(m) <= MOST_CHARACTERS else f"{m[:250]} […] {m[-100:]}" for m in lines[:MOST_TOLD]]
    if told:
        raise StudyError("\n".join([*told, f"… and {len(lines) - MOST_TOLD} more"][: len(lines)]))
