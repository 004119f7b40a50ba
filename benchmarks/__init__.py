"""The measurements behind the published figures: ``make bench``."""

import folds  # noqa: F401  sets OMP_WAIT_POLICY, which torch reads when it is imported
from competition.command import handle_interrupt_during_imports

handle_interrupt_during_imports()
