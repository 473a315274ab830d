"""Sites of Parsl, and engines that do not go together with options."""

import runpy
from pathlib import Path

import pytest
from made_runs import exit_code
from parsl.providers import LocalProvider, SlurmProvider

from hippynn_mf.campaign.engines import LocalPool, ParslSite, read_site
from hippynn_mf.errors import UserError
from hippynn_mf.starting import available_cores

SITES = Path(__file__).parents[1] / "scripts" / "sites"


def test_every_example_of_a_site_is_one():
    examples = sorted(SITES.glob("*.py"))
    assert [path.name for path in examples] == ["gpu_node.py", "slurm_gpus.py"]
    for path in examples:
        (executor,) = read_site(path).executors
        n_gpus = runpy.run_path(str(path))["N_GPUS"]
        assert executor.available_accelerators == [str(gpu) for gpu in range(n_gpus)]
        assert executor.max_workers_per_node == n_gpus
        assert executor.heartbeat_period <= 15  # so that a killed worker is replaced soon
        assert f"--site {path.name}" in path.read_text()


def test_the_cluster_respects_its_walltime():
    (executor,) = read_site(SITES / "slurm_gpus.py").executors
    assert isinstance(executor.provider, SlurmProvider)
    hours, minutes, seconds = map(int, executor.provider.walltime.split(":"))
    assert executor.drain_period == hours * 3600 + minutes * 60 + seconds - 3600
    assert executor.provider.gpus_per_node == len(executor.available_accelerators)


def test_local_workers_are_as_many_as_asked_for_and_have_a_gpu_each(tmp_path):
    config = ParslSite(n_workers=3, gpus=("0", "1", "2"))._local_config(tmp_path)
    (executor,) = config.executors
    assert executor.max_workers_per_node == 3
    assert executor.available_accelerators == ["0", "1", "2"]
    assert isinstance(executor.provider, LocalProvider)
    assert config.run_dir == str(tmp_path / "parsl")


@pytest.mark.parametrize("make", [LocalPool, lambda n: ParslSite(n_workers=n)])
def test_workers_share_the_cores(make, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert make(1).n_threads == available_cores()
    assert make(10_000).n_threads == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "3")  # who limits threads has other use for the cores
    assert make(1).n_threads == make(10_000).n_threads == 3
    assert ParslSite(SITES / "slurm_gpus.py").n_threads is None  # as the machine there has


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"No file .*site\.py\. Examples of sites are under scripts/sites/"),
        ("", "should define `config`, a parsl.Config; found NoneType"),
        ("config = 3", "found int"),
        ("import nothing_of_this_name", r"site\.py failed: ModuleNotFoundError: No module named"),
        ("config = (", r"site\.py failed: SyntaxError"),
    ],
)
def test_what_is_no_site_is_refused(tmp_path, text, message):
    path = tmp_path / "site.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_site(path)


@pytest.mark.parametrize("options", [["--engine", "pool"], ["--workers", "2"]])
def test_a_site_does_not_go_together_with_local_options(tmp_path, capsys, options):
    out = tmp_path / "out"
    site = SITES / "gpu_node.py"
    assert exit_code("campaign", "--out", out, "--site", site, *options) == 2
    assert "--site says where and how to run; leave --engine" in capsys.readouterr().err
    assert not out.exists()


def test_without_parsl_the_pool_must_be_chosen(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("hippynn_mf.campaign.engines.importlib.util.find_spec", lambda name: None)
    assert exit_code("campaign", "--out", tmp_path / "out", "--site", SITES / "gpu_node.py") == 2
    assert "Parsl is not installed here; install it, or choose --engine pool" in (
        capsys.readouterr().err
    )
