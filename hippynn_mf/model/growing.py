"""Parameters of a model with more elements, from those of one with fewer.

Species enter as one number for each element. What multiplies them has a column for every element:
the weights of the first interaction layer, and the atomic energies of the heads. Columns of
elements that were there stay bit by bit, and as the new ones multiply zero where no new atom is, so
do all energies but for the order of a sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hippynn_mf.errors import UserError
from hippynn_mf.model.parameters import NETWORK, State

# Where hippynn brings the species to the width of the first block; it has none if there are as many
# elements as features, and the species are added as they are.
ADJUST = f"{NETWORK}.blocks.0.0.adjust_layer.weight"


def refuse_as_many(n_features: int, old: Sequence[int], new: Sequence[int]) -> None:
    """Raise UserError for a model that would get as many elements as it has features."""
    if len(new) == n_features != len(old):
        raise UserError(
            f"A network of {n_features} features cannot get to {len(new)} elements: hippynn has "
            "one layer less for as many. Train a model of another width anew."
        )


def grow(
    state: Mapping[str, Any],
    sizes: Mapping[str, Tensor],
    old: Sequence[int],
    new: Sequence[int],
) -> tuple[State, dict[str, int]]:
    """The state dict of a model of the elements `new`, and the axis of elements by parameter.

    Args:
        state: parameters of a model of the elements `old`, by the names of `Model.parameters`.
        sizes: parameters of the same model with the elements `new`, of which the shapes count.
        old: atomic numbers of a model's species without the padding, in their order.
        new: likewise; all of `old` are among them.

    A new element has the mean of the others in the trunk, where it begins as an average atom, and
    the atomic energy 0. Raises UserError where an element of `old` is missing, and for parameters
    of another network. See `refuse_as_many` for the one case that cannot be.
    """
    if missing := sorted(set(old) - set(new)):
        raise UserError(f"A model keeps its elements; atomic numbers {missing} are missing.")
    grown: State = {}
    axes: dict[str, int] = {}
    given = dict(state)
    if ADJUST in sizes and ADJUST not in given:
        given[ADJUST] = torch.eye(len(old)).to(next(iter(given.values())))
    for name, value in given.items():
        if not isinstance(value, Tensor) or value.shape == sizes[name].shape:
            grown[name] = value
            continue
        sides = list(zip(value.shape, sizes[name].shape, strict=True))
        differing = [axis for axis, (before, now) in enumerate(sides) if before != now]
        if [sides[axis] for axis in differing] != [(len(old), len(new))]:
            expected = tuple(sizes[name].shape)
            raise UserError(f"{name} is {tuple(value.shape)}, and {expected} was expected.")
        (axes[name],) = (axis,) = differing
        mean = value.mean(dim=axis)
        other = mean if name.startswith(NETWORK) else torch.zeros_like(mean)
        columns = [value.select(axis, old.index(z)) if z in old else other for z in new]
        grown[name] = torch.stack(columns, dim=axis)
    return grown, axes
