"""The shipped weights: how they are written and read."""

from pathlib import Path

import numpy as np
import torch

from competition.files import sha256
from competition.settings.resolve import resolve
from competition.studio.camera import camera_of_shoot
from competition.studio.car import build
from competition.studio.render import render
from competition.studio.room import room_of_shoot
from folds.checkpoint import Provenance, load_weights
from folds.networks.build import make_network
from folds.networks.whole import STUDIO_WEIGHTS
from folds.studio_weights import MOST_BYTES, read_card, write_studio_weights

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


def test_the_shipped_weights_find_a_generated_car() -> None:
    """A car of the studio, whose room and cars the weights have not learned; the recipe is the one beside them."""
    assert STUDIO_WEIGHTS.stat().st_size <= MOST_BYTES
    assert read_card().recipe == sha256(STUDIO_WEIGHTS.with_name("recipe.yaml"))
    network, settings, _ = load_weights(STUDIO_WEIGHTS)
    rng = np.random.default_rng(1)
    camera = camera_of_shoot(rng, settings.input.width, settings.input.height)
    photo, mask = render(build("sedan", rng), room_of_shoot(rng, camera), camera, 4, rng)
    with torch.inference_mode():
        logits = network(torch.from_numpy(photo)[None].permute(0, 3, 1, 2))
    found = (logits[0, 0] >= 0).numpy()
    assert 2 * (found & (mask == 1)).sum() / (found.sum() + mask.sum()) > 0.98
