"""What a server tells of its methods, checked: it comes from another process."""

from argparse import Namespace
from typing import Any, NamedTuple

from qam._cli.exits import FAILED, NO_METHOD, Mistake, raised_by_method
from qam._cli.options import open_proxy
from qam.exceptions import QAMException, QAMMethodNotFoundException


class Described(NamedTuple):
    """A method, as its server describes it."""

    name: str
    signature: str
    doc: str
    idempotent: bool

    @property
    def first_line(self) -> str:
        """The first line of its docstring; empty if it has none."""
        return self.doc.strip().partition("\n")[0].strip()


class Description(NamedTuple):
    """What a server tells of itself."""

    server_id: str
    version: str
    methods: list[Described]


def describe(options: Namespace) -> Description:
    """Ask a server what it offers.

    :raises Mistake: the server tells nothing of its methods.
    :raises QAMException: as every call.
    """
    with open_proxy(options, options.id, options.timeout) as proxy:
        try:
            answer = proxy.system.describe()
        except QAMMethodNotFoundException as error:
            raise Mistake(
                f"the server {options.id!r} tells nothing of its methods: it is one of 0.2.x, or "
                "was made with introspection=False; its source shows what can be called",
                NO_METHOD,
            ) from error
        except QAMException:
            raise
        except Exception as error:
            raise raised_by_method("system.describe", error, options.id) from error
    return _checked(answer)


def _checked(answer: Any) -> Description:
    try:
        server_id, version = _texts(answer, "server_id", "version")
        return Description(server_id, version, [_method(each) for each in answer["methods"]])
    except (TypeError, KeyError, IndexError) as error:
        raise Mistake(
            "the server described its methods in a form that is not known here; is its version "
            "of qam a later one?",
            FAILED,
        ) from error


def _method(method: Any) -> Described:
    name, signature, doc = _texts(method, "name", "signature", "doc")
    return Described(name, signature, doc, method["idempotent"] is True)


def _texts(source: Any, *fields: str) -> list[str]:
    texts = [source[field] for field in fields]
    if not all(isinstance(each, str) for each in texts):
        raise TypeError("a text is needed")
    return texts
