"""Attention along the edges of a bit-packed mask, in Triton: scores and masks never leave the processor's registers.

The method is FlashAttention-2 (Dao, arXiv 2307.08691): tiles of the scores are made, exponentiated against a running
maximum and used at once; the backward pass makes them again. Letters: B batch, H heads, T tokens, D head size, W words
of 32 edges in a row of the mask. With CAUSAL no edge ahead of the diagonal's tile is looked up. A mask must keep the
diagonal. Scores are scaled by log2(e), as the hardware has powers of 2. With BIAS the scores have a
``nepa3d.ops.attention.DistanceBias``: distances are made from differences of coordinates in float32, tile by tile.

The mask is packed once a step: hashing it where it is used would take 22 to 28 instructions more a score, of 11 to 17
(sm_90, bfloat16, D = 64). Tiles are within a tenth of the fastest tried on an H100 for heads of 32 to 128
(benchmarks/results): small ones, of which more run at a time. Products of float32 are three of TF32, as exact and three
times as fast as plain ones there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from nepa3d.ops.token_major import token_major_like

NEVER = tl.constexpr(-1e30)  # the score of a dropped edge: finite, as the difference of two infinities is none


Bias = tuple[Tensor, Tensor, Tensor]  # points (B, T, 4), slope (H,) and offset (B, H, T), all float32


@dataclass(frozen=True)
class Tiles:
    """Rows and columns of the tile of scores that a program holds; both multiples of a word."""

    rows: int
    columns: int
    warps: int = 4
    stages: int = 2


@triton.jit
def _mix32(x):
    x = x ^ (x >> 16)
    x = x * 0x21F0AAAD
    x = x ^ (x >> 15)
    x = x * 0xD35A2D97
    return x ^ (x >> 15)


@triton.jit
def _hashed(rows, columns, near, far, window, stirred):
    """The edges of ``nepa3d.ops.attention.dual_mask``, from row numbers (M, 1) and column numbers (1, N) or as well
    (1, M) and (N, 1); ``near`` and ``far`` are probabilities scaled to 2^32."""
    row = _mix32((rows.to(tl.uint32) * 0x9E3779B9) ^ stirred.to(tl.uint32))
    column = _mix32((columns.to(tl.uint32) * 0x85EBCA6B) ^ 0x68E31DA4)
    back = rows - columns
    limit = tl.where((back <= window) & (window > 0), near, far)
    return (back == 0) | ((back > 0) & (_mix32(row ^ column).to(tl.int64) >= limit))


@triton.jit
def _pack(bits, near, far, window, stirred, length, words, ROWS: tl.constexpr):  # noqa: N803
    """Words (2, T, W): bit j % 32 of word (0, i, j // 32) and bit i % 32 of word (1, j, i // 32) are the edge from i to
    j."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    word = tl.program_id(1)
    bit = tl.arange(0, 32)
    columns = word * 32 + bit
    if tl.program_id(2) == 0:
        edges = _hashed(rows[:, None], columns[None, :], near, far, window, stirred)
    else:
        edges = _hashed(columns[None, :], rows[:, None], near, far, window, stirred) & (columns < length)[None, :]
    packed = tl.sum(edges.to(tl.uint32) << bit[None, :].to(tl.uint32), 1)
    row = tl.program_id(2) * length + rows
    tl.store(bits + row * words + word, packed.to(tl.int32, bitcast=True), mask=rows < length)


@triton.jit
def _edges(bits, words, length, rows, start, COLUMNS: tl.constexpr):  # noqa: N803
    """A tile (rows, COLUMNS) of the mask, or of its transpose, from column ``start``."""
    column = tl.arange(0, COLUMNS)[None, :]
    row = bits + rows * words + start // 32
    there = rows < length
    mine = tl.load(row, mask=there, other=0)[:, None]
    for i in tl.static_range(1, COLUMNS // 32):
        mine = tl.where(column // 32 == i, tl.load(row + i, mask=there, other=0)[:, None], mine)
    return ((mine >> (column % 8) >> (column % 32 // 8 * 8)) & 1) != 0


@triton.jit
def _rows(base, stride, rows, length, D: tl.constexpr, BLOCK_D: tl.constexpr):  # noqa: N803
    """Rows (n, BLOCK_D) of a (T, D) matrix, zero beyond its ends."""
    d = tl.arange(0, BLOCK_D)
    return tl.load(
        base + rows[:, None] * stride + d[None, :], mask=(rows < length)[:, None] & (d < D)[None, :], other=0
    )


@triton.jit
def _store_rows(base, stride, rows, length, values, D: tl.constexpr, BLOCK_D: tl.constexpr):  # noqa: N803
    d = tl.arange(0, BLOCK_D)
    there = (rows < length)[:, None] & (d < D)[None, :]
    tl.store(base + rows[:, None] * stride + d[None, :], values.to(base.dtype.element_ty), mask=there)


@triton.jit
def _matrix(base, stride_b, stride_h, heads):
    """Where this program's (T, D) matrix of a (B, H, T, D) tensor begins."""
    pair = tl.program_id(1).to(tl.int64)
    return base + pair // heads * stride_b + pair % heads * stride_h


@triton.jit
def _places(points, heads, tokens, length):
    """Coordinates x, y, z (n,) of tokens, and 1 where they have a place; all 0 beyond the end."""
    row = points + (tl.program_id(1).to(tl.int64) // heads * length + tokens) * 4
    there = tokens < length
    x = tl.load(row, mask=there, other=0)
    y = tl.load(row + 1, mask=there, other=0)
    z = tl.load(row + 2, mask=there, other=0)
    return x, y, z, tl.load(row + 3, mask=there, other=0)


@triton.jit
def _squares(x, y, z, placed, others_x, others_y, others_z, others_placed):
    """Squared distances (n, m) of two sets of tokens, 0 where one has no place."""
    dx = x[:, None] - others_x[None, :]
    dy = y[:, None] - others_y[None, :]
    dz = z[:, None] - others_z[None, :]
    return (dx * dx + dy * dy + dz * dz) * (placed[:, None] * others_placed[None, :])


@triton.jit
def _forward(
    q, k, v, bits, out, lse, points, slope, offset, scale, heads, length, words,
    q_b, q_h, q_t, k_b, k_h, k_t, v_b, v_h, v_t, o_b, o_h, o_t,
    D: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, PRECISION: tl.constexpr,  # noqa: N803
    BIAS: tl.constexpr, CAUSAL: tl.constexpr,  # noqa: N803
):  # fmt: skip
    block = tl.num_programs(0) - 1 - tl.program_id(0)  # long rows first
    rows = block * ROWS + tl.arange(0, ROWS)
    keys, values = _matrix(k, k_b, k_h, heads), _matrix(v, v_b, v_h, heads)
    query = _rows(_matrix(q, q_b, q_h, heads), q_t, rows, length, D, BLOCK_D)
    top = tl.full([ROWS], NEVER, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    mixed = tl.zeros([ROWS, BLOCK_D], tl.float32)
    unit = scale  # of the scores
    if BIAS:
        unit = 1.0
        x, y, z, placed = _places(points, heads, rows, length)
        steep = tl.load(slope + tl.program_id(1) % heads)
    end = tl.minimum((block + 1) * ROWS, length) if CAUSAL else length
    for start in range(0, end, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        key = _rows(keys, k_t, columns, length, D, BLOCK_D)
        scores = tl.dot(query, tl.trans(key), input_precision=PRECISION)
        if BIAS:
            key_x, key_y, key_z, key_placed = _places(points, heads, columns, length)
            squares = _squares(x, y, z, placed, key_x, key_y, key_z, key_placed)
            above = tl.load(offset + tl.program_id(1).to(tl.int64) * length + columns, mask=columns < length, other=0)
            scores = scores * scale + (above[None, :] - steep * squares)
        scores = tl.where(_edges(bits, words, length, rows, start, COLUMNS), scores, NEVER)
        higher = tl.maximum(top, tl.max(scores, 1))
        shrink = tl.exp2((top - higher) * unit)
        weight = tl.exp2(scores * unit - tl.where(higher == NEVER, 0.0, higher * unit)[:, None])
        total = total * shrink + tl.sum(weight, 1)
        value = _rows(values, v_t, columns, length, D, BLOCK_D)
        mixed = tl.dot(weight.to(value.dtype), value, mixed * shrink[:, None], input_precision=PRECISION)
        top = higher
    total = tl.maximum(total, 1e-30)  # 0 in rows beyond the end
    _store_rows(_matrix(out, o_b, o_h, heads), o_t, rows, length, mixed / total[:, None], D, BLOCK_D)
    tl.store(lse + tl.program_id(1).to(tl.int64) * length + rows, top * unit + tl.log2(total), mask=rows < length)


@triton.jit
def _backward_keys(
    q, k, v, bits, dout, lse, delta, dk, dv, points, slope, offset, doffset, scale, heads, length, words,
    q_b, q_h, q_t, k_b, k_h, k_t, v_b, v_h, v_t, o_b, o_h, o_t, g_b, g_h, g_t,
    D: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, PRECISION: tl.constexpr,  # noqa: N803
    BIAS: tl.constexpr, CAUSAL: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """Gradients of a block of keys, values and offsets, from all later queries; scores are held transposed."""
    first = tl.program_id(0) * COLUMNS
    columns = first + tl.arange(0, COLUMNS)
    key = _rows(_matrix(k, k_b, k_h, heads), k_t, columns, length, D, BLOCK_D)
    value = _rows(_matrix(v, v_b, v_h, heads), v_t, columns, length, D, BLOCK_D)
    queries, douts = _matrix(q, q_b, q_h, heads), _matrix(dout, o_b, o_h, heads)
    sums = tl.program_id(1).to(tl.int64) * length
    dkey = tl.zeros([COLUMNS, BLOCK_D], tl.float32)
    dvalue = tl.zeros([COLUMNS, BLOCK_D], tl.float32)
    if BIAS:
        x, y, z, placed = _places(points, heads, columns, length)
        steep = tl.load(slope + tl.program_id(1) % heads)
        above = tl.load(offset + sums + columns, mask=columns < length, other=0)
        dabove = tl.zeros([COLUMNS], tl.float32)
    for start in range(first // ROWS * ROWS if CAUSAL else 0, length, ROWS):
        rows = start + tl.arange(0, ROWS)
        there = rows < length
        query = _rows(queries, q_t, rows, length, D, BLOCK_D)
        grad = _rows(douts, o_t, rows, length, D, BLOCK_D)
        scores = tl.dot(key, tl.trans(query), input_precision=PRECISION) * scale
        if BIAS:
            row_x, row_y, row_z, row_placed = _places(points, heads, rows, length)
            scores += above[:, None] - steep * _squares(x, y, z, placed, row_x, row_y, row_z, row_placed)
        norm = tl.load(lse + sums + rows, mask=there, other=0)
        edges = _edges(bits, words, length, columns, start, ROWS)
        weight = tl.where(edges, tl.exp2(scores - norm[None, :]), 0.0)  # of a dropped score it may be infinite
        dvalue = tl.dot(weight.to(grad.dtype), grad, dvalue, input_precision=PRECISION)
        dweight = tl.dot(value, tl.trans(grad), input_precision=PRECISION)
        dscores = weight * (dweight - tl.load(delta + sums + rows, mask=there, other=0)[None, :])
        dkey = tl.dot(dscores.to(query.dtype), query, dkey, input_precision=PRECISION)
        if BIAS:
            dabove += tl.sum(dscores, 1)
    if BIAS:
        tl.store(doffset + sums + columns, dabove, mask=columns < length)
    dkey *= scale * 0.6931471805599453  # ln 2: the scale without log2(e)
    _store_rows(_matrix(dk, g_b, g_h, heads), g_t, columns, length, dkey, D, BLOCK_D)
    _store_rows(_matrix(dv, g_b, g_h, heads), g_t, columns, length, dvalue, D, BLOCK_D)


@triton.jit
def _backward_queries(
    q, k, v, bits, dout, out, lse, delta, dq, points, slope, offset, dslope, scale, heads, length, words,
    q_b, q_h, q_t, k_b, k_h, k_t, v_b, v_h, v_t, o_b, o_h, o_t, g_b, g_h, g_t, a_b, a_h, a_t,
    D: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, PRECISION: tl.constexpr,  # noqa: N803
    BIAS: tl.constexpr, CAUSAL: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """Gradients of a block of queries, from all earlier keys, and each row's part of the slope's; and ``delta``, each
    row's product of out and dout, which the gradients of the keys need."""
    block = tl.num_programs(0) - 1 - tl.program_id(0)
    rows = block * ROWS + tl.arange(0, ROWS)
    there = rows < length
    query = _rows(_matrix(q, q_b, q_h, heads), q_t, rows, length, D, BLOCK_D)
    grad = _rows(_matrix(dout, o_b, o_h, heads), o_t, rows, length, D, BLOCK_D)
    keys, values = _matrix(k, k_b, k_h, heads), _matrix(v, v_b, v_h, heads)
    sums = tl.program_id(1).to(tl.int64) * length + rows
    norm = tl.load(lse + sums, mask=there, other=0)
    answer = _rows(_matrix(out, a_b, a_h, heads), a_t, rows, length, D, BLOCK_D)
    mean = tl.sum(grad.to(tl.float32) * answer.to(tl.float32), 1)
    tl.store(delta + sums, mean, mask=there)
    dquery = tl.zeros([ROWS, BLOCK_D], tl.float32)
    if BIAS:
        x, y, z, placed = _places(points, heads, rows, length)
        steep = tl.load(slope + tl.program_id(1) % heads)
        dsteep = tl.zeros([ROWS], tl.float32)
    end = tl.minimum((block + 1) * ROWS, length) if CAUSAL else length
    for start in range(0, end, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        key = _rows(keys, k_t, columns, length, D, BLOCK_D)
        value = _rows(values, v_t, columns, length, D, BLOCK_D)
        scores = tl.dot(query, tl.trans(key), input_precision=PRECISION) * scale
        if BIAS:
            key_x, key_y, key_z, key_placed = _places(points, heads, columns, length)
            squares = _squares(x, y, z, placed, key_x, key_y, key_z, key_placed)
            above = tl.load(offset + tl.program_id(1).to(tl.int64) * length + columns, mask=columns < length, other=0)
            scores += above[None, :] - steep * squares
        edges = _edges(bits, words, length, rows, start, COLUMNS)
        weight = tl.where(edges, tl.exp2(scores - norm[:, None]), 0.0)
        dweight = tl.dot(grad, tl.trans(value), input_precision=PRECISION)
        dscores = weight * (dweight - mean[:, None])
        dquery = tl.dot(dscores.to(key.dtype), key, dquery, input_precision=PRECISION)
        if BIAS:
            dsteep -= tl.sum(dscores * squares, 1)
    if BIAS:
        tl.store(dslope + sums, dsteep, mask=there)
    dquery *= scale * 0.6931471805599453
    _store_rows(_matrix(dq, g_b, g_h, heads), g_t, rows, length, dquery, D, BLOCK_D)


def pack(near: int, far: int, window: int, stirred: int, bits: Tensor) -> None:
    """Fill the words (2, T, W) int32 of the dual mask; ``near`` and ``far`` are probabilities scaled to 2^32."""
    (_, length, words), rows = bits.shape, 64
    _pack[(triton.cdiv(length, rows), words, 2)](bits, near, far, window, stirred, length, words, ROWS=rows)


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bits: Tensor,
    tiles: Tiles | None = None,
    bias: Bias | None = None,
    *,
    causal: bool = True,
) -> tuple[Tensor, Tensor]:
    """Attention (B, H, T, D), and the logarithm to base 2 of each row's sum (B, H, T) float32. With ``causal``, edges
    to later tokens are not looked for."""
    b, h, length, d = q.shape
    tiles = tiles or _forward_tiles(q)
    out = token_major_like(q)
    lse = torch.empty(b, h, length, dtype=torch.float32, device=q.device)
    q, k, v = (_dense_rows(x) for x in (q, k, v))
    _forward[(triton.cdiv(length, tiles.rows), b * h)](
        *(q, k, v, bits, out, lse, *_in_powers_of_2(bias, lse), _scale(d), h, length, bits.shape[2]),
        *(*q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *out.stride()[:3]),
        **_constants(q, tiles, bias, causal),
    )  # fmt: skip
    return out, lse


def backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    bits: Tensor,
    tiles: Tiles | None = None,
    bias: Bias | None = None,
    *,
    causal: bool = True,
) -> tuple[Tensor, ...]:
    """Gradients of q, k and v, and with a bias of its slope (H,) and its offset (B, H, T); ``out`` and ``lse`` as
    ``forward`` gave them."""
    b, h, length, d = q.shape
    delta = torch.empty_like(lse)
    dslope, doffset = (delta, delta) if bias is None else (torch.empty_like(lse), torch.empty_like(lse))
    dq, dk, dv = token_major_like(q), token_major_like(q), token_major_like(q)
    dout, q, k, v, out = (_dense_rows(x) for x in (dout, q, k, v, out))
    strides = [stride for x in (q, k, v, dout, dq) for stride in x.stride()[:3]]
    sizes, added = (_scale(d), h, length, bits.shape[2]), _in_powers_of_2(bias, lse)
    by_keys, by_queries = (tiles, tiles) if tiles else _backward_tiles(q)
    _backward_queries[(triton.cdiv(length, by_queries.rows), b * h)](
        *(q, k, v, bits, dout, out, lse, delta, dq, *added, dslope), *sizes, *strides, *out.stride()[:3],
        **_constants(q, by_queries, bias, causal),
    )  # fmt: skip
    _backward_keys[(triton.cdiv(length, by_keys.columns), b * h)](
        *(q, k, v, bits[1], dout, lse, delta, dk, dv, *added, doffset), *sizes, *strides,
        **_constants(q, by_keys, bias, causal),
    )  # fmt: skip
    return (dq, dk, dv) if bias is None else (dq, dk, dv, dslope.sum((0, 2)), doffset)


def _in_powers_of_2(bias: Bias | None, unused: Tensor) -> Bias:
    """The bias of scores that are logarithms to base 2; without one, tensors that are not looked at."""
    if bias is None:
        return unused, unused, unused
    points, slope, offset = bias
    return points.contiguous(), slope * math.log2(math.e), (offset * math.log2(math.e)).contiguous()


def _constants(q: Tensor, tiles: Tiles, bias: Bias | None, causal: bool) -> dict[str, int | str | bool]:
    d = q.shape[3]
    precision = "tf32x3" if q.dtype == torch.float32 else "tf32"  # of no effect on 16-bit factors
    block_d = max(16, triton.next_power_of_2(d))
    sizes = {"D": d, "BLOCK_D": block_d, "ROWS": tiles.rows, "COLUMNS": tiles.columns, "PRECISION": precision}
    return sizes | {"BIAS": bias is not None, "CAUSAL": causal} | {"num_warps": tiles.warps, "num_stages": tiles.stages}


def _forward_tiles(q: Tensor) -> Tiles:
    return Tiles(32, 64) if q.dtype == torch.float32 else Tiles(64, 64, stages=3)


def _backward_tiles(q: Tensor) -> tuple[Tiles, Tiles]:
    """Of the gradients of keys and values, and of queries."""
    if q.dtype == torch.float32:
        return Tiles(32, 32), Tiles(32, 64)
    return Tiles(32, 64, stages=3), Tiles(64, 64, stages=3)


def _scale(d: int) -> float:
    return math.log2(math.e) / math.sqrt(d)


def _dense_rows(x: Tensor) -> Tensor:
    return x if x.stride(3) == 1 else x.contiguous()
