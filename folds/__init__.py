"""K-fold training: the split by car, the samples, the networks, the losses, the trainer."""

from competition.command import end_in_one_line_while_starting

end_in_one_line_while_starting()
