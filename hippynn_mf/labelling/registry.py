"""Calculators by their names: `FAMILY:NAME` of a small registry, or `module:factory`.

A name and its arguments are all that workers are told; each builds the calculator itself. What a
user names is imported, and nothing else: no file that is read says what to run.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ase.calculators.calculator import Calculator
from pydantic import Field

from hippynn_mf.errors import UserError, errors_about
from hippynn_mf.keys import ENERGY, STRESS
from hippynn_mf.labelling.families import FAMILIES, MODEL_FAMILY, Family
from hippynn_mf.labelling.users import SUFFIX, user_factory, user_identity
from hippynn_mf.labels import Properties
from hippynn_mf.schema import StrictKeys

FORMS = "FAMILY:NAME, as tblite:GFN2-xTB, module:factory, or FILE.py:factory"


class Named(StrictKeys):
    """A calculator as it is asked for: its name, and arguments of its own."""

    name: str
    arguments: dict[str, Any] = Field({})

    @property
    def family(self) -> Family | None:
        """The family of the registry, None for a factory of the user's."""
        return FAMILIES.get(self.name.partition(":")[0])

    @classmethod
    def of(cls, name: str, arguments: dict[str, Any]) -> Named:
        """With the whole paths of files, for workers may start elsewhere."""
        place, colon, rest = name.rpartition(":")
        if place.endswith(SUFFIX):
            name = f"{Path(place).absolute()}{colon}{rest}"
        elif place == MODEL_FAMILY:
            model, sign, level = rest.partition("#")
            path = str(Path(model).absolute()) if Path(model).is_file() else model
            name = f"{place}{colon}{path}{sign}{level}"
        return cls(name=name, arguments=arguments)

    @property
    def shown_name(self) -> str:
        """The name without the folders of its file."""
        place, colon, rest = self.name.rpartition(":")
        if place.endswith(SUFFIX):
            return f"{Path(place).name}{colon}{rest}"
        return f"{place}{colon}{rest.rpartition('/')[2]}" if place == MODEL_FAMILY else self.name

    @property
    def rest(self) -> str:
        """What follows the family or module."""
        return self.name.partition(":")[2]

    def factory(self) -> Callable[[], Calculator]:
        """What makes a calculator; UserError for what is unknown or not installed."""
        if not self.rest:
            raise UserError(
                f"A calculator is {FORMS}; found {self.name!r}. Known: {', '.join(known_names())}."
            )
        with errors_about(self.shown_name):
            if self.family is None:
                return user_factory(self.name, self.arguments)
            require(self.family, self.name)
            return self.family.factory(self.rest, self.arguments)

    def tried(self) -> Calculator:
        """A calculator; UserError also where making one fails."""
        factory = self.factory()
        try:
            return factory()
        except UserError:
            raise
        except Exception as error:  # of programs, each in its own way
            raise UserError(f"{self.shown_name} fails: {type(error).__name__}: {error}") from None

    @property
    def is_kept(self) -> bool:
        """Whether one calculator serves many structures.

        Where it does not, labels would depend on the structure before: it begins from its density.
        """
        return self.family is None or self.family.is_kept

    def identity(self) -> dict[str, Any]:
        """What labels depend on, as JSON: name, arguments, versions, the content of its files."""
        if self.family is None:
            found = user_identity(self.name)
        else:
            packages = ("hippynn_mf", "ase", *self.family.packages)
            found = {name: importlib.metadata.version(name) for name in packages}
            found |= self.family.identity(self.rest)
        arguments = {**(self.family.defaults if self.family else {}), **self.arguments}
        return {"calculator": self.shown_name, "arguments": arguments, **found}

    def usual(self) -> Properties:
        """The labels that the calculator gives where nothing is said."""
        return Properties.EF if self.family is None else self.family.usual(self.rest)

    @property
    def knows_charges(self) -> bool:
        """Whether charge and spin of a structure are handed to the calculator."""
        return self.family is not None and self.family.knows_charges


def known_names() -> list[str]:
    """The names of the registry, with capitals for what is to be filled in."""
    return [f"{family}:{name}" for family, kind in FAMILIES.items() for name in kind.names]


def require(family: Family, name: str) -> None:
    """Raise UserError for a package that is not installed, naming the extra."""
    for package in family.packages:
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"{name} needs the package {package}, which is not installed: "
                f"pip install 'hippynn_mf[{family.extra}]'. Or name another calculator (--with)."
            )


def parse_arguments(pairs: list[str]) -> dict[str, Any]:
    """Arguments of a calculator from KEY=VALUE, values as JSON or else as text."""
    arguments: dict[str, Any] = {}
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not separator or not key.isidentifier():
            raise UserError(f"--arg expects KEY=VALUE, as accuracy=0.1; found {pair!r}.")
        if key in arguments:
            raise UserError(f"--arg names {key} twice; leave one out.")
        try:
            arguments[key] = json.loads(text)
        except ValueError:
            arguments[key] = text
    return arguments


def refuse_without(calculator: Calculator, named: Named, properties: Properties) -> None:
    """Raise UserError for a calculator that says that it lacks a property."""
    implemented = getattr(calculator, "implemented_properties", None)
    if not implemented:
        return
    lacking = [kind for kind in properties.kinds if kind not in implemented]
    if lacking:
        held = "EF" if lacking == [STRESS] else "E"
        remedy = f" Ask for --properties {held}." if ENERGY not in lacking else ""
        raise UserError(
            f"{named.shown_name} has no {' and no '.join(lacking)}; it has "
            f"{', '.join(implemented)}.{remedy}"
        )
