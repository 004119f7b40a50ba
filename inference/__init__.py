"""From trained folds to masks: test-time augmentation, ensembling, cross-validation score, report."""

import folds  # noqa: F401  sets OMP_WAIT_POLICY, which torch reads when it is imported
