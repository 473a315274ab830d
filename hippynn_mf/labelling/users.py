"""Calculators of the user's own: `module:factory` of what is installed, or `FILE.py:factory`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

from ase.calculators.calculator import Calculator

from hippynn_mf.errors import UserError, unknown_name_message
from hippynn_mf.files import require_file
from hippynn_mf.labelling.families import FAMILIES

SUFFIX = ".py"


def user_factory(name: str, arguments: Mapping[str, Any]) -> Callable[[], Calculator]:
    """A factory with its arguments; UserError where there is none, or they do not fit."""
    factory = _find(name)
    try:
        inspect.signature(factory).bind(**arguments)
    except TypeError as error:
        raise UserError(
            f"its arguments do not fit: {error}. It is called as "
            f"{inspect.signature(factory)}; --arg KEY=VALUE gives one."
        ) from None
    except ValueError:  # of what is written in C
        pass
    return partial(factory, **arguments)


def user_identity(name: str) -> dict[str, Any]:
    """Version of the package, and the hash of the file that has the factory."""
    factory = _find(name)
    found: dict[str, Any] = {n: importlib.metadata.version(n) for n in ("hippynn_mf", "ase")}
    place, _, _ = name.rpartition(":")
    if not place.endswith(SUFFIX):
        top = place.partition(".")[0]
        for package in importlib.metadata.packages_distributions().get(top, []):
            found[package] = importlib.metadata.version(package)
    try:
        source = inspect.getsourcefile(inspect.unwrap(factory))
    except TypeError:  # built in
        source = None
    if source is not None and Path(source).is_file():
        found["code_sha256"] = hashlib.sha256(Path(source).read_bytes()).hexdigest()
    return found


def _find(name: str) -> Callable[..., Calculator]:
    place, _, factory = name.rpartition(":")
    module = _load_file(Path(place)) if place.endswith(SUFFIX) else _import(place)
    found = getattr(module, factory, None)
    if not callable(found):
        names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise UserError(unknown_name_message(f"factory of {place}", factory, names))
    return found


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise UserError(f"{name} needs {error.name}, which is not installed.") from None
    except Exception as error:
        raise UserError(f"importing {name} failed: {type(error).__name__}: {error}") from None
    known = [f"{family}:{n}" for family, kind in FAMILIES.items() for n in kind.names]
    raise UserError(
        f"there is no family of calculators and no module {name!r}. Known: {', '.join(known)}. A "
        f"module must be installed; a file of your own is named with its suffix, {name}.py:FACTORY."
    )


@cache
def _load_file(path: Path) -> ModuleType:
    require_file(path, "a file of Python")
    spec = importlib.util.spec_from_file_location(f"_calculator_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} cannot be loaded as Python.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"{path} failed: {type(error).__name__}: {error}") from None
    return module
