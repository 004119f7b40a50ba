"""Networks that onnxruntime computes."""

import pytest
import torch
from torch import Tensor, nn

from competition.command import Failure
from competition.settings.resolve import resolve
from folds.frame import Frame
from folds.networks.build import make_network
from inference.engine.ensemble import Ensemble
from inference.engine.onnx_network import OnnxNetwork

CPU = torch.device("cpu")
INPUT = {"height": 32, "width": 64}
NETWORKS = {
    "unet": {"width": 8, "depth": 2, "stem": 2},
    "group normalization": {"width": 8, "depth": 1, "norm": "group"},
    "frozen encoder": {
        **{"name": "timm_unet", "encoder": "mobilenetv2_035", "weights": "file", "freeze": 1},
        **{"decoder": [16, 8, 8, 8], "stem": 2},
    },
    "logits enlarged": {"name": "timm_unet", "encoder": "resnet10t", "decoder": [8, 8, 8], "detail": 0},
}


@pytest.mark.parametrize(("name", "threads"), [*((name, 1) for name in NETWORKS), ("unet", 2)])
def test_logits_are_those_of_torch_in_any_batch(name: str, threads: int) -> None:
    torch.manual_seed(1)
    network = make_network(resolve({"input": INPUT, "network": NETWORKS[name]}), pretrained=False).eval()
    pixels = torch.randint(0, 256, (5, 3, 32, 64), dtype=torch.uint8)
    computed = OnnxNetwork(network, Frame(32, 64, "resize"), threads, batch_size=5)
    assert (computed.pool is not None) == (threads > 1)
    with torch.inference_mode():
        logits = computed(pixels)
        assert torch.allclose(logits, network(pixels), atol=1e-5)
    for count in (1, 2, 3):  # bit by bit: the last batch may be short
        assert torch.equal(computed(pixels[:count]), logits[:count])
        assert torch.equal(computed(pixels.flip(3)[:count]), computed(pixels.flip(3))[:count])


def test_an_ensemble_has_the_same_mean_and_components() -> None:
    torch.manual_seed(1)
    settings = resolve({"input": INPUT, "network": NETWORKS["unet"]})
    networks = [make_network(settings) for _ in range(2)]
    frame, tta = Frame.of(settings.input), ["identity", "hflip"]
    by_torch, by_onnx = (
        Ensemble(networks, frame, tta, device=CPU, precision="fp32", engine=engine, member_weights=[0.5, 1.0])
        for engine in ("torch", "onnxruntime")
    )
    images = torch.randint(0, 256, (3, 32, 64, 3), dtype=torch.uint8)
    expected, found = (ensemble.predict(images, components=True) for ensemble in (by_torch, by_onnx))
    assert torch.allclose(found.mean, expected.mean, atol=1e-6)
    assert expected.components is not None
    assert found.components is not None
    assert found.components.shape == expected.components.shape
    assert (found.components.int() - expected.components.int()).abs().max() <= 1


def test_a_network_that_cannot_be_exported_names_the_way_out() -> None:
    class Sorted(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            return torch.special.entr(pixels.float().mean(dim=1, keepdim=True))

    with pytest.raises(Failure, match=r"cannot compute this network \(.*SET=inference\.engine=torch$"):
        OnnxNetwork(Sorted(), Frame(32, 64, "resize"), 1)
