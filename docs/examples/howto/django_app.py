"""A Django application in one file: `gunicorn --preload -w 4 django_app:application`.

In a project of yours the proxy is in a module of its own, such as `shop/remote.py`, and settings
and urls are where they are.
"""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from qam import QAMException, QAMProxy

# One for all workers and threads. Each worker connects when it makes its first call.
stock = QAMProxy("stock", os.environ["QAM_BROKER_URL"], connect=False, timeout=10)


def count(request: HttpRequest, item: str) -> JsonResponse:
    """Answer with what the remote method returns; an error of its own is a 404."""
    try:
        return JsonResponse({"item": item, "number": stock.count(item)})
    except KeyError:
        return JsonResponse({"error": f"no such item: {item}"}, status=404)


class Unavailable:
    """A middleware that answers 503 if a call has no result."""

    def __init__(self, get_response):  # type: ignore[no-untyped-def]
        self._get_response = get_response

    def __call__(self, request):  # type: ignore[no-untyped-def]
        """Go on to the view."""
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> JsonResponse | None:
        """Answer for the view that raised *error*, if it comes of a call."""
        if not isinstance(error, QAMException):
            return None
        what = {"error": type(error).__name__, "safe_to_retry": error.safe_to_retry}
        return JsonResponse(what, status=503)


urlpatterns = [path("stock/<item>", count)]

settings.configure(
    ROOT_URLCONF=__name__,
    SECRET_KEY=os.environ.get("SECRET_KEY", "for this example alone"),
    ALLOWED_HOSTS=["*"],
    MIDDLEWARE=[f"{__name__}.Unavailable"],
)
application = get_wsgi_application()
