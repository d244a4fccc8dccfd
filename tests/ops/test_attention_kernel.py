"""The Triton kernels: under the interpreter on the CPU, as they are on a GPU, and compiled for GPUs not at hand."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from nepa3d.ops import attention_kernel
from nepa3d.ops.attention import DualMask, _scaled, _stirred, dual_mask, pack_edges, remaining_edges
from nepa3d.ops.attention_kernel import Tiles

pytestmark = pytest.mark.gpu  # without one the kernels are interpreted
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MASK = DualMask(0.4, 0.1, 9, 2**40 + 5)


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """What is not written is NaN."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def inputs(length: int, head_size: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """q, k, v as the model has them, views of one tensor; and a gradient."""
    generator = torch.Generator().manual_seed(length * 1000 + head_size)
    qkv = torch.randn(1, length, 3, 2, head_size, generator=generator).to(DEVICE, dtype)
    grad = torch.randn(1, 2, length, head_size, generator=generator).to(DEVICE, dtype)
    return [*qkv.permute(2, 0, 3, 1, 4), grad]


def kernels(tensors: list[torch.Tensor], words: torch.Tensor, tiles: Tiles | None = None) -> list[torch.Tensor]:
    """Output and gradients."""
    q, k, v, grad = tensors
    out, lse = attention_kernel.forward(q, k, v, words, tiles)
    return [out, *attention_kernel.backward(grad, q, k, v, out, lse, words, tiles)]


def plain(tensors: list[torch.Tensor], edges: torch.Tensor, dtype: torch.dtype) -> list[torch.Tensor]:
    """The same by torch in another precision."""
    q, k, v = (x.to(dtype, copy=True).requires_grad_() for x in tensors[:3])
    scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~edges, -torch.inf)
    out = scores.softmax(-1) @ v
    return [out.detach(), *torch.autograd.grad(out, (q, k, v), tensors[3].to(dtype))]


def edges_and_words(length: int, mask: DualMask = MASK) -> tuple[torch.Tensor, torch.Tensor]:
    edges = dual_mask(length, mask)
    return edges.to(DEVICE), pack_edges(edges).to(DEVICE)


@pytest.mark.parametrize("length", [1, 31, 128, 131])
@pytest.mark.parametrize("mask", [MASK, DualMask(1.0, 0.0, 5, 3), DualMask(0.0, 1.0, 0, 2**33), DualMask(1, 1, 1, 0)])
def test_packed_words_are_the_twins(length: int, mask: DualMask) -> None:
    words = torch.empty(2, length, -(-length // 128) * 4, dtype=torch.int32, device=DEVICE)
    attention_kernel.pack(_scaled(mask.near), _scaled(mask.far), mask.window, _stirred(mask.seed), words)
    assert torch.equal(words.cpu(), pack_edges(dual_mask(length, mask)))


@pytest.mark.parametrize("tiles", [Tiles(32, 32), Tiles(64, 32), Tiles(32, 64), Tiles(32, 128), None], ids=str)
@pytest.mark.parametrize("length", [1, 33, 70])
def test_output_and_gradients(length: int, tiles: Tiles | None) -> None:
    tensors = inputs(length, 32)
    edges, words = edges_and_words(length)
    for found, expected in zip(kernels(tensors, words, tiles), plain(tensors, edges, torch.float64), strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("head_size", [4, 48, 64, 128])
def test_head_sizes(head_size: int) -> None:
    tensors = inputs(37, head_size)
    edges, words = edges_and_words(37)
    for found, expected in zip(kernels(tensors, words), plain(tensors, edges, torch.float64), strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


INTERPRETED = "Triton's interpreter multiplies the bits of bfloat16 (triton-lang/triton#11584)"


@pytest.mark.parametrize(
    "dtype",
    [torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.skipif(DEVICE == "cpu", reason=INTERPRETED))],
    ids=str,
)
def test_half_precision_loses_no_more_than_torch(dtype: torch.dtype) -> None:
    tensors = inputs(70, 64, dtype)
    edges, words = edges_and_words(70)
    exact = plain(tensors, edges, torch.float64)
    for found, half, expected in zip(kernels(tensors, words), plain(tensors, edges, dtype), exact, strict=True):
        assert found.dtype == dtype
        assert (found - expected).abs().max() <= 2 * (half - expected).abs().max()


@pytest.mark.filterwarnings("ignore:overflow encountered in exp2")  # of dropped scores, whose weights are not taken
def test_a_row_without_edges_in_a_tile() -> None:
    """With all earlier edges dropped a token sees itself only, however many empty tiles come before it."""
    tensors = inputs(100, 32)
    tensors[0] = tensors[0] * 100  # scores far from 0
    _, words = edges_and_words(100, DualMask(1.0, 1.0, 1, 0))
    out, dq, dk, dv = kernels(tensors, words, Tiles(32, 32))
    torch.testing.assert_close(out, tensors[2])
    # a GPU's forward and backward sum in different orders, and scores of 600 have steps of 6e-5
    torch.testing.assert_close(dv, tensors[3], **({"rtol": 1e-3, "atol": 1e-3} if DEVICE == "cuda" else {}))
    assert dq.abs().max() < 1e-4
    assert dk.abs().max() < 1e-2


def test_nothing_dropped_is_causal_attention() -> None:
    q, k, v, grad = inputs(67, 32)
    words = pack_edges(torch.ones(67, 67, dtype=torch.bool).tril()).to(DEVICE)
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(kernels([q, k, v, grad], words)[0], expected, rtol=1e-5, atol=1e-5)


def test_a_gradient_without_strides() -> None:
    q, k, v, grad = inputs(33, 32)
    edges, words = edges_and_words(33)
    tensors = [q, k, v, torch.ones((), device=DEVICE).expand_as(grad)]
    for found, expected in zip(kernels(tensors, words), plain(tensors, edges, torch.float64), strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_operator_on_a_gpu(dtype: torch.dtype) -> None:
    q, k, v, grad = inputs(514, 64, dtype)
    q, k, v = (x.detach().requires_grad_() for x in (q, k, v))
    words = remaining_edges(514, MASK, device="cuda")
    assert words is not None
    out, _ = torch.ops.nepa3d.packed_attention(q, k, v, words)
    edges = dual_mask(514, MASK).cuda()
    half = plain([q, k, v, grad], edges, dtype)
    exact = plain([q, k, v, grad], edges, torch.float64)
    found = [out, *torch.autograd.grad(out, (q, k, v), grad)]
    for ours, theirs, expected in zip(found, half, exact, strict=True):
        assert (ours - expected).abs().max() <= 2 * (theirs - expected).abs().max() + 1e-6
    if dtype == torch.float32:
        torch.library.opcheck(torch.ops.nepa3d.packed_attention.default, (q, k, v, words))


COMPILE = """
import sys, torch
from triton import compile
from triton.compiler import ASTSource
from triton.backends.compiler import GPUTarget
from nepa3d.ops import attention_kernel as kernels

like = torch.empty(1, 1, 1, 64, dtype=torch.bfloat16)
keys, queries = kernels._backward_tiles(like)
programs = {"forward": kernels._forward_tiles(like), "backward_keys": keys, "backward_queries": queries}
for bias, (kernel, tiles) in [(bias, program) for bias in (None, True) for program in programs.items()]:
    function = getattr(kernels, "_" + kernel)
    given = kernels._constants(like, tiles, bias, True)
    constants = {name: value for name, value in given.items() if name in function.arg_names}
    types = {"bits": "*i32", "lse": "*fp32", "delta": "*fp32", "scale": "fp32"}
    types |= dict.fromkeys(("points", "slope", "offset", "dslope", "doffset"), "*fp32")
    types |= dict.fromkeys(("q", "k", "v", "out", "dout", "dq", "dk", "dv"), "*bf16")
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in function.arg_names}
    source = ASTSource(function, signature, constants)
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    compiled = compile(source, target=GPUTarget("cuda", int(sys.argv[1]), 32), options=options)
    print(kernel, len(compiled.asm["cubin"]) > 0, compiled.metadata.shared)
"""


@pytest.mark.parametrize("capability", [80, 90])
def test_they_compile_for_a_gpu(capability: int) -> None:
    """Into machine code that fits into the shared memory of an A100, and of an H100."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", COMPILE, str(capability)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [name for name, _, _ in lines] == 2 * ["forward", "backward_keys", "backward_queries"]  # with a bias, too
    assert all(made == "True" and int(shared) <= 160 * 1024 for _, made, shared in lines)
