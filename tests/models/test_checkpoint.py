"""Checkpoint files: the author's load, ours round-trip, damaged and unsafe ones are refused by name."""

from __future__ import annotations

import os
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nepa3d.models.checkpoint import (
    build_model,
    load_checkpoint,
    load_optimizer,
    load_weights,
    save_checkpoint,
)
from nepa3d.models.classifier import Classifier
from nepa3d.models.encoder import load


@pytest.mark.parametrize("name", ["nepa_v1", "mae_v1", "nepa_qa"])
def test_round_trip_of_the_authors(golden_folder: Path, tmp_path: Path, name: str) -> None:
    saved = load_checkpoint(golden_folder / f"{name}.pt")
    assert (saved.epoch, saved.step) == (3, 64)
    save_checkpoint(tmp_path / "a.pt", saved)
    again = load_checkpoint(tmp_path / "a.pt")
    assert again.args == saved.args
    assert all(torch.equal(again.model[key], value) for key, value in saved.model.items())
    assert sorted(torch.load(tmp_path / "a.pt", weights_only=True)) == [
        "args",
        "epoch",
        "model",
        "opt",
        "scaler",
        "step",
    ]


def test_files_that_are_none(tmp_path: Path, golden_folder: Path) -> None:
    whole = (golden_folder / "nepa_v1.pt").read_bytes()
    for name, content in {"empty": b"", "text": b"weights", "half": whole[: len(whole) // 2]}.items():
        path = tmp_path / f"{name}.pt"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}.pt: not a readable checkpoint"):
            load_checkpoint(path)
    with pytest.raises(ValueError, match=r"missing.pt: there is no such checkpoint file"):
        load_checkpoint(tmp_path / "missing.pt")


def test_no_truncation_and_no_flipped_bit_gets_through(tmp_path: Path, golden_folder: Path) -> None:
    whole = (golden_folder / "nepa_v1.pt").read_bytes()
    expected = load_checkpoint(golden_folder / "nepa_v1.pt").model
    path = tmp_path / "a.pt"
    for i in range(16):
        path.write_bytes(whole[: i * len(whole) // 16])
        with pytest.raises(ValueError, match=r"a.pt: not a readable checkpoint"):
            load_checkpoint(path)
    refused = 0
    for i in range(100):
        damaged = bytearray(whole)
        damaged[i * len(whole) // 100] ^= 1 << i % 8
        path.write_bytes(damaged)
        try:
            found = load_checkpoint(path).model
        except ValueError as error:
            assert "a.pt: not a readable checkpoint" in str(error)
            refused += 1
        else:  # the bit was padding
            assert all(torch.equal(found[key], value) for key, value in expected.items())
    assert refused > 90


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, golden_folder: Path) -> None:
    saved = load_checkpoint(golden_folder / "nepa_v1.pt")
    path = tmp_path / "last.pt"
    save_checkpoint(path, replace(saved, step=1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match=r"writing a checkpoint of \d+ bytes: '.*last.pt'"):
            save_checkpoint(path, saved)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load_checkpoint(path).step == 1
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (f"{self.path}",)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    torch.save({"model": Canary(tmp_path / "ran")}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match=r"evil.pt: not a readable checkpoint"):
        load_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


def test_other_content(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match=r"list.pt: expected a dict, got list"):
        load_checkpoint(tmp_path / "list.pt")
    torch.save({"model": {}, "opt": {}, "args": {}, "epoch": "3"}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a.pt: expected epoch to be a int, got str"):
        load_checkpoint(tmp_path / "a.pt")
    torch.save({"model": {"pos_emb": 1}, "opt": {}, "args": {}, "epoch": 3, "step": 1}, tmp_path / "b.pt")
    with pytest.raises(ValueError, match=r"b.pt: expected model.pos_emb to be a tensor, got int"):
        load_checkpoint(tmp_path / "b.pt")


@pytest.mark.parametrize("args", [{"ckpt": "runs/a/last.pt"}, {"ckpt": ""}, {}, "lost"])
@pytest.mark.parametrize("more", [{}, {"opt": {}, "epoch": 3}, {"opt": {"state": {}}, "scaler": None, "epoch": 1}])
def test_a_fine_tuned_classifier_is_named(
    more: dict[str, Any], args: object, golden_folder: Path, tmp_path: Path
) -> None:
    """last.pt, best.pt and state.pt of a fine-tuning have other parts, and its model a head."""
    model = Classifier(build_model(load_checkpoint(golden_folder / "nepa_v1.pt")), 3)
    torch.save({"model": model.state_dict(), "args": args, **more}, tmp_path / "last.pt")
    wanted = "a pretrained checkpoint"
    if isinstance(args, dict) and args.get("ckpt"):
        wanted = "the pretrained checkpoint that it was made of, runs/a/last.pt"
    for path in (tmp_path / "last.pt", tmp_path):
        with pytest.raises(
            ValueError,
            match=rf"last\.pt: is a classifier that nepa3d finetune made, for nepa3d classify: give {wanted}$",
        ):
            load(path)


def test_weights_that_do_not_fit_are_listed(golden_folder: Path) -> None:
    saved = load_checkpoint(golden_folder / "nepa_v1.pt")
    model = build_model(saved)
    state = dict(saved.model)
    del state["pred_head.bias"]
    state["extra"] = torch.zeros(1)
    state["pos_emb"] = state["pos_emb"][:, :7]
    with pytest.raises(ValueError, match=r"pred_head.bias is missing; extra is unexpected; pos_emb: expected \(1, 50"):
        load_weights(model, replace(saved, model=state))


def test_a_foreign_checkpoint(golden_folder: Path) -> None:
    saved = load_checkpoint(golden_folder / "nepa_v1.pt")
    with pytest.raises(ValueError, match="not a QueryNepa checkpoint, it lacks pos_emb"):
        build_model(replace(saved, model={"conv.weight": torch.zeros(1)}))


def test_sizes_that_tell_no_model(golden_folder: Path) -> None:
    saved = load_checkpoint(golden_folder / "nepa_v1.pt")
    for key in ("pos_emb", "type_emb.weight", "token_mlp.0.weight", "backbone.enc.layers.0.linear1.weight"):
        with pytest.raises(ValueError, match=rf"nepa_v1.pt: expected {key} to have \d axes, got shape \(1,\)"):
            build_model(replace(saved, model={**saved.model, key: torch.zeros(1)}))
    with pytest.raises(ValueError, match=r"nepa_v1.pt: expected args.heads to be a whole number, got None"):
        build_model(replace(saved, args={}))


def test_an_optimiser_state_of_other_parameters(golden_folder: Path) -> None:
    saved = load_checkpoint(golden_folder / "nepa_v1.pt")
    optimizer = torch.optim.AdamW(build_model(saved).parameters())
    swapped = {**saved.opt["state"], 0: saved.opt["state"][1], 1: saved.opt["state"][0]}
    with pytest.raises(ValueError, match=r"nepa_v1.pt: opt.state\[0\]: expected \(1, 50, 32\), got \(5, 32\)"):
        load_optimizer(optimizer, replace(saved, opt={**saved.opt, "state": swapped}))
    with pytest.raises(ValueError, match=r"nepa_v1.pt: opt does not fit the optimiser: .*param_groups"):
        load_optimizer(optimizer, replace(saved, opt={}))
