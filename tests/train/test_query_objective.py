"""The objectives of answers and of draws: what is asked, what counts, and that processes and pieces change nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from nepa3d.cli import flags
from nepa3d.models.checkpoint import load_checkpoint
from nepa3d.models.query_nepa import Answers
from nepa3d.samples.dataset import SampleSettings
from nepa3d.samples.schema import POINT_DISTANCE, XYZ, TokenType
from nepa3d.train import pretrain
from nepa3d.train.augment import AugmentFlags
from nepa3d.train.corpus import Batch, Corpus, EpochBatches, Part, open_corpus
from nepa3d.train.distributed import ProcessGroup
from nepa3d.train.flag_groups import QueryFlags
from nepa3d.train.objectives.query import answer_errors, arrange, contrast, part_sizes
from nepa3d.train.pretrain import Config, start
from nepa3d.train.step import Trainer

ALONE = ProcessGroup(0, 1, torch.device("cpu"))
T = TokenType
PARTS = {"token_features": "fourier", "bound_answers": 1, "position_embedding": 0, "type_std": 0.02, "answer_keys": 1}
PARTS |= {"kernel_attention": 1, "final_norm": 1, "answer_head": 1}


def config(**more: object) -> Config:
    given: dict[str, object] = {"mix_config": "mix.yaml", "mix_num_samples": 48, "n_point": 12, "n_ray": 0}
    given |= {"d_model": 16, "layers": 2, "heads": 2, "batch": 8, "save_dir": "none", "auto_resume": 0}
    return flags.build(Config, given | PARTS | {"objective": "query"} | more)


def corpus_of(settings: Config) -> Corpus:
    corpus = open_corpus(settings.corpus, settings.sample_settings(), settings.seed)
    return replace(corpus, paired_batch=settings.loop.batch)


def batch_of(settings: Config, process_group: ProcessGroup = ALONE) -> Batch:
    return EpochBatches(corpus_of(settings), 0, settings.loop.batch, process_group).read(0)


def gradients(settings: Config, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    run = start(settings, ALONE, 3, total_steps=10)
    tally = run.trainer.step(batch, 0, None)
    return tally, {name: p.grad for name, p in run.trainer.model.named_parameters() if p.grad is not None}


def by_hand(qa: bool) -> Batch:
    """Two samples of six points, whose distances are 1..6 and 11..16."""
    pair = [T.Q_POINT, T.A_POINT] if qa else [T.POINT]
    types = torch.tensor([T.BOS, *6 * pair, T.EOS]).expand(2, -1)
    features = torch.zeros(2, types.shape[1], 15)
    for sample in range(2):
        for point in range(6):
            question = 1 + point * len(pair)
            features[sample, question, XYZ] = torch.full((3,), float(10 * sample + point + 1))
            features[sample, question + len(pair) - 1, POINT_DISTANCE] = 10 * sample + point + 1
    none = torch.zeros(2, dtype=torch.int64)
    return Batch(features, types, none, torch.arange(2), none.bool(), first=0, samples=2)


@pytest.mark.parametrize("qa", [True, False])
def test_questions_are_parted(qa: bool) -> None:
    batch = by_hand(qa)
    found = arrange(batch, torch.arange(2), 4, 2, (0, 1))
    pair = [T.Q_POINT, T.A_POINT] if qa else [T.POINT]
    assert found.types[0].tolist() == [T.BOS, *4 * pair, T.EOS, T.Q_POINT, T.Q_POINT]
    eos = 1 + 4 * len(pair)
    assert found.blind.tolist() == [eos + 1, eos + 2]
    assert found.causal.tolist() == ([1, 3, 5, 7] if qa else [])
    asked = torch.cat([found.blind, found.causal])
    assert found.wanted.tolist() == [*asked.tolist(), eos]
    assert torch.equal(found.features[:, asked, 0], found.distance)  # the coordinates name the point
    assert (found.features[:, found.blind, POINT_DISTANCE] == 0).all()
    for sample in range(2):
        context = found.features[sample, 1 : 1 + 4 * len(pair), POINT_DISTANCE]
        answered = context[context > 0].tolist()
        assert answered == sorted(answered)  # the order of the sample is kept
        assert sorted([*answered, *found.distance[sample, :2].tolist()]) == [10 * sample + i for i in range(1, 7)]
    parted = [arrange(batch, torch.arange(2), 4, 2, (0, step)).distance[:, :2] for step in range(8)]
    assert any({x - 10 for x in of[1].tolist()} != set(of[0].tolist()) for of in parted)  # samples are parted apart


@pytest.mark.parametrize("qa", [True, False])
def test_draws_may_be_asked_each_others_questions(qa: bool) -> None:
    batch, rows = replace(by_hand(qa), parts=torch.tensor([2, 1])), torch.arange(2)
    own = arrange(batch, rows, 4, 2, (0, 1))
    found = arrange(replace(batch, ask_pair=torch.tensor([True, True])), rows, 4, 2, (0, 1))
    end = int(own.blind[0])
    assert torch.equal(found.features[:, :end], own.features[:, :end])  # the contexts
    assert torch.equal(found.features[:, own.blind], own.features[:, own.blind].flip(0))
    assert torch.equal(found.distance[:, :2], own.distance[:, :2].flip(0))
    assert torch.equal(found.distance[:, 2:], own.distance[:, 2:])
    assert own.parts.tolist() == [[2, 2] + 4 * qa * [2], [1, 1] + 4 * qa * [1]]
    assert found.parts.tolist() == [[1, 1] + 4 * qa * [2], [2, 2] + 4 * qa * [1]]
    turned = AugmentFlags(turn=1.0, scale_min=0.5)  # in the frame of the sample that is asked
    alone = by_hand(qa).features[1:].expand(2, -1, -1)
    wanted = arrange(replace(batch, features=alone), rows, 4, 2, (0, 1), turned)
    found = arrange(replace(batch, ask_pair=torch.tensor([True, True])), rows, 4, 2, (0, 1), turned)
    scale = wanted.distance[0].max() / 16
    assert {round(float(x / scale)) for x in found.distance[0, :2]} <= {*range(11, 17)}
    lengths = found.features[0, found.blind, :3].norm(dim=1)
    torch.testing.assert_close(lengths, found.distance[0, :2] * 3**0.5)  # the coordinates name the point


def test_a_samples_parts_do_not_depend_on_the_others() -> None:
    whole = arrange(by_hand(False), torch.arange(2), 4, 2, (0, 1))
    alone = arrange(by_hand(False), torch.tensor([1]), 4, 2, (0, 1))
    assert torch.equal(alone.features[0], whole.features[1])
    other_steps = [arrange(by_hand(False), torch.arange(2), 4, 2, (0, step)).distance for step in range(4)]
    assert len({tuple(x.flatten().tolist()) for x in other_steps}) > 1


def test_rays_stay_in_the_context() -> None:
    batch = by_hand(False)
    types = batch.types.clone()
    types[:, 4:7] = T.RAY
    found = arrange(replace(batch, types=types), torch.arange(2), 2, 1, (0, 1))
    assert found.types[0].tolist() == [T.BOS, T.POINT, T.POINT, *3 * [T.RAY], T.EOS, T.Q_POINT]


def test_samples_of_different_types_are_refused() -> None:
    batch = by_hand(False)
    types = batch.types.clone()
    types[1, 3] = T.MISSING_RAY
    with pytest.raises(ValueError, match="the samples of a batch must have the same types"):
        arrange(replace(batch, types=types), torch.arange(2), 2, 1, (0, 1))


def test_context_sizes() -> None:
    assert part_sizes(QueryFlags(), 64, (0, 1)) == (32, 32)
    assert part_sizes(QueryFlags(blind=10), 64, (0, 1)) == (32, 10)
    varied = QueryFlags(context_min=8, context_max=64, blind=40)
    found = np.array([part_sizes(varied, 100, (0, step)) for step in range(500)])
    assert found[:, 0].min() < 10 and found[:, 0].max() > 58
    assert (found[:, 0] < np.sqrt(8 * 64)).mean() == pytest.approx(0.5, abs=0.08)  # the logarithm is uniform
    assert (found[:, 1] == np.minimum(40, 100 - found[:, 0])).all()
    with pytest.raises(ValueError, match="context_max must be from 1 to n_point - 1 = 63, got 64"):
        part_sizes(varied, 64, (0, 1))
    assert {part_sizes(QueryFlags(context_max=20), 100, (0, step))[0] for step in range(50)} == {20}
    found = [part_sizes(QueryFlags(context_min=8), 100, (0, step))[0] for step in range(500)]
    assert 8 <= min(found) < 10 and 48 < max(found) <= 50
    with pytest.raises(ValueError, match="context_min must be at most context_max = 32, got 40"):
        part_sizes(QueryFlags(context_min=40), 64, (0, 1))


def test_answer_errors() -> None:
    predicted = Answers(torch.tensor([0.5, 0.2]), torch.tensor([0.0, np.log(0.1)]))
    truth = torch.tensor([0.4, 0.4])
    torch.testing.assert_close(answer_errors(predicted, truth, "l1"), torch.tensor([0.1, 0.2]))
    density = torch.distributions.Laplace(predicted.distance, predicted.log_scale.exp())
    expected = -density.log_prob(truth) - np.log(2)
    torch.testing.assert_close(answer_errors(predicted, truth, "laplace"), expected)


def test_contrast_by_its_definition() -> None:
    states = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    shapes = torch.tensor([0, 0, 1, 1, 0, 0])  # the first shape was drawn twice
    found = contrast(states, shapes, 0.1)
    unit = (states / states.norm(dim=1, keepdim=True)).double()
    for i in range(6):
        partner = i + 1 if i % 2 == 0 else i - 1
        others = [j for j in range(6) if shapes[j] != shapes[i]]
        scores = [float(unit[i] @ unit[j]) / 0.1 for j in [partner, *others]]
        expected = -np.log(np.exp(scores[0]) / np.exp(scores).sum())
        assert float(found[i]) == pytest.approx(expected, rel=1e-4)


def test_a_batch_holds_two_draws_of_shapes_of_one_part(golden: Path) -> None:
    settings = config()
    corpus = corpus_of(settings)
    draws = corpus.epoch(0)
    assert len(draws) % 8 == 0
    assert 0 < len(draws) <= 48
    for batch in draws.reshape(-1, 4, 2, 2):
        assert len(set(batch[..., 0].ravel().tolist())) == 1
        assert len(set(batch[:, 0, 1].tolist())) == 4
        assert (batch[:, 0] == batch[:, 1]).all()
    assert not np.array_equal(draws, corpus.epoch(1))
    features = batch_of(settings).features
    assert not torch.equal(features[0], features[1])  # two draws


def test_a_batch_larger_than_a_part_is_refused() -> None:
    part = Part("few", ["a", "b", "c"], "mesh", SampleSettings(8, 0, qa=False, eos=True))
    with pytest.raises(ValueError, match=r"batch must be from 4 to 6, .* all are of few, which has 3; got 8"):
        Corpus((part,), seed=0, paired_batch=8).epoch(0)
    assert len(Corpus((part,), seed=0, paired_batch=6).epoch(0)) == 6


def test_without_replacement_every_shape_comes_once() -> None:
    settings = SampleSettings(8, 0, qa=False, eos=True)
    parts = tuple(Part(name, ["a"] * count, "mesh", settings) for name, count in (("one", 8), ("two", 13)))
    corpus = Corpus(parts, seed=0, mixed=True, replacement=False, paired_batch=8)
    draws = corpus.epoch(3)
    assert len(draws) == 16  # as many samples as there are shapes, in whole batches
    assert len({tuple(draw) for draw in draws[::2].tolist()}) == 8
    alone = Corpus(parts[1:], seed=0, paired_batch=8).epoch(0)
    assert sorted(set(alone[:, 1].tolist())) != [] and len(alone) == 24
    assert len({tuple(draw) for draw in alone.tolist()}) == 12


def test_the_batches_of_pairs_are_cut_from_each_parts_shapes_in_turn() -> None:
    """The twin cuts every part into batches, and takes them in a random order."""
    settings = SampleSettings(8, 0, qa=False, eos=True)
    parts = tuple(Part(name, ["a"] * count, "mesh", settings) for name, count in (("one", 9), ("two", 30)))
    draws = Corpus(parts, seed=0, mixed=True, replacement=False, paired_batch=8).epoch(3)
    rng = np.random.default_rng([0, 3, 4])
    batches = [
        (owner, batch)
        for owner, count in enumerate((9, 30))
        for batch in rng.permutation(count)[: count // 4 * 4].reshape(-1, 4)
    ]
    wanted = [
        (owner, shape) for number in rng.permutation(9)[:4] for owner, batch in [batches[number]] for shape in batch
    ]
    assert draws[::2].tolist() == [[*draw] for draw in wanted]
    assert (draws[::2] == draws[1::2]).all()


@pytest.mark.parametrize("more", [{"objective": "answer"}, {"objective": "answer", "qa_tokens": 1}], ids=str)
def test_pieces_give_the_gradients_of_the_whole(golden: Path, more: dict[str, object]) -> None:
    batch = batch_of(config(**more))
    whole, expected = gradients(config(**more), batch)
    tally, found = gradients(config(**more, accumulate=3), batch)
    torch.testing.assert_close(tally, whole)
    for name, grad in expected.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-4, atol=1e-6, msg=name)


def test_the_gradients_of_processes_add_up(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes one after the other: what they join in the forward pass is known from a first round."""
    settings = config()
    whole_tally, expected = gradients(settings, batch_of(settings))

    def train(rank: int, others: list[torch.Tensor]) -> tuple[list[torch.Tensor], torch.Tensor, Trainer]:
        """The tensors it adds, the tally and the trainer of one of two; ``others`` are what the other one added."""
        own: list[torch.Tensor] = []

        def add(_: ProcessGroup, values: torch.Tensor) -> torch.Tensor:
            own.append(values.detach().clone())
            return values + others[len(own) - 1] if len(own) <= len(others) else values

        monkeypatch.setattr(ProcessGroup, "add", add)
        group = ProcessGroup(rank, 2, ALONE.device)
        trainer = start(settings, ALONE, 3, total_steps=10).trainer
        trainer.process_group = group
        return own, trainer.step(batch_of(settings, group), 0, None), trainer

    first = [train(rank, [])[0] for rank in range(2)]
    joined = [train(rank, first[1 - rank][:-1]) for rank in range(2)]  # but for the tally
    torch.testing.assert_close(joined[0][1] + joined[1][1], whole_tally)
    for name, grad in expected.items():
        parts = [dict(trainer.model.named_parameters())[name].grad for _, _, trainer in joined]
        assert parts[0] is not None and parts[1] is not None
        torch.testing.assert_close(parts[0] + parts[1], grad, rtol=1e-4, atol=1e-6, msg=name)


def test_terms_are_logged(golden: Path) -> None:
    settings = config(qa_tokens=1)
    run = start(settings, ALONE, 3, total_steps=10)
    tally = run.trainer.step(batch_of(settings), 0, None)
    found = run.trainer.by_kind(tally, ["a", "b", "c"])
    assert set(found["terms"]) == {"blind", "causal", "align"}
    assert set(found["types"]) == {"Q_POINT"}
    terms = found["terms"]
    expected = 5 * (terms["blind"] + 0.5 * terms["causal"]) + 0.3 * terms["align"]
    assert float(run.trainer.mean_error(tally)) == pytest.approx(expected, rel=1e-5)
    assert found["types"]["Q_POINT"] == pytest.approx((terms["blind"] + terms["causal"]) / 2, rel=1e-5)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"answer_head": 0}, "objective query needs answer_head 1"),
        ({"accumulate": 2}, "accumulate must be 1 for objective query, .* got 2"),
        (
            {"prefix_attention": 1, "qa_tokens": 1},
            "qa_tokens must be 0 for objective query where prefix_attention is 1",
        ),
        ({"answer_views": ["udfgrid"]}, "answer_views must hold the views of the corpus, mesh is not in udfgrid"),
        ({"prefix_attention": 1, "objective": "nepa"}, "prefix_attention must be 0 for objective nepa, got 1"),
    ],
    ids=str,
)
def test_what_cannot_be_trained_so(golden: Path, more: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        start(config(**more), ALONE, 3, total_steps=10, views=["mesh", "udfgrid", "pointcloud_noray"])


def test_flags_are_checked() -> None:
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        QueryFlags(temperature=0)
    with pytest.raises(ValueError, match="context_min must be at least 0, got -1"):
        QueryFlags(context_min=-1)


def test_the_recipe_trains_and_goes_on(golden: Path, tmp_path: Path) -> None:
    def train(folder: Path, epochs: int, *more: str) -> None:
        command = ["--config", "nepa3d/configs/query.yaml", "--mix_config", "mix.yaml", "--mix_num_samples", "64"]
        sizes = ["--d_model", "16", "--layers", "2", "--heads", "2", "--batch", "8", "--n_point", "24", "--blind", "0"]
        sizes += ["--context_min", "8", "--context_max", "16", "--schedule", "constant", "--uniform_prob", "0"]
        assert pretrain.main([*command, *sizes, "--save_dir", f"{folder}", "--epochs", f"{epochs}", *more]) == 0

    train(tmp_path / "whole", 2)
    lines = [json.loads(line) for line in (tmp_path / "whole" / "loss.jsonl").read_text().splitlines()]
    assert all(set(line["terms"]) == {"blind", "align"} for line in lines)
    assert max(line["terms"]["blind"] for line in lines) < 0.2  # of distances up to 1, from the first step on
    saved = load_checkpoint(tmp_path / "whole" / "last.pt")
    assert saved.args["interpolation"] == 1
    assert len(saved.opt["param_groups"]) == 3  # matrices, kernels, others
    before = saved.model["backbone.enc.layers.0.self_attn.kernel.log_slope"]
    assert not torch.equal(before, torch.tensor([4.0, 40.0]).log())
    train(tmp_path / "whole", 3)  # goes on
    assert load_checkpoint(tmp_path / "whole" / "last.pt").epoch == 2
    assert (
        pretrain.main(
            [
                "--config",
                f"{tmp_path / 'whole' / 'pretrain.config.yaml'}",
                "--kernel_attention",
                "0",
                "--prefix_attention",
                "0",
            ]
        )
        == 2
    )


def paired_mix(
    folder: Path, scans: str = "mesh", pair: str = "shape", replacement: bool = True, ask_pair: bool = False
) -> Path:
    """Every shape of the cache as a scan, whose second draw is of the shape itself."""
    with Path("mix.yaml").open(encoding="utf-8") as file:
        known = yaml.safe_load(file)["datasets"][0]
    shapes = {**known, "name": "shape", "backend": "mesh", "weight": 0.0}
    scan = {**known, "name": "scan", "backend": scans, "weight": 1.0, "pair": pair, "ask_pair": ask_pair}
    content = {"mix_seed": 0, "replacement": replacement, "datasets": [shapes, scan]}
    path = folder / "pairs.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def test_a_pair_is_two_components_views_of_one_object(golden: Path, tmp_path: Path) -> None:
    settings = config(mix_config=f"{paired_mix(tmp_path, 'udfgrid')}", mix_num_samples=32)
    corpus = corpus_of(settings)
    draws = corpus.epoch(0).reshape(-1, 2, 2)
    assert (draws[:, 0, 0] == 1).all() and (draws[:, 1, 0] == 0).all()
    scans, shapes = corpus.parts[1].paths, corpus.parts[0].paths
    assert [scans[i] for i in draws[:, 0, 1]] == [shapes[i] for i in draws[:, 1, 1]]  # here they are the same files
    batch = batch_of(settings)
    assert torch.equal(batch.shapes[::2], batch.shapes[1::2])
    assert len(set(batch.shapes.tolist())) == 4
    tally, _ = gradients(settings, batch)
    assert tally[1, 9:11].tolist() == [4 * 6, 4 * 6]  # both parts are asked


def test_a_view_is_asked_for_the_distances_of_another(golden: Path, tmp_path: Path) -> None:
    path = paired_mix(tmp_path, "udfgrid", ask_pair=True)
    batch = batch_of(config(mix_config=f"{path}", mix_num_samples=32))
    assert batch.ask_pair.all()
    found = arrange(batch, torch.arange(8), 6, 6, (0, 0))
    assert found.parts[:, 0].tolist() == 4 * [0, 1]  # a grid is asked for the distances of the mesh, and the reverse
    own = arrange(replace(batch, ask_pair=torch.zeros(8, dtype=torch.bool)), torch.arange(8), 6, 6, (0, 0))
    assert torch.equal(found.distance[0], own.distance[1])
    with pytest.raises(ValueError, match="batch must be a multiple of 4 where ask_pair keeps both draws of a shape"):
        pretrain.pretrain(config(mix_config=f"{path}", batch=6), ProcessGroup(0, 2, torch.device("cpu")))


def test_an_odd_batch_of_pairs_is_refused(golden: Path) -> None:
    with pytest.raises(ValueError, match="batch must be even, for it holds two draws of every shape, got 7"):
        pretrain.pretrain(config(batch=7), ALONE)


def test_pairs_that_cannot_be(golden: Path, tmp_path: Path) -> None:
    known = yaml.safe_load(paired_mix(tmp_path).read_text(encoding="utf-8"))
    known["datasets"][0]["pair"] = "scan"
    (tmp_path / "mutual.yaml").write_text(yaml.safe_dump(known), encoding="utf-8")
    with pytest.raises(ValueError, match=r"datasets\[0\]: the pair 'scan' must have no pair of its own"):
        corpus_of(config(mix_config=f"{tmp_path / 'mutual.yaml'}"))
    alone = {"datasets": [{"cache_root": "cache", "split": "train", "backend": "mesh", "ask_pair": True}]}
    (tmp_path / "alone.yaml").write_text(yaml.safe_dump(alone), encoding="utf-8")
    with pytest.raises(ValueError, match=r"datasets\[0\]: ask_pair must be false for a component without a pair"):
        corpus_of(config(mix_config=f"{tmp_path / 'alone.yaml'}"))
    with pytest.raises(ValueError, match=r"datasets\[1\]: pair must be the name of one other component, got 'scan'"):
        corpus_of(config(mix_config=f"{paired_mix(tmp_path, pair='scan')}"))
    with pytest.raises(ValueError, match="replacement must be true where a component of the mix has a pair"):
        corpus_of(config(mix_config=f"{paired_mix(tmp_path, replacement=False)}"))
    settings = config(mix_config=f"{paired_mix(tmp_path)}", objective="answer", save_dir=f"{tmp_path / 'run'}")
    with pytest.raises(ValueError, match="objective answer takes no mix whose components have a pair"):
        pretrain.pretrain(settings, ALONE)
