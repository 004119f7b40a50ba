"""`make report`: one HTML page of a run."""

from collections.abc import Sequence

from competition import files
from competition.command import parser, run_command
from competition.run.open import add_run_arguments, open_run, require_same_data
from inference.report.page import render
from inference.report.results import read_results


def main(argv: Sequence[str] | None = None) -> None:
    """Write runs/<RUN>/report.html."""
    options = parser("Write an HTML page of a scored run: curves, scores by fold, view and make, the worst images.")
    add_run_arguments(options)
    run, _, data = open_run(options.parse_args(argv))
    results = read_results(run, data)
    require_same_data(run, data)
    page = render(results, data)
    files.write_text(run.report, page)
    print(f"{run.report}: {len(page.encode()) / 1e6:.1f} MB in one file; open it in a browser")


if __name__ == "__main__":
    run_command(main)
