"""The fast interaction is the same function as hippynn's, of the same parameters."""

from __future__ import annotations

import copy

import hippynn
import numpy as np
import pytest
import torch
from hippynn.graphs import Predictor
from hippynn.graphs.nodes.inputs import CellNode, PositionsNode, SpeciesNode
from hippynn.graphs.nodes.physics import GradientNode
from hippynn.graphs.nodes.targets import HEnergyNode

from hippynn_mf.interaction import Pairs, Slots, tensor_components
from hippynn_mf.networks import NETWORKS
from hippynn_mf.products import product, rearrange

SIZES = {
    "n_features": 7,
    "n_sensitivities": 5,
    "n_interaction_layers": 2,
    "n_atom_layers": 2,
    "dist_soft_min": 0.7,
    "dist_soft_max": 2.5,
    "dist_hard_max": 3.0,
    "possible_species": [0, 1, 6, 8],
}
ORDERS = (0, 1, 2)
CUSTOM_ENVSUM = hippynn.custom_kernels.envsum


@pytest.fixture(autouse=True)
def _plain_hippynn(float64, monkeypatch):
    # Random structures have atoms nearer than any molecule: hippynn would warn.
    monkeypatch.setattr(hippynn.settings, "WARN_LOW_DISTANCES", False)
    # hippynn's layers with a plain sum: its numba kernels are off by up to 2e-10 in float64.
    monkeypatch.setattr(hippynn.custom_kernels, "envsum", plain_envsum)


def plain_envsum(sensitivities, features, pair_first, pair_second):
    """hippynn's sum over neighbours, by its definition."""
    sums = features.new_zeros(len(features), sensitivities.shape[1], features.shape[1])
    products = sensitivities.unsqueeze(2) * features[pair_second].unsqueeze(1)
    return sums.index_add(0, pair_first, products)


def modules(order: int, **changes) -> tuple[torch.nn.Module, torch.nn.Module]:
    """hippynn's network module and ours, with the same random parameters."""
    torch.manual_seed(1)
    stock, fast = (
        NETWORKS[name][order]._auto_module_class(**SIZES | changes) for name in ("stock", "fast")
    )
    generator = torch.Generator().manual_seed(3)
    for parameter in stock.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    fast.load_state_dict(stock.state_dict())
    return stock, fast


def pairs_of(positions, cutoff=SIZES["dist_hard_max"]):
    """Both directions of every pair within the cutoff, as hippynn's pair finders give them."""
    vectors = positions.unsqueeze(0) - positions.unsqueeze(1)
    near = (vectors.norm(dim=2) < cutoff) & ~torch.eye(len(positions), dtype=torch.bool)
    return near.nonzero(as_tuple=True)


def outputs(module, species, positions, first, second, shifts=0.0):
    """A scalar of the features, its forces, and parameter gradients of a loss with both."""
    positions = positions.clone().requires_grad_(True)
    features = torch.eye(len(SIZES["possible_species"]))[species][:, 1:]
    vectors = positions[second] - positions[first] + shifts
    arguments = [features, first, second, vectors.norm(dim=1)]
    if "pair_coord" in module.forward.__code__.co_varnames and not is_scalar(module):
        arguments.append(vectors)
    per_atom = sum(layer.square().sum(dim=1) for layer in module(*arguments))
    energy = (per_atom * torch.linspace(0.5, 1.5, len(per_atom))).sum()
    (gradient,) = torch.autograd.grad(energy, positions, create_graph=True, allow_unused=True)
    gradient = torch.zeros_like(positions) if gradient is None else gradient
    loss = energy + gradient.square().sum()
    parameters = [p for p in module.parameters() if p.requires_grad]
    slopes = torch.autograd.grad(loss, parameters, allow_unused=True)
    return energy, gradient, [s if s is not None else torch.zeros(()) for s in slopes]


def is_scalar(module) -> bool:
    return not hasattr(module.interaction_layers[0], "vecscales")


def assert_same(stock, fast, *arguments, **keywords) -> None:
    expected = outputs(stock, *arguments, **keywords)
    found = outputs(fast, *arguments, **keywords)
    assert torch.isfinite(expected[0])
    assert_equal_to_1e_10(found[:2], expected[:2])
    assert_equal_to_1e_10(found[2], expected[2])


def assert_equal_to_1e_10(found, expected) -> None:
    """Every tensor agrees to 1e-10 of its own norm: single elements may cancel to nothing."""
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        assert torch.linalg.norm(ours - theirs) <= 1e-10 * torch.linalg.norm(theirs)


def cloud(n_atoms: int, seed: int = 0, spread: float = 1.2):
    """Species and positions of a random cluster, denser in the middle."""
    generator = torch.Generator().manual_seed(seed)
    species = torch.randint(1, 4, (n_atoms,), generator=generator)
    return species, spread * torch.randn(n_atoms, 3, generator=generator)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("n_atoms", [1, 2, 12])
def test_open_systems(order, n_atoms):
    species, positions = cloud(n_atoms)
    assert_same(*modules(order), species, positions, *pairs_of(positions))


def test_agrees_with_the_custom_kernels(monkeypatch):
    monkeypatch.setattr(hippynn.custom_kernels, "envsum", CUSTOM_ENVSUM)
    species, positions = cloud(12)
    arguments = (species, positions, *pairs_of(positions))
    stock, fast = (outputs(module, *arguments) for module in modules(2))
    torch.testing.assert_close(fast[:2], stock[:2], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "options", [{"resnet": False}, {"resnet": 4}, {"activation": torch.nn.SiLU}]
)
def test_network_options(order, options):
    species, positions = cloud(6)
    assert_same(*modules(order, **options), species, positions, *pairs_of(positions))


@pytest.mark.parametrize("order", ORDERS)
def test_asymmetric_pair_list(order):
    # As from LAMMPS: ghost atoms send, and receive nothing.
    species, positions = cloud(9)
    first, second = pairs_of(positions)
    kept = (first < 5) & (torch.arange(len(first)) % 4 != 0)
    assert kept.any()
    assert (torch.bincount(first[kept], minlength=9)[5:] == 0).all()
    assert_same(*modules(order), species, positions, first[kept], second[kept])


@pytest.mark.parametrize("order", ORDERS)
def test_unsorted_pair_list(order):
    species, positions = cloud(7)
    first, second = pairs_of(positions)
    shuffled = torch.randperm(len(first), generator=torch.Generator().manual_seed(1))
    assert_same(*modules(order), species, positions, first[shuffled], second[shuffled])


@pytest.mark.parametrize("order", ORDERS)
def test_several_images_of_one_pair(order):
    species, positions = cloud(3, spread=0.5)
    first = torch.tensor([0, 0, 0, 1, 1, 2, 1])
    second = torch.tensor([1, 1, 0, 0, 0, 1, 1])
    shifts = torch.linspace(-1, 1, 21).reshape(7, 3) + torch.tensor([0.9, 0.0, 0.4])
    assert_same(*modules(order), species, positions, first, second, shifts=shifts)


@pytest.mark.parametrize("order", ORDERS)
def test_neighbour_counts_that_differ_widely(order):
    # A dense cluster, a chain, and an atom alone.
    species, dense = cloud(14, spread=0.6)
    chain = torch.arange(5).unsqueeze(1) * torch.tensor([2.5, 0, 0]) + torch.tensor([0, 30.0, 0])
    positions = torch.cat([dense, chain, torch.tensor([[0.0, 0.0, 90.0]])])
    species = torch.cat([species, torch.tensor([1, 2, 3, 1, 2, 3])])
    first, second = pairs_of(positions)
    counts = torch.bincount(first, minlength=20)
    assert counts.max() >= 10
    assert counts[19] == 0
    assert_same(*modules(order), species, positions, first, second)


@pytest.mark.parametrize("order", ORDERS)
def test_state_dicts_are_interchangeable(order):
    stock, fast = modules(order)
    assert list(stock.state_dict()) == list(fast.state_dict())
    back = copy.deepcopy(stock)
    for parameter in back.parameters():
        parameter.data.zero_()
    back.load_state_dict(fast.state_dict())
    torch.testing.assert_close(dict(back.state_dict()), dict(stock.state_dict()))


@pytest.mark.parametrize("order", ORDERS)
def test_same_initial_weights_from_the_same_seed(order):
    drawn = []
    for name in ("stock", "fast"):
        torch.manual_seed(5)
        drawn.append(dict(NETWORKS[name][order]._auto_module_class(**SIZES).state_dict()))
    torch.testing.assert_close(*drawn, rtol=0, atol=0)


def predictions(name, order, species, positions, cell=None):
    """Energies and forces of padded batches, by hippynn's own predictor and pair finder."""
    nodes = [SpeciesNode("species"), PositionsNode("positions")]
    if cell is not None:
        nodes.append(CellNode("cell"))
    torch.manual_seed(2)
    network = NETWORKS[name][order](
        "network", tuple(nodes), periodic=cell is not None, module_kwargs=SIZES
    )
    energy = HEnergyNode("energy", network)
    forces = GradientNode("forces", (energy, nodes[1]), sign=-1)
    predictor = Predictor(nodes, [energy.main_output, forces])
    values = [torch.as_tensor(species), torch.as_tensor(positions)]
    values += [] if cell is None else [torch.as_tensor(cell)]
    found = predictor(node_values=dict(zip(nodes, values, strict=True)))
    return [found[energy.main_output], found[forces]]


@pytest.mark.parametrize("order", ORDERS)
def test_padded_batch(order):
    rng = np.random.default_rng(0)
    species = np.array([[1, 8, 6, 1], [6, 0, 0, 0], [1, 1, 0, 0]])
    positions = rng.normal(size=(3, 4, 3))
    stock, fast = (predictions(name, order, species, positions) for name in ("stock", "fast"))
    assert stock[1].abs().max() > 1e-3
    assert_equal_to_1e_10(fast, stock)


@pytest.mark.parametrize("order", ORDERS)
def test_periodic_system_smaller_than_the_cutoff(order):
    rng = np.random.default_rng(1)
    species = np.array([[1, 8, 6, 1]])
    positions = 2.6 * rng.random(size=(1, 4, 3))
    cell = 2.6 * np.eye(3)[None] + 0.2 * rng.normal(size=(1, 3, 3))
    stock, fast = (predictions(name, order, species, positions, cell) for name in ("stock", "fast"))
    assert stock[1].abs().max() > 1e-3
    assert_equal_to_1e_10(fast, stock)


def test_the_parameter_of_the_norms_travels_with_the_state():
    stock, _ = modules(2, cusp_reg=1e-2)
    fast = NETWORKS["fast"][2]._auto_module_class(**SIZES)
    fast.load_state_dict(stock.state_dict())
    species, positions = cloud(6)
    assert_same(stock, fast, species, positions, *pairs_of(positions))


@pytest.mark.parametrize("order", [1, 2])
def test_missing_vectors_are_refused(order):
    _, fast = modules(order)
    features = torch.eye(3)
    first, second = torch.tensor([0, 1]), torch.tensor([1, 0])
    with pytest.raises(ValueError, match="needs pair_coord"):
        fast(features, first, second, torch.ones(2))


def test_single_precision():
    torch.set_default_dtype(torch.float32)
    species, positions = cloud(8)
    stock, fast = (outputs(m, species, positions, *pairs_of(positions)) for m in modules(2))
    assert fast[1].dtype == torch.float32
    torch.testing.assert_close(fast[:2], stock[:2], rtol=1e-3, atol=1e-3)


def test_the_order_of_atoms_does_not_matter():
    species, positions = cloud(8)
    _, fast = modules(2)
    features = torch.eye(4)[species][:, 1:]
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))

    def last_features(features, positions):
        first, second = pairs_of(positions)
        vectors = positions[second] - positions[first]
        return fast(features, first, second, vectors.norm(dim=1), vectors)[-1]

    expected = last_features(features, positions)[order]
    torch.testing.assert_close(last_features(features[order], positions[order]), expected)


def test_energies_are_invariant_and_forces_rotate():
    species, positions = cloud(8)
    _, fast = modules(2)
    energy, gradient, _ = outputs(fast, species, positions, *pairs_of(positions))
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))
    turned = positions @ turn
    same, turned_gradient, _ = outputs(fast, species, turned, *pairs_of(turned))
    torch.testing.assert_close(same, energy)
    torch.testing.assert_close(turned_gradient, gradient @ turn)


def test_rearranged_rows_differentiate_twice():
    slots = Slots.of(torch.tensor([2, 0, 2, 2]), n_atoms=3)
    assert slots.empty is not None
    rows = torch.randn(4, 2, requires_grad=True, generator=torch.Generator().manual_seed(0))

    def move(values):
        return rearrange(values, slots.pair_of_slot, slots.slot_of_pair, slots.empty, None)

    assert torch.autograd.gradcheck(move, rows)
    assert torch.autograd.gradgradcheck(lambda values: move(values).square(), rows)
    moved = slots.fill(rows)
    assert moved.shape == (3, 3, 2)
    torch.testing.assert_close(moved[0, 0], rows[1])
    torch.testing.assert_close(moved[2], rows[[0, 2, 3]])
    assert not moved[1].any()
    assert not moved[0, 1:].any()


@pytest.mark.parametrize(
    ("form", "left", "right", "expected"),
    [
        ("AB", (2, 3, 4), (2, 4, 5), "nij,njk->nik"),
        ("ABt", (2, 3, 4), (2, 5, 4), "nij,nkj->nik"),
        ("AtB", (2, 4, 3), (2, 4, 5), "nji,njk->nik"),
    ],
)
def test_products_and_their_derivatives(form, left, right, expected):
    generator = torch.Generator().manual_seed(0)
    factors = [torch.randn(s, generator=generator).requires_grad_(True) for s in (left, right)]

    def multiply(left, right):
        return product(left, right, form)

    torch.testing.assert_close(multiply(*factors), torch.einsum(expected, *factors))
    assert torch.autograd.gradcheck(multiply, factors)
    assert torch.autograd.gradgradcheck(multiply, factors)
    for gradient in torch.autograd.grad(multiply(*factors).square().sum(), factors):
        assert gradient.is_contiguous()


def test_messages_reach_their_receivers():
    first, second = torch.tensor([0, 0, 2, 1]), torch.tensor([1, 2, 0, 0])
    distances = torch.ones(4)
    pairs = Pairs.of(first, second, distances, None, tensor_order=0, n_atoms=3)
    labels = torch.tensor([[10.0], [20.0], [30.0], [40.0]])  # one per pair
    sent = pairs.senders.fill(labels)
    received = pairs.sent_to_received(sent)
    assert received[0, :, 0].tolist() == [10, 20]
    assert received[1, :, 0].tolist() == [40, 0]
    assert received[2, :, 0].tolist() == [30, 0]


def test_quadrupole_components_have_the_norm_of_the_tensor():
    vectors = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    distances = vectors.norm(dim=1)
    unit = vectors / distances.unsqueeze(1)
    tensors = unit.unsqueeze(2) * unit.unsqueeze(1) - torch.eye(3) / 3
    components = tensor_components(distances, vectors, 2)[:, 4:]
    weights = torch.randn(6, generator=torch.Generator().manual_seed(1))
    summed = (weights[:, None, None] * tensors).sum(dim=0)
    torch.testing.assert_close(weights @ components @ (weights @ components), summed.square().sum())
