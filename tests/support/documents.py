"""Commands that README and docs/ show."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = {path.name: path for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"))}


def commands(document: str) -> list[str]:
    """Return the lines of a document's console blocks, those with a backslash at their end put together."""
    text = DOCUMENTS[document].read_text()
    blocks = re.findall(r"^```console\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in re.sub(r"\\\n\s*", "", block).splitlines() if line]
