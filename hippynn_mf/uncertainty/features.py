"""What the trunk of a model makes of structures: the features that its heads are linear in."""

from __future__ import annotations

import numpy as np
import torch

from hippynn_mf.potentials.evaluator import Evaluator
from hippynn_mf.potentials.members import Alone
from hippynn_mf.potentials.systems import Systems


def features_of(evaluator: Evaluator, systems: Systems) -> np.ndarray:
    """(n_systems, n_features) float64, sums over the atoms of every system, of the first member.

    Features are those of all blocks of the network behind the elements, one after another; the
    energy of a level is linear in them and in the numbers of atoms of each element.
    """
    alone = Alone(evaluator.potential.members[0], evaluator.atoms_per_block)
    network = alone.requires_grad_(False).to(device=evaluator.device, dtype=evaluator.dtype).eval()
    with torch.no_grad():
        geometry = evaluator.geometry(systems)
        blocks = network.features(geometry, geometry.vectors)[1:]
        of_atoms = torch.cat(list(blocks), dim=1).double().cpu()
    sums = torch.zeros(len(systems), of_atoms.shape[1], dtype=torch.float64)
    return sums.index_add_(0, systems.system_of_atom, of_atoms).numpy()
