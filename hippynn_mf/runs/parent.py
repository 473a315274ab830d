"""The finished model that a run extends, as its `experiment.json` stores it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from hippynn_mf.level_records import AtomicNumber

Trunk = Literal["frozen", "trained"]
PARENT_FILE = "parent.safetensors"  # in the folder of a run: the member that it started from
PARENT_DATA = "parent-data"  # name of the parent's data among the sources of a run


class Parent(BaseModel):
    """A finished model, and what of it is trained.

    Attributes:
        path: of the model file, or of the folders of its runs; where it was, for messages.
        members: seed → SHA-256 of what a run starts from, see `parent_files.hash_of`.
        levels: ids of its levels.
        elements: level id → atomic numbers that the head knows.
        species: its atomic numbers, without the padding.
        trunk: whether the network below the heads is trained.
        bases: id of a new level → id of the level of the parent that it begins as.
        replay: whether the parent's training data are trained on again.
        run: settings of the parent's run; None of a model file, whose data are not known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: tuple[Path, ...]
    members: Annotated[dict[int, str], Field(min_length=1)]
    levels: tuple[str, ...]
    elements: dict[str, tuple[AtomicNumber, ...]]
    species: tuple[AtomicNumber, ...]
    trunk: Trunk
    bases: dict[str, str] = {}
    replay: bool = False
    run: dict[str, Any] | None = None

    @property
    def shown(self) -> str:
        """The model file or the folders, for messages."""
        return " ".join(map(str, self.path))

    def member(self, seed: int) -> int:
        """The seed of the member that a run of this seed starts from: its own, if there is one."""
        return seed if seed in self.members else list(self.members)[seed % len(self.members)]

    def values(self) -> dict[str, Any]:
        """What determines the results: not where the parent and its data lie."""
        content = self.model_dump(mode="json", exclude={"path", "run"})
        content["data.sha256"] = None if self.run is None else self.run["data"]["sha256"]
        return content
