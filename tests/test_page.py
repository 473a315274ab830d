"""The page of a campaign: what it says, that it is text, and that a browser sorts and shows it."""

import json
import re
import shutil
import subprocess

import matplotlib.image
import pytest
from made_predictions import predicted_run
from made_runs import exit_code, heldout_errors, make_run, make_settings, run_metrics, write_run

from hippynn_mf.runs.folder import RunFolder

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]
VERSIONS = {"versions": {"torch": "2.99.1"}, "device_used": "cpu"}


def tz(energy, force):
    return run_metrics({"wb97x_tz": heldout_errors(energy, force)})


def add_epochs(folder, best):
    records = [{"epoch": n, "valid": {"energy_rmse.wb97x_tz": 4.0 - n}} for n in range(4)]
    with folder.file("epochs.jsonl").open("w") as stream:
        for n, record in enumerate(records):
            stream.write(json.dumps(record | {"best": n <= best}) + "\n")


@pytest.fixture
def campaign(tmp_path):
    """Three seeds of two experiments, a run that failed and one that has begun."""
    for seed in range(3):
        energies = {"SF-TZ/E": 2.0 + seed, "MF-DZ/EF-TZ/E": 10.5 + seed}
        for name, energy in energies.items():
            folder = make_run(tmp_path, name, seed, tz(energy, 9.0 - seed), VERSIONS)
        make_run(tmp_path, "SF-TZ/EF", seed, tz(0.5 + seed, 3.0), VERSIONS)
    add_epochs(folder, 2)
    failed = make_run(tmp_path, "SF-DZ/E", 0, None)
    failed.write_failure("The <script>alert('loss')</script> is NaN & more.")
    make_run(tmp_path, "SF-DZ/E", 1, None)
    return tmp_path


def page_of(out, capsys):
    assert exit_code("report", out) == 0
    path = out / "report.html"
    assert str(path) in capsys.readouterr().out
    return path


def rows_of(html, table):
    """The cells of a table by their text, without its heading."""
    body = html.split(f'<table id="{table}">')[1].split("<tbody>")[1].split("</tbody>")[0]
    return [
        [re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)]
        for row in re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)
    ]


def test_the_page_tells_what_ran_what_it_kept_and_what_failed(campaign, capsys):
    html = page_of(campaign, capsys).read_text()
    runs = {(row[0], row[1]): row for row in rows_of(html, "all-runs")}
    assert len(runs) == 11
    assert runs["SF-TZ/E", "1"][3] == "finished"
    assert runs["SF-DZ/E", "0"][3] == "failed"
    assert runs["SF-DZ/E", "1"][3] == "unfinished"
    assert runs["MF-DZ/EF-TZ/E", "2"][4] == "3 of 4"
    (failure,) = rows_of(html, "failed-runs")
    assert failure[:2] == ["SF-DZ/E", "0"]
    settings = make_settings("SF-TZ/E")
    files = {row[0]: row[1:] for row in rows_of(html, "files")}
    assert files["training, held-out"][:2] == ["made.h5", settings.data.sha256]
    assert files["COMP6"] == ["comp6.h5", settings.tests[0].sha256, "100"]
    assert ["torch", "2.99.1"] in rows_of(html, "versions")
    assert ["max_epochs", "80"] in rows_of(html, "settings-of-runs")
    assert ["TZ", "wb97x_tz", "ωB97X/def2-TZVPP", "20"] in rows_of(html, "levels")


def test_tables_and_findings_are_those_of_the_documents(campaign, capsys):
    html = page_of(campaign, capsys).read_text()
    rows = {row[0]: row for row in rows_of(html, "table2-0")}
    assert rows["SF-TZ/E"][1:3] == ["3", "3.00 ± 2.48"]
    assert "Partial. Missing: MF-DZ/E-TZ/E, seeds 0, 1, 2" in html
    findings = rows_of(html, "findings-0")
    assert any(row[1:3] == ["MF-DZ/EF-TZ/E", "SF-TZ/E"] for row in findings)
    assert 'id="table3' not in html  # of which no run is there


def test_whatever_a_run_says_is_text(campaign, capsys):
    html = page_of(campaign, capsys).read_text()
    assert "&lt;script&gt;alert(&#39;loss&#39;)&lt;/script&gt; is NaN &amp; more." in html
    assert "<script>alert" not in html


def test_the_page_needs_nothing_beside_itself(tmp_path, capsys):
    for seed in range(3):
        folder = predicted_run(tmp_path, "MF-DZ/EF-CC/E", seed)
        with folder.file("epochs.jsonl").open("w") as stream:
            names = [f"energy_rmse.{level}" for level in ("wb97x_dz", "ccsd(t)_cbs")]
            valid = dict.fromkeys([*names, "force_rmse.wb97x_dz"], 1.0)
            stream.write(json.dumps({"epoch": 0, "valid": valid, "best": True}) + "\n")
    html = page_of(tmp_path, capsys).read_text()
    images = re.findall(r'<img src="([^"]*)"', html)
    assert len(images) == 3  # parity, spread, learning
    assert all(image.startswith("data:image/png;base64,") for image in images)
    assert not re.findall(r'(?:src|href)="(?!data:|#)', html)


def test_a_campaign_of_which_nothing_is_finished_has_a_page(tmp_path, capsys):
    make_run(tmp_path, "SF-DZ/E", 0, None)
    html = page_of(tmp_path, capsys).read_text()
    assert "0 of 1 runs are finished." in html
    assert "1 not finished" in html


def test_every_split_has_tables_of_its_own(tmp_path, capsys):
    for split, energy in [(0, 1.0), (5, 7.0)]:
        for seed in range(2):
            settings = make_settings("SF-TZ/E", seed, split_seed=split)
            folder = RunFolder(tmp_path / "runs" / f"split-{split}" / f"seed-{seed}")
            write_run(folder, settings, tz(energy + seed, 2.0))
    html = page_of(tmp_path, capsys).read_text()
    for split, mean in [(0, "1.50 (1.00 to 2.00)"), (5, "7.50 (7.00 to 8.00)")]:
        ((name, n, found, *_),) = rows_of(html, f"split-{split}-table2-0")
        assert (name, n, found) == ("SF-TZ/E", "2", mean)
    ((name, n, found, *_),) = rows_of(html, "table2-0")
    assert (name, n, found) == ("SF-TZ/E", "2 × 2", "4.50 (1.50 to 7.50)")
    assert "Table 2, mean over splits" in html
    assert exit_code("tables", tmp_path, "--partial", "--split-seed", "5") == 0
    assert "7.50 (7.00 to 8.00)" in capsys.readouterr().out


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
class TestInABrowser:
    @staticmethod
    def browse(tmp_path, *arguments):
        profile = tmp_path / "profile"
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)

    def column(self, tmp_path, path, query, table, place):
        html = self.browse(tmp_path, "--dump-dom", f"file://{path}{query}").stdout
        return [row[place] for row in rows_of(html, table)]

    def test_a_table_sorts_by_numbers_and_back(self, campaign, tmp_path, capsys):
        path = page_of(campaign, capsys)
        original = self.column(tmp_path, path, "", "table2-0", 0)
        assert original == ["SF-TZ/E", "SF-TZ/EF", "MF-DZ/EF-TZ/E"]
        once = self.column(tmp_path, path, "?sort=table2-0.2", "table2-0", 2)
        assert [float(text.split()[0]) for text in once] == [1.5, 3.0, 11.5]  # not as texts
        twice = "?sort=table2-0.2&sort=table2-0.2"
        back = self.column(tmp_path, path, twice, "table2-0", 2)
        assert [float(text.split()[0]) for text in back] == [11.5, 3.0, 1.5]

    def test_missing_values_stand_last_however_it_sorts(self, campaign, tmp_path, capsys):
        path = page_of(campaign, capsys)
        for n in (1, 2):
            query = "?" + "&".join(["sort=all-runs.4"] * n)
            kept = self.column(tmp_path, path, query, "all-runs", 4)
            assert kept[0] == "3 of 4"
            assert set(kept[1:]) == {"—"}

    def test_a_screenshot_shows_something(self, campaign, tmp_path, capsys):
        path = page_of(campaign, capsys)
        image = tmp_path / "page.png"
        size = "--window-size=1200,1400"
        self.browse(tmp_path, f"--screenshot={image}", size, f"file://{path}")
        pixels = matplotlib.image.imread(image)
        assert pixels.shape[:2] == (1400, 1200)
        dark = (pixels[..., :3] < 0.5).any(axis=2)
        assert 0.01 < dark.mean() < 0.5
        rows = dark.any(axis=1)
        assert rows[:700].mean() > 0.2  # text from the top down
        assert rows[700:].mean() > 0.2
