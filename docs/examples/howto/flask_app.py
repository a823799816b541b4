"""A Flask application that calls a server: `gunicorn --preload -w 4 flask_app:app`."""

import os

from flask import Flask, jsonify
from flask.typing import ResponseReturnValue

from qam import QAMException, QAMProxy

# One for all workers and threads. Each worker connects when it makes its first call.
stock = QAMProxy("stock", os.environ["QAM_BROKER_URL"], connect=False, timeout=10)

app = Flask(__name__)


@app.get("/stock/<item>")
def count(item: str) -> ResponseReturnValue:
    """Answer with what the remote method returns; an error of its own is a 404."""
    try:
        return jsonify(item=item, number=stock.count(item))
    except KeyError:
        return jsonify(error=f"no such item: {item}"), 404


@app.errorhandler(QAMException)
def unavailable(error: QAMException) -> ResponseReturnValue:
    """Answer 503 if there is no result; safe_to_retry says whether the method did not run."""
    return jsonify(error=type(error).__name__, safe_to_retry=error.safe_to_retry), 503
