"""Memory and time of an upload through Kaggle's real client: ``python -m benchmarks.upload``."""

import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import report
from competition.command import parser, run_command
from competition.files import sha256
from competition.kaggle.client import Kaggle

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from kaggle_server import KEY, USER, KaggleServer  # type: ignore[import-not-found]

MEGABYTE = 1_000_000


def main() -> None:
    """Upload a file of random bytes to a server on this machine, check that it arrives, print a table."""
    arguments = parser("Measure an upload through Kaggle's client.")
    arguments.add_argument("--megabytes", type=int, default=400)
    arguments.add_argument("--data", type=Path, help="not used; make bench gives it to every benchmark")
    megabytes = arguments.parse_args().megabytes
    with tempfile.TemporaryDirectory() as folder, KaggleServer() as server:
        os.environ.update(server.environment(folder), KAGGLE_USERNAME=USER, KAGGLE_KEY=KEY)
        file = Path(folder) / "submission.csv.gz"
        with file.open("wb") as out:
            for _ in range(megabytes):
                out.write(os.urandom(MEGABYTE))
        start = time.perf_counter()
        ref = Kaggle().push(file, "benchmark")
        seconds = time.perf_counter() - start
        if [listed["sha256"] for listed in server.submissions] != [sha256(file)]:
            raise RuntimeError(f"ref {ref}: the uploaded file differs from the file that was sent")
    # The largest child; Linux counts in KiB.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    result = {"megabytes": megabytes, "seconds": round(seconds, 1), "peak_mb": round(peak / 1e6)}
    for name, value in result.items():
        print(f"{name:20}{value:>12,}")
    report("upload", result, [])


if __name__ == "__main__":
    run_command(main)
