"""How long ``require_file`` takes to refuse each file of a folder, and how much memory: a process of its own.

``python -m tests.support.refused_files FOLDER LAYOUT.json`` prints one JSON object a file, in the order of their names.
"""

import json
import sys
import time
from pathlib import Path

from shared.errors import ProtocolError
from shared.protocol.codec import require_file

TRIES = 5  # somebody else may have had the processor


def resident(field: str) -> int:
    """Return this process's memory in bytes: ``VmRSS`` now, ``VmHWM`` at its peak."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def main(folder: Path, layout_file: Path) -> None:
    """Try each file."""
    layout = {name: tuple(shape) for name, shape in json.loads(layout_file.read_bytes()).items()}
    idle = resident("VmRSS")
    for file in sorted(folder.iterdir()):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
        code, seconds = "taken", []
        for _ in range(TRIES):
            began = time.perf_counter()
            try:
                require_file(file, layout)
            except ProtocolError as error:
                code = error.code
            seconds.append(time.perf_counter() - began)
        answer = {"file": file.name, "code": code, "seconds": min(seconds), "bytes": resident("VmHWM") - idle}
        sys.stdout.write(f"{json.dumps(answer)}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
