import matplotlib.image
import pytest
import torch
from hippynn.graphs.nodes.inputs import PositionsNode, SpeciesNode
from made_runs import exit_code, make_run
from matplotlib.text import Annotation
from tiny import tiny_model

import hippynn_mf
from hippynn_mf.errors import UserError
from hippynn_mf.hyperparameters import get_hyperparameters
from hippynn_mf.labels import with_all_forces
from hippynn_mf.model.model import build_model
from hippynn_mf.report import draw_model_graph

SMALL = {"n_features": 6, "n_sensitivities": 5, "n_atom_layers": 1}


def heads_of(labels, **overrides):
    hyperparameters = get_hyperparameters("quick", {**SMALL, **overrides})
    return build_model(hyperparameters, hippynn_mf.parse_labels(labels)).heads


def texts_of(figure):
    return [text.get_text() for text in figure.axes[0].texts if text.get_text()]


def boxes_of(figure):
    """Text of a box → its patch."""
    return {patch.get_label(): patch for patch in figure.axes[0].patches}


def n_arrows(figure):
    return sum(isinstance(text, Annotation) for text in figure.axes[0].texts)


def test_layers_and_their_sizes_are_those_of_the_network():
    labels = {"DZ": "EF", "CC": "E"}
    heads = heads_of(labels, n_interaction_layers=3, tensor_order=1, dist_hard_max=7.5)
    texts = texts_of(draw_model_graph(heads, labels))
    assert [text for text in texts if text.startswith("n =")] == [
        "n = 0\none-hot H, C, N, O\n4 features",
        "n = 1",
        "n = 2",
        "n = 3",
    ]
    assert texts.count("interaction, ℓ = 1\n5 sensitivities") == 3
    assert texts.count("1 atom layer\n6 features") == 3
    assert "pairs of atoms,\nr < 7.5 Å" in texts
    linear = [text for text in texts if text.startswith("linear")]
    assert [text.split("\n")[0] for text in linear] == 2 * ["linear 4 → 1", *["linear 6 → 1"] * 3]
    assert texts.count("+") == 2 * 3
    assert texts.count("=") == 2


def test_parameters_are_counted():
    labels = {"DZ": "EF", "TZ": "E", "CC": "E"}
    model = build_model(get_hyperparameters("paper"), hippynn_mf.parse_labels(labels))
    count = sum(parameter.numel() for parameter in model.parameters.parameters())
    texts = texts_of(draw_model_graph(model.heads, labels))
    assert f"{count:,} parameters:\n575,120 of the trunk,\n246 of each head" in texts
    assert count == 575_120 + 3 * 246
    assert "MF-DZ/EF-TZ/E-CC/E" in texts


def test_trained_forces_are_solid_and_others_dashed_whatever_the_model_predicts():
    labels = hippynn_mf.parse_labels({"DZ": "EF", "CC": "E"})
    heads = heads_of(with_all_forces(labels))  # as a model that is evaluated
    boxes = boxes_of(draw_model_graph(heads, labels))
    assert boxes["DZ forces"].get_linestyle() == "-"
    assert boxes["CC forces\nnot trained"].get_linestyle() == "--"
    assert {boxes[f"{label} energy"].get_linestyle() for label in ("DZ", "CC")} == {"-"}


def test_a_network_of_stock_hippynn_in_a_plain_script_is_drawn():
    from hippynn.graphs.nodes.networks import Hipnn

    inputs = SpeciesNode(db_name="species"), PositionsNode(db_name="positions")
    arguments = get_hyperparameters("quick", SMALL).network_arguments()
    labels = {"TZ": "EF"}
    heads = hippynn_mf.build_heads(Hipnn("hipnn", inputs, module_kwargs=arguments), labels)
    texts = texts_of(draw_model_graph(heads, labels))
    assert "interaction, ℓ = 0\n5 sensitivities" in texts
    assert any(text.endswith("of the head") for text in texts)


def test_labels_of_other_levels_than_the_heads_are_refused():
    heads = heads_of({"DZ": "EF", "CC": "E"})
    with pytest.raises(UserError, match=r"labels are of \['wb97x_dz'\], the heads of \['wb97x_dz'"):
        draw_model_graph(heads, {"DZ": "EF"})


def test_other_trunks_than_hip_nn_are_refused(monkeypatch):
    heads = heads_of({"DZ": "E"})
    monkeypatch.setattr(heads.network, "torch_module", torch.nn.Linear(2, 2))
    with pytest.raises(UserError, match="Only HIP-NN networks can be drawn, not Linear"):
        draw_model_graph(heads, {"DZ": "E"})


def test_the_command_draws_experiments_and_run_folders(tmp_path, capsys):
    path = tmp_path / "new" / "graph.png"
    assert exit_code("graph", "MF-DZ/EF-CC/E", "--out", path, "--set", "n_features=7") == 0
    assert capsys.readouterr().out == f"{path}\n"
    pixels = matplotlib.image.imread(path)
    assert 0.005 < (pixels[..., :3] < 0.5).any(axis=2).mean() < 0.5
    folder = make_run(tmp_path, "SF-TZ/E", 0, None)
    assert exit_code("graph", folder.path, "--out", tmp_path / "run.png") == 0
    assert matplotlib.image.imread(tmp_path / "run.png").shape[0] < pixels.shape[0]  # one head


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("MF-DZ/EF-CC", "--out", "x.png"), "Unknown experiment 'MF-DZ/EF-CC'"),
        (("SF-CC/E", "--out", "x.pdf"), "name a file *.png, not x.pdf"),
        (("SF-CC/E", "--out", "x.png", "--set", "n_feature=3"), "Did you mean n_features"),
        (("SF-CC/E", "--out", "x.png", "--preset", "papers"), "Unknown preset 'papers'"),
    ],
)
def test_wrong_input_of_the_command(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert exit_code("graph", *arguments) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_run_folder_has_hyperparameters_of_its_own(tmp_path, capsys):
    folder = make_run(tmp_path, "SF-TZ/E", 0, None)
    options = ["--out", tmp_path / "x.png", "--preset", "paper"]
    assert exit_code("graph", folder.path, *options) == 2
    assert "leave --preset and --set out" in capsys.readouterr().err


def test_a_coupled_head_gets_the_energy_above_it():
    labels = {"DZ": "EF", "CC": "E"}
    coupled, independent = (
        draw_model_graph(tiny_model(labels, coupling=coupling).heads, labels)
        for coupling in ("delta", "independent")
    )
    assert "MFC-DZ/EF-CC/E" in texts_of(coupled)
    assert "MF-DZ/EF-CC/E" in texts_of(independent)
    assert texts_of(coupled).count("+") == texts_of(independent).count("+") + 1
    assert n_arrows(coupled) == n_arrows(independent) + 1


def test_the_graph_of_a_strategy_has_its_heads_and_name(tmp_path, capsys):
    path = tmp_path / "x.png"
    assert exit_code("graph", "TL-DZ/EF-CC/E", "--out", path) == 0
    assert path.exists()
    assert exit_code("graph", "DELTA-DZ/EF-CC/E", "--out", tmp_path / "y.png") == 2
    assert "has two networks; the picture shows one" in capsys.readouterr().err
