"""Models in TorchSim: energies, forces and stress of one level, many systems at a time.

Needs TorchSim 0.6 or later, which needs Python 3.12: `pip install 'hippynn_mf[torch-sim]'`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from hippynn_mf.errors import UserError, errors_about
from hippynn_mf.levels import Level
from hippynn_mf.potentials.batch import CHARGES, SPINS, Batch, neutral, refuse_charged
from hippynn_mf.potentials.evaluator import DTypeName, Evaluator
from hippynn_mf.potentials.potential import Potential
from hippynn_mf.potentials.systems import Systems

try:
    import torch_sim as ts
    from torch_sim.models.interface import ModelInterface
except ModuleNotFoundError as error:
    raise UserError(
        f"TorchSim is not installed ({error}). With Python 3.12 or later, pip install "
        "'hippynn_mf[torch-sim]' brings it."
    ) from None

# A state of TorchSim has one pbc for all of its systems; this says which axes are really periodic.
PBC_OF_SYSTEM = "pbc_of_system"
# Extras of atoms that may say charges and unpaired electrons, under ASE's names.
OF_ATOMS = {
    "initial_charges": ("charge", "charges", "initial_charges"),
    "initial_magmoms": ("spin", "magmom", "magmoms", "initial_magmoms"),
}


class MultiFidelityModel(ModelInterface):
    """One level of a model for TorchSim: total energies in eV, eV/Å, and eV/Å³ of ASE's sign.

    Args:
        model: a model file, the name of a shipped model, or a `Potential`.
        level: id or label of the level. There is no default if the model has several.
        dtype: numbers in the network; states and results are float64, for total energies need it.
        device: `cpu`, `cuda`, `cuda:N`, or `auto`.
        compute_forces, compute_stress: what is computed beside energies.

    Of a state with n systems, it gives means over the members as tensors: `energy` (n,), `forces`
    (n_atoms, 3) and `stress` (n, 3, 3), NaN of what is not periodic along all axes. With several
    members, `energy_std`, `forces_std` and `stress_std` are the standard deviations (n − 1) over
    them; TorchSim keeps these in the extras of a state. `state_of` makes states of molecules and
    crystals together; TorchSim's own way from ASE forgets what structures say of their charge.

    Raises UserError for a level that the model lacks, and, when it computes, for elements that it
    does not know, overlapping atoms, positions that are not finite, and for systems that are
    charged or have unpaired electrons by the extras of the state, of systems and of atoms.
    """

    def __init__(
        self,
        model: str | Path | Potential,
        level: str | Level | None = None,
        *,
        dtype: DTypeName = "float64",
        device: torch.device | str = "cpu",
        compute_forces: bool = True,
        compute_stress: bool = True,
    ) -> None:
        super().__init__()
        self.evaluator = Evaluator.of(model, dtype=dtype, device=device)
        self.potential = self.evaluator.potential
        self.level = self.potential.level(level)
        # What TorchSim asks of a model:
        self._dtype, self._device = torch.float64, self.evaluator.device
        self._compute_forces, self._compute_stress = compute_forces, compute_stress
        self._memory_scales_with = "n_atoms_x_density"

    def state_of(self, structures: Sequence[Atoms]) -> Any:
        """A `SimState` of structures from ASE, some open and some periodic, if need be.

        If they do not all have the same `pbc`, axes that are open get a cell vector so long that
        images are two cut-offs apart: energies and forces are those of the open system until atoms
        move that far.

        Raises UserError, counting from 1, for charged structures, and for none at all.
        """
        checked = list(neutral(structures))
        if not checked:
            raise UserError("There are no structures; a state has at least one.")
        pbc = np.array([atoms.pbc for atoms in checked])
        boxed = checked
        if (pbc != pbc[0]).any():
            boxed = [_boxed(atoms, self.evaluator.cutoff) for atoms in checked]
        state = ts.initialize_state(boxed, self.device, self.dtype)
        state.system_extras[PBC_OF_SYSTEM] = torch.as_tensor(pbc, device=self.device)
        return state

    def forward(self, state: Any, **_: Any) -> dict[str, Tensor]:
        """Energies, forces and stress of the systems of a `SimState`; TorchSim calls it."""
        batch, is_crystal = _batch_of(state)
        needs_slopes = self.compute_forces or self.compute_stress
        systems = Systems.from_batch(batch, self.evaluator.cutoff, self.evaluator.species)
        surfaces = self.evaluator(
            systems, [self.level] if needs_slopes else [], virials=self.compute_stress
        )
        name = self.level.id
        values = {"energy": surfaces.energies[name]}
        if self.compute_forces:
            values["forces"] = surfaces.forces[name]
        if self.compute_stress:
            volumes = np.where(is_crystal, batch.volumes, np.nan)
            values["stress"] = surfaces.virials[name] / volumes[:, None, None]
        means = {key: of_members.mean(axis=0) for key, of_members in values.items()}
        if len(self.potential.members) > 1:
            means |= {f"{key}_std": found.std(axis=0, ddof=1) for key, found in values.items()}
        return {key: torch.from_numpy(mean).to(self.device) for key, mean in means.items()}


def _boxed(atoms: Atoms, cutoff: float) -> Atoms:
    """A copy that is periodic along all axes, without images along those that were open."""
    copy = atoms.copy()
    copy.center(vacuum=cutoff, axis=np.flatnonzero(~atoms.pbc))
    copy.positions[:] = atoms.positions
    copy.pbc = True
    return copy


def _batch_of(state: Any) -> tuple[Batch, np.ndarray]:
    """The systems of a state, and (n,) which are periodic along all axes."""
    _refuse_charged(state)
    extras = state.system_extras
    shape = (state.n_systems, 3)
    pbc = np.broadcast_to(_array(state.pbc), shape)
    really = _array(extras[PBC_OF_SYSTEM]) if PBC_OF_SYSTEM in extras else pbc
    batch = Batch(
        numbers=_array(state.atomic_numbers),
        positions=_array(state.positions).astype(np.float64),
        cells=_array(state.row_vector_cell).astype(np.float64),
        pbc=pbc,
        sizes=_array(state.n_atoms_per_system),
    )
    return batch, np.asarray(really.all(axis=1))


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _refuse_charged(state: Any) -> None:
    """Raise UserError for the first system that is charged, or has unpaired electrons."""
    of_systems, of_atoms = dict(state.system_extras), dict(state.atom_extras)
    if state.n_systems == state.n_atoms:  # where TorchSim takes all extras for those of atoms
        of_systems, of_atoms = of_atoms | of_systems, {}
    info = {name: _array(of_systems[name]) for name in (*CHARGES, *SPINS) if name in of_systems}
    arrays = {
        of_ase: _array(of_atoms[name])
        for of_ase, names in OF_ATOMS.items()
        for name in names
        if name in of_atoms and of_atoms[name].ndim == 1
    }
    if not info and not arrays:
        return
    ends = np.cumsum(_array(state.n_atoms_per_system))
    for number, end in enumerate(ends):
        rows = slice(ends[number - 1] if number else 0, end)
        atoms = Atoms(numbers=np.ones(end - rows.start))
        atoms.info = {name: values[number].item() for name, values in info.items()}
        atoms.arrays |= {name: values[rows] for name, values in arrays.items()}
        with errors_about(f"structure {number + 1}"):
            refuse_charged(atoms)
