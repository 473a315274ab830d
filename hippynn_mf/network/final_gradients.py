"""Forces for use rather than for training: without the graph of second derivatives.

hippynn's own force nodes keep what a loss of forces would differentiate: more than half of the
memory, and some of the time. The nodes here give the same numbers, which cannot be differentiated.
"""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import torch
from hippynn.graphs.nodes.physics import GradientNode
from hippynn.interfaces.ase_interface import HippynnCalculator
from hippynn.interfaces.ase_interface.calculator import PBCHandle
from hippynn.layers.physics import Gradient, StressForce
from torch import Tensor


class FinalGradient(Gradient):
    """hippynn's `Gradient`, whose result is final: it cannot be differentiated."""

    def forward(self, molecular_energies: Tensor, positions: Tensor) -> Tensor:
        """Signed gradient (n, n_atoms_max, 3) of the sum of the energies (n, 1)."""
        # Other levels may share the graph below.
        (gradient,) = torch.autograd.grad(molecular_energies.sum(), positions, retain_graph=True)
        return self.sign * gradient


class FinalGradientNode(GradientNode):
    """hippynn's `GradientNode` for predictions: a loss over it has no gradient."""

    _auto_module_class = FinalGradient


class FinalStressForce(StressForce):
    """hippynn's `StressForce`, whose results are final: they cannot be differentiated."""

    def forward(
        self, energy: Tensor, strain: Tensor, coordinates: Tensor, cell: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Forces (n, n_atoms, 3), and stress (n, 3, 3), of periodic cells by their volume."""
        # Other properties may be derivatives of the same energy.
        strain_gradient, coordinate_gradient = torch.autograd.grad(
            energy.sum(), [strain, coordinates], retain_graph=True
        )
        if self.pbc:
            strain_gradient = strain_gradient / torch.det(cell.detach()).view(-1, 1, 1)
        return -coordinate_gradient, strain_gradient


class FastCalculator(HippynnCalculator):
    """hippynn's ASE calculator with less to keep; the same results, in eV and Å.

    Args:
        energy: the energy node of one level, `heads["CC"].energy`.
        atoms_per_block: work through the atoms in blocks of that many (a few hundred), for systems
            that do not fit into memory otherwise; networks of this package only.
        keywords: as of hippynn's `HippynnCalculator`.

    Raises ValueError if the network of `energy` cannot work in blocks.
    """

    def __init__(self, energy: Any, *, atoms_per_block: int | None = None, **keywords: Any) -> None:
        super().__init__(energy, **keywords)
        modules = self.module.moddict
        (name,) = (name for name, module in modules.items() if isinstance(module, StressForce))
        final = FinalStressForce()
        modules[name] = final
        self.pbc = PBCHandle(SimpleNamespace(torch_module=final))
        networks = [name for name, module in modules.items() if hasattr(module, "atoms_per_block")]
        if atoms_per_block is not None and not networks:
            raise ValueError(
                "atoms_per_block needs a network of hippynn_mf (FastHipnn, FastHipnnVec or "
                "FastHipnnQuad); this energy is of another. Leave atoms_per_block out."
            )
        for name in networks:
            # The same parameters, with blocks of its own.
            modules[name] = copy.copy(modules[name])
            modules[name].atoms_per_block = atoms_per_block
