"""Turns annotations that a server sent into types that are known here.  No I/O here.

They are parsed, and never evaluated; what is not known becomes ``Any``.
"""

import ast
from collections.abc import Sequence

_PLAIN = {"bool", "int", "float", "complex", "str", "bytes", "object"}
#: Generic types, and how many types each has in its brackets; None for any number.
_GENERICS = {"list": 1, "set": 1, "frozenset": 1, "dict": 2, "tuple": None}
#: As typing spells them.
_OLD_NAMES = {"List": "list", "Set": "set", "FrozenSet": "frozenset", "Dict": "dict"}
_OLD_NAMES["Tuple"] = "tuple"
#: Types of modules that a stub imports.
_OF_MODULES = {
    *("datetime.date", "datetime.datetime", "datetime.time", "datetime.timedelta"),
    *("decimal.Decimal", "fractions.Fraction", "uuid.UUID"),
}


class Types:
    """Writes types for the methods of a class, and remembers what has to be imported for them.

    :param taken: the names in that class, which hide the builtins of the same name.
    :param modules: takes the modules to import.
    :param of_typing: takes the names to import from typing.
    """

    def __init__(self, taken: set[str], modules: set[str], of_typing: set[str]) -> None:
        self._taken = taken
        self._modules = modules
        self._of_typing = of_typing

    def any(self) -> str:
        """Return how Any is written."""
        return self._from_typing("Any")

    def of(self, node: ast.expr | None) -> str:
        """Return the type that the annotation *node* stands for; Any if there is none."""
        match node:
            case ast.Constant(value=None):
                return "None"
            case ast.Name() | ast.Attribute():
                return self._named(_name_of(node))
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return self._one_of([left, right])
            case ast.Subscript(value=value, slice=ast.Tuple(elts=items)):
                return self._generic(_name_of(value), items)
            case ast.Subscript(value=value, slice=item):
                return self._generic(_name_of(value), [item])
        return self.any()

    def _named(self, name: str) -> str:
        if name in _PLAIN:
            return self._builtin(name)
        if name in _GENERICS:
            return self._bare(name)
        module, _, last = name.rpartition(".")
        if name in _OF_MODULES and module not in self._taken:
            self._modules.add(module)
            return f"{module}.{last}"
        return self.any()

    def _bare(self, name: str) -> str:
        inside = ", ".join([self.any()] * (_GENERICS[name] or 1))
        return f"{self._builtin(name)}[{inside}{'' if _GENERICS[name] else ', ...'}]"

    def _generic(self, name: str, items: Sequence[ast.expr]) -> str:
        if name == "Literal" and all(map(_is_literal, items)):
            return f"{self._from_typing('Literal')}[{', '.join(map(_literal, items))}]"
        if name == "Optional" and len(items) == 1:
            return self._one_of([*items, ast.Constant(None)])
        if name == "Union":
            return self._one_of(items)
        if name == "tuple" and len(items) == 2 and _is_ellipsis(items[1]):
            return f"{self._builtin(name)}[{self.of(items[0])}, ...]"
        if name in _GENERICS and _GENERICS[name] in (None, len(items)):
            return f"{self._builtin(name)}[{', '.join(map(self.of, items))}]"
        return self.any()

    def _one_of(self, nodes: Sequence[ast.expr]) -> str:
        return " | ".join(dict.fromkeys(map(self.of, nodes)))

    def _builtin(self, name: str) -> str:
        if name not in self._taken:
            return name
        self._modules.add("builtins")
        return f"builtins.{name}"

    def _from_typing(self, name: str) -> str:
        if name not in self._taken:
            self._of_typing.add(name)
            return name
        self._modules.add("typing")
        return f"typing.{name}"


def _name_of(node: ast.expr) -> str:
    """Return the name that *node* is, by the name that types have here; empty if it is none."""
    match node:
        case ast.Name(id=name):
            return _OLD_NAMES.get(name, name)
        case ast.Attribute(value=ast.Name(id="typing"), attr=name):
            return _OLD_NAMES.get(name, name)
        case ast.Attribute(value=value, attr=name):
            return f"{_name_of(value)}.{name}"
    return ""


def _is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...


def _is_literal(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) in (str, int, bool, type(None))


def _literal(node: ast.expr) -> str:
    text = repr(node.value) if isinstance(node, ast.Constant) else ""
    plain = text.startswith("'") and '"' not in text and "\\" not in text
    return f'"{text[1:-1]}"' if plain else text
