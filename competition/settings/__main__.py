"""``make settings``: print every setting."""

import shutil
from collections.abc import Sequence

from competition.command import parser, run_command
from competition.settings.describe import listing, table
from competition.settings.resolve import load_preset, resolve


def main(argv: Sequence[str] | None = None) -> None:
    """Print every setting."""
    arguments = parser("Every setting: its default or a preset's value, what it means, and what it may be.")
    arguments.add_argument("--preset", help="preset whose values are shown, by name or as a .yaml file")
    arguments.add_argument("--markdown", action="store_true", help="as a Markdown table")
    options = arguments.parse_args(argv)
    settings = resolve(load_preset(options.preset) if options.preset else {})
    width = min(shutil.get_terminal_size((100, 24)).columns, 120)
    print(table(settings) if options.markdown else listing(settings, width))


if __name__ == "__main__":
    run_command(main)


if __name__ == "__main__":
    run_command(main)
