"""``make gpu-check``: whether the project works on this machine's GPU, how fast, and which batch fits."""
