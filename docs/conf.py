"""The site: `tox run -e docs` builds it in docs/_build, and every warning is an error."""

import sys
import tomllib
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

_PROJECT = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = _PROJECT["name"]
author = _PROJECT["authors"][0]["name"]
copyright = author
version = release = _PROJECT["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "command_reference"]
exclude_patterns = ["_build"]
nitpicky = True
smartquotes = False  # they make one dash of the two of an option

pygments_dark_style = "github-dark"

html_theme = "furo"
html_title = f"qam {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False

# So that a link to a heading is written as on GitHub.
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the parameters are described, with their units; see qam/py.typed

# Names of Python's own: to link them, their inventory would have to come over the network.
nitpick_ignore_regex = [
    ("py:.*", r"(concurrent|functools|ssl|xmlrpc)\..*"),
    ("py:func", "getattr"),
]

#: Files in the root of the repository, where a forge finds them, and the pages that show them.
_PAGES_OF_FILES = {
    "CHANGELOG": "project/changelog",
    "CONTRIBUTING": "project/contributing",
    "README": "index",
    "SECURITY": "project/security-policy",
}


def _lead_to_pages(app: Sphinx, doctree: nodes.document) -> None:
    """Let links to files in the root lead to the pages that show them."""
    for link in doctree.findall(pending_xref):
        path, _, anchor = link["reftarget"].partition("#")
        page = _PAGES_OF_FILES.get(path.rpartition("/")[2].removesuffix(".md"))
        if link["reftype"] == "myst" and page is not None:
            link["refdomain"], link["reftarget"] = "doc", page
            link["reftargetid"] = link.get("reftargetid") or anchor or None


def _find_comments_where_they_stand(module: str, *defined_in: str) -> None:
    """Let autodoc find the `#:` comments of classes that *module* offers for private ones."""
    offered = ModuleAnalyzer.for_module(module)
    offered.analyze()
    for each in defined_in:
        private = ModuleAnalyzer.for_module(each)
        private.analyze()
        offered.attr_docs.update(private.attr_docs)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    _find_comments_where_they_stand("qam", "qam._server.current_call")
    app.connect("doctree-read", _lead_to_pages)
