"""What tells other code from the code that made an artifact."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import ModuleType


def code_digest(*packages: ModuleType) -> str:
    """Return the SHA-256 of the sources of packages, those below them left out."""
    sources = [source for package in packages for source in sorted(Path(package.__path__[0]).glob("*.py"))]
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
