"""The model: the author's parameter names, the recorded states, causality."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nepa3d.models.checkpoint import build_model, load_checkpoint
from nepa3d.models.query_nepa import QueryNepa
from nepa3d.ops.attention import DualMask, dual_mask
from nepa3d.train.objectives import hide, mae_loss, nepa_loss


def recorded_tokens(folder: Path, checkpoint: str, backend: str) -> tuple[torch.Tensor, torch.Tensor]:
    form = "qa1" if checkpoint == "nepa_qa" else "qa0"
    with np.load(folder / "tokens.npz") as tokens:
        features = torch.from_numpy(tokens[f"{backend}_{form}_eos1_feat"][:, 0])
        types = torch.from_numpy(tokens[f"{backend}_{form}_eos1_type"][:, 0].astype(np.int64))
    return features, types


@pytest.mark.parametrize("backend", ["mesh", "udfgrid"])
@pytest.mark.parametrize("name", ["nepa_v1", "mae_v1", "nepa_qa"])
def test_recorded_states_and_losses(golden_folder: Path, name: str, backend: str) -> None:
    model = build_model(load_checkpoint(golden_folder / f"{name}.pt"))
    features, types = recorded_tokens(golden_folder, name, backend)
    masked = torch.zeros(types.shape, dtype=torch.bool)
    masked[:, 3::5] = True
    masked[:, -1] = False
    with torch.inference_mode():
        z, z_hat, h = model(features, types)
        _, guessed, _ = model(hide(features, masked), types)
    with np.load(golden_folder / "hidden.npz") as recorded:
        for key, found in (("z", z), ("zhat", z_hat), ("h", h)):
            np.testing.assert_allclose(found, recorded[f"{name}_{backend}_{key}"], atol=1e-5)
        assert nepa_loss(z, z_hat, types).item() == pytest.approx(recorded[f"{name}_{backend}_nepa"], abs=1e-5)
        assert mae_loss(z, guessed, masked).item() == pytest.approx(recorded[f"{name}_{backend}_mae"], abs=1e-5)


@pytest.mark.parametrize("name", ["nepa_v1", "nepa_qa"])
def test_parameters_are_the_authors_in_name_size_and_order(golden_folder: Path, name: str) -> None:
    saved = load_checkpoint(golden_folder / f"{name}.pt")
    model = build_model(saved)
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in saved.model.items()}
    moments = [saved.opt["state"][i]["exp_avg"].shape for i in saved.opt["param_groups"][0]["params"]]
    assert [p.shape for p in model.parameters()] == moments


def small(**changes: int) -> QueryNepa:
    torch.manual_seed(0)
    return QueryNepa(**{"d_model": 16, "n_types": 9, "nhead": 2, "num_layers": 2, "max_len": 12, **changes}).eval()


@pytest.mark.parametrize("attention_mask", [None, dual_mask(10, DualMask(0.5, 0.5, 3, 1))])
def test_no_token_sees_the_future(attention_mask: torch.Tensor | None) -> None:
    model = small()
    features = torch.randn(2, 10, 15, generator=torch.Generator().manual_seed(1))
    types = torch.zeros(2, 10, dtype=torch.long)
    changed = features.clone()
    changed[:, 6:] += 1
    with torch.inference_mode():
        _, _, before = model(features, types, attention_mask)
        _, _, after = model(changed, types, attention_mask)
    torch.testing.assert_close(before[:, :6], after[:, :6])
    assert (before[:, 6:] - after[:, 6:]).abs().amax(-1).min() > 1e-3


@pytest.mark.parametrize("attention_mask", [None, dual_mask(10, DualMask(0.5, 0.5, 3, 1))])
def test_wanted_tokens_are_those_of_the_whole(attention_mask: torch.Tensor | None) -> None:
    model = small()
    features = torch.randn(2, 10, 15, generator=torch.Generator().manual_seed(1))
    types = torch.zeros(2, 10, dtype=torch.long)
    wanted = torch.tensor([1, 4, 9])
    with torch.inference_mode():
        _, z_hat, h = model(features, types, attention_mask)
        _, some, states = model(features, types, attention_mask, None, wanted)
    torch.testing.assert_close(states, h[:, wanted])
    torch.testing.assert_close(some[:, wanted], z_hat[:, wanted])
    some = some.clone()
    some[:, wanted] = 0
    assert not some.any()


def test_sizes_are_checked() -> None:
    with pytest.raises(ValueError, match="d_model must be a multiple of the number of heads, got 16 and 3"):
        small(nhead=3)
    with pytest.raises(ValueError, match="at most 12 tokens, got 13"):
        small()(torch.zeros(1, 13, 15), torch.zeros(1, 13, dtype=torch.long))
