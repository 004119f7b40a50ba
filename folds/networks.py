"""The network that the settings describe."""

from typing import TYPE_CHECKING

from torch import nn

from competition.command import Failure
from competition.settings import Network, Settings
from folds.unet import UNet

if TYPE_CHECKING:
    from folds.timm_unet import TimmUNet

ONLY_OF_TIMM = ("weights", "attention", "enlarge", "detail", "freeze")


def make_network(settings: Settings, pretrained: bool = True) -> nn.Module:
    """A network with fresh weights.

    Args:
        settings: of the run.
        pretrained: load the encoder's weights as ``network.weights`` says; False where a checkpoint follows.
            Those of ``network.init_from`` follow too.

    Raises:
        Failure: the weights cannot be had, the network has no such setting, or the input size does not suit it.
    """
    network = _plain(settings, pretrained) if settings.network.name == "unet" else _timm(settings, pretrained)
    sizes = [("input.height", settings.input.height), ("input.width", settings.input.width)]
    if settings.augment.crop:
        sizes += zip(("the height of augment.crop", "the width of augment.crop"), settings.augment.crop, strict=True)
    for name, size in sizes:
        if size % network.divisor:
            near = max(1, round(size / network.divisor)) * network.divisor
            raise Failure(f"{name}={size} is not a multiple of {network.divisor}, as this network needs; {near} is")
    return network


def _plain(settings: Settings, pretrained: bool) -> UNet:
    chosen = settings.network
    if pretrained:  # a checkpoint may have been made when these settings were ignored
        _require_plain(chosen)
    return UNet(chosen.width, chosen.depth, chosen.stem, chosen.max_width, chosen.norm)


def _require_plain(chosen: Network) -> None:
    """Refuse what a plain U-Net does not have: a run would say that it was trained with it."""
    ours, defaults = dict(chosen), dict(Network())
    changed = [name for name in ONLY_OF_TIMM if ours[name] != defaults[name]]
    if changed:
        raise Failure(
            f"{', '.join(f'network.{name}={ours[name]}' for name in changed)} means nothing to network.name=unet; "
            "SET=network.name=timm_unet for a network that has it, or "
            f'SET="{" ".join(f"network.{name}={defaults[name]}" for name in changed)}"'
        )


def _timm(settings: Settings, pretrained: bool) -> "TimmUNet":
    # timm takes seconds to import, which the plain U-Net need not wait for.
    from folds.timm_unet import TimmUNet

    chosen = settings.network
    has_learned = chosen.weights != "none" or chosen.init_from != "none"
    return TimmUNet(
        chosen.encoder,
        chosen.weights if pretrained and chosen.init_from == "none" else "none",
        list(chosen.decoder),
        norm=chosen.norm,
        attention=chosen.attention,
        enlarge=chosen.enlarge,
        detail=chosen.detail,
        stem=chosen.stem,
        freeze=chosen.freeze if has_learned else 0,
    )
