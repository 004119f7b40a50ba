"""The offline cross-validation: out-of-fold predictions, what tuning gains, and what each part adds."""
