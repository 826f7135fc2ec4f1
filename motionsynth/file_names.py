"""Sample ids as file names: whatever an id holds, its file lies in the folder it was meant for."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container

LONGEST = 100
"""Characters; leaves room for an ending within the 255 bytes of a file name."""
# Names that Windows keeps for devices, whatever their ending.
_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")


def file_name(sample_id: str, taken: Container[str] = ()) -> str:
    """A file name without ending: letters, digits, '.', '_', '-'.

    An id that is such a name stays as it is. To any other a hash of it is added, and to one whose name is taken.

    Args:
        sample_id: Any text.
        taken: Names that are in use, in lower case: some file systems do not tell a from A.
    """
    name = re.sub(r"[^A-Za-z0-9._-]", "_", sample_id)[:LONGEST].lstrip(".-").rstrip(".")
    if _DEVICES.fullmatch(name):
        name = f"_{name}"
    if name and name == sample_id and name.lower() not in taken:
        return name
    digest = hashlib.sha256(sample_id.encode(errors="surrogatepass")).hexdigest()[:12]
    return f"{name or 'clip'}~{digest}"
