"""Multi-fidelity nodes over any hippynn network: a shared trunk, one head per level of theory.

    heads = build_heads(network, {"DZ": "EF", "CC": "E"})
    heads["CC"].energy, heads["DZ"].forces

Every energy is a plain hippynn `HEnergyNode`, so a level works wherever such a node does:
`Predictor`, `HippynnCalculator`, `make_ensemble`.

Heads may be coupled: a level's energy is then a lower level's plus a learned linear correction.
Both heads are linear in the same features, so their sum is a linear head again: coupling changes
how a model is trained (what starts small, and what the hierarchicality holds down), not what it can
represent. `parameters.fold` makes independent heads of coupled ones, with the same numbers.

In experiments with eight seeds on two pairs of levels (docs/coupled-heads.md) that improves the
forces of a level that has energies alone. A possible reason: independent heads have to learn from
energies which combination of features makes a force; a coupled one begins with the lower level's
forces and has to learn what is wrong with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from hippynn.graphs import find_unique_relative
from hippynn.graphs.nodes.indexers import PaddingIndexer
from hippynn.graphs.nodes.inputs import PositionsNode
from hippynn.graphs.nodes.physics import GradientNode
from hippynn.graphs.nodes.tags import Network, PairIndexer
from hippynn.graphs.nodes.targets import HEnergyNode
from hippynn.layers.targets import HEnergy
from torch import Tensor

from hippynn_mf.errors import UserError, unknown_name_message
from hippynn_mf.hyperparameters import Coupling
from hippynn_mf.labels import Labels, parse_labels
from hippynn_mf.levels import Level
from hippynn_mf.network.cell_pairs import CellPairIndexer, PairStressNode


class CoupledHEnergy(HEnergy):
    """hippynn's `HEnergy`, added to the energy of a lower level.

    Its layers hold the correction, and hierarchicality is that of the correction alone.
    """

    def forward(
        self,
        all_features: list[Tensor],
        mol_index: Tensor,
        n_molecules: int,
        lower_energies: Tensor,
        lower_atom_energies: Tensor,
    ) -> tuple[Any, ...]:
        """What `HEnergy` returns, with the lower energies in those of structures and atoms."""
        energies, atom_energies, terms, *hierarchicalities = super().forward(
            all_features, mol_index, n_molecules
        )
        return (
            energies + lower_energies,
            atom_energies + lower_atom_energies,
            [term + lower_energies for term in terms],
            *hierarchicalities,
        )


class CoupledHEnergyNode(HEnergyNode):
    """Node of a level's energy, `CoupledHEnergyNode(name, (network, energy of a lower level))`."""

    _input_names = (*HEnergyNode._input_names, "lower_energies", "lower_atom_energies")
    _auto_module_class = CoupledHEnergy

    @_parent_expander.match(Network, HEnergyNode)  # type: ignore  # noqa: F821
    def expansion_coupled(
        self, network: Any, lower: HEnergyNode, **keywords: Any
    ) -> tuple[Any, ...]:
        """Features of the network, and the energies of the lower level."""
        self.module_kwargs.setdefault("feature_sizes", network.torch_module.feature_sizes)
        indexer = find_unique_relative(network, PaddingIndexer)
        return (
            network,
            indexer.mol_index,
            indexer.n_molecules,
            lower.main_output,
            lower.atom_energies,
        )


@dataclass(frozen=True)
class Head:
    """One level's nodes: energy in kcal/mol; where requested, forces in kcal/mol/Å.

    And the stress in kcal/mol/Å³. `base` is the level to which a coupled head adds a correction.
    """

    level: Level
    energy: HEnergyNode
    forces: GradientNode | None
    base: Level | None = None
    stress: PairStressNode | None = None


class Heads(Mapping[str, Head]):
    """The heads of a model by level, from the lowest to the highest rank.

    Iterates over level ids; a look-up takes an id or a label. A level without a head is a
    UserError that lists those with one.
    """

    def __init__(self, heads: Mapping[str, Head], network: Any) -> None:
        self._heads = dict(heads)
        self.network = network

    def __getitem__(self, name: str | Level) -> Head:
        wanted = name.id if isinstance(name, Level) else name
        for head in self._heads.values():
            if wanted in (head.level.id, head.level.label):
                return head
        known = [
            text for head in self._heads.values() for text in (head.level.label, head.level.id)
        ]
        raise UserError(unknown_name_message("level of this model", str(wanted), known))

    def __contains__(self, name: object) -> bool:
        wanted = name.id if isinstance(name, Level) else name
        return any(wanted in (head.level.id, head.level.label) for head in self._heads.values())

    def __iter__(self) -> Iterator[str]:
        return iter(self._heads)

    def __len__(self) -> int:
        return len(self._heads)

    @property
    def levels(self) -> list[Level]:
        """The levels, from the lowest to the highest rank."""
        return [head.level for head in self._heads.values()]

    @property
    def bases(self) -> dict[str, str]:
        """Level id of every coupled head → id of the level that it is added to, by rank."""
        heads = self._heads.items()
        return {level_id: head.base.id for level_id, head in heads if head.base is not None}


def build_heads(
    network: Any,
    labels: Mapping[str, str] | Labels,
    *,
    coupling: Coupling = "delta",
    bases: Mapping[Level, Level] | None = None,
    own_networks: Mapping[Level, Any] | None = None,
    db_names: Mapping[str, Mapping[str, str]] | None = None,
) -> Heads:
    """Put one linear energy head per level on a hippynn network, and forces where requested.

    Args:
        network: a hippynn network node (`Hipnn`, `HipnnVec`, `HipnnQuad`).
        labels: level → `"E"`, `"EF"` or `"EFS"`; F adds forces, −dE/dR of that level's energy, S
            the stress, V⁻¹ dE/dε, for which the network has a `CellPairIndexer`.
        coupling: `"delta"`, each level as the next lower one plus a correction (see above); or
            `"independent"` heads, the paper's and those of the 17 experiments.
        bases: level → lower level of `labels` to which its head adds a correction, beside what
            `coupling` says: of independent heads the only ones that are coupled.
        own_networks: network nodes of levels whose energy is that of the next lower level plus the
            energy of a head on this network.
        db_names: level → kind (`energy`, `forces`, `stress`) → name of its array in a database of
            your own, as `{"DZ": {"energy": "E_dft"}}`.

    Nodes are named, and bound to the database where `db_names` say nothing else, as
    `<level id>.energy`, `.forces` and `.stress`. Raises UserError for names of no level or kind.
    """
    if coupling not in get_args(Coupling):
        raise UserError(unknown_name_message("coupling", coupling, get_args(Coupling)))
    resolved = parse_labels(labels)
    own_names = _own_names(db_names or {}, resolved)
    heads: dict[str, Head] = {}
    below: Head | None = None
    for level, properties in resolved.items():
        own_network = (own_networks or {}).get(level)
        base = below if coupling == "delta" or own_network is not None else None
        if bases is not None and level in bases:
            base = heads[bases[level].id]
        if base is None:
            energy = HEnergyNode(level.energy_name, network, db_name=level.energy_name)
        else:
            parents = (network if own_network is None else own_network, base.energy)
            energy = CoupledHEnergyNode(level.energy_name, parents, db_name=level.energy_name)
        forces = None
        if properties.forces:
            positions = find_unique_relative(network, PositionsNode, "positions of the forces")
            forces = GradientNode(
                level.forces_name, (energy, positions), sign=-1, db_name=level.forces_name
            )
        stress = stress_node(network, energy, level) if properties.stress else None
        named = {"energy": energy.main_output, "forces": forces, "stress": stress}
        for kind, name in own_names.get(level, {}).items():
            named[kind].db_name = name
        below = Head(level, energy, forces, None if base is None else base.level, stress)
        heads[level.id] = below
    return Heads(heads, network)


def _own_names(
    db_names: Mapping[str, Mapping[str, str]], labels: Labels
) -> dict[Level, Mapping[str, str]]:
    """Names of arrays by level; UserError for a level or a kind that has no head."""
    known = {name: level for level in labels for name in (level.id, level.label)}
    found: dict[Level, Mapping[str, str]] = {}
    for name, names in db_names.items():
        if name not in known:
            raise UserError(unknown_name_message("level in db_names", name, known))
        level = known[name]
        kinds = labels[level].kinds
        for kind in names:
            if kind not in kinds:
                raise UserError(f"db_names of {name}: {unknown_name_message('kind', kind, kinds)}")
        found[level] = names
    return found


def stress_node(
    network: Any,
    energy: HEnergyNode,
    level: Level,
    node_class: type[PairStressNode] = PairStressNode,
) -> PairStressNode:
    """The stress of an energy on a network with cells; a UserError for one without."""
    finder = find_unique_relative(network, PairIndexer, "pairs of the stress")
    if not isinstance(finder, CellPairIndexer):
        raise UserError(
            f"The stress of {level.label} is asked for, and no structure is periodic. Ask for "
            f"{level.label}/EF, or give structures with cells."
        )
    indexer = find_unique_relative(network, PaddingIndexer, "structures of the stress")
    cell = finder.parents[4]
    parents = (
        energy.main_output,
        finder.pair_coord,
        finder.pair_first,
        indexer.mol_index,
        indexer.n_molecules,
        cell,
    )
    return node_class(level.stress_name, parents, db_name=level.stress_name)
