"""Trained folds to masks: test-time augmentation, ensembling, streaming, the offline CV score, the report."""

from competition.command import end_in_one_line_while_starting

end_in_one_line_while_starting()
