"""Decodes the envelope of a request: who calls what, without building the arguments' classes.

A request may have killed the server that had it while its arguments were built.  The next
server that gets it decodes only as much as it needs for an answer.
"""

import pickle  # it builds plain values only  # nosec B403
from typing import Any, ClassVar

from qam._serialization.strangers import Nothing
from qam._serialization.trust import Trusted
from qam._serialization.unpickler import CarefulUnpickler, loads

_NOTHING_TRUSTED = Trusted()


def load_envelope(body: bytes) -> Any:
    """Return the value that *body* encodes, with :class:`Nothing` for each class and function.

    :raises Exception: *body* is no pickle, or a broken one.
    """
    return loads(body, _NOTHING_TRUSTED, unpickler=_EnvelopeUnpickler)


class _EnvelopeUnpickler(CarefulUnpickler):
    """Looks up no names and calls nothing; builds plain values within the same limits."""

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
        # The other unpicklers refuse to call a plain value, or with arguments in no tuple.
        if type(called) is not Nothing or type(args) is not tuple:
            raise pickle.UnpicklingError(
                "a message may call only a class or function that it names"
            )

    def load_build(self) -> None:
        self.stack.pop()
        if type(self.stack[-1]) is not Nothing:
            raise pickle.UnpicklingError("a message may set the state of instances only")

    def _check_container(self, container: Any, *kinds: type) -> None:
        super()._check_container(container, Nothing, *kinds)

    dispatch: ClassVar[dict[int, Any]] = {
        **CarefulUnpickler.dispatch,
        pickle.BUILD[0]: load_build,
    }
