"""A server whose methods use Django's database: `qam serve django_server:server`."""

import os
from collections.abc import Callable
from typing import Any

import django
from django.conf import settings

from qam import CurrentCall, QAMServer

# In a project: os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
database = {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DATABASE"]}
settings.configure(DATABASES={"default": database}, USE_TZ=True)
django.setup()

from django.db import close_old_connections, connection  # noqa: E402  # after setup()


def with_fresh_connections(call: CurrentCall, proceed: Callable[[], Any]) -> Any:
    """Let go of database connections that are too old, as Django does around each request."""
    close_old_connections()
    try:
        return proceed()
    finally:
        close_old_connections()


server = QAMServer(
    os.environ["QAM_BROKER_URL"], server_id="orders", middleware=[with_fresh_connections]
)


@server.register_function
def count_tables() -> int:
    """Return how many tables the database has."""
    return len(connection.introspection.table_names())
