"""The model that an epoch's metrics are measured with: forces without the graph of a training."""

from __future__ import annotations

import copy

from hippynn.experiment.assembly import TrainingModules
from hippynn.graphs import GraphModule
from hippynn.graphs.gops import copy_subgraph
from hippynn.graphs.nodes.base import InputNode
from hippynn.graphs.nodes.physics import GradientNode

from hippynn_mf.network.final_gradients import FinalGradient


def with_final_forces(modules: TrainingModules) -> TrainingModules:
    """Modules whose evaluator keeps no graph of its forces, which nothing differentiates.

    The parameters are shared, and the numbers are the same.
    """
    model = modules.model
    outputs, nodes = copy_subgraph(model.nodes_to_compute, [])
    for node in nodes:
        if type(node) is GradientNode:
            node.torch_module = FinalGradient(sign=node.torch_module.sign)
    by_name = {node.db_name: node for node in nodes if isinstance(node, InputNode)}
    evaluator = copy.copy(modules.evaluator)
    evaluator.model = GraphModule([by_name[node.db_name] for node in model.input_nodes], outputs)
    return modules._replace(evaluator=evaluator)
