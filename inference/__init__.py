"""Trained folds to masks: test-time augmentation, ensembling, streaming, the offline CV score, the report."""
