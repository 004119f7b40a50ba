"""The competition: data folder, images, mask format and score; and the settings and the folder of a run.

This package does not import torch, so its commands start quickly.
"""

from competition.startup import start

start()
