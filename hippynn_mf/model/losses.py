"""The loss graph of the paper's equations 1 to 3, and the validation metrics of every level."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hippynn.graphs.nodes.base import SingleNode
from hippynn.graphs.nodes.loss import _BaseCompareLoss
from hippynn.graphs.nodes.targets import HEnergyNode

from hippynn_mf import keys
from hippynn_mf.errors import UserError, unknown_name_message
from hippynn_mf.hyperparameters import Hyperparameters
from hippynn_mf.model import masked_errors as layers
from hippynn_mf.model.heads import Head, Heads


@dataclass(frozen=True)
class LossWeights:
    """Weights of one level's terms in equation 1."""

    energy: float = 1.0
    forces: float = 1.0
    hierarchicality: float = 1.0
    stress: float = 1.0

    @classmethod
    def of(cls, hyperparameters: Hyperparameters) -> LossWeights:
        """The weights that hyperparameters have for every level."""
        return cls(
            energy=hyperparameters.energy_weight,
            forces=hyperparameters.force_weight,
            hierarchicality=hyperparameters.hierarchicality_weight,
            stress=hyperparameters.stress_weight,
        )


def rmse_and_mae(node: Any) -> Any:
    """Loss of a node by equations 2 and 3, RMSE + MAE over valid labels."""
    return MaskedRMSELoss.of_node(node) + MaskedMAELoss.of_node(node)


def build_loss(
    heads: Heads,
    weights: Mapping[str, LossWeights] | None = None,
    *,
    error: Callable[[Any], Any] = rmse_and_mae,
) -> Any:
    """Loss node of equation 1, L = Σ_t (w_E L_E + w_F L_F + w_S L_S + w_H L_H) over the levels t.

    L_E and L_F are RMSE + MAE (equations 2 and 3) of total energies in kcal/mol and of force
    components in kcal/mol/Å, L_S that of stress components in kcal/mol/Å³, which the paper does
    not have, L_H is the mean hierarchicality; each over that level's own valid labels in the batch.
    Forces and stress enter where the head has them.

    Args:
        heads: the model's heads.
        weights: weights by level id or label, 1 for levels not named.
        error: node → loss node of its labels, in place of RMSE + MAE: `MaskedHuberLoss.of_node`,
            or one of your own, which leaves out NaN.
    """
    named = weights or {}
    unused = sorted(name for name in named if name not in heads)
    if unused:
        raise UserError(unknown_name_message("weighted level", unused[0], heads))
    weights = {heads[name].level.id: value for name, value in named.items()}
    if len(weights) < len(named):
        raise UserError(f"A level has two weights: {', '.join(named)}. Name each level once.")
    terms = [
        term
        for level_id, head in heads.items()
        for term in _terms(head, weights.get(level_id, LossWeights()), error)
    ]
    return sum(terms[1:], start=terms[0])


def _terms(head: Head, weights: LossWeights, error: Callable[[Any], Any]) -> list[Any]:
    terms = [
        weights.energy * error(head.energy),
        weights.hierarchicality * MaskedHierarchicalityLoss.of_node(head.energy),
    ]
    if head.forces is not None:
        terms.append(weights.forces * error(head.forces))
    if head.stress is not None:
        terms.append(weights.stress * error(head.stress))
    return terms


def build_metrics(heads: Heads, loss: Any) -> dict[str, Any]:
    """Validation metrics for `assemble_for_training`: name → loss node.

    `energy_rmse.<level id>`, `energy_mae.…`, `force_rmse.…`, `force_mae.…` for every head, their
    energy RMSEs summed over the heads (`energy_rmse_sum`), all their MAEs summed (`mae_sum`), and
    the loss.
    """
    metrics: dict[str, Any] = {}
    for level_id, head in heads.items():
        metrics[keys.energy_rmse(level_id)] = MaskedRMSELoss.of_node(head.energy)
        metrics[keys.energy_mae(level_id)] = MaskedMAELoss.of_node(head.energy)
        if head.forces is not None:
            metrics[keys.force_rmse(level_id)] = MaskedRMSELoss.of_node(head.forces)
            metrics[keys.force_mae(level_id)] = MaskedMAELoss.of_node(head.forces)
        if head.stress is not None:
            metrics[keys.stress_rmse(level_id)] = MaskedRMSELoss.of_node(head.stress)
            metrics[keys.stress_mae(level_id)] = MaskedMAELoss.of_node(head.stress)
    energy_errors = [metrics[keys.energy_rmse(level_id)] for level_id in heads]
    # A sum of one node is that node, which may stand for two names.
    metrics[keys.ENERGY_RMSE_SUM] = sum(energy_errors[1:], start=energy_errors[0])
    absolute = [metrics[keys.energy_mae(level_id)] for level_id in heads]
    absolute += [metrics[name] for name in map(keys.force_mae, heads) if name in metrics]
    metrics[keys.MAE_SUM] = sum(absolute[1:], start=absolute[0])
    metrics[keys.LOSS] = loss
    return metrics


class MaskedRMSELoss(_BaseCompareLoss):
    """Root mean squared error over valid labels; `MaskedRMSELoss.of_node(energy)`."""

    _classname = "MaskedRMSE"
    torch_module = layers.MaskedRMSE()


class MaskedMAELoss(_BaseCompareLoss):
    """Mean absolute error over valid labels; `MaskedMAELoss.of_node(energy)`."""

    _classname = "MaskedMAE"
    torch_module = layers.MaskedMAE()


class MaskedHuberLoss(_BaseCompareLoss):
    """Huber loss over valid labels; `MaskedHuberLoss.of_node(energy, delta=2.0)`."""

    _classname = "MaskedHuber"
    torch_module = layers.MaskedHuber()

    @classmethod
    def of_node(cls, node: Any, delta: float = 1.0) -> SingleNode:
        """Loss of a node; beyond `delta`, in the unit of its labels, it is linear."""
        made: SingleNode = super().of_node(node)
        made.torch_module = layers.MaskedHuber(delta)
        return made


class MaskedHierarchicalityLoss(_BaseCompareLoss):
    """Mean hierarchicality of an energy over the structures that have its label."""

    _classname = "MaskedHierarchicality"
    torch_module = layers.MaskedMean()

    @classmethod
    def of_node(cls, node: HEnergyNode) -> SingleNode:
        """Loss of an energy node."""
        return cls(node.hierarchicality.pred, node.main_output.true)
