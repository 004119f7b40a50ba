"""The score of a network on the held-out photos: mean over the images of Dice at full size, as in the competition."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from competition import metrics, rle
from competition.data_folder import DataFolder
from competition.images import Pixels
from competition.metrics import Scores
from competition.photo import Photo
from competition.rle import Spans
from competition.settings.schema import Precision
from folds import ranks
from folds.device import autocast, out_of_memory
from folds.frame import Frame
from folds.leakage import held_out_key
from folds.workers import start_method, start_worker

HALF = 128  # the level of probability 0.5


class HeldOut(Dataset[Tensor]):
    """Held-out photos in the network's frame, (h, w, 3) uint8 RGB."""

    def __init__(self, photos: Sequence[Photo], frame: Frame) -> None:
        self.photos = photos
        self.frame = frame

    def __len__(self) -> int:
        """The number of photos."""
        return len(self.photos)

    def __getitem__(self, index: int) -> Tensor:
        """A photo in the network's frame."""
        return torch.from_numpy(self.frame.read(self.photos[index]))


class Validation:
    """Scores networks on the held-out photos of a fold; each rank takes its share.

    Args:
        photos: the held-out photos.
        data: the source of their masks.
        frame: the network's frame.
        batch_size: photos per forward pass.
        workers: processes that read photos.
    """

    def __init__(
        self, photos: Sequence[Photo], data: DataFolder, frame: Frame, *, batch_size: int, workers: int
    ) -> None:
        self.held_out = held_out_key(photo.img for photo in photos)
        self.photos = photos[ranks.rank() :: ranks.world()]
        self.frame = frame
        self.loader = DataLoader(
            HeldOut(self.photos, frame),
            batch_size=batch_size,
            num_workers=workers,
            multiprocessing_context=start_method(workers),
            worker_init_fn=start_worker,
            generator=torch.Generator(),  # separate: starting a loader draws a number
        )
        with ThreadPoolExecutor() as pool:
            self.truths: list[Spans] = list(pool.map(data.truth_spans, self.photos))

    @torch.inference_mode()
    def score(self, network: nn.Module, device: torch.device, precision: Precision) -> Scores:
        """Predict every photo, resize to full size, threshold at one half, and average the scores of the images."""
        was_training = network.training
        network.eval()
        counts: list[metrics.Counts] = []
        with ThreadPoolExecutor() as pool:
            for batch in self.loader:
                levels = self.levels(network, batch, device, precision)
                first = len(counts)
                counts += pool.map(self.count, range(first, first + len(levels)), levels)
        network.train(was_training)
        shares = zip_longest(*ranks.all_gather(counts))  # back in the order of the photos
        return metrics.mean([each for share in shares for each in share if each is not None])

    def levels(self, network: nn.Module, batch: Tensor, device: torch.device, precision: Precision) -> Pixels:
        """The predictions of a batch, (N, h, w) uint8 levels in the network's frame."""
        with out_of_memory(
            f"validation with inference.batch_size={self.loader.batch_size}",
            "run the same command with SET=inference.batch_size=1 to resume, or start a new RUN with a smaller input",
        ):
            with autocast(precision, device):
                logits = network(batch.to(device).permute(0, 3, 1, 2))
            return to_levels(logits.float().sigmoid()).cpu().numpy()

    def count(self, index: int, levels: Pixels) -> metrics.Counts:
        """Count the pixels of one prediction, (h, w) uint8 levels in the network's frame, against the mask."""
        full = self.frame.full_size(levels, self.photos[index].shape)
        return metrics.counts_of_spans(rle.from_mask(full >= HALF), self.truths[index])


def to_levels(probabilities: Tensor) -> Tensor:
    """(N, 1, h, w) probabilities to (N, h, w) uint8 levels of 1/255, on the same device."""
    return probabilities[:, 0].mul(255).round_().to(torch.uint8)
