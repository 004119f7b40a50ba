"""``make cv``: train every fold that is not finished, then score.

Both happen in one process, which imports torch once: with nothing to do, the command ends within seconds.
"""

from collections.abc import Sequence

import torch

from competition.command import parser, run_command
from competition.deadline import Deadline, add_deadline_argument
from competition.run.open import add_run_arguments
from folds import ranks
from folds.train import train_folds
from inference.members import members_of
from inference.score import score_run


@ranks.joined()
def main(argv: Sequence[str] | None = None) -> None:
    """Create the run if it does not exist, train its folds, and score it."""
    arguments = parser("Train every fold that is not finished, then score. An interrupted command resumes.")
    add_run_arguments(arguments)
    add_deadline_argument(arguments)
    options = arguments.parse_args(argv)
    deadline = Deadline(options.hours)
    run, settings, data = train_folds(options, None, deadline)
    if settings.train.compile:
        torch.compiler.reset()  # what is compiled counts towards a limit, beyond which torch no longer compiles
    score_run(run, settings, data, members_of(run), deadline)


if __name__ == "__main__":
    run_command(main)
