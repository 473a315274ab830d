"""What is asked for: labels of a pool, or conformers of molecules."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from hippynn_mf.data.formats.xyz_file import SUFFIXES, is_xyz
from hippynn_mf.errors import UserError
from hippynn_mf.labelling.families import GFN2
from hippynn_mf.labels import Properties
from hippynn_mf.schema import StrictKeys, describe_errors

Method = Literal["modes", "torsions", "dynamics"]
METHODS: tuple[Method, ...] = ("modes", "torsions", "dynamics")
LARGEST_SEED = 2**32 - 1
HOTTEST = 1e4  # K


class Asked(StrictKeys):
    """What both commands ask for."""

    calculator: str = Field(description="Its name, see `registry`.")
    arguments: dict[str, Any] = Field({}, description="Of the calculator.")
    out: Path = Field(description="Extended XYZ file to write.")
    force: bool = Field(False, description="Replace what is there.")
    block: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Structures of a task. (default: by their number and the workers)"
    )

    @field_validator("out")
    @classmethod
    def _is_xyz(cls, out: Path) -> Path:
        if not is_xyz(out):
            raise ValueError(f"labels are written as extended XYZ, {' or '.join(SUFFIXES[:2])}")
        return out

    @classmethod
    def of(cls, values: dict[str, Any]) -> Any:
        """A request; UserError for anything that is wrong."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise UserError(f"{describe_errors(error)}.") from None

    @property
    def work(self) -> Path:
        """Where what is finished is kept until all is."""
        return self.out.with_name(f"{self.out.name}.work")


class LabelRequest(Asked):
    """Labels of a pool of structures."""

    pool: Path = Field(description="Any file that ASE reads.")
    level: str = Field(description="Label of the level, known or new.")
    accept_charged: bool = Field(False, description="Also what is no neutral singlet.")
    properties: Properties | None = Field(
        None, description="E, EF or EFS. (default: what the calculator usually gives)"
    )

    @property
    def failed(self) -> Path:
        """Where structures without labels go."""
        suffix = next(s for s in sorted(SUFFIXES, key=len, reverse=True) if self._ends(s))
        return self.out.with_name(f"{self.out.name[: -len(suffix)]}.failed{suffix}")

    def _ends(self, suffix: str) -> bool:
        return self.out.name.lower().endswith(suffix)


class SampleRequest(Asked):
    """Conformers of molecules."""

    molecules: Path = Field(description="Any file that ASE reads, a molecule per structure.")
    calculator: str = GFN2
    per: Annotated[int, Field(ge=1)] = Field(100, description="Conformers of a molecule.")
    temperatures: tuple[float, float] = Field(
        (100.0, 1000.0), description="Lowest and highest, K; each conformer has one between them."
    )
    methods: Annotated[tuple[Method, ...], Field(min_length=1)] = Field(
        ("modes", "torsions", "modes", "dynamics"), description="Taken in turn."
    )
    energy_cut_kcal_per_mol: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="Conformers count up to so far above their minimum. (default: what their "
        "temperature explains)",
    )
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)] = Field(0, description="Of all draws.")

    @model_validator(mode="after")
    def _temperatures_rise(self) -> SampleRequest:
        low, high = self.temperatures
        if not 0 < low <= high <= HOTTEST:
            raise ValueError(
                f"temperatures rise, are above 0 and at most {HOTTEST:g} K; found {low:g}:{high:g}"
            )
        return self
