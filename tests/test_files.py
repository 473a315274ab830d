import numpy as np
import pytest

from hippynn_mf.files import replace_when_complete, write_npz


def test_a_file_appears_under_its_name_when_the_block_is_done(tmp_path):
    path = tmp_path / "metrics.json"
    with replace_when_complete(path) as partial:
        partial.write_text("new")
        assert not path.exists()
        assert partial.parent == tmp_path  # os.replace is atomic on one file system only
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def write_half(path, error):
    with replace_when_complete(path) as partial:
        partial.write_text("half")
        raise error


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failing_block_leaves_the_old_file_and_no_partial_one(tmp_path, error):
    path = tmp_path / "metrics.json"
    path.write_text("old")
    with pytest.raises(error):
        write_half(path, error)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failing_block_makes_no_new_file(tmp_path):
    with pytest.raises(RuntimeError):
        write_half(tmp_path / "new.txt", RuntimeError)
    assert not list(tmp_path.iterdir())


def test_a_block_that_writes_nothing_is_an_error_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "old.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), replace_when_complete(path):
        pass
    assert path.read_text() == "old"


def test_arrays_are_read_back_without_pickle_under_their_dotted_names(tmp_path):
    arrays = {"heldout.ccsd(t)_cbs.energy": np.array([1.5, np.nan]), "rows": np.arange(3)}
    write_npz(tmp_path / "predictions.npz", arrays)
    with np.load(tmp_path / "predictions.npz", allow_pickle=False) as stored:
        assert set(stored) == set(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(stored[name], array)
            assert stored[name].dtype == array.dtype


def test_a_failure_while_arrays_are_written_keeps_the_old_arrays(tmp_path, monkeypatch):
    path = tmp_path / "split.npz"
    write_npz(path, {"train": np.arange(3)})

    def full_disk(stream, **arrays):
        stream.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_npz(path, {"train": np.arange(9)})
    assert list(tmp_path.iterdir()) == [path]
    with np.load(path) as stored:
        assert len(stored["train"]) == 3
