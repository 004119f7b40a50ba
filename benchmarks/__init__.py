"""What the README claims, as programs that anyone can run: ``make bench``."""

from competition.command import end_in_one_line_while_starting

end_in_one_line_while_starting()
