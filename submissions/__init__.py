"""The submission file: written, read, validated, pushed to Kaggle, followed and remembered. Imports no torch."""

from competition.command import end_in_one_line_while_starting

end_in_one_line_while_starting()
