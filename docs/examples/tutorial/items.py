"""The data classes of the tutorial: the server and its clients import this module."""

from dataclasses import dataclass

import qam


@qam.trust
@dataclass
class Item:
    """Things of one kind, and how many there are."""

    name: str
    number: int
