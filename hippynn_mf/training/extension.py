"""What a finished model begins with when it is extended, and what of it stays.

Its heads stay as they are; a new element gets an atomic energy in those that are trained. A new
level is the level below it plus a correction, of which only the atomic energies are there at first:
they are fitted to what labels are beyond the energies that the finished model predicts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from hippynn_mf.data.arrays import reference_energies
from hippynn_mf.data.structures import Structures, composition, elements_of
from hippynn_mf.labels import Labels
from hippynn_mf.levels import Level
from hippynn_mf.model.growing import grow
from hippynn_mf.model.model import Model
from hippynn_mf.model.parameters import HEADS, NETWORK, Parts, State
from hippynn_mf.model.predicting import predict_arrays
from hippynn_mf.units import KCAL_PER_MOL_PER_HARTREE

# Of the layers of a new head, in those of the head that it begins as: hippynn's hierarchicality of
# a term that is exactly zero is 0/0. They change energies by hundredths of a kcal/mol.
FIRST_LAYERS = 1e-4


def extend_model(
    model: Model,
    parent: State,
    species: Sequence[int],
    bases: Mapping[Level, Level],
) -> dict[str, int]:
    """Give a model the parameters of a finished one; the axis of elements by parameter that grew.

    Args:
        model: with all heads of the finished one, and those of new levels.
        parent: parameters of the finished model, whose heads are independent.
        species: its atomic numbers without the padding.
        bases: new level → the level that it begins as. A coupled head begins as that plus almost
            nothing, one that is not as a copy.
    """
    given = Parts.of(parent)
    heads = dict(given.heads)
    for level, base in bases.items():
        values = heads[base.id]
        if model.heads[level].base is not None:
            values = _faint(values)
        heads[level.id] = values
    fresh = model.parameters.state_dict()
    new = [number for number in model.species_set if number]
    grown, axes = grow(Parts(given.network, heads).state(), fresh, list(species), new)
    model.parameters.load_state_dict(grown)
    return axes


def _faint(values: Mapping[str, Any]) -> State:
    """A head whose terms are next to nothing, each far below the one before, without E0."""
    found: State = {}
    for name, value in values.items():
        _, place, _ = name.split(".")
        found[name] = value * (FIRST_LAYERS ** int(place) if int(place) else 0.0)
    return found


def fit_new_atoms(
    model: Model,
    train: Structures,
    labels: Labels,
    elements: Mapping[str, Collection[int]],
    bases: Mapping[Level, Level],
    *,
    batch_size: int,
) -> None:
    """Fit the atomic energies of new levels, and of new elements in the heads that are trained.

    Args:
        model: as `extend_model` leaves it.
        train: the training structures; their order does not matter.
        labels: the levels that are trained, with the self energies of the run.
        elements: level id → atomic numbers of the finished model's heads, whose atomic energies
            stay.
        bases: as of `extend_model`.

    Least squares in float64, of least norm, on labels less what the model predicts. A new level's
    are on top of the lower level's total energy: for compositions that its labels do not determine,
    and for elements without any, it predicts the lower level's.
    """
    species = [number for number in model.species_set if number]
    for level in labels:
        some = train[train.has_energy(level)]
        held = set(elements_of(some.species)) - {0}
        base = bases.get(level)
        fitted = sorted(held if base is not None else held - set(elements[level.id]))
        known = _self_energies(level, species)
        start = np.zeros(len(species))
        if base is not None:
            # Beyond the total energy of the lower level, so that what is not fitted is its.
            in_both = [z in level.self_energies and z in base.self_energies for z in species]
            start = np.where(in_both, _self_energies(base, species) - known, 0.0)
        _add_atomic_energies(model, level, start)
        if fitted and len(some):
            residuals = _residuals(model, some, level, batch_size)
            counts = composition(some.species, fitted).astype(np.float64)
            rows = counts.any(axis=1)
            found = np.linalg.lstsq(counts[rows], residuals[rows], rcond=None)[0]
            of_element = dict(zip(fitted, found, strict=True))
            _add_atomic_energies(model, level, np.array([of_element.get(z, 0.0) for z in species]))


def _self_energies(level: Level, species: Sequence[int]) -> np.ndarray:
    """(n_elements,) in kcal/mol, 0 where the level has none."""
    values = [level.self_energies.get(number, 0.0) for number in species]
    return np.array(values) * KCAL_PER_MOL_PER_HARTREE


def _add_atomic_energies(model: Model, level: Level, values: np.ndarray) -> None:
    weight = model.heads[level].energy.torch_module.layers[0].weight
    with torch.no_grad():
        weight += torch.as_tensor(values, dtype=weight.dtype)[None]


def _residuals(model: Model, some: Structures, level: Level, batch_size: int) -> np.ndarray:
    """(n,) float64 in kcal/mol, labels less predictions."""
    known = dict.fromkeys(set(elements_of(some.species)) - {0} - set(level.self_energies), 0.0)
    whole = replace(level, self_energies={**known, **level.self_energies})
    predicted = predict_arrays(
        model, some.species, some.positions, cells=some.cells, batch_size=batch_size
    )[level.energy_name]
    return np.asarray(reference_energies(some, whole) - predicted.astype(np.float64))


def freeze(model: Model, trained: Collection[str], *, trunk: bool, axes: Mapping[str, int]) -> None:
    """Keep atomic energies, heads that are not `trained`, and with `trunk` the trunk.

    Parameters of a frozen trunk with an axis of elements are left to `keeper`.
    """
    for name, parameter in model.parameters.named_parameters():
        part, rest = name.split(".", maxsplit=1)
        if part == NETWORK:
            parameter.requires_grad_(not trunk or name in axes)
        elif part == HEADS:
            level_id, place = rest.split(".layers.")
            parameter.requires_grad_(level_id in trained and not place.startswith("0."))


def keeper(
    model: Model, axes: Mapping[str, int], old: Collection[int]
) -> Callable[[Any, Any, Any], None]:
    """A batch callback that puts back the columns of elements of a frozen trunk that were there.

    After every step, whichever optimizer makes it, so that they stay as they are bit by bit.
    """
    species = [number for number in model.species_set if number]
    places = torch.tensor([k for k, number in enumerate(species) if number in old])
    parameters = dict(model.parameters.named_parameters())
    grown = [(parameters[n], axis) for n, axis in axes.items() if n.startswith(NETWORK)]
    kept = [(p, axis, p.detach().index_select(axis, places).clone()) for p, axis in grown]

    def put_back(*_: Any) -> None:
        with torch.no_grad():
            for parameter, axis, values in kept:
                of_device = values.to(parameter.device)
                parameter.index_copy_(axis, places.to(parameter.device), of_device)

    return put_back
