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

from hippynn_mf.network import pair_layouts as pairs
from hippynn_mf.network.batched_products import outer, rearrange, times
from hippynn_mf.network.hipnn import NETWORKS
from hippynn_mf.network.pair_layouts import PairList, Pairs, Slots, tensor_components

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
OURS = "fast"  # compared with stock; test_compiled.py has another
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
        NETWORKS[name][order]._auto_module_class(**SIZES | changes) for name in ("stock", OURS)
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


def outputs(module, species, positions, first, second, shifts=0.0, dtype=torch.bool):
    """A scalar of the features, its forces, and parameter gradients of a loss with both."""
    positions = positions.clone().requires_grad_(True)
    features = torch.eye(len(SIZES["possible_species"]), dtype=dtype)[species][:, 1:]
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
def test_features_that_are_no_species(order):
    """The first layer takes another way for one-hot species than for any other features."""
    species, positions = cloud(8)
    arguments = (species, positions, *pairs_of(positions))
    assert_same(*modules(order), *arguments, dtype=torch.float64)
    several_at_once = torch.ones(8, 3, dtype=torch.bool)
    vectors = positions[arguments[3]] - positions[arguments[2]]
    rest = [vectors.norm(dim=1), vectors][: 2 if order else 1]
    found = [module(several_at_once, *arguments[2:], *rest) for module in modules(order)]
    assert_equal_to_1e_10(found[1], found[0])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("atoms_per_block", [1, 5, 12, 100])
def test_blocks_of_atoms(order, atoms_per_block):
    species, positions = cloud(12)
    stock, fast = modules(order)
    fast.atoms_per_block = atoms_per_block
    assert_same(stock, fast, species, positions, *pairs_of(positions))


@pytest.mark.parametrize("atoms_per_block", [None, 3])
def test_no_atoms_at_all(atoms_per_block):
    _, fast = modules(2)
    fast.atoms_per_block = atoms_per_block
    nothing = torch.empty(0, dtype=torch.int64)
    features = torch.empty(0, 3, dtype=torch.bool)
    found = fast(features, nothing, nothing, torch.empty(0), torch.empty(0, 3))
    assert [tuple(f.shape) for f in found] == [(0, 3), (0, 7), (0, 7)]


@pytest.mark.parametrize("atoms_per_block", [0, -1])
def test_empty_blocks_are_refused(atoms_per_block):
    species, positions = cloud(4)
    _, fast = modules(0)
    fast.atoms_per_block = atoms_per_block
    with pytest.raises(ValueError, match="expected at least 1"):
        outputs(fast, species, positions, *pairs_of(positions))


def test_blocks_keep_less_than_the_messages():
    """Between forward and backward, a system in blocks keeps no array of pairs x features."""
    species, positions = cloud(60)
    stock, fast = modules(2, n_features=32)
    fast.atoms_per_block = 10
    first, second = pairs_of(positions)
    kept = {}
    for name, module in {"stock": stock, "blocks": fast}.items():
        sizes = {}

        def pack(tensor, sizes=sizes):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            features = torch.eye(4, dtype=torch.bool)[species][:, 1:]
            vectors = (positions[second] - positions[first]).requires_grad_(True)
            alive = module(features, first, second, vectors.norm(dim=1), vectors)
        kept[name] = sum(sizes.values())
        assert alive
    assert kept["blocks"] < kept["stock"] / 4


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
@pytest.mark.parametrize("worth_a_run", [1, 1000])
def test_neighbour_counts_that_differ_widely(order, worth_a_run, monkeypatch):
    monkeypatch.setattr(pairs, "SLOTS_WORTH_A_RUN", worth_a_run)
    # A dense cluster, a chain, and an atom alone.
    species, dense = cloud(14, spread=0.6)
    chain = torch.arange(5).unsqueeze(1) * torch.tensor([2.5, 0, 0]) + torch.tensor([0, 30.0, 0])
    positions = torch.cat([dense, chain, torch.tensor([[0.0, 0.0, 90.0]])])
    species = torch.cat([species, torch.tensor([1, 2, 3, 1, 2, 3])])
    first, second = pairs_of(positions)
    counts = torch.bincount(first, minlength=20)
    assert counts.max() >= 10
    assert counts[19] == 0
    assert (len(Slots.of(first, 20).runs) > 1) == (worth_a_run == 1)
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
    for name in ("stock", OURS):
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
    stock, fast = (predictions(name, order, species, positions) for name in ("stock", OURS))
    assert stock[1].abs().max() > 1e-3
    assert_equal_to_1e_10(fast, stock)


@pytest.mark.parametrize("order", ORDERS)
def test_periodic_system_smaller_than_the_cutoff(order):
    rng = np.random.default_rng(1)
    species = np.array([[1, 8, 6, 1]])
    positions = 2.6 * rng.random(size=(1, 4, 3))
    cell = 2.6 * np.eye(3)[None] + 0.2 * rng.normal(size=(1, 3, 3))
    stock, fast = (predictions(name, order, species, positions, cell) for name in ("stock", OURS))
    assert stock[1].abs().max() > 1e-3
    assert_equal_to_1e_10(fast, stock)


def test_the_parameter_of_the_norms_travels_with_the_state():
    stock, _ = modules(2, cusp_reg=1e-2)
    fast = NETWORKS[OURS][2]._auto_module_class(**SIZES)
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
        return rearrange(values, slots.pair_of_slot, slots.slot_of_pair, slots.empty)

    assert torch.autograd.gradcheck(move, rows)
    assert torch.autograd.gradgradcheck(lambda values: move(values).square(), rows)


def test_slots_hold_the_pairs_of_every_atom_in_their_order():
    slots = Slots.of(torch.tensor([2, 0, 2, 2]), n_atoms=3)
    assert list(slots.runs) == [(3, 3)]
    moved = slots.fill(torch.tensor([[1.0], [2.0], [3.0], [4.0]])).view(3, 3)
    assert moved.tolist() == [[2, 0, 0], [0, 0, 0], [1, 3, 4]]


@pytest.mark.parametrize("seed", [0, 1])
def test_slots_save_rows_where_counts_differ(seed):
    generator = torch.Generator().manual_seed(seed)
    counts = torch.cat([torch.full((500,), 3), torch.full((500,), 40), torch.full((501,), 9)])
    atoms = torch.arange(1501).repeat_interleave(counts)
    atoms = atoms[torch.randperm(len(atoms), generator=generator)]
    slots = Slots.of(atoms, n_atoms=1501)
    assert sum(n for n, _ in slots.runs) == 1501
    n_slots = sum(n * width for n, width in slots.runs)
    assert len(atoms) <= n_slots < 0.6 * 1501 * 40
    assert len(slots.pair_of_slot) == n_slots
    torch.testing.assert_close(slots.pair_of_slot[slots.slot_of_pair], torch.arange(len(atoms)))
    # The slots of an atom hold all of its pairs and no other.
    first = 0
    atom_of_slot = slots.fill(atoms.unsqueeze(1) + 1)[:, 0] - 1
    for atom, width in enumerate(width for n, width in slots.runs for _ in range(n)):
        assert atom_of_slot[first : first + width].tolist().count(atom) == counts[atom]
        first += width


def by_atom(rows, runs):
    """The rows of every atom."""
    return rows.split([width for n, width in runs for _ in range(n)])


@pytest.mark.parametrize("runs", [[(3, 2)], [(2, 3), (1, 0), (2, 1)]])
@pytest.mark.parametrize("transposed", [False, True])
def test_rows_times_the_matrix_of_their_atom(runs, transposed):
    generator = torch.Generator().manual_seed(0)
    n_atoms, n_rows = sum(n for n, _ in runs), sum(n * width for n, width in runs)
    rows = torch.randn(n_rows, 5 if transposed else 4, generator=generator).requires_grad_(True)
    matrices = torch.randn(n_atoms, 4, 5, generator=generator).requires_grad_(True)

    def multiply(rows, matrices):
        return times(rows, matrices, runs, transposed=transposed)

    factors = matrices.transpose(1, 2) if transposed else matrices
    expected = torch.cat([r @ m for r, m in zip(by_atom(rows, runs), factors, strict=True)])
    torch.testing.assert_close(multiply(rows, matrices), expected)
    assert torch.autograd.gradcheck(multiply, (rows, matrices))
    assert torch.autograd.gradgradcheck(multiply, (rows, matrices))


@pytest.mark.parametrize("runs", [[(3, 2)], [(2, 3), (1, 0), (2, 1)]])
def test_outer_products_summed_by_atom(runs):
    generator = torch.Generator().manual_seed(0)
    n_rows = sum(n * width for n, width in runs)
    left = torch.randn(n_rows, 4, generator=generator).requires_grad_(True)
    right = torch.randn(n_rows, 5, generator=generator).requires_grad_(True)
    pairs = zip(by_atom(left, runs), by_atom(right, runs), strict=True)
    expected = torch.stack([a.t() @ b for a, b in pairs])
    torch.testing.assert_close(outer(left, right, runs), expected)
    assert torch.autograd.gradcheck(lambda a, b: outer(a, b, runs), (left, right))
    assert torch.autograd.gradgradcheck(lambda a, b: outer(a, b, runs), (left, right))


def test_messages_reach_their_receivers():
    first, second = torch.tensor([0, 0, 2, 1]), torch.tensor([1, 2, 0, 0])
    distances = torch.ones(4)
    found = Pairs.of(PairList(first, second, distances, None, 3, 3), tensor_order=0)
    labels = torch.tensor([[10.0], [20.0], [30.0], [40.0]])  # one per pair
    received = found.sent_to_received(found.senders.fill(labels))
    assert received.view(3, 2).tolist() == [[10, 20], [40, 0], [30, 0]]


def test_quadrupole_components_have_the_norm_of_the_tensor():
    vectors = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    distances = vectors.norm(dim=1)
    unit = vectors / distances.unsqueeze(1)
    tensors = unit.unsqueeze(2) * unit.unsqueeze(1) - torch.eye(3) / 3
    components = tensor_components(distances, vectors, 2)[:, 4:]
    weights = torch.randn(6, generator=torch.Generator().manual_seed(1))
    summed = (weights[:, None, None] * tensors).sum(dim=0)
    torch.testing.assert_close(weights @ components @ (weights @ components), summed.square().sum())
