"""Models that come with the package are found by name, by the library and by every command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh

import nepa3d
from nepa3d.experiments import evaluate
from nepa3d.models import stored
from nepa3d.models.embedding import ProbeRequest, open_probe
from nepa3d.models.stored import built_in, read_model
from nepa3d.probes.embedding import untrained


@pytest.fixture
def package(golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that comes with a model ``tiny``, and with a folder that is none."""
    monkeypatch.setattr(stored, "PRETRAINED", tmp_path / "pretrained")
    nepa3d.load(golden / "nepa_qa.pt", device="cpu").save(tmp_path / "pretrained" / "tiny")
    (tmp_path / "pretrained" / "notes").mkdir()
    return tmp_path


def test_a_model_of_the_package_is_loaded_by_its_name(package: Path, golden: Path) -> None:
    assert built_in() == ["tiny"]
    box = nepa3d.Shape.from_mesh(trimesh.creation.box((1, 2, 3)))
    same = nepa3d.load(golden / "nepa_qa.pt", device="cpu").embed(box)
    np.testing.assert_array_equal(nepa3d.load("tiny", device="cpu").embed(box), same)


def test_a_path_is_not_taken_for_a_name(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(package)
    nepa3d.load("tiny", device="cpu").save("tiny")
    (package / "tiny" / "model.safetensors").unlink()
    assert read_model("tiny").checkpoint.path == "tiny"
    with pytest.raises(ValueError, match=r"tiny/model\.safetensors: there is no such file"):
        read_model("./tiny")


def test_what_is_not_there_is_told_with_the_names_there_are(package: Path) -> None:
    with pytest.raises(ValueError, match=r"large: expected a checkpoint, a folder .* package's models \(tiny\)"):
        read_model("large")


def test_probes_take_the_name_and_make_its_untrained_twin(package: Path) -> None:
    for ckpt in ("tiny", f"{package / 'pretrained' / 'tiny'}"):
        probe = open_probe(ProbeRequest(ckpt, device="cpu"))
        fresh = untrained(probe, 0)
        assert fresh.model.state_dict().keys() == probe.model.state_dict().keys()
        assert not np.array_equal(fresh.model.pred_head.weight.detach(), probe.model.pred_head.weight.detach())
    assert open_probe(ProbeRequest("tiny", device="cpu")).ckpt == "tiny"


def test_the_matrix_takes_the_name(package: Path) -> None:
    names = {job.name for job in evaluate.plan(evaluate.Config(ckpts=(Path("tiny"),)))}
    assert "ucpr_tiny_mesh2udf" in names
    with pytest.raises(ValueError, match=r"ckpts: there is no large"):
        evaluate.plan(evaluate.Config(ckpts=(Path("large"),)))
