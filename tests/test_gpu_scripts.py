"""What stands ready for a GPU: its check, the traced benchmark, and the counts of a step."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import hippynn
import pytest
import torch

from hippynn_mf.model import tracing

SCRIPTS = Path(__file__).parent.parent / "scripts"


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    """Import the scripts as they import each other; nothing is compiled."""
    monkeypatch.syspath_prepend(SCRIPTS)
    monkeypatch.setattr(hippynn.settings, "WARN_LOW_DISTANCES", False)
    monkeypatch.setattr(tracing, "BACKEND", "eager")


@pytest.mark.skipif(torch.cuda.is_available(), reason="is for machines without a GPU")
@pytest.mark.skipif(sys.platform == "win32", reason="is a shell script")
def test_without_a_gpu_the_check_says_so_in_one_line(tmp_path):
    found = subprocess.run(
        [SCRIPTS / "check_gpu.sh", tmp_path / "gpu.json"],
        env={"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 2
    assert found.stderr.splitlines() == [
        "No GPU: torch sees no CUDA device here, so nothing was checked."
    ]
    assert found.stdout == ""
    assert list(tmp_path.iterdir()) == []


def part(name, code, limit_s=60.0, read=lambda: 1):
    from check_gpu import Part

    return Part(name, [sys.executable, "-c", code], limit_s, read)


def test_every_part_has_an_outcome_and_none_stops_the_others(tmp_path, capsys):
    from check_gpu import check

    result = tmp_path / "result.json"
    alive = tmp_path / "alive"
    child = f"import time, pathlib; time.sleep(3); pathlib.Path({str(alive)!r}).touch()"
    parts = [
        part(
            "is too slow",
            f"import subprocess, sys; print('begun', flush=True);"
            f"subprocess.run([sys.executable, '-c', {child!r}])",
            limit_s=1.0,
        ),
        part("fails", "print('some'); raise SystemExit('why')"),
        part("writes nothing", "", read=lambda: json.loads(result.read_text())),
        part("works", "", read=lambda: {"ms": 2}),
    ]
    found = check(parts)
    assert {name: each["outcome"] for name, each in found.items()} == {
        "is too slow": "too slow",
        "fails": "failed",
        "writes nothing": "failed",
        "works": "succeeded",
    }
    assert found["fails"]["last_lines"] == ["some", "why"]
    assert found["is too slow"]["last_lines"] == ["begun"]
    assert found["is too slow"]["seconds"] < 3
    assert found["works"]["limit_s"] > 60  # what another left
    assert "FileNotFoundError" in found["writes nothing"]["reason"]
    assert found["works"]["measured"] == {"ms": 2}
    assert "works: succeeded" in capsys.readouterr().out
    assert not alive.exists()


def test_the_limits_add_up_to_eight_minutes(tmp_path):
    from check_gpu import parts

    chosen = parts("cuda", tmp_path)
    assert sum(each.limit_s for each in chosen) <= 8 * 60 - 20  # for what is around them
    assert [each.name for each in chosen] == ["tests", "epoch", "traced", "inference", "step"]
    for each in chosen[1:]:
        assert "--device" in each.command
        assert "cuda" in each.command


@pytest.mark.parametrize(
    ("tests", "skipped", "device", "is_fine"),
    [(2, 0, "cuda", True), (2, 1, "cuda", False), (0, 0, "cuda", False), (2, 2, "cpu", True)],
)
def test_tests_that_did_not_run_are_no_success(tests, skipped, device, is_fine, tmp_path):
    from check_gpu import read_tests

    path = tmp_path / "tests.xml"
    counts = f'tests="{tests}" failures="0" errors="0" skipped="{skipped}"'
    path.write_text(f"<testsuites><testsuite {counts}/></testsuites>")
    if is_fine:
        assert read_tests(path, device)["tests"] == tests
    else:
        with pytest.raises(ValueError, match="not all tests ran"):
            read_tests(path, device)


def test_the_epoch_of_a_run_is_read(tmp_path):
    from check_gpu import read_epoch

    run = tmp_path / "runs" / "any" / "seed-0"
    run.mkdir(parents=True)
    facts = {"device_used": "cuda", "interaction_used": "fast", "versions": {}}
    (run / "experiment.json").write_text(json.dumps(facts))
    epoch = {"epoch": 0, "wall_s": 2.5, "valid": {"loss": 1.0}}
    (run / "epochs.jsonl").write_text(json.dumps(epoch) + "\n")
    assert read_epoch(tmp_path) == {
        "device_used": "cuda",
        "interaction_used": "fast",
        "wall_s": 2.5,
        "valid": {"loss": 1.0},
    }
    (run / "epochs.jsonl").write_text("")
    with pytest.raises(ValueError, match="not enough values"):
        read_epoch(tmp_path)


def test_traced_steps_are_timed_beside_fast_ones():
    import benchmark_traced
    from benchmarking import Case

    case = Case(n_features=4, tensor_order=1)
    found = benchmark_traced.measure(case, 3, torch.device("cpu"), 2)
    assert found["fast_ms"] > 0
    assert found["traced_ms"] > 0
    rows = [{"case": "tiny", "n_structures": 3, **found}]
    assert benchmark_traced.table(rows).splitlines()[-1].startswith("| tiny, 3 structures | ")


def test_operations_and_bytes_are_counted():
    from count_step import count

    a, b = torch.ones(3, 4), torch.ones(4, 5)

    def function():
        return (a @ b).t().add(1.0)

    assert count(function) == {
        "product_operations": 2 * 3 * 4 * 5,
        "other_operations": 15,
        "n_operations": 2,
        "bytes": 4 * (12 + 20 + 15 + 15 + 15),
        "product_bytes": 4 * (12 + 20 + 15),
    }


def test_products_of_a_step_are_those_of_the_other_counter():
    from benchmark_step import ProductCounter, draw_batch
    from benchmark_traced import prepare, step_of
    from benchmarking import Case, network_pair, quiet
    from count_step import count_step

    case, device = Case(n_features=4), torch.device("cpu")
    fast, traced = count_step(case, 3)
    assert fast["n_atoms"] == traced["n_atoms"] == 27
    assert fast["n_pairs"] == traced["n_pairs"] <= 27 * 8
    with quiet():
        model = network_pair(case, interactions={"fast": "fast"})["fast"]
        batch = {name: a[:3] for name, a in draw_batch(case, model.heads, device).items()}
        step = step_of(*prepare(model, batch, device, "fast"))
    with ProductCounter() as counter:
        step()
    assert fast["product_operations"] == counter.operations
    assert traced["product_operations"] > fast["product_operations"]  # of what fills up


def test_the_slower_limit_binds():
    from count_step import Gpu, shortest

    counts = {
        "product_operations": 3_000_000_000,
        "other_operations": 1_000_000_000,
        "bytes": 10**9,
        "product_bytes": 10**8,
    }
    gpu = Gpu("any", fp32_tera=2.0, giga_bytes=100.0, source="")
    assert shortest(counts, gpu, is_fused=False) == (pytest.approx(10.0), "memory")
    assert shortest(counts, gpu, is_fused=True) == (pytest.approx(2.0), "operations")
