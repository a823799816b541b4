"""Writes a module with the types of a server's methods, to which a proxy is cast.  No I/O here.

What the server sent is parsed, and written anew: none of its text gets into the module that is
not a name, a known type or a harmless docstring.
"""

import ast
from collections.abc import Iterable, Iterator
from keyword import iskeyword
from typing import NamedTuple

from qam._cli.annotations import Types
from qam._cli.description import Described, Description
from qam._protocol.hidden_names import is_hidden

_WIDTH = 100
_INDENT = "    "


class _Node:
    """A method, the methods of an instance, or both: what has one name."""

    def __init__(self) -> None:
        self.method: Described | None = None
        self.members: dict[str, _Node] = {}

    def names(self) -> Iterator[str]:
        """Yield all names below this one."""
        for name, member in self.members.items():
            yield name
            yield from member.names()


def stub_of(description: Description) -> str:
    """Return a module with two Protocols of what a server offers: of calls, and for asyncio."""
    left_out = [each.name for each in description.methods if not _can_be_written(each.name)]
    root = _tree(each for each in description.methods if each.name not in left_out)
    stub = _Stub({*root.names(), "Any", "Literal", "Protocol"})
    name = stub.new_name(description.server_id)
    stub.add_class(name, root, "", "Cast a QAMProxy to it, and the result of with_options.")
    stub.add_class(stub.new_name(f"Async {name}"), root, "async ", "Cast an AsyncProxy to it.")
    return stub.text(left_out)


def _can_be_written(name: str) -> bool:
    parts = name.split(".")
    return not is_hidden(name) and all(
        part.isidentifier() and not iskeyword(part) and not part.startswith("_") for part in parts
    )


def _tree(methods: Iterable[Described]) -> _Node:
    root = _Node()
    for method in methods:
        node = root
        for part in method.name.split("."):
            node = node.members.setdefault(part, _Node())
        node.method = method
    return root


class _Stub:
    """The module, while it is written.

    :param taken: the names that no class may have.
    """

    def __init__(self, taken: set[str]) -> None:
        self._taken = taken
        self._modules: set[str] = set()
        self._of_typing = {"Protocol"}
        self._classes: list[str] = []

    def new_name(self, text: str) -> str:
        """Return a name for a class, made from the letters of *text*, that no other has."""
        words = "".join(each if f"a{each}".isidentifier() else " " for each in text)
        words = words.replace("_", " ")
        base = "".join(word[0].upper() + word[1:] for word in words.split())
        if not base.isidentifier() or iskeyword(base):
            base = f"Service{base}"
        name, number = base, 1
        while name in self._taken:
            number += 1
            name = f"{base}{number}"
        self._taken.add(name)
        return name

    def add_class(self, name: str, node: _Node, kind: str, doc: str = "") -> None:
        """Add the Protocol *name* for what is below *node*, after those for its instances.

        :param kind: what stands before the ``def`` of each method.
        """
        instances, methods = [], []
        types = Types({*node.members}, self._modules, self._of_typing)
        for member, below in sorted(node.members.items()):
            if below.members:
                class_name = self.new_name(f"{name} {member}")
                self.add_class(class_name, below, kind)
                instances.append(f"    @property\n    def {member}(self) -> {class_name}: ...")
            elif below.method:
                methods.append(_function(member, below.method, kind, types))
        if node.method:
            methods.append(_function("__call__", node.method, kind, types))
        head = f"class {name}(Protocol):"
        docstring = [f'{_INDENT}"""{doc}"""'] if doc else []
        body = [*docstring, *instances, *methods]  # first the instances: one may be "property"
        self._classes.append("\n".join([head, "\n\n".join(body)]))

    def text(self, left_out: list[str]) -> str:
        """Return the module."""
        imports = [f"import {module}" for module in sorted(self._modules)]
        imports.append(f"from typing import {', '.join(sorted(self._of_typing))}")
        head = '"""The methods of a server, as `qam methods --stub` wrote them."""'
        notes = [_note(name) for name in left_out]
        parts = [head, "\n".join(imports)] + (["\n".join(notes)] if notes else [])
        return "\n\n".join(parts) + "\n\n\n" + "\n\n\n".join(self._classes)


def _note(name: str) -> str:
    return f"# Left out, since it is no attribute of a proxy: proxy[{name!a}]"


# --- methods --------------------------------------------------------------------------------


class _Function(NamedTuple):
    """What a signature says."""

    parameters: ast.arguments
    returns: ast.expr | None


def _function(name: str, method: Described, kind: str, types: Types) -> str:
    found = _parsed(method.signature)
    head, doc = f"{_INDENT}{kind}def {name}", _docstring(method.first_line)
    parameters, returns = _parameters(found.parameters, types), types.of(found.returns)
    line = f"{head}({', '.join(parameters)}) -> {returns}:{'' if doc else ' ...'}"
    if len(line) > _WIDTH:
        inner = "".join(f"{_INDENT * 2}{each},\n" for each in parameters)
        line = f"{head}(\n{inner}{_INDENT}) -> {returns}:{'' if doc else ' ...'}"
    return f"{line}\n{_INDENT * 2}{doc}" if doc else line


def _parsed(signature: str) -> _Function:
    """Return what *signature* says; any arguments if it is none."""
    try:
        match ast.parse(f"def function {signature}: ...").body:
            case [ast.FunctionDef(args=parameters, returns=returns)]:
                names = _names_of(parameters)
                if len(names) == len(set(names)):  # which the parser does not look at
                    return _Function(parameters, returns)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        pass
    return _parsed("(*args, **kwargs)")


def _parameters(found: ast.arguments, types: Types) -> list[str]:
    """Return the parameters of a method as they are written; default values as ``...``."""
    positional = [*found.posonlyargs, *found.args]
    required = len(positional) - len(found.defaults)
    written = [_parameter(each, types, n >= required) for n, each in enumerate(positional)]
    if found.posonlyargs:
        written.insert(len(found.posonlyargs), "/")
    if found.vararg:
        written.append(f"*{_parameter(found.vararg, types)}")
    elif found.kwonlyargs:
        written.append("*")
    for each, default in zip(found.kwonlyargs, found.kw_defaults, strict=True):
        written.append(_parameter(each, types, default is not None))
    if found.kwarg:
        written.append(f"**{_parameter(found.kwarg, types)}")
    first, names = "self", _names_of(found)
    while first in names:
        first += "_"
    return [first, *written]


def _names_of(parameters: ast.arguments) -> list[str]:
    return [each.arg for each in ast.iter_child_nodes(parameters) if isinstance(each, ast.arg)]


def _parameter(parameter: ast.arg, types: Types, is_optional: bool = False) -> str:
    return f"{parameter.arg}: {types.of(parameter.annotation)}{' = ...' * is_optional}"


def _docstring(text: str) -> str:
    """Return *text* as a docstring; empty if it can't be one as it stands."""
    is_plain = text.isprintable() and '"' not in text and "\\" not in text
    room = _WIDTH - 2 * len(_INDENT) - len('""""""')
    return f'"""{text}"""' if text and is_plain and len(text) <= room else ""
