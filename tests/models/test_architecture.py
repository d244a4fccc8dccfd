"""The parts of the model that the document's does not have: who sees whom, what states hold, what checkpoints keep."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nepa3d.cli import flags
from nepa3d.models.checkpoint import Checkpoint, build_model, load_checkpoint, model_for
from nepa3d.models.embedding import Probe, hidden_states, question_states
from nepa3d.models.query_nepa import ArchitectureFlags, QueryNepa
from nepa3d.ops.attention import DualMask, KeyEdges
from nepa3d.samples.schema import POINT_DISTANCE, XYZ, TokenType

T = TokenType
PARTS = {
    "token_features": "fourier",
    "bound_answers": True,
    "position_embedding": False,
    "type_std": 0.02,
    "answer_keys": True,
    "kernel_attention": True,
    "final_norm": True,
    "answer_head": True,
}
QA = [T.BOS, *3 * [T.Q_POINT, T.A_POINT], T.EOS, T.Q_POINT, T.Q_POINT]
PLAIN = [T.BOS, *4 * [T.POINT], T.EOS, T.Q_POINT, T.Q_POINT]


def model(**parts: object) -> QueryNepa:
    torch.manual_seed(0)
    architecture = ArchitectureFlags(**{**PARTS, **parts})  # type: ignore[arg-type]
    made = QueryNepa(d_model=16, nhead=4, num_layers=2, architecture=architecture).eval()
    if architecture.answer_head:  # it begins with zeros
        torch.nn.init.normal_(made.answer_head.weight, generator=torch.Generator().manual_seed(1))
    return made


def sequence(kinds: list[TokenType], samples: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    features = torch.zeros(samples, len(kinds), 15)
    generator = torch.Generator().manual_seed(2)
    for place, kind in enumerate(kinds):
        if kind in (T.Q_POINT, T.POINT):
            features[:, place, XYZ] = torch.rand(samples, 3, generator=generator) - 0.5
        if kind in (T.A_POINT, T.POINT):
            features[:, place, POINT_DISTANCE] = torch.rand(samples, generator=generator)
    return features, torch.tensor(kinds).expand(samples, -1)


def changed(made: QueryNepa, kinds: list[TokenType], place: int) -> list[int]:
    """The tokens whose states change with the token at ``place``."""
    features, types = sequence(kinds)
    other = features.clone()
    other[:, place, XYZ] += 0.1
    with torch.no_grad():
        a, b = made(features, types)[2], made(other, types)[2]
    return ((a - b).abs().amax((0, 2)) > 1e-7).nonzero()[:, 0].tolist()


def test_questions_are_seen_by_themselves_only() -> None:
    """But an answer is bound to its own, which is seen by all that follow."""
    assert changed(model(), QA, 9) == [9]
    assert changed(model(), QA, 8) == [8]
    assert changed(model(bound_answers=False, kernel_attention=False), QA, 3) == [3]
    assert changed(model(), QA, 3) == [3, 4, 5, 6, 7, 8, 9]


def test_the_closing_token_is_seen_by_no_other() -> None:
    features, types = sequence(QA)
    made = model()
    with torch.no_grad():
        before = made(features, types)[2]
        made.type_emb.weight[T.EOS] += 1
        after = made(features, types)[2]
    assert ((after - before).abs().amax((0, 2)) > 1e-7).nonzero()[:, 0].tolist() == [7]


def test_prefix_attention_sees_later_answers() -> None:
    assert changed(model(), PLAIN, 4) == [4, 5, 6, 7]
    assert changed(model(prefix_attention=True), PLAIN, 4) == [1, 2, 3, 4, 5, 6, 7]
    assert changed(model(prefix_attention=True), PLAIN, 7) == [7]


def test_interpolation_reaches_blind_questions_only() -> None:
    """Through their features, even where attention is cut by the dual mask."""
    made = model(interpolation=True)
    features, types = sequence(PLAIN)
    other = features.clone()
    other[:, 2, POINT_DISTANCE] += 0.1
    a, b = (made.content(x, types) for x in (features, other))
    assert ((a - b).abs().amax((0, 2)) > 1e-7).nonzero()[:, 0].tolist() == [2, 6, 7]


def test_a_questions_state_begins_with_its_predicted_distance() -> None:
    features, types = sequence(PLAIN)
    made = model(interpolation=True)
    with torch.no_grad():
        states = made(features, types)[2]
        known = made.known(features, types)
        assert known is not None
        torch.nn.init.zeros_(made.answer_head.weight)
        unmoved = made(features, types)[2]
    torch.testing.assert_close(unmoved[:, 6:, 0], known.guess[:, 6:])  # the difference from the spline is 0
    assert (states[:, 6:, 0] - unmoved[:, 6:, 0]).abs().min() > 1e-4
    assert torch.equal(states[:, :6], unmoved[:, :6])
    assert torch.equal(made.answers(states).distance, states[..., :1])


def test_a_prediction_for_each_view() -> None:
    features, types = sequence(PLAIN)
    made = model(interpolation=True, answer_views=("mesh", "udfgrid"))
    with torch.no_grad():
        made.answer_head.bias[:2] = torch.tensor([0.0, 0.5])
        made.answer_head.weight.zero_()
        states = made(features, types)[2]
        known = made.known(features, types)
    assert known is not None
    torch.testing.assert_close(states[:, 6:, 0], known.guess[:, 6:])
    torch.testing.assert_close(states[:, 6:, 1], known.guess[:, 6:] + 0.5)
    assert made.answers(states).log_scale.shape == (2, 8, 2)


def test_wanted_states_are_those_of_the_whole() -> None:
    features, types = sequence(PLAIN)
    wanted = torch.tensor([5, 7])
    for made in (model(interpolation=True, prefix_attention=True), model()):
        with torch.no_grad():
            whole, some = made(features, types)[2], made(features, types, wanted=wanted)[2]
        torch.testing.assert_close(some, whole[:, wanted])


def test_without_position_embeddings_order_does_not_matter_to_later_tokens() -> None:
    """And a sequence may have any length."""
    made = model(prefix_attention=True)
    features, types = sequence([T.BOS, *40 * [T.POINT], T.EOS])
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0)) + 1
    shuffled = features.clone()
    shuffled[:, 1:41] = features[:, order]
    with torch.no_grad():
        torch.testing.assert_close(made(features, types)[2][:, -1], made(shuffled, types)[2][:, -1])
    assert made.max_len is None


def test_no_edge_of_the_closing_token_is_dropped() -> None:
    types = torch.tensor(QA)
    mask = model().mask(types, DualMask(1.0, 1.0, 4, 0))
    assert isinstance(mask, KeyEdges)
    assert mask.keys.tolist() == [0, 2, 4, 6]
    assert mask.edges.any(1).nonzero()[:, 0].tolist() == [7]
    prefix = model(prefix_attention=True).mask(torch.tensor(PLAIN), DualMask(1.0, 1.0, 4, 0))
    assert isinstance(prefix, KeyEdges)
    assert prefix.edges.any(1).nonzero()[:, 0].tolist() == [5]


def test_mixed_types_in_a_batch() -> None:
    """The model refuses them, ``hidden_states`` takes those of the same types together."""
    made = model()
    features, types = sequence([T.BOS, *3 * [T.Q_POINT, T.A_POINT], T.EOS], samples=3)
    types = types.clone()
    types[1, 5:7] = T.MISSING_RAY
    with pytest.raises(ValueError, match="types must be the same in all sequences"):
        made(features, types)
    probe = Probe(made, "x", qa=True, eos=True, n_point=3, n_ray=0, device="cpu")
    found = hidden_states(probe, features.numpy(), types.numpy())
    for row in range(3):
        alone = hidden_states(probe, features[row : row + 1].numpy(), types[row : row + 1].numpy())
        torch.testing.assert_close(found[row], alone[0])


@pytest.mark.parametrize("qa", [True, False])
def test_blank_answers_are_left_out(qa: bool) -> None:
    """In a completion sequence they have the distance 0: a model that asks blind would take them for answers."""
    pair = [T.Q_POINT, T.A_POINT] if qa else [T.POINT]
    features, types = sequence([T.BOS, *5 * pair, T.EOS])
    questions = np.arange(1 + 3 * len(pair), 1 + 5 * len(pair), len(pair))
    features[:, questions + len(pair) - 1, POINT_DISTANCE] = 0
    probe = Probe(model(), "x", qa=qa, eos=True, n_point=5, n_ray=0, device="cpu")
    found = question_states(probe, features.numpy(), types.numpy(), questions)
    kept = [T.BOS, *3 * pair, T.Q_POINT, T.Q_POINT, T.EOS]
    columns = [*range(1 + 3 * len(pair)), *questions.tolist(), features.shape[1] - 1]
    with torch.no_grad():
        expected = probe.model(features[:, columns], torch.tensor(kept).expand(2, -1))[2]
    torch.testing.assert_close(found, expected[:, -3:-1])


def test_checkpoints_keep_the_parts(tmp_path: Path, golden_folder: Path) -> None:
    sizes = {"d_model": 16, "layers": 2, "heads": 4, "n_point": 8, "n_ray": 0, "qa_tokens": 0}
    parts = PARTS | {"interpolation": True, "pulled_points": True}
    args = sizes | flags.spellings(ArchitectureFlags(**parts))  # type: ignore[arg-type]
    torch.manual_seed(0)
    made = model_for(args)
    assert made.architecture.interpolation and made.pos_emb is None
    saved = Checkpoint(made.state_dict(), {}, None, args, 0, 0, path="x.pt")
    again = build_model(saved)
    assert again.architecture == made.architecture
    features, types = sequence(PLAIN)
    with torch.no_grad():
        torch.testing.assert_close(again(features, types)[2], made.eval()(features, types)[2])
    with pytest.raises(ValueError, match=r"x\.pt: args: type_std must be positive, got -1"):
        build_model(replace(saved, args=args | {"type_std": -1.0}))
    old = load_checkpoint(golden_folder / "nepa_qa.pt")
    assert build_model(old).architecture == ArchitectureFlags()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"token_features": "other"}, "token_features must be linear or fourier, got 'other'"),
        ({"type_std": 0.0}, "type_std must be positive, got 0.0"),
        ({"prefix_attention": True, "answer_keys": False}, "prefix_attention 1 needs answer_keys 1"),
        ({"answer_views": ("mesh", "mesh")}, "answer_views must differ, and need answer_head 1, got mesh, mesh"),
        ({"answer_views": ("other",)}, "answer_views must be one of mesh, .* got 'other'"),
        ({"interpolation": True, "answer_head": False}, "interpolation 1 needs answer_head 1"),
        ({"pulled_points": True}, "pulled_points 1 needs interpolation 1"),
    ],
)
def test_parts_that_do_not_go_together(parts: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ArchitectureFlags(**{**PARTS, **parts})  # type: ignore[arg-type]
