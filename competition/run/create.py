"""The creation of a run's folder."""

from competition.data_folder import DataFolder
from competition.files import write_text
from competition.run.environment import describe_environment
from competition.run.folder import RunFolder
from competition.settings.resolve import to_yaml
from competition.settings.schema import Settings


def record_run(run: RunFolder, settings: Settings, data: DataFolder, device: str) -> None:
    """Write settings.yaml and environment.json of a new run; those of an existing run stay.

    The settings are written last, because a run exists as soon as its settings do.
    """
    if run.settings.is_file():
        return
    describe_environment(data, device).write(run.environment)
    write_text(run.settings, to_yaml(settings))
