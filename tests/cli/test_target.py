import pytest

from qam import QAMServer
from qam._cli.exits import WRONG_USE, Mistake
from qam._cli.target import Target, load, parse
from qam.exceptions import QAMConnectionException
from tests.cli.conftest import Module

SHOP = """
class Cart:
    def add(self, what):
        return what
    part = None
cart = Cart()
cart.inner = Cart()
number = 5
def make():
    return Cart()
def fail():
    raise ValueError("no")
def leave():
    raise SystemExit(3)
"""


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("shop", Target("shop", "", False)),
        ("shop.orders", Target("shop.orders", "", False)),
        ("shop:cart", Target("shop", "cart", False)),
        ("shop:cart.inner", Target("shop", "cart.inner", False)),
        ("shop:make()", Target("shop", "make", True)),
    ],
)
def test_a_target_is_a_module_or_something_in_one(text: str, target: Target) -> None:
    assert parse(text) == target


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", ""),
        ("shop:", ""),
        (":cart", ""),
        ("shop:make(1)", ""),
        ("shop()", ""),
        ("a b", ""),
        ("shop.py", "; a module has no path, so write shop"),
        ("./shop.py:cart", "; a module has no path, so write shop:cart"),
        ("src/shop.py", "; a module has no path, so write src.shop"),
        ("src/shop", "; a module has no path, so write src.shop"),
        ("shop.py:cart", "; a module has no path, so write shop:cart"),
        ("/srv/own/shop.py", "; run qam in the folder '/srv/own', and write shop"),
        ("../own/shop:cart", "; run qam in the folder '../own', and write shop:cart"),
        (
            "my-shop.py",
            "; 'my-shop' can't be imported, since it is no identifier: rename the file",
        ),
    ],
)
def test_what_has_another_form_is_refused(text: str, hint: str) -> None:
    with pytest.raises(Mistake) as raised:
        parse(text)

    assert raised.value.exit_code == WRONG_USE
    assert str(raised.value).startswith("TARGET must be module, module:instance, module:server ")
    assert str(raised.value).endswith(f"not {text!r}{hint}")


def test_a_module_of_the_current_folder_is_found(module: Module) -> None:
    module("shop", SHOP)

    assert load(parse("shop")).number == 5
    assert type(load(parse("shop:cart.inner"))).__name__ == "Cart"
    assert load(parse("shop:make()")) is not load(parse("shop:make()"))


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("shops", "there is no module 'shops'; run qam in the folder that has it"),
        ("shop.cart", "there is no module 'shop.cart'; run qam in the folder that has it"),
        ("shop.cart", "; what is in a module comes after a colon, as shop:cart"),
        ("shop:card", "shop has no 'card'; did you mean 'cart'?"),
        ("shop:zzz", "shop has no 'zzz'; it has Cart, cart, fail, leave, make, number"),
        ("shop:cart.zzz", "shop has no 'cart.zzz'; it has add, inner, part"),
        ("shop:Cart", r"shop:Cart is a class; write 'shop:Cart\(\)' to serve an instance of it"),
        ("shop:number()", r"shop:number can't be called; leave out the \(\)"),
        ("shop:fail()", r"shop:fail\(\) raised ValueError: no in .*shop.py, line 12; --traceback"),
        ("shop:leave()", r"shop:leave\(\) raised SystemExit: 3 in .*shop.py, line 14; --trace"),
    ],
)
def test_what_is_not_there_is_told(module: Module, target: str, told: str) -> None:
    module("shop", SHOP)

    with pytest.raises(Mistake, match=told) as raised:
        load(parse(target))

    assert raised.value.exit_code == WRONG_USE


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("def f(:", r"broken can't be imported: invalid syntax in .*broken.py, line 1; correct"),
        ("import nothing_there", "broken can't be imported: No module named 'nothing_there'; inst"),
        ("\n1 / 0", "it raised ZeroDivisionError: division by zero in .*broken.py, line 2; --tr"),
        ("raise SystemExit", "broken can't be imported: it raised SystemExit in .*, line 1; --tr"),
    ],
    ids=["syntax", "import", "error", "exit"],
)
def test_a_module_that_can_not_be_imported_is_told(module: Module, source: str, told: str) -> None:
    module("broken", source)

    with pytest.raises(Mistake, match=told):
        load(parse("broken"))


@pytest.mark.parametrize("target", ["lonely", "maker:make()"])
def test_that_its_broker_is_not_there_is_no_mistake_of_the_module(
    module: Module, target: str
) -> None:
    make = "from qam import QAMServer\ndef make():\n    return QAMServer('127.0.0.1', 1)\n"
    module("maker", make)
    module("lonely", f"{make}\nserver = make()")

    with pytest.raises(QAMConnectionException):
        load(parse(target))


def test_a_server_of_a_module_is_found(module: Module) -> None:
    module("own", "from qam import QAMServer\nserver = QAMServer('memory://target')\n")

    assert isinstance(load(parse("own:server")), QAMServer)
