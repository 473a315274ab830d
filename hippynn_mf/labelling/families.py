"""The families of calculators that are known by name; a further one is a row of `FAMILIES`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ase.calculators.calculator import Calculator, get_calculator_class
from ase.calculators.calculator import names as ase_names

from hippynn_mf.errors import UserError, unknown_name_message
from hippynn_mf.labels import Properties

MODEL_FAMILY = "hippynn_mf"
GFN2 = "tblite:GFN2-xTB"  # what `sample` takes where nothing is said
# The package's own levels by PySCF: label → id of the level, and the labels that cost little more.
PYSCF = MappingProxyType(
    {
        "DZ": ("wb97x_dz", Properties.EF),
        "TZ": ("wb97x_tz", Properties.EF),
        "MP2": ("mp2_tz", Properties.E),
        "CC": ("ccsd(t)_cbs", Properties.E),
    }
)

Factory = Callable[[], Calculator]


def _nothing(rest: str) -> dict[str, Any]:
    return {}


def _ef(rest: str) -> Properties:
    return Properties.EF


@dataclass(frozen=True)
class Family:
    """Calculators of one program.

    Attributes:
        names: for messages and the documentation.
        factory: of what follows `FAMILY:`, and arguments.
        packages, extra: what must be installed.
        is_kept: whether one calculator serves many structures.
        usual: the labels where nothing is said.
        identity: what labels depend on beside names, arguments and versions.
        knows_charges: whether charge and spin of a structure are handed to the calculator.
        defaults: arguments that are not the program's own defaults.
    """

    names: tuple[str, ...]
    factory: Callable[[str, Mapping[str, Any]], Factory]
    packages: tuple[str, ...] = ()
    extra: str = "qm"
    is_kept: bool = True
    usual: Callable[[str], Properties] = _ef
    identity: Callable[[str], dict[str, Any]] = _nothing
    knows_charges: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict)


def _tblite(method: str, arguments: Mapping[str, Any]) -> Factory:
    from tblite.ase import TBLite

    if method not in FAMILIES["tblite"].names:
        raise UserError(unknown_name_message("method", method, FAMILIES["tblite"].names))
    known = [name for name in TBLite.default_parameters if name not in ("method", "verbosity")]
    _refuse_unknown(arguments, known)
    values = {**FAMILIES["tblite"].defaults, **arguments}
    return partial(TBLite, method=method, verbosity=0, **values)


def _pyscf(label: str, arguments: Mapping[str, Any]) -> Factory:
    from hippynn_mf.labelling.reference_calculator import ReferenceCalculator

    if label not in PYSCF:
        raise UserError(unknown_name_message("level of PySCF", label, PYSCF))
    _refuse_unknown(arguments, ["gradient_step"])
    return partial(ReferenceCalculator, label, **arguments)


def _model(text: str, arguments: Mapping[str, Any]) -> Factory:
    from hippynn_mf.potentials.calculator import MultiFidelityCalculator

    _refuse_unknown(arguments, ["dtype", "device", "atoms_per_block"])
    model, _, level = text.partition("#")
    calculator = MultiFidelityCalculator(_potential(model), level or None, **arguments)
    return lambda: calculator


@cache
def _potential(model: str) -> Any:
    from hippynn_mf.potentials.potential import Potential

    return Potential.load(model)


def _model_identity(text: str) -> dict[str, Any]:
    from hippynn_mf.data.loading import file_hash
    from hippynn_mf.potentials.model_file import SHIPPED

    model = text.partition("#")[0]
    return {"model_sha256": file_hash(SHIPPED.get(model, Path(model)))}


def _ase(name: str, arguments: Mapping[str, Any]) -> Factory:
    if name not in ase_names:
        raise UserError(unknown_name_message("calculator of ASE", name, ase_names))
    try:
        return partial(get_calculator_class(name), **arguments)
    except ImportError as error:
        raise UserError(f"it needs {error.name}, which is not installed.") from None


def _refuse_unknown(arguments: Mapping[str, Any], known: list[str]) -> None:
    for key in arguments:
        if key not in known:
            raise UserError(unknown_name_message("argument", key, known))


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "tblite": Family(
            ("GFN1-xTB", "GFN2-xTB", "IPEA1-xTB"),
            _tblite,
            packages=("tblite",),
            is_kept=False,
            knows_charges=True,
            # tblite's own 1 leaves errors of 5e-4 eV/Å in forces.
            defaults=MappingProxyType({"accuracy": 0.01}),
        ),
        "pyscf": Family(
            tuple(PYSCF), _pyscf, packages=("pyscf",), usual=lambda label: PYSCF[label][1]
        ),
        MODEL_FAMILY: Family(("MODEL.safetensors#LEVEL",), _model, identity=_model_identity),
        "ase": Family(("NAME",), _ase),
    }
)
