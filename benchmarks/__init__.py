"""The measurements behind the published figures: ``make bench``."""

import folds  # noqa: F401  sets OMP_WAIT_POLICY, which torch reads when it is imported
