"""Makes the description of the package out of README.md, when sdist and wheel are built.

On an index page no file stands beside the README, so its links have to be absolute there.
"""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_RELATIVE_LINK = re.compile(r"\]\((?!https://|#)")


class AbsoluteLinks(MetadataHookInterface):
    """Lets links to files lead into the repository."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the readme of the project."""
        files = f"{metadata['urls']['Source']}/blob/main/"
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        text = _RELATIVE_LINK.sub(f"]({files}", text)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
