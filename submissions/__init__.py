"""The submission file: written, read, validated, pushed to Kaggle, followed and remembered. Imports no torch."""
