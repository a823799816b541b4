"""What a server tells of its methods: names, signatures, docstrings.  All texts are bounded."""

import ast
import inspect
from functools import partial
from types import FunctionType
from typing import Any, Protocol

from qam._common.version import own_version
from qam._server.offered_methods import Method

#: Characters of one signature and of one docstring, at most.
_MAX_SIGNATURE, _MAX_DOC = 1000, 4000
#: Characters of an annotation or of a default value, at most.
_MAX_PART = 200
#: Functions inside each other that are looked through for a docstring.
_MOST_LAYERS = 10
#: Characters of all signatures and docstrings of a description together, at most.
_MAX_DESCRIPTION = 1024 * 1024

_ANY_ARGUMENTS = "(*args, **kwargs)"
_PLAIN = (bool, int, float, complex, str, bytes, type(None))


class Methods(Protocol):
    """The registered methods, as they are described."""

    def items(self) -> list[tuple[str, Method, bool]]:
        """Return name, method, and whether it is idempotent, in the order of the names."""


class Introspection:
    """Describes the registered methods of one server.

    :param server_id: the id of the server.
    :param methods: its methods, which are looked at anew for each question.
    """

    def __init__(self, server_id: str, methods: Methods) -> None:
        self._server_id = server_id
        self._methods = methods

    @property
    def system_methods(self) -> dict[str, Method]:
        """The methods by which callers ask, by their names."""
        return {
            "system.listMethods": self.list_methods,
            "system.methodHelp": self.method_help,
            "system.methodSignature": self.method_signature,
            "system.describe": self.describe,
        }

    def list_methods(self) -> list[str]:
        """Return the names of the registered methods, in order."""
        return [name for name, _, _ in self._methods.items()]

    def method_help(self, name: str) -> str:
        """Return the docstring of a method; empty if it has none.

        :raises LookupError: there is no such method.
        """
        return doc_of(self._find(name))

    def method_signature(self, name: str) -> str:
        """Return the parameters of a method, as they are written in Python.

        :raises LookupError: there is no such method.
        """
        return signature_of(self._find(name))

    def describe(self) -> dict[str, Any]:
        """Return the id of the server, the version of this library, and what each method is."""
        room, found = _Room(_MAX_DESCRIPTION), self._methods.items()
        # First the signatures, without which nothing can be called.
        signatures = [room.take(signature_of(method), _ANY_ARGUMENTS) for _, method, _ in found]
        methods = [
            {
                "name": name,
                "signature": signature,
                "doc": room.take(doc_of(method), ""),
                "idempotent": idempotent,
            }
            for (name, method, idempotent), signature in zip(found, signatures, strict=True)
        ]
        return {"server_id": self._server_id, "version": own_version(), "methods": methods}

    def _find(self, name: str) -> Method:
        for each, method, _ in self._methods.items():
            if each == name:
                return method
        raise LookupError(f"no method {name!r:.100} is registered on this server")


class _Room:
    """The characters that a description may still have."""

    def __init__(self, characters: int) -> None:
        self._left = characters

    def take(self, text: str, instead: str) -> str:
        """Return *text*; *instead* of it if there is no room."""
        if len(text) > self._left:
            return instead
        self._left -= len(text)
        return text


def doc_of(method: Method) -> str:
    """Return the docstring of *method*, cut; empty if it has none."""
    try:
        doc = inspect.getdoc(_innermost(method)) or ""
    except Exception:  # code of the application
        return ""
    return doc if len(doc) <= _MAX_DOC else doc[:_MAX_DOC] + "…"


def _innermost(method: Any) -> Any:
    """Return the function inside of objects that have a docstring of their class only."""
    for _ in range(_MOST_LAYERS):  # a proxy of something else may have every attribute
        if isinstance(method, partial):
            method = method.func
        elif type(method) is not FunctionType and hasattr(method, "__wrapped__"):
            method = method.__wrapped__
    return method


def signature_of(method: Method) -> str:
    """Return the parameters of *method* and what it returns, as they are written in Python.

    What can't be written as an expression is left out, and so are default values that are no
    plain ones.
    """
    try:
        signature = inspect.signature(method)
        shown = signature.replace(
            parameters=[_shown_parameter(each) for each in signature.parameters.values()],
            return_annotation=_shown_annotation(signature.return_annotation),
        )
        text = str(shown)
    except Exception:  # a builtin that has none, or code of the application
        return _ANY_ARGUMENTS
    return text if len(text) <= _MAX_SIGNATURE else _ANY_ARGUMENTS


class _Text:
    """Is shown as a text, without quotes."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _shown_parameter(parameter: inspect.Parameter) -> inspect.Parameter:
    return parameter.replace(
        default=_shown_default(parameter.default),
        annotation=_shown_annotation(parameter.annotation),
    )


def _shown_default(default: Any) -> Any:
    if default is inspect.Parameter.empty:
        return default
    text = repr(default) if type(default) in _PLAIN else "..."
    return _Text(text if len(text) <= _MAX_PART else "...")


def _shown_annotation(annotation: Any) -> Any:
    if annotation is inspect.Parameter.empty:
        return annotation
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return _Text(text) if _is_short_expression(text) else inspect.Parameter.empty


def _is_short_expression(text: str) -> bool:
    """Return True if *text* is an expression, as the name of a class in a function is not."""
    if len(text) > _MAX_PART:
        return False
    try:
        ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
