"""States worked out in pieces are those of one plain forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from nepa3d.corpora.shape_list import list_shapes
from nepa3d.models import embedding
from nepa3d.models.embedding import Pooling, Probe, ProbeRequest, hidden_states, open_probe, pool, pooled_states
from nepa3d.samples.dataset import SampleSettings
from nepa3d.samples.loader import Request, evaluation_batch


@pytest.fixture
def threads() -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)


def probed(backend: str, count: int, ckpt: str = "nepa_qa.pt") -> tuple[Probe, np.ndarray, np.ndarray]:
    probe = open_probe(ProbeRequest(ckpt, device="cpu"))
    settings = SampleSettings(probe.n_point, probe.n_ray, qa=probe.qa, eos=probe.eos)
    paths = list_shapes("unpaired", "eval")[:count]
    return probe, *evaluation_batch([Request(path, backend, settings) for path in paths], 0)


def plain(probe: Probe, features: np.ndarray, types: np.ndarray) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        _, z_hat, h = probe.model(torch.from_numpy(features), torch.from_numpy(types))
    return {"h": h, "z_hat": z_hat}


@pytest.mark.parametrize("representation", ["h", "z_hat"])
@pytest.mark.parametrize(("count", "piece_tokens"), [(1, 4096), (2, 4096), (7, 120), (12, 1), (11, 4096)])
def test_pieces_are_the_whole(
    count: int, piece_tokens: int, representation: str, golden: Path, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "PIECE_TOKENS", piece_tokens)
    probe, features, types = probed("mesh", count)
    expected = plain(probe, features, types)[representation]
    found = hidden_states(probe, features, types, representation)  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected)
    wanted = np.array([2, 3, 17])
    some = hidden_states(probe, features, types, representation, wanted)  # type: ignore[arg-type]
    torch.testing.assert_close(some, expected[:, wanted])
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("pooling", get_args(Pooling))
@pytest.mark.parametrize("backend", ["mesh", "udfgrid"])  # the latter's sequences end in missing rays
def test_pooled_in_pieces(pooling: Pooling, backend: str, golden: Path, threads: int) -> None:
    probe, features, types = probed(backend, 7)
    states = plain(probe, features, types)
    for representation in states:
        found = pooled_states(probe, features, types, pooling, representation)  # type: ignore[arg-type]
        of = "z_hat" if pooling == "mean_zhat" else representation
        torch.testing.assert_close(found, pool(states[of], types, pooling))
    assert hidden_states(probe, features[:0], types[:0]).shape == (0, types.shape[1], probe.model.width)


def test_states_that_are_not_finite_are_refused(golden: Path, threads: int) -> None:
    probe, features, types = probed("mesh", 8)
    features[5, 3] = np.nan
    with pytest.raises(ValueError, match=r"nepa_qa.pt gives hidden states that are not finite"):
        hidden_states(probe, features, types)
    assert torch.get_num_threads() == threads
