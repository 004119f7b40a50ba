"""What was trained, on which data and with which versions; for several runs, what is common and what differs."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from competition.plural import counted
from competition.run.records import Environment
from competition.settings.schema import Settings, flat
from inference.report.results import Member, Results


class Compared(NamedTuple):
    """Values that all runs share, and values that differ, one per run."""

    shared: dict[str, Any]
    different: dict[str, list[Any]]


def compare(of_runs: Sequence[Mapping[str, Any]]) -> Compared:
    """Separate the values that are equal in all runs from those that are not."""
    names = list(dict.fromkeys(name for one in of_runs for name in one))
    values = {name: [one.get(name, "unknown") for one in of_runs] for name in names}
    shared = {name: each[0] for name, each in values.items() if all(value == each[0] for value in each)}
    return Compared(shared, {name: each for name, each in values.items() if name not in shared})


def facts(results: Results) -> Compared:
    """The facts at the head of the page."""
    found = compare([_facts(member, results) for member in results.members])
    if len(results.members) == 1:
        return found
    weights = [f"{member.weight:.3g}" for member in results.members]
    return found._replace(different={"Member weight": weights, **found.different})


def all_settings(results: Results) -> Compared:
    """Every setting."""
    return compare([flat(member.settings) for member in results.members])


def versions(results: Results) -> Compared:
    """The versions of Python, the system and the packages."""
    return compare([_versions(member.environment) for member in results.members])


def _facts(member: Member, results: Results) -> dict[str, str]:
    settings, environment = member.settings, member.environment
    return {
        "Network": _network(settings),
        "Input": f"{settings.input.width} × {settings.input.height} pixels, {_fit(settings)}",
        "Loss": _loss(settings),
        "Training": f"{', then '.join(map(_stage, settings.stages))}, {settings.train.optimizer}",
        "Learning rate": f"{', then '.join(f'{stage.train.lr:g}' for stage in settings.stages)}, "
        + settings.train.schedule,
        "Split": f"{counted(len(results.folds), 'fold')} of cars, {_origin(settings)}",
        "Test-time augmentation": ", ".join(results.cv.tta),
        "Data": _data(settings, environment),
        "Device": environment.device,
        "Code": f"revision {environment.git or 'unknown'}",
        "Training time": _time(member),
        "Created": environment.created.replace("T", " ").replace("+00:00", " UTC"),
    }


def _network(settings: Settings) -> str:
    network = settings.network
    source = "" if network.init_from == "none" else f"from run {network.init_from}"
    if network.name == "unet":
        described = f"U-Net, width {network.width}, depth {network.depth}, stem {network.stem}"
        return f"{described}, {source}" if source else described
    start = {"hub": "pretrained", "studio": "from the studio weights", "none": "from scratch"}.get(
        network.weights, network.weights
    )
    return f"U-Net on {network.encoder}, {source or start}"


def _fit(settings: Settings) -> str:
    return {"resize": "resized", "pad": "padded"}[settings.input.fit]


def _loss(settings: Settings) -> str:
    loss, formulas = settings.loss, settings.loss.formulas()
    terms = [
        formulas[name] if weight == 1 else f"{weight:g} × {formulas[name]}" for name, weight in loss.weights().items()
    ]
    boundary = f", weight {loss.boundary:g} near the outline" if loss.boundary > 1 else ""
    return " + ".join(terms) + boundary + (", hard targets" if loss.targets == "hard" else "")


def _stage(settings: Settings) -> str:
    train, (height, width) = settings.train, settings.sample_size
    batch = f"batches of {train.batch_size}" + (f" × {train.accumulate}" if train.accumulate > 1 else "")
    crops = f" crops of {width} × {height}" if settings.augment.crop else ""
    return f"{counted(train.epochs, 'epoch')}, {batch}{crops}"


def _origin(settings: Settings) -> str:
    """Where the split comes from; a run that starts from another run shares its split."""
    source = next((name for name in (settings.network.init_from, settings.data.pseudo) if name != "none"), None)
    return f"split of run {source}" if source else f"seed {settings.seed}"


def _data(settings: Settings, environment: Environment) -> str:
    known = f"{environment.data} (fingerprint {environment.fingerprint})"
    return known if settings.data.pseudo == "none" else f"{known}, and pseudo-labels of run {settings.data.pseudo}"


def _time(member: Member) -> str:
    """The training time of all folds together."""
    minutes = round(sum(float(table["seconds"].sum()) for table in member.histories.values()) / 60)
    epochs = sum(len(table) for table in member.histories.values())
    hours = f"{minutes // 60} h " if minutes >= 60 else ""
    plural = "s" if epochs > 1 else ""
    return f"{hours}{minutes % 60} min for {epochs} epoch{plural}" if epochs else "not recorded"


def _versions(environment: Environment) -> dict[str, str]:
    """Names and versions; None means not installed."""
    packages = {name: version or "not installed" for name, version in environment.packages.items()}
    return {"python": environment.python, "platform": environment.platform} | packages
