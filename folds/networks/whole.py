"""Which values of ``network.weights`` name the weights of a whole network, not of an encoder."""

from pathlib import Path

import safetensors

from competition.command import Failure

DESCRIPTION = {"settings", "provenance"}  # the keys of the metadata of a checkpoint
STUDIO = "studio"
STUDIO_WEIGHTS = Path(__file__).parent / "studio" / "weights.safetensors"


def whole_network(weights: str) -> Path | None:
    """The file with the weights of a whole network that ``network.weights`` names, if it names one."""
    if weights == STUDIO:
        return studio_weights()
    path = Path(weights)
    return path if path.is_file() and describes_network(path) else None


def studio_weights() -> Path:
    """The shipped weights."""
    if not STUDIO_WEIGHTS.is_file():
        raise Failure(f"the studio weights {STUDIO_WEIGHTS} are missing; restore them: git checkout {STUDIO_WEIGHTS}")
    return STUDIO_WEIGHTS


def describes_network(path: Path) -> bool:
    """Whether a file was written by ``folds.checkpoint.save_weights``: its metadata describes a network."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).keys() >= DESCRIPTION
    except (OSError, ValueError, safetensors.SafetensorError):  # another kind of file
        return False
