"""Step ``nccl``: what several GPUs need. One GPU is one rank of NCCL; with two or more, two processes train."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.gpu_check.step import Check, Figure, require
from benchmarks.watch import watch
from folds.losses import batch_loss
from folds.networks.build import make_network

CLOSE = 0.02  # of two losses in bf16


def nccl(check: Check) -> Iterator[Figure]:
    """DistributedDataParallel, synchronized batch normalization and collectives, beside a network without them."""
    from timm.layers import convert_sync_batchnorm  # see folds/networks/pretrained.py

    device, settings = check.device, check.settings(check.preset)
    torch.manual_seed(0)
    plain = make_network(settings).to(device).to(memory_format=torch.channels_last).train()
    side = check.few(64, 512)
    image = torch.randint(0, 256, (4, side, side, 3), dtype=torch.uint8, device=device)
    expected = float(batch_loss(plain, image, image[..., 0], settings.loss, "auto"))
    with one_rank(check), warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        # Synchronized batch normalization computes on GPUs only.
        network: nn.Module = convert_sync_batchnorm(plain) if device.type == "cuda" else plain
        parallel = DistributedDataParallel(network)
        for _ in range(2):
            loss = batch_loss(parallel, image, image[..., 0], settings.loss, "auto")
            loss.backward()  # type: ignore[no-untyped-call]
        number, on_device = torch.tensor([3]), torch.tensor([3.0], device=device)
        dist.all_reduce(number, dist.ReduceOp.MAX)
        dist.all_reduce(on_device)
        objects: list[dict[str, int] | None] = [None]
        dist.all_gather_object(objects, {"a": 1})
    require(objects == [{"a": 1}] and int(number) == 3 == int(on_device), "a collective gives a wrong result")
    gradients = [each.grad for each in network.parameters() if each.grad is not None]
    require(all(bool(torch.isfinite(each).all()) for each in gradients), "a gradient is not finite")
    yield Figure("loss, and without the process group", f"{float(loss):.4f}, {expected:.4f}")
    yield Figure("warnings", " | ".join(sorted({str(each.message)[:90] for each in heard})) or "none")
    require(abs(float(loss) - expected) <= CLOSE, f"the loss is {float(loss):.3f} and not {expected:.3f}")
    if torch.cuda.device_count() > 1:
        run = check.folder / "two"
        arguments = ["--nproc", "2", "folds.train", "--fold", "0", "--run", run, "--data", check.data.root]
        seen = watch("folds.launch", *arguments, "--preset", "demo", "--set", "split.folds=2", "train.epochs=2")
        yield Figure("two processes on two GPUs train", seen.seconds, "s")


@contextmanager
def one_rank(check: Check) -> Iterator[None]:
    """A process group of this process, with the backends of ``folds.ranks``."""
    backend = "cpu:gloo,cuda:nccl" if check.device.type == "cuda" else "gloo"
    store = f"file://{(check.folder / 'store').resolve()}"
    dist.init_process_group(backend, init_method=store, rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()
