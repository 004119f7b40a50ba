"""``make settings``: print every setting."""

import shutil
from collections.abc import Sequence

from competition.command import parser, run_command
from competition.settings.describe import listing, table
from competition.settings.resolve import load_preset, resolve


def main(argv: Sequence[str] | None = None) -> None:
    """Print every setting as text or as a Markdown table."""
    arguments = parser("Print every setting: its default or the preset's value, its meaning and its allowed values.")
    arguments.add_argument("--preset", help="show the values of this preset, a name or a .yaml file")
    arguments.add_argument("--markdown", action="store_true", help="print a Markdown table, as in docs/settings.md")
    options = arguments.parse_args(argv)
    settings = resolve(load_preset(options.preset) if options.preset else {})
    width = min(shutil.get_terminal_size((100, 24)).columns, 120)
    print(table(settings) if options.markdown else listing(settings, width))


if __name__ == "__main__":
    run_command(main)
