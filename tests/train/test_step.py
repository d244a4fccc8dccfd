"""One step: micro-batches, shares and left out tokens give the gradients of the whole batch."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from nepa3d.cli import flags
from nepa3d.ops.attention import DualMask
from nepa3d.samples.schema import N_TYPES_QA, TokenType
from nepa3d.train.corpus import Batch, EpochBatches, open_corpus
from nepa3d.train.distributed import ProcessGroup
from nepa3d.train.loop import train_step
from nepa3d.train.objectives import OBJECTIVES, MicroBatch, TokenObjective, micro_batches, tokens
from nepa3d.train.pretrain import Config, start
from nepa3d.train.schedule import LearningRateFlags, Schedule
from nepa3d.train.step import Trainer

ALONE = ProcessGroup(0, 1, torch.device("cpu"))
MASK = DualMask(0.4, 0.1, 4, 9)


def config(**more: object) -> Config:
    given: dict[str, object] = {"mix_config": "mix.yaml", "mix_num_samples": 48, "n_point": 8, "n_ray": 4}
    given |= {"d_model": 16, "layers": 2, "heads": 2, "batch": 16, "save_dir": "none", "auto_resume": 0}
    return flags.build(Config, given | more)


def first_batch(settings: Config, process_group: ProcessGroup = ALONE) -> Batch:
    corpus = open_corpus(settings.corpus, settings.sample_settings(), settings.seed)
    return EpochBatches(corpus, 0, settings.loop.batch, process_group).read(0)


def split(batch: Batch, settings: Config, step: int = 0) -> list[MicroBatch]:
    objective = OBJECTIVES[settings.loss.objective]
    assert isinstance(objective, TokenObjective)
    return micro_batches(objective, batch, settings.loss, settings.step, (settings.seed, step), ALONE.device)


def trainer(settings: Config) -> Trainer:
    return start(settings, ALONE, 3, total_steps=10).trainer


def gradients(settings: Config, batch: Batch | None = None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The tally and the gradients of the first step."""
    run = start(settings, ALONE, 3, total_steps=10)
    tally = run.trainer.step(batch or first_batch(settings), 0, MASK)
    grads = {name: p.grad for name, p in run.trainer.model.named_parameters() if p.grad is not None}
    return tally, grads


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    for name, grad in a.items():
        torch.testing.assert_close(grad, b[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("more", [{"qa_tokens": 1}, {"objective": "mae"}, {"target": "content"}], ids=str)
@pytest.mark.parametrize("change", [{"accumulate": 3}, {"accumulate": 16}], ids=str)
def test_pieces_give_the_gradients_of_the_whole(
    golden: Path, more: dict[str, object], change: dict[str, object]
) -> None:
    whole, expected = gradients(config(**more))
    tally, found = gradients(config(**more, **change))
    torch.testing.assert_close(tally, whole)
    assert_same(found, expected)


def test_in_qa_form_missing_rays_change_nothing(golden: Path) -> None:
    settings = config(qa_tokens=1)
    assert (first_batch(settings).types == TokenType.MISSING_RAY).any()
    whole, expected = gradients(settings)
    tally, found = gradients(config(qa_tokens=1, skip_missing_rays=1))
    torch.testing.assert_close(tally, whole)
    assert_same(found, expected)


def test_only_predictions_that_count_are_made(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a Q/A sequence half of the last layer; the gradients are those of all of it."""
    settings = config(qa_tokens=1)
    batch = first_batch(settings)
    (micro_batch,) = split(batch, settings)
    assert micro_batch.wanted is not None
    assert micro_batch.wanted.tolist() == list(range(1, 1 + 2 * (8 + 4), 2))  # the questions
    assert split(batch, config(objective="mae"))[0].wanted is None
    found = gradients(settings)
    monkeypatch.setattr(tokens, "_predicting", lambda _: None)
    whole = gradients(settings)
    torch.testing.assert_close(found[0], whole[0])
    assert_same(found[1], whole[1])


def test_in_plain_form_missing_rays_change_the_closing_token_only(golden: Path) -> None:
    whole, _ = gradients(config())
    tally, _ = gradients(config(skip_missing_rays=1))
    torch.testing.assert_close(tally[1], whole[1])
    differing = {TokenType(i) for i in range(N_TYPES_QA) if not torch.isclose(tally[0, i], whole[0, i], rtol=1e-4)}
    assert differing == {TokenType.EOS}


def test_no_missing_ray_goes_through_the_model(golden: Path) -> None:
    settings = config(skip_missing_rays=1, accumulate=2)
    batch = first_batch(settings)
    found = split(batch, settings)
    assert sum(len(micro_batch.types) for micro_batch in found) == 16
    assert not any((micro_batch.types == TokenType.MISSING_RAY).any() for micro_batch in found)
    for micro_batch in found:
        assert micro_batch.types[0, -1] == TokenType.EOS
        if micro_batch.positions is not None:
            assert micro_batch.positions[-1] == batch.types.shape[1] - 1  # it keeps its place


@pytest.mark.parametrize("objective", ["nepa", "mae"])
def test_shares_add_up(golden: Path, objective: str) -> None:
    """Three processes' micro-batches are the batch's, with the same masks."""
    settings = config(objective=objective)
    whole = split(first_batch(settings), settings, 5)[0]
    shares = [split(first_batch(settings, ProcessGroup(rank, 3, ALONE.device)), settings, 5) for rank in range(3)]
    for name in ("features", "types", "parts", "counted"):
        parts = [getattr(micro_batch, name) for share in shares for micro_batch in share]
        assert torch.equal(torch.cat(parts), getattr(whole, name))


def test_a_process_may_have_no_share() -> None:
    places = range(10, 12)
    shares = [ProcessGroup(rank, 4, ALONE.device).share(places) for rank in range(4)]
    assert [list(share) for share in shares] == [[], [10], [], [11]]


def test_errors_by_type_and_part(golden: Path) -> None:
    settings = config(qa_tokens=1)
    tally, _ = gradients(settings)
    kinds = trainer(settings).by_kind(tally, ["a", "b", "c"])
    assert set(kinds) == {"types", "parts"}  # there is one term
    assert set(kinds["types"]) == {"A_POINT", "A_RAY"}
    assert set(kinds["parts"]) <= {"a", "b", "c"}
    counts = tally[1]
    assert counts[:N_TYPES_QA].sum() == counts[N_TYPES_QA:-1].sum() == counts[-1]
    weights = counts[[TokenType.A_POINT, TokenType.A_RAY]] / counts[:N_TYPES_QA].sum()
    means = torch.tensor([kinds["types"]["A_POINT"], kinds["types"]["A_RAY"]])
    assert float(trainer(settings).mean_error(tally)) == pytest.approx(float((weights * means).sum()), rel=1e-5)


def test_targets_of_content_hold_no_position(golden: Path) -> None:
    """With large position embeddings the embedding is guessed from the position, the content is not."""
    losses = {}
    for target in ("embedding", "content"):
        settings = config(qa_tokens=1, target=target)
        run = start(settings, ALONE, 3, total_steps=10)
        torch.nn.init.normal_(run.trainer.model.pos_emb, std=100.0)
        losses[target] = run.trainer.diagnosis(first_batch(settings), 0).position_type_loss
    assert losses["embedding"] < 1e-3
    assert losses["content"] > 10 * losses["embedding"]


@pytest.mark.parametrize("amp", ["bf16", "none"])
def test_mixed_precision_on_the_cpu(golden: Path, amp: str) -> None:
    settings = config(qa_tokens=1)
    whole, _ = gradients(settings)
    tally, grads = gradients(config(qa_tokens=1, amp=amp))
    loss = trainer(settings).mean_error
    assert float(loss(tally)) == pytest.approx(float(loss(whole)), rel=2e-2)
    assert torch.equal(tally, whole) == (amp == "none")
    assert all(grad.dtype == torch.float32 for grad in grads.values())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit, which the compiler itself uses
def test_compiled_is_the_same(golden: Path) -> None:
    whole, expected = gradients(config(qa_tokens=1, layers=1))
    tally, found = gradients(config(qa_tokens=1, layers=1, compile=1))
    torch.testing.assert_close(tally, whole, rtol=1e-4, atol=1e-4)
    assert_same(found, expected)


def test_gradients_are_clipped(golden: Path) -> None:
    _, grads = gradients(config(clip_grad=1e-3))
    norm = math.sqrt(sum(float((grad**2).sum()) for grad in grads.values()))
    assert norm == pytest.approx(1e-3, rel=1e-3)


def test_what_to_do_where_memory_runs_out(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    settings = config()
    run = start(settings, ALONE, 3, total_steps=10)
    run.trainer.forward = full  # type: ignore[assignment]
    with pytest.raises(MemoryError, match="16 samples does not fit onto cpu: try --accumulate 2"):
        train_step(run, first_batch(settings))


def test_learning_rates() -> None:
    constant = Schedule(LearningRateFlags(lr=1.0), None, seed=0, total_steps=100)
    assert {constant.learning_rate(number) for number in range(100)} == {1.0}
    flags = LearningRateFlags(lr=1.0, warmup_frac=0.1, schedule="cosine")
    rates = [Schedule(flags, None, seed=0, total_steps=100).learning_rate(number) for number in range(100)]
    assert {Schedule(flags, None, seed=0, total_steps=100).learning_rate(number) for number in (100, 130, 300)} == {0.0}
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert rates[9] == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))
    assert sorted(rates[10:], reverse=True) == rates[10:]
