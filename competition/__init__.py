"""What Carvana is: its data folder, its images, its mask format, its score, and the settings of a run.

Nothing here imports torch, so the codec, the score and the checks start in a fraction of a second.
"""

from competition.command import end_in_one_line_while_starting

end_in_one_line_while_starting()
