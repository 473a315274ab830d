import pytest
import torch
from conftest import assert_close
from hippynn.pretraining import hierarchical_energy_initialization
from tiny import labelled_batch, tiny_model

from hippynn_mf import UserError, initialize_heads
from hippynn_mf.data.database import TrainingDatabase
from hippynn_mf.levels import CC, DZ, TZ

pytestmark = pytest.mark.usefixtures("float64")

NAN = float("nan")
ELEMENTS = (1, 6, 7, 8)
# kcal/mol per element: of the size of real atomic energies without self energies, and beyond
PLANTED = {
    DZ.id: torch.tensor([-11.25, -83.5, 47.0, -1234.5], dtype=torch.float64),
    CC.id: torch.tensor([-10.75, -81.0, 52.5, -1199.0], dtype=torch.float64),
}


def linear_database(model, *, n=40, planted=PLANTED):
    """Random molecules whose energies are exactly sums of planted atomic energies."""
    species = torch.randint(0, 5, (n, 7), generator=torch.Generator().manual_seed(0))
    species = torch.tensor((0, *ELEMENTS))[species].sort(dim=1, descending=True).values
    counts = torch.stack([(species == z).sum(dim=1) for z in ELEMENTS], dim=1).to(torch.float64)
    arrays = {"species": species, "positions": torch.rand(n, 7, 3)}
    for head in model.heads.values():
        arrays[head.level.energy_name] = counts @ planted[head.level.id][:, None]
        if head.forces is not None:
            arrays[head.level.forces_name] = torch.zeros(n, 7, 3)
    return TrainingDatabase({"train": arrays})


def test_planted_atomic_energies_are_recovered_despite_missing_labels():
    model = tiny_model({"DZ": "EF", "CC": "E"})
    database = linear_database(model)
    database.splits["train"][DZ.energy_name][::3] = NAN
    database.splits["train"][CC.energy_name][5:] = NAN  # five rows for four elements
    initialize_heads(model.heads, database)
    for level, head in model.heads.items():
        fitted = head.energy.torch_module.layers[0].weight.detach()
        torch.testing.assert_close(fitted, PLANTED[level][None], rtol=1e-8, atol=0)


def test_atomic_energies_are_fitted_on_the_training_rows_alone():
    model = tiny_model({"DZ": "E"})
    database = linear_database(model)
    train = database.splits["train"]
    database.splits["valid"] = train | {DZ.energy_name: train[DZ.energy_name] + 1e6}
    initialize_heads(model.heads, database)
    fitted = model.heads["DZ"].energy.torch_module.layers[0].weight.detach()
    torch.testing.assert_close(fitted, PLANTED[DZ.id][None], rtol=1e-8, atol=0)


def test_atomic_energies_are_frozen_and_nothing_else_is():
    model = tiny_model({"DZ": "EF", "CC": "E"})
    initialize_heads(model.heads, linear_database(model))
    frozen = {n for n, p in model.parameters.named_parameters() if not p.requires_grad}
    assert frozen == {f"heads.{level}.layers.0.weight" for level in (DZ.id, CC.id)}


def test_later_layers_shrink_and_the_trunk_stays():
    model = tiny_model({"DZ": "EF", "CC": "E"})
    before = {n: p.detach().clone() for n, p in model.parameters.named_parameters()}
    initialize_heads(model.heads, linear_database(model))
    after = dict(model.parameters.named_parameters())
    for name, value in before.items():
        if name.startswith("network."):
            assert torch.equal(after[name], value)
    for level in (DZ.id, CC.id):
        for layer, factor in ((1, 1e-2), (2, 1e-4)):
            for kind in ("weight", "bias"):
                name = f"heads.{level}.layers.{layer}.{kind}"
                expected = factor * before[name]
                torch.testing.assert_close(after[name].detach(), expected, rtol=1e-12, atol=0)


def test_fully_labelled_heads_are_initialized_as_hippynn_does():
    labels = {"DZ": "EF", "CC": "E"}
    ours, theirs = tiny_model(labels), tiny_model(labels)
    database = TrainingDatabase({"train": labelled_batch(ours, n=4)})
    initialize_heads(ours.heads, database)
    database.splits["train"] = database.padded("train")  # as in a database of hippynn's own
    for head in theirs.heads.values():
        hierarchical_energy_initialization(head.energy, database=database, decay_factor=1e-2)
    expected = dict(theirs.parameters.named_parameters())
    for name, parameter in ours.parameters.named_parameters():
        assert torch.equal(parameter, expected[name]), name
        assert parameter.requires_grad == expected[name].requires_grad


def test_an_element_without_training_structures_keeps_finite_energies():
    model = tiny_model({"DZ": "E"})
    database = linear_database(model)
    train = database.splits["train"]
    train[DZ.energy_name][torch.as_tensor(train["species"][:] == 8).any(dim=1)] = NAN
    assert torch.isfinite(train[DZ.energy_name]).sum() >= 4
    initialize_heads(model.heads, database)
    fitted = model.heads["DZ"].energy.torch_module.layers[0].weight.detach()[0]
    assert_close(fitted[:3], PLANTED[DZ.id][:3])
    assert_close(fitted[3], torch.tensor(0.0))


@pytest.mark.parametrize("kind", ["energy", "forces"])
def test_a_level_without_labels_is_refused(kind):
    model = tiny_model({"DZ": "EF", "CC": "E"})
    database = linear_database(model)
    before = {n: p.detach().clone() for n, p in model.parameters.named_parameters()}
    train = database.splits["train"]
    train[f"{DZ.id}.{kind}"] = torch.full_like(database.padded("train")[f"{DZ.id}.{kind}"], NAN)
    match = rf"Level wb97x_dz has no {kind} label in the train split \(40 structures\)\. Remove"
    with pytest.raises(UserError, match=match):
        initialize_heads(model.heads, database)
    assert all(torch.equal(p, before[n]) for n, p in model.parameters.named_parameters())


def test_a_missing_array_is_refused():
    model = tiny_model({"DZ": "EF", "TZ": "E"})
    database = linear_database(tiny_model({"DZ": "EF", "CC": "E"}))
    match = (
        rf"no array '{TZ.energy_name}', which the head of level wb97x_tz is trained on\. "
        r"It has: ccsd\(t\)_cbs\.energy, positions, species, wb97x_dz\.energy, wb97x_dz\.forces\."
    )
    with pytest.raises(UserError, match=match):
        initialize_heads(model.heads, database)
