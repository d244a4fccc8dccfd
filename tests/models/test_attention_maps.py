"""Attention weights: those the model uses, and what is made of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nepa3d.models.attention_maps import attention_maps, attention_weights
from nepa3d.models.causal_transformer import SelfAttention
from nepa3d.models.query_nepa import QueryNepa
from nepa3d.samples.schema import FEATURE_DIM
from tests.models.test_architecture import PLAIN, sequence
from tests.models.test_architecture import model as architecture_model


def test_the_weights_are_those_of_the_layer() -> None:
    torch.manual_seed(0)
    layer = SelfAttention(24, 3)
    x = torch.randn(2, 11, 24)
    weights = attention_weights(layer, x)
    assert weights.shape == (2, 3, 11, 11)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 3, 11))
    assert not weights.triu(1).any()
    values = torch.nn.functional.linear(x, layer.in_proj_weight, layer.in_proj_bias)[..., 48:]
    joined = (weights @ values.unflatten(-1, (3, 8)).transpose(1, 2)).transpose(1, 2).flatten(-2)
    assert torch.allclose(layer.out_proj(joined), layer(x, None), atol=1e-6)


def test_a_map_a_layer() -> None:
    torch.manual_seed(0)
    model = QueryNepa(d_model=16, nhead=2, num_layers=3, max_len=12).eval()
    features = np.random.default_rng(0).normal(size=(12, FEATURE_DIM)).astype(np.float32)
    maps = attention_maps(model, features, np.zeros(12, np.int64))
    assert len(maps) == 3
    for found in maps:
        assert found.weights.shape == (12, 12) and found.reach.shape == (2,)
        np.testing.assert_allclose(found.weights.sum(1), 1, atol=1e-6)
    assert not model.backbone.enc.layers[0].self_attn._forward_pre_hooks


def test_an_even_look_reaches_half_way_back() -> None:
    model = QueryNepa(d_model=8, nhead=2, num_layers=1, max_len=9).eval()
    torch.nn.init.zeros_(model.backbone.enc.layers[0].self_attn.in_proj_weight)
    (found,) = attention_maps(model, np.zeros((9, FEATURE_DIM), np.float32), np.zeros(9, np.int64))
    assert found.reach.tolist() == pytest.approx([2.0, 2.0])  # mean of i / 2 over i = 0 ... 8
    np.testing.assert_allclose(found.weights, np.tri(9) / np.arange(1, 10)[:, None], atol=1e-6)


def test_weights_are_those_that_the_layer_uses() -> None:
    """Of a model with keys, a kernel and a prefix: the mixed values are the layer's own."""
    made = architecture_model(prefix_attention=True, interpolation=True)
    features, types = sequence(PLAIN)
    seen: list[tuple[torch.Tensor, ...]] = []
    layer = made.backbone.enc.layers[1].self_attn
    layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    outputs: list[torch.Tensor] = []
    layer.register_forward_hook(lambda *call: outputs.append(call[2]))
    with torch.no_grad():
        made(features, types)
        x, mask, _, places = seen[0]
        weights = attention_weights(layer, x, mask, places)
        value = torch.nn.functional.linear(x, layer.in_proj_weight, layer.in_proj_bias).chunk(3, -1)[2]
        mixed = weights @ value.unflatten(-1, (layer.nhead, -1)).transpose(1, 2)
        expected = layer.out_proj(mixed.transpose(1, 2).flatten(-2))
    torch.testing.assert_close(outputs[0], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
