"""hippynn's own databases with arrays of any names, other losses, loggers and averages."""

from __future__ import annotations

import numpy as np
import planted
import pytest
import torch
from hippynn.databases import Database
from hippynn.experiment import SetupParams, assemble_for_training, setup_and_train
from hippynn.graphs.nodes.inputs import PositionsNode, SpeciesNode

import hippynn_mf
from hippynn_mf.errors import UserError
from hippynn_mf.model.masked_errors import MaskedHuber

N = 60
DB_NAMES = {"DZ": {"energy": "E_dft", "forces": "F_dft"}, "CC": {"energy": "E_cc"}}
SIZES = {"n_features": 6, "n_sensitivities": 4, "n_interaction_layers": 1, "n_atom_layers": 1}
CUTOFFS = {"dist_soft_min": 0.5, "dist_soft_max": 5.5, "dist_hard_max": 6.5}


def made_heads(db_names=DB_NAMES):
    inputs = SpeciesNode(db_name="Z"), PositionsNode(db_name="R")
    network = hippynn_mf.FastHipnnQuad(
        "hipnn", inputs, module_kwargs={**SIZES, **CUTOFFS, "possible_species": [0, 1, 6, 7, 8]}
    )
    return hippynn_mf.build_heads(network, {"DZ": "EF", "CC": "E"}, db_names=db_names)


def arrays():
    """Water with energies of two levels, of which every second CC one is missing."""
    numbers = planted.numbers_of(planted.WATER[0])
    positions = planted.conformers(planted.WATER, N, seed=1)
    energies = {
        level: 627.5 * (planted.energy(numbers, positions, level) + 76)
        for level in ("wb97x_dz", "ccsd(t)_cbs")
    }
    energies["ccsd(t)_cbs"][::2] = np.nan
    forces = 627.5 * planted.forces(numbers, positions, "wb97x_dz")
    return {
        "Z": np.tile(numbers, (N, 1)),
        "R": positions.astype(np.float32),
        "E_dft": energies["wb97x_dz"][:, None].astype(np.float32),
        "F_dft": forces.astype(np.float32),
        "E_cc": energies["ccsd(t)_cbs"][:, None].astype(np.float32),
    }


def assembled(heads, **options):
    loss = hippynn_mf.build_loss(heads, **options)
    modules, db_info = assemble_for_training(loss, hippynn_mf.build_metrics(heads, loss))
    return modules, Database(
        arrays(), **db_info, seed=0, test_size=0.1, valid_size=0.1, quiet=True, pin_memory=False
    )


def test_any_database_with_its_own_names_trains(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    heads = made_heads()
    modules, database = assembled(heads)
    hippynn_mf.initialize_heads(heads, database)
    rows = database.splits["train"]
    model = modules.model
    names = [node.db_name for node in model.input_nodes]
    outputs = model(*(rows[name] for name in names))
    places = {node.db_name: place for place, node in enumerate(model.nodes_to_compute)}
    predicted = outputs[places["E_dft"]].detach()
    # The fit of one composition is its mean; what is left is the layers that were made small.
    assert float(predicted.mean()) == pytest.approx(float(rows["E_dft"].mean()), abs=5.0)
    parameters = SetupParams(
        stopping_key="energy_rmse_sum", batch_size=16, learning_rate=1e-2, max_epochs=3,
        optimizer=torch.optim.AdamW,
    )  # fmt: skip
    result = setup_and_train(modules, database, parameters)
    assert result is not None
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_names_of_no_level_or_kind_are_refused():
    with pytest.raises(UserError, match="Unknown level in db_names 'TZ'"):
        made_heads({"TZ": {"energy": "E"}})
    with pytest.raises(UserError, match=r"Unknown kind 'forces'.*Known: energy"):
        made_heads({"CC": {"forces": "F"}})


def test_an_array_that_the_database_lacks_is_named():
    heads = made_heads({**DB_NAMES, "CC": {"energy": "E_ccsd"}})
    loss = hippynn_mf.build_loss(heads)
    assemble_for_training(loss, hippynn_mf.build_metrics(heads, loss))

    class Rows:
        splits = {"train": {name: torch.as_tensor(array) for name, array in arrays().items()}}  # noqa: RUF012

    with pytest.raises(UserError, match=r"no array 'E_ccsd'.*E_cc"):
        hippynn_mf.initialize_heads(heads, Rows())


def test_huber_is_torchs_on_the_labels_that_are_there():
    torch.manual_seed(0)
    predicted = torch.randn(20, 1, dtype=torch.float64, requires_grad=True)
    true = 3 * torch.randn(20, 1, dtype=torch.float64)
    labelled = torch.arange(20) % 3 > 0
    holes = true.clone()
    holes[~labelled] = torch.nan
    for delta in (0.5, 2.0):
        found = MaskedHuber(delta)(predicted, holes)
        expected = torch.nn.functional.huber_loss(predicted[labelled], true[labelled], delta=delta)
        assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
        (gradient,) = torch.autograd.grad(found, predicted)
        assert (gradient[~labelled] == 0).all()
        assert (gradient[labelled] != 0).all()
    assert float(MaskedHuber()(predicted, torch.full_like(true, torch.nan)).detach()) == 0


def test_a_loss_is_made_of_huber_terms():
    heads = made_heads()
    modules, database = assembled(
        heads, error=lambda node: hippynn_mf.MaskedHuberLoss.of_node(node, delta=2.0)
    )
    hippynn_mf.initialize_heads(heads, database)
    rows = database.splits["train"]
    model = modules.model
    outputs = model(*(rows[node.db_name] for node in model.input_nodes))
    targets = [rows[name] for name in database.targets]
    (loss,) = modules.loss(*outputs, *targets)
    assert torch.isfinite(loss)
    assert "Huber" in str(modules.loss)


def test_autocast_is_refused_with_the_remedy():
    heads = made_heads()
    modules, database = assembled(heads)
    rows = database.splits["train"]
    values = [rows[node.db_name] for node in modules.model.input_nodes]
    refused = pytest.raises(UserError, match=r"torch.autocast.*32-true")
    with torch.autocast("cpu", dtype=torch.bfloat16), refused:
        modules.model(*values)
    modules.model(*values)


# hippynn calls its Lightning module experimental, and Lightning says what it would do elsewhere.
@pytest.mark.filterwarnings("ignore")
def test_lightning_takes_the_same_modules_with_a_logger_and_an_average(tmp_path, monkeypatch):
    lightning = pytest.importorskip("pytorch_lightning")
    from hippynn.experiment import HippynnLightningModule
    from pytorch_lightning.loggers import CSVLogger

    monkeypatch.chdir(tmp_path)
    heads = made_heads()
    modules, database = assembled(heads)
    hippynn_mf.initialize_heads(heads, database)
    parameters = SetupParams(
        stopping_key="energy_rmse_sum", batch_size=16, learning_rate=1e-2, max_epochs=2
    )
    module, data = HippynnLightningModule.from_experiment_setup(modules, database, parameters)
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=CSVLogger(tmp_path, name="log"),
        callbacks=[lightning.callbacks.EMAWeightAveraging(decay=0.9)],
        enable_progress_bar=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        inference_mode=False,
    )
    trainer.fit(module, data)
    (metrics,) = tmp_path.rglob("metrics.csv")
    assert "energy_rmse_sum" in metrics.read_text().splitlines()[0]
