"""The one way a step of the demonstration says that what it saw is not what it should be.

Contract: the text goes into the row that failed.
"""


class Failed(Exception):
    """What was seen instead."""
