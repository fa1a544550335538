"""What is wrong with the data, in one line."""


class DataError(Exception):
    """Data that cannot be used: what, where, and what to do. Ends a run with exit code 3."""

    exit_code = 3
