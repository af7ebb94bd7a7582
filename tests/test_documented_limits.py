"""The table of limits in docs/protocol.md is what the code says."""

import re
from pathlib import Path

from services.client_agent import service
from services.coordinator import app, changes, instances, partial_uploads, strangers
from services.coordinator.connections import BoundedConnection
from services.coordinator.settings import Settings
from shared import answers
from shared.protocol import codec, messages, request_signatures, tensors
from shared.transport import arriving

PAGE = (Path(__file__).parents[1] / "docs" / "protocol.md").read_text()
SECTION = PAGE.split("\n## Limits\n")[1].split("\n## ")[0]
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in SECTION.splitlines() if line.startswith("| ")]
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20}


def numbers(what: str) -> list[float]:
    """Return the numbers of the row that begins so, in bytes and seconds."""
    (row,) = (row for row in ROWS if row[0].startswith(what))
    found = re.findall(r"(\d[\d,]*)(?: (KiB|MiB))?", row[1])
    return [float(number.replace(",", "")) * UNITS.get(unit, 1) for number, unit in found]


def test_the_table_of_limits_is_the_codes() -> None:
    """Each number of it is a constant or a default."""
    settings = {name: field.default for name, field in Settings.model_fields.items()}
    assert numbers("head of a request") == [BoundedConnection.head_bytes, BoundedConnection.head_seconds]
    assert numbers("body of an answered request") == [BoundedConnection.linger_seconds]
    assert numbers("TLS handshake") == [BoundedConnection.head_seconds]
    assert numbers("connections on which") == [strangers.MOST, strangers.MOST_OF_ADDRESS]
    assert numbers("upload that broke off") == [partial_uploads.KEPT_SECONDS]
    assert numbers("silence in an answer") == [arriving.SILENCE_SECONDS]
    assert settings["body_bytes_per_second"] == arriving.BYTES_PER_SECOND
    assert numbers("JSON body") == [app.MAX_JSON_BYTES]
    assert numbers("silence in a body") == [settings["body_silence_seconds"]]
    assert f"{settings['body_bytes_per_second']:,.0f} bytes a second" in SECTION
    assert numbers("polls of one party") == [changes.MOST_WAITING]
    assert numbers("requests of one party") == [settings["requests_per_minute"]]
    assert numbers("requests from one address") == [settings["failures_per_minute"]]
    assert numbers("bytes that one agent sends") == [settings["upload_bytes_per_day"]]
    assert numbers("life of a signature") == [
        request_signatures.LIFETIME_SECONDS,
        request_signatures.TOLERANCE_SECONDS,
    ]
    assert numbers("field of a signed request") == [request_signatures.MOST_CHARACTERS]
    assert numbers("processes that an agent") == [messages.MOST_FOLLOWED]
    assert f"nothing for {instances.GONE_SECONDS:.0f} seconds" in PAGE
    assert numbers("runs that an agent") == [messages.MOST_DECLINED]
    assert numbers("answer that a client keeps") == [answers.MOST_BYTES]
    assert numbers("pause before an agent") == [service.AWAY.most_seconds]
    assert numbers("pause that a client") == [answers.LONGEST_PAUSE_SECONDS]
    assert numbers("header of a blob") == [codec.MAX_PARSED_BYTES]
    assert numbers("layout") == [tensors.MAX_TENSORS, tensors.MAX_RANK, tensors.MAX_NAME_CHARACTERS]
