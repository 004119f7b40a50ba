"""The settings of a run: their schema, how a preset, a file and SET combine, and their description."""
