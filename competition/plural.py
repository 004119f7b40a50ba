"""Counts in messages."""


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A count with its noun, such as "1 car" or "5,088 photos".

    Args:
        count: how many.
        noun: in the singular.
        plural: if it is not the noun with an s.
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
