"""The shipped weights: how they are written and read."""

import re
from pathlib import Path

import torch

from competition.files import sha256
from competition.settings.resolve import load_preset, resolve
from competition.studio.sample import pairs_of_a_car
from folds.checkpoint import Provenance, load_weights
from folds.networks.build import make_network
from folds.networks.whole import STUDIO_WEIGHTS
from folds.start import load_start
from folds.studio_weights import MOST_BYTES, read_card, write_studio_weights
from inference.segmenter import Segmenter

PROVENANCE = Provenance(fold=0, held_out="0" * 16, epoch=3, dice=0.9, iou=0.8)


def test_weights_are_written_in_half_precision_with_a_card(tmp_path: Path) -> None:
    settings = resolve({"input": {"height": 32, "width": 32}, "network": {"width": 8, "depth": 1, "init_from": "x"}})
    network = make_network(settings)
    path, recipe = tmp_path / "weights.safetensors", tmp_path / "recipe.yaml"
    recipe.write_text("cars: 4")
    card = {"trained_on": "64 photos of 4 generated cars", "dice": 0.97, "scored_on": "512 photos of 32 real cars"}
    write_studio_weights(network.state_dict(), settings, PROVENANCE, **card, recipe=recipe, path=path)
    read, stored, provenance = load_weights(path)
    assert read_card(path).model_dump() == {**card, "recipe": sha256(recipe), "classes": ("car",)}
    assert (stored.input, stored.network.init_from) == (settings.input, "none")
    assert provenance == PROVENANCE.model_copy(update={"learned": ()})
    for name, tensor in network.state_dict().items():
        found = read.state_dict()[name]
        assert found.dtype == tensor.dtype
        assert torch.equal(found, tensor.half().float() if tensor.ndim > 1 else tensor)


def test_the_shipped_weights_are_those_of_the_card() -> None:
    card = (STUDIO_WEIGHTS.parent / "README.md").read_text()
    assert sha256(STUDIO_WEIGHTS) in re.findall(r"[0-9a-f]{64}", card)
    assert read_card().recipe == sha256(STUDIO_WEIGHTS.parent / "recipe.yaml")
    assert STUDIO_WEIGHTS.stat().st_size <= MOST_BYTES


def test_preset_cpu_starts_from_the_shipped_weights() -> None:
    settings = resolve(load_preset("cpu"))
    assert settings.network.weights == "studio"
    start = load_start(STUDIO_WEIGHTS, settings)
    assert start.learned is not None
    make_network(settings).load_state_dict(start.weights)


def test_the_shipped_weights_cut_out_a_generated_car() -> None:
    segment = Segmenter.load(device="cpu", settings=["inference.tta=[identity]", "inference.engine=torch"])
    for photo, mask in pairs_of_a_car([2, 9], seed=3, width=768):
        car = segment(photo) >= segment.threshold
        assert 2 * (car & (mask == 1)).sum() / (car.sum() + mask.sum()) > 0.98
