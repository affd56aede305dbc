"""The one exception that is meant for the reader."""


class StudyError(Exception):
    """A mistake in settings, files or machine, told without a traceback: what is wrong, where, and what mends it."""
