"""Whether a folder holds the run that somebody asks for, and what to do where it does not."""

from __future__ import annotations

from collections.abc import Sequence

from hippynn_mf.errors import UserError
from hippynn_mf.runs.folder import RunFolder
from hippynn_mf.runs.settings import RunSettings
from hippynn_mf.runs.sources import TestSource


def refuse_other_run(folder: RunFolder, settings: RunSettings) -> None:
    """Raise UserError if the folder holds a run with other settings."""
    if not folder.file("experiment.json").exists():
        return
    stored = folder.read_settings()
    missing = [source for source in settings.tests if stored.test(source.name) is None]
    if not folder.is_finished:
        # Nothing is trained on them, so a run that goes on may get more.
        stored, missing = stored.with_tests(missing), []
    else:
        # What it was tested on since, with 'evaluate', makes it no other run.
        more = [source for source in stored.tests if settings.test(source.name) is None]
        settings = settings.with_tests(more)
    parent, earlier = settings.parent, stored.parent
    is_there = parent and earlier and parent.path == earlier.path
    if parent and earlier and is_there and parent.members != earlier.members:
        raise UserError(
            f"{parent.shown} has changed since {folder.path} began, which extends it. Restore it, "
            "or choose another --out."
        )
    for name, now in settings.sources.items():
        before = stored.sources.get(name, now)
        if before.path == now.path and before.sha256 != now.sha256:
            raise UserError(
                f"{now.shown} has changed since {folder.path} began: its SHA-256 was "
                f"{before.sha256[:12]}… and is {now.sha256[:12]}…. Restore the file, or choose "
                "another --out."
            )
    if differences := settings.differences(stored):
        remedy = "Choose another --out, or delete that folder."
        if missing:
            remedy = f"{remedy_of_untested(folder, missing)} {remedy}"
        raise UserError(f"{folder.path} holds another run: {'; '.join(differences)}. {remedy}")


def remedy_of_untested(folder: RunFolder, sources: Sequence[TestSource]) -> str:
    """What adds test sets to the finished runs beside one that has none, without training."""
    runs = folder.path.parent.parent / "*" / "seed-*"
    names = ", ".join(source.name for source in sources)
    options = " ".join(source.option for source in sources)
    return (
        f"{folder.path} was not tested on {names}. Without any training, 'hippynn-mf evaluate "
        f"{runs} {options}' adds these errors to finished runs."
    )
