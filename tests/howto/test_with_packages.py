"""The how-tos with their packages, and what a page says of programs of the system."""

import json
import re
import shutil
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from qam import QAMProxy, QAMServer
from tests.howto.examples import EXAMPLES, load
from tests.howto.test_without_packages import AGAIN, AT_ONCE, Failing
from tests.operations.test_running import DEPLOY
from tests.support.rabbitmq import RabbitMQNode, free_ports
from tests.support.tls import Certificate, listen
from tests.support.waiting import until

pytestmark = pytest.mark.howto

ROOT = Path(__file__).parents[2]
WEB = (ROOT / "docs/howto/web.md").read_text(encoding="utf-8")
RUNNING = (ROOT / "docs/operations/running.md").read_text(encoding="utf-8")


def serve_stock(url: str) -> QAMServer:
    """A server of the id of the pages."""
    server = QAMServer(url, server_id="stock", log_exceptions=False)
    server.register_function({"apple": 100, "pear": 40}.__getitem__, "count")
    server.start()
    return server


@pytest.fixture
def in_memory(server_id: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a broker inside this process."""
    url = f"memory://{server_id}"
    monkeypatch.setenv("QAM_BROKER_URL", url)
    return url


# --- retries ---


@pytest.fixture
def take() -> Iterator[Any]:
    import stamina

    with stamina.set_testing(True, attempts=5):  # without pauses
        yield load("retrying").take


def test_stamina_makes_a_call_again_whose_method_did_not_run(take: Any) -> None:
    stock = Failing(*AGAIN)

    assert take(stock, "apple", 1) == 7
    assert stock.calls == 3


@pytest.mark.parametrize("failure", AT_ONCE, ids=lambda failure: type(failure).__name__)
def test_stamina_does_not_make_a_call_again_that_may_have_run(
    take: Any, failure: Exception
) -> None:
    stock = Failing(failure)

    with pytest.raises(type(failure)):
        take(stock, "apple", 1)
    assert stock.calls == 1


# --- web applications ---


def test_flask(in_memory: str) -> None:
    # given an application that is imported before there is a server
    application = load("flask_app")
    client = application.app.test_client()
    absent = client.get("/stock/apple")
    # when
    with serve_stock(in_memory):
        found, missing = client.get("/stock/apple"), client.get("/stock/plum")
    application.stock.close()
    # then
    assert (found.status_code, found.json) == (200, {"item": "apple", "number": 100})
    assert (missing.status_code, missing.json) == (404, {"error": "no such item: plum"})
    told = {"error": "QAMServerNotFoundException", "safe_to_retry": True}
    assert (absent.status_code, absent.json) == (503, told)


def test_django(in_memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "django_app"
    monkeypatch.syspath_prepend(str(EXAMPLES))
    application = __import__(name)
    from django.test import Client

    client = Client(raise_request_exception=False)
    absent = client.get("/stock/apple")
    with serve_stock(in_memory):
        found, missing = client.get("/stock/apple"), client.get("/stock/plum")
    application.stock.close()

    assert (found.status_code, found.json()) == (200, {"item": "apple", "number": 100})
    assert (missing.status_code, missing.json()) == (404, {"error": "no such item: plum"})
    assert absent.status_code == 503
    assert absent.json() == {"error": "QAMServerNotFoundException", "safe_to_retry": True}


def test_a_server_uses_djangos_database(rabbitmq_node: RabbitMQNode, tmp_path: Path) -> None:
    database = tmp_path / "orders.sqlite"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE orders (number INTEGER)")
    environment = {
        "QAM_BROKER_URL": rabbitmq_node.url,
        "DATABASE": str(database),
        "PYTHONPATH": str(ROOT),
    }
    serve = [sys.executable, "-m", "qam", "serve", "django_server:server"]
    with subprocess.Popen(serve, cwd=EXAMPLES, env=environment) as server:
        try:
            with QAMProxy("orders", rabbitmq_node.url, wait_for_server=60, timeout=60) as orders:
                assert [orders.count_tables() for _ in range(20)] == [1] * 20
        finally:
            server.terminate()
            assert server.wait(60) == 0


def commands() -> list[str]:
    """The commands of the page that start a web server."""
    return re.findall(r"^((?:gunicorn|uwsgi) .*)$", WEB, re.MULTILINE)


@pytest.fixture
def stock(rabbitmq_node: RabbitMQNode) -> Iterator[QAMServer]:
    with serve_stock(rabbitmq_node.url) as server:
        yield server


def ask(url: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
    except OSError as error:
        return 0, str(error)


def started(typed: str, port: int, node: RabbitMQNode) -> "subprocess.Popen[bytes]":
    """The web server of a command, at another port."""
    if typed.startswith("gunicorn"):
        typed = f"{typed} -b 127.0.0.1:{port}"
    name, *arguments = typed.replace("127.0.0.1:8000", f"127.0.0.1:{port}").split()
    environment = {"QAM_BROKER_URL": node.url, "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    path = Path(sys.executable).parent / name
    return subprocess.Popen([path, *arguments], cwd=EXAMPLES, env=environment)


@pytest.mark.parametrize("name", ["gunicorn", "uwsgi"])
def test_each_web_server_serves_many_from_its_workers(
    name: str, rabbitmq_node: RabbitMQNode, stock: QAMServer
) -> None:
    (typed,) = (each for each in commands() if each.startswith(name))
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}/stock/apple"
    server = started(typed, port, rabbitmq_node)
    try:
        until(lambda: server.poll() is not None or ask(url)[0] == 200)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask, [url] * 200))
    finally:
        server.send_signal(2)
        server.wait(60)
    assert answers == [(200, {"item": "apple", "number": 100})] * 200


# --- Jupyter ---


def test_the_cells_of_the_page_run_in_a_notebook() -> None:
    import nbformat
    from nbclient import NotebookClient

    page = (ROOT / "docs/howto/jupyter.md").read_text(encoding="utf-8")
    cells = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    where = f"import sys; sys.path.insert(0, {str(ROOT)!r})"
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in [where, *cells]]
    )

    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()

    printed = "".join(
        output["text"] for cell in notebook.cells for output in cell.outputs if "text" in output
    )
    expected = re.findall(r"print\(.*\)  # (.*)$", page, re.MULTILINE)
    assert printed.splitlines() == expected


# --- programs of the system ---


def needed(name: str, package: str) -> str:
    """The path of a program; fails if it is not there, so that nothing is left out silently."""
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"{name} is needed (Debian: apt-get install {package})", pytrace=False)
    return found


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    # given the unit, with paths that there are
    qam = tmp_path / ".venv" / "bin" / "qam"
    qam.parent.mkdir(parents=True)
    qam.symlink_to("/bin/true")
    text = (DEPLOY / "qamserver.service").read_text(encoding="utf-8")
    unit = tmp_path / "qamserver.service"
    unit.write_text(text.replace("/srv/stock", str(tmp_path)), encoding="utf-8")
    # when
    verify = [needed("systemd-analyze", "systemd"), "verify", "--man=no", unit]
    done = subprocess.run(verify, capture_output=True, text=True)
    # then
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


CERTIFICATES, AUTHORITY_AGAIN = (
    block for block in re.findall(r"```sh\n(.*?)```", RUNNING, re.DOTALL) if "openssl" in block
)


def type_in(folder: Path, commands: str) -> None:
    subprocess.run(["sh", "-e", "-c", commands], cwd=folder, check=True, capture_output=True)


def test_an_authority_without_key_usage_is_made_again_as_the_page_says(tmp_path: Path) -> None:
    # given
    verify = [needed("openssl", "openssl"), "verify", "-x509_strict"]
    verify += ["-CAfile", "ca.pem", "broker.pem"]
    usage = '-addext "keyUsage=critical,keyCertSign,cRLSign" '
    type_in(tmp_path, CERTIFICATES.replace(usage, ""))
    refused = subprocess.run(verify, cwd=tmp_path, capture_output=True, text=True)
    assert "key usage" in refused.stderr
    # when
    type_in(tmp_path, AUTHORITY_AGAIN)
    # then
    assert subprocess.run(verify, cwd=tmp_path, capture_output=True).returncode == 0


def test_the_certificates_of_the_page_are_trusted_and_verified(
    tmp_path: Path, rabbitmq_node: RabbitMQNode
) -> None:
    needed("openssl", "openssl")
    type_in(tmp_path, CERTIFICATES)
    (port,) = free_ports(1)
    certificate = Certificate(tmp_path / "broker.pem", tmp_path / "broker.key")
    listen(rabbitmq_node, port, tmp_path / "ca.pem", certificate)
    url = f"amqps://guest:guest@localhost:{port}//"
    # a server and a client that get the authority
    authority = {"ca_certs": str(tmp_path / "ca.pem")}
    with (
        QAMServer(url, server_id="stock", ssl=authority) as server,
        QAMProxy("stock", url, ssl=authority, timeout=60) as proxy,
    ):
        server.register_function(pow)
        server.start()
        assert proxy.pow(2, 3) == 8
    # the command, which gets it by its environment
    for variables, found in (({"SSL_CERT_FILE": str(tmp_path / "ca.pem")}, True), ({}, False)):
        done = subprocess.run(
            [sys.executable, "-m", "qam", "health", "stock"],
            env={"PYTHONPATH": str(ROOT), "QAM_BROKER_URL": url, **variables},
            capture_output=True,
            text=True,
        )
        assert ("not trusted" in done.stderr) is not found, done.stderr
