"""The network of a run's settings."""

from collections.abc import Mapping, Sequence

from torch import nn

from competition.command import Failure
from competition.settings.schema import Network, Settings
from folds.networks.timm_unet import TimmUNet
from folds.networks.unet import UNet
from folds.networks.whole import STUDIO, whole_network

# Settings that a network does not have, because they belong to the other one.
FOREIGN = {
    "unet": ("encoder", "weights", "decoder", "detail", "freeze"),
    "timm_unet": ("width", "max_width", "depth"),
}


def make_network(settings: Settings, pretrained: bool = True) -> nn.Module:
    """A network with its initial weights.

    Args:
        settings: of the run.
        pretrained: load the encoder's weights as ``network.weights`` says. False if a checkpoint is loaded later.
            Weights of a whole network are loaded later, too (``folds.start``).
    """
    _require_no_foreign_settings(settings.network)
    weights = _encoder_weights(settings.network) if pretrained else "none"
    network = (
        _plain(settings.network, weights) if settings.network.name == "unet" else _timm(settings.network, weights)
    )
    sizes = [("input.height", settings.input.height), ("input.width", settings.input.width)]
    if settings.augment.crop:
        sizes += zip(("the height of augment.crop", "the width of augment.crop"), settings.augment.crop, strict=True)
    for name, size in sizes:
        if size % network.divisor:
            near = max(1, round(size / network.divisor)) * network.divisor
            raise Failure(
                f"{name}={size} is not a multiple of {network.divisor}, which this network needs; use {near}"
            )
    return network


def _encoder_weights(chosen: Network) -> str:
    """The weights of the encoder: hub, none or a file."""
    later = chosen.init_from != "none" or whole_network(chosen.weights)
    return "none" if later else chosen.weights


def _require_no_foreign_settings(chosen: Network) -> None:
    """Raise a Failure if a setting of the other network was changed: it would have no effect."""
    ours, defaults = dict(chosen), dict(Network())
    changed = [name for name in FOREIGN[chosen.name] if ours[name] != defaults[name]]
    if chosen.name == "unet" and chosen.weights not in ("none", "hub", STUDIO):
        changed.remove("weights")  # a file can have the weights of any network
    if changed:
        (other,) = FOREIGN.keys() - {chosen.name}
        raise Failure(
            f"{', '.join(assigned(ours, changed))} has no effect with network.name={chosen.name}; "
            f'use SET=network.name={other}, or the default: SET="{" ".join(assigned(defaults, changed))}"'
        )


def assigned(values: Mapping[str, object], names: Sequence[str]) -> list[str]:
    """Settings of a network as SET takes them, without spaces inside values."""
    return [f"network.{name}={str(values[name]).replace(' ', '')}" for name in names]


def _plain(chosen: Network, weights: str) -> UNet:
    if weights != "none":
        raise Failure(
            f"network.weights={weights} is not a file with the weights of a whole network, as a U-Net needs"
        )
    return UNet(chosen.width, chosen.depth, chosen.stem, chosen.max_width, chosen.norm)


def _timm(chosen: Network, weights: str) -> TimmUNet:
    has_learned = chosen.weights != "none" or chosen.init_from != "none"
    return TimmUNet(
        chosen.encoder,
        weights,
        list(chosen.decoder),
        norm=chosen.norm,
        detail=chosen.detail,
        stem=chosen.stem,
        freeze=chosen.freeze if has_learned else 0,
    )
