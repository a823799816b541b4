"""Small changes to the source of a module, each of which some test should notice."""

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
}
_FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any"}
# What is logged is no decision.
_LOGS = {"log", "_log"}


@dataclass(frozen=True)
class Change:
    """One change: where, what stood there and what stands there now, and the whole source then."""

    line: int
    before: str
    after: str
    source: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.before}  ->  {self.after}"


Edit = Callable[[ast.AST], ast.AST | None]


def changes_of(source: str) -> Iterator[Change]:
    """Yield all changes of *source*, one at a time."""
    tree = ast.parse(source)
    for index, node in enumerate(_decisions(tree)):
        for edit in _edits(node):
            changed = copy.deepcopy(tree)
            place = _decisions(changed)[index]
            replacement = edit(place)
            if replacement is None:
                continue
            _replace(changed, place, replacement)
            line = getattr(node, "lineno", 0)
            text = ast.unparse(ast.fix_missing_locations(changed))
            yield Change(line, _shown(node), _shown(replacement), text)


def _shown(node: ast.AST) -> str:
    text = ast.unparse(node).partition("\n")[0]
    return text if len(text) <= 80 else f"{text[:77]}..."


def _decisions(tree: ast.Module) -> list[ast.AST]:
    """What stands in functions, without annotations: all that is decided when they are called."""
    found: list[ast.AST] = []
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            for statement in function.body:
                found += _inside(statement)
    return found


def _inside(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.FunctionDef):
        return  # it is found by itself
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _inside(child)


def _replace(tree: ast.AST, old: ast.AST, new: ast.AST) -> None:
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, name, new)
            elif isinstance(value, list) and any(each is old for each in value):
                setattr(parent, name, [new if each is old else each for each in value])


# --- the kinds of changes ---------------------------------------------------


def _edits(node: ast.AST) -> Iterator[Edit]:
    match node:
        case ast.Compare(ops=[operator]) if type(operator) in _COMPARISONS:
            yield _other_comparison
        case ast.BoolOp():
            yield _other_junction
        case ast.BinOp(op=operator) if type(operator) in _ARITHMETIC:
            yield _other_arithmetic
        case ast.UnaryOp(op=ast.Not()):
            yield lambda place: place.operand  # type: ignore[attr-defined]
        case ast.If() | ast.While() | ast.IfExp():
            if not isinstance(node.test, ast.Compare | ast.BoolOp | ast.UnaryOp):
                yield _negated_test
        case ast.match_case(guard=ast.expr()):
            yield _without_guard
        case ast.Constant(value=bool() | int() | float()):
            yield _other_constant
        case ast.Call(func=ast.Name(id=name)) if name in _FUNCTIONS:
            yield _other_function
        case ast.Expr(value=ast.Call() as call) if not _is_log(call):
            yield lambda place: ast.Pass()
        case ast.AugAssign() | ast.Delete():
            yield lambda place: ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield lambda place: ast.Pass()


def _is_log(call: ast.Call) -> bool:
    of = call.func.value if isinstance(call.func, ast.Attribute) else None
    return getattr(of, "id", getattr(of, "attr", "")) in _LOGS


def _other_comparison(place: ast.AST) -> ast.AST:
    assert isinstance(place, ast.Compare)
    return ast.Compare(place.left, [_COMPARISONS[type(place.ops[0])]()], place.comparators)


def _other_junction(place: ast.AST) -> ast.AST:
    assert isinstance(place, ast.BoolOp)
    return ast.BoolOp(ast.And() if isinstance(place.op, ast.Or) else ast.Or(), place.values)


def _other_arithmetic(place: ast.AST) -> ast.AST:
    assert isinstance(place, ast.BinOp)
    return ast.BinOp(place.left, _ARITHMETIC[type(place.op)](), place.right)


def _negated_test(place: ast.AST) -> ast.AST:
    assert isinstance(place, ast.If | ast.While | ast.IfExp)
    other = copy.copy(place)
    other.test = ast.UnaryOp(ast.Not(), place.test)
    return other


def _without_guard(place: ast.AST) -> ast.AST:
    assert isinstance(place, ast.match_case)
    return ast.match_case(place.pattern, None, place.body)


def _other_constant(place: ast.AST) -> ast.AST:
    assert isinstance(place, ast.Constant)
    value = place.value
    if isinstance(value, bool):
        return ast.Constant(not value)
    assert isinstance(value, int | float)
    return ast.Constant(value + 1)


def _other_function(place: ast.AST) -> ast.AST:
    assert isinstance(place, ast.Call)
    assert isinstance(place.func, ast.Name)
    return ast.Call(ast.Name(_FUNCTIONS[place.func.id], ast.Load()), place.args, place.keywords)
