"""The envelope of a request: who calls what; of its arguments nothing but plain values is built.

A request may have ended the server that had it, by what it builds.  Whoever gets it next
reads no more of it than is needed to answer.
"""

import pickle  # nothing that is named is built  # nosec B403
from typing import Any, ClassVar

from qam._serialization.trust import Trusted
from qam._serialization.unpickler import CarefulUnpickler, loads

_NOTHING_TRUSTED = Trusted()


def load_envelope(body: bytes) -> Any:
    """Return what *body* stands for, with :class:`Nothing` for all that it names.

    :raises Exception: it is no pickle, or a broken one.
    """
    return loads(body, _NOTHING_TRUSTED, unpickler=_EnvelopeUnpickler)


class Nothing:
    """Stands for whatever is named, and for what is made of it: takes anything, keeps nothing.

    It can be filled like a list, a set and a dict, as what is derived from these.
    """

    __slots__ = ()

    def append(self, item: Any) -> None:
        """Take an item."""

    def extend(self, items: Any) -> None:
        """Take several items."""

    def add(self, item: Any) -> None:
        """Take a member."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Take a key and its value."""


class _EnvelopeUnpickler(CarefulUnpickler):
    """Knows no names and calls nothing; plain values are built, within the same bounds."""

    def find_class(self, module: str, name: str) -> Any:
        return Nothing()

    def _call(self, called: Any, args: Any) -> Any:
        self._check_named(called, args)
        return Nothing()

    def _new(self, cls: Any, args: Any, kwargs: Any = None) -> Any:
        return self._call(cls, args)

    def _instantiate(self, klass: Any, args: Any) -> None:
        self.append(self._call(klass, tuple(args)))

    def _check_named(self, called: Any, args: Any) -> None:
        # A plain value, or with other arguments: then no other unpickler would read on.
        if type(called) is not Nothing or type(args) is not tuple:
            raise pickle.UnpicklingError("a message may call only what it names")

    def load_build(self) -> None:
        self.stack.pop()
        if type(self.stack[-1]) is not Nothing:
            raise pickle.UnpicklingError("a message may give a state only to what it names")

    def _check_container(self, container: Any, *kinds: type) -> None:
        super()._check_container(container, Nothing, *kinds)

    dispatch: ClassVar[dict[int, Any]] = {
        **CarefulUnpickler.dispatch,
        pickle.BUILD[0]: load_build,
    }
