"""Retrieval figures: the usual ones without ties, chance under collapse."""

from __future__ import annotations

import numpy as np
import pytest

from nepa3d.probes import ranking
from nepa3d.probes.ranking import (
    TIE_DISTANCE,
    Ranks,
    best_items,
    chance_metrics,
    normalize,
    plane,
    rank_scores,
    rank_strictly,
    rank_true_items,
    retrieval_metrics,
    spread,
    tied_fraction,
)


def test_without_ties_the_figures_are_those_of_strict_ranks() -> None:
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(40, 8)).astype(np.float32)
    gallery = (queries + rng.normal(size=(40, 8))).astype(np.float32)
    ranks = rank_true_items(queries, gallery)
    metrics = retrieval_metrics(ranks)

    a = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    b = gallery / np.linalg.norm(gallery, axis=1, keepdims=True)
    cosine = a @ b.T
    strict = 1 + (cosine > np.diag(cosine)[:, None]).sum(1)
    assert (ranks.tied == 0).all()
    assert metrics["r@5"] == pytest.approx((strict <= 5).mean())
    assert metrics["mAP"] == pytest.approx((1 / strict).mean())
    assert metrics["mean_rank"] == pytest.approx(strict.mean())
    assert metrics["median_rank"] == np.median(strict)


@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_collapsed_embeddings_score_chance_not_one(noise: float) -> None:
    rng = np.random.default_rng(1)
    same = rng.normal(size=16)
    embeddings = (same + noise * rng.normal(size=(30, 16))).astype(np.float32)
    ranks = rank_true_items(embeddings, embeddings[::-1])
    assert retrieval_metrics(ranks) == pytest.approx(chance_metrics(30))
    assert retrieval_metrics(ranks)["r@1"] == pytest.approx(1 / 30)
    assert tied_fraction(ranks) == 1.0
    assert spread(embeddings) < 1e-6
    if noise == 0.0:
        assert retrieval_metrics(rank_strictly(embeddings, embeddings))["r@1"] == 1.0  # the flaw, kept reachable


def test_tied_block_shares_its_places() -> None:
    # better 1, tied 2: the true item is at place 2, 3 or 4
    metrics = retrieval_metrics(Ranks(np.array([1]), np.array([2]), 10), ks=(1, 2, 3, 5))
    assert metrics["r@1"] == 0.0
    assert metrics["r@2"] == pytest.approx(1 / 3)
    assert metrics["r@3"] == pytest.approx(2 / 3)
    assert metrics["r@5"] == 1.0
    assert metrics["mAP"] == pytest.approx((1 / 2 + 1 / 3 + 1 / 4) / 3)
    assert metrics["mean_rank"] == 3.0


def test_chance_is_k_over_n_and_harmonic() -> None:
    chance = chance_metrics(4)
    assert chance["r@1"] == 0.25
    assert chance["r@10"] == 1.0
    assert chance["mAP"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert chance["mean_rank"] == 2.5


def test_float32_rounding_of_equal_inputs_is_a_tie() -> None:
    rng = np.random.default_rng(2)
    base = rng.normal(size=384)
    rounded = np.stack([np.float32(base * scale) for scale in rng.uniform(0.5, 2.0, 200)])
    assert tied_fraction(rank_true_items(np.tile(np.float32(base), (200, 1)), rounded)) == 1.0


@pytest.mark.parametrize(("apart", "tied"), [(0.5 * TIE_DISTANCE, [1, 1]), (2 * TIE_DISTANCE, [0, 0])])
def test_items_tie_up_to_the_distance(apart: float, tied: list[int]) -> None:
    angle = np.array([0.3, 0.3 + apart])
    gallery = np.stack([np.cos(angle), np.sin(angle)], 1)
    ranks = rank_true_items(np.tile([[1.0, 0.0]], (2, 1)), gallery)
    assert ranks.tied.tolist() == tied
    assert ranks.expected.tolist() == ([1.5, 1.5] if tied[0] else [1.0, 2.0])


def test_items_at_equal_cosine_tie_wherever_they_lie() -> None:
    gallery = np.array([[3.0, 4.0], [3.0, -4.0], [1.0, 0.0]])
    ranks = rank_true_items(np.tile([[1.0, 0.0]], (3, 1)), gallery)
    assert ranks.better.tolist() == [1, 1, 0]
    assert ranks.tied.tolist() == [1, 1, 0]


def test_ranks_depend_neither_on_chunk_nor_on_gallery_order() -> None:
    rng = np.random.default_rng(3)
    queries, gallery = rng.normal(size=(23, 5)), rng.normal(size=(23, 5))
    order = rng.permutation(23)
    whole = rank_true_items(queries, gallery, chunk=100)
    assert (rank_true_items(queries, gallery, chunk=4).better == whole.better).all()
    shuffled = rank_true_items(queries[order], gallery[order], chunk=7)
    assert retrieval_metrics(shuffled) == pytest.approx(retrieval_metrics(whole))


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"one shape \(N, D\).*\(2, 3\).*\(3, 3\)"):
        rank_true_items(np.ones((2, 3)), np.ones((3, 3)))
    with pytest.raises(ValueError, match="gallery must be finite, row 1"):
        rank_true_items(np.ones((2, 2)), np.array([[1.0, 1.0], [np.nan, 1.0]]))


def test_several_queries_of_an_item() -> None:
    """Three queries of two of four items, by hand; with a query an item, the same as without ``truth``."""
    gallery = np.array([[1.0, 0], [0, 1], [-1, 0], [0.6, 0.8]])
    queries = np.array([[2.0, 0.1], [0, 1], [-1, 0.1]])
    ranks = rank_true_items(queries, gallery, np.array([0, 3, 0]), chunk=2)
    assert ranks.better.tolist() == [0, 1, 3] and ranks.tied.tolist() == [0, 0, 0] and ranks.n_items == 4
    assert best_items(queries, gallery, 2).tolist() == [[0, 3], [1, 3], [2, 1]]
    scored = rank_scores(normalize(queries) @ normalize(gallery).T, np.array([0, 3, 0]))
    assert scored.better.tolist() == [0, 1, 3]
    plain, given = (rank_true_items(gallery[::-1], gallery, truth) for truth in (None, np.arange(4)))
    assert (plain.better == given.better).all()
    with pytest.raises(ValueError, match=r"truth must hold a number below 4 for each of 3 queries, got \[0 3 4\]"):
        rank_true_items(queries, gallery, np.array([0, 3, 4]))
    with pytest.raises(ValueError, match="truth: must be given where 2 queries stand before 3 gallery items"):
        rank_scores(np.ones((2, 3)))


def test_equal_scores_tie() -> None:
    ranks = rank_scores(np.array([[1.0, 2, 2, 0], [5, 5, 5, 5]]), np.array([1, 0]))
    assert ranks.better.tolist() == [0, 0] and ranks.tied.tolist() == [1, 3]
    with pytest.raises(ValueError, match=r"scores must be finite and have shape \(Q, N\)"):
        rank_scores(np.array([[np.nan, 1.0]]), np.array([0]))


def test_best_items_beside_a_full_sort() -> None:
    rng = np.random.default_rng(3)
    queries, gallery = rng.normal(size=(2, 23, 4))
    gallery[7] = gallery[2]
    cosine = normalize(queries) @ normalize(gallery).T
    full = [sorted(range(23), key=lambda item: (-row[item], item))[:5] for row in cosine]
    assert best_items(queries, gallery, 5, chunk=6).tolist() == full
    assert best_items(queries[:3], gallery[:3], 5).shape == (3, 3)


def test_plane_keeps_what_lies_in_a_plane() -> None:
    rng = np.random.default_rng(4)
    flat = rng.normal(size=(40, 2)) * [3, 1]
    turned = flat @ np.linalg.qr(rng.normal(size=(6, 6)))[0][:2] + 5
    found = plane(turned)
    assert np.allclose(pairwise(found), pairwise(flat))
    assert np.allclose(plane(turned[::-1]), found[::-1])
    assert not plane(np.ones((3, 1))).any()


def pairwise(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - points[None], axis=2)


def test_large_galleries_are_ranked_a_few_queries_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.RandomState(0).randn(2, 40, 8)
    whole = rank_true_items(*vectors)
    monkeypatch.setattr(ranking, "COSINES_AT_ONCE", 100)
    few = rank_true_items(*vectors)
    np.testing.assert_array_equal(few.better, whole.better)
    np.testing.assert_array_equal(few.tied, whole.tied)
