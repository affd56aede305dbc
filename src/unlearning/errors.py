"""The one exception that is meant for the reader: its message says what is wrong, where, and what mends it."""


class StudyError(Exception):
    """A mistake in the input (settings, forget-set file, corpus, machine), told in words and without a traceback."""
