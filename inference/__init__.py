"""From trained folds to masks: test-time augmentation, ensembling, cross-validation score, report."""

from competition.command import handle_interrupt_during_imports

handle_interrupt_during_imports()
