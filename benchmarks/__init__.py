"""What the README claims, as programs that anyone can run: ``make bench``."""
