# ruff: noqa: N803
"""Matrix-vector products whose weights are read ahead: what the kernels of a decode step of a few rows share.

A matrix-vector product waits for its weights and for nothing else. A program owns a few rows of the weight, whole, and
has them in registers before it looks at its input. With programmatic dependent launch (PDL) that is before the kernel
ahead has ended: `gdc_launch_dependents` lets the next grid start as soon as this one is resident, `gdc_wait` returns
when the grid ahead is complete and what it wrote can be read. Up to there a program may touch weights only.

Every program needs the whole input, and all ask for it at the same moment, of the few slices of the L2 cache that its
lines lie in: a thousand warps that read 3 KB each wait for a microsecond. So programs are few and large, and read their
input through the L1, which asks the L2 once for all warps of a program. Every kernel of the chain waits, so all that
came before is complete then, and can be seen, whatever the L1 held before.

A warp, or a group of warps where rows are long, owns rows of the weight: a row's sum is a few shuffles, no warp waits
for another, and the results of its rows, each in a lane, are finished and stored together.

Every row of the input is worked on by itself, by the same operations in the same order: its result has the same bits at
any number of rows. Sums are float32, in an order that the shapes fix; there are no atomics.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

_LANES = tl.constexpr(32)
_CHUNK = 256
"""Elements of a row that a warp loads at once: 8 a lane, 16 bytes of bf16."""

_LINE_BYTES = tl.constexpr(128)  # of the L2


class Tiling(NamedTuple):
    """How a program's part of a weight lies on its warps. Those chosen were the fastest of five to seven on an H200, of
    each of GPT-2's four sizes in all layers of a step (by hand)."""

    num_warps: int
    warps_per_row: int
    """They share a row of the weight: more than one where its part in a warp would take too many registers."""
    rows_each: int
    """Rows of the weight that such a group of warps owns."""
    registers: int | None = None
    """A thread's at most, where all programs together find room on the card with so many, and else would not."""

    @property
    def rows(self) -> int:
        """Of the weight, that a program owns."""
        return self.num_warps // self.warps_per_row * self.rows_each

    def options(self, num_rows: int, *, use_pdl: bool) -> dict[str, Any]:
        """What a kernel is launched with.

        One row has code of its own. Before a loop over rows the compiler converts the whole tile, once: 200
        instructions that a single row's loads would wait for, and up to twice the registers, so that the grid that
        follows finds no room beside this one.
        """
        options = {
            "GROUPS": self.num_warps // self.warps_per_row,
            "ROWS_EACH": self.rows_each,
            "CHUNK": _CHUNK * self.warps_per_row,
        }
        if self.registers is not None:
            options["maxnreg"] = self.registers
        return options | launch_options(self.num_warps, num_rows, use_pdl=use_pdl)


def launch_options(num_warps: int, num_rows: int, *, use_pdl: bool) -> dict[str, Any]:
    """What every kernel of the chain is launched with; num_rows: of the batch."""
    options: dict[str, Any] = {"USE_PDL": use_pdl, "ONE_ROW": num_rows == 1, "num_warps": num_warps}
    return options | ({"launch_pdl": True} if use_pdl else {})  # the interpreter knows no such option


@triton.jit
def weight_tiles(
    weight_ptr,
    first,
    N_IN: tl.constexpr,
    N_OUT: tl.constexpr,
    GROUPS: tl.constexpr,
    ROWS_EACH: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """A program's rows of a weight [N_OUT, N_IN], from `first` on: [GROUPS, CHUNK] tiles, those of a group's first row
    first. In the weight's dtype, zeros outside.

    Each weight is read by one program, once: it is the first that the L2 cache may forget.
    """
    tiles = ()
    for r in tl.static_range(ROWS_EACH):
        offs_n = (first + tl.arange(0, GROUPS) * ROWS_EACH + r)[:, None]
        row_ptrs = weight_ptr + offs_n.to(tl.int64) * N_IN
        for start in tl.static_range(0, N_IN, CHUNK):
            offs_k = start + tl.arange(0, CHUNK)[None, :]
            mask = (offs_n < N_OUT) & (offs_k < N_IN)
            tiles += (tl.load(row_ptrs + offs_k, mask=mask, other=0.0, eviction_policy="evict_first"),)  # type: ignore[assignment]
    return tiles


@triton.jit
def vector_pieces(vector_ptr, N_IN: tl.constexpr, GROUPS: tl.constexpr, CHUNK: tl.constexpr):
    """A vector [N_IN] in [GROUPS, CHUNK] pieces, the same for all groups, in its dtype; zeros outside."""
    pieces = ()
    for start in tl.static_range(0, N_IN, CHUNK):
        offs_k = tl.zeros([GROUPS, 1], tl.int32) + (start + tl.arange(0, CHUNK))[None, :]
        pieces += (tl.load(vector_ptr + offs_k, mask=offs_k < N_IN, other=0.0),)  # type: ignore[assignment]
    return pieces


@triton.jit
def own_rows(first, N_OUT: tl.constexpr, GROUPS: tl.constexpr, ROWS_EACH: tl.constexpr):
    """[GROUPS, 32]: lane r of a group stands for its row r of the weight. And which lanes stand for one."""
    lane = tl.arange(0, _LANES)[None, :]
    offs_n = (first + tl.arange(0, GROUPS) * ROWS_EACH)[:, None] + lane
    return offs_n, (lane < ROWS_EACH) & (offs_n < N_OUT)


@triton.jit
def row_sums(x):
    """[rows, columns] -> [rows]: of what a thread holds first. So the compiler (Triton 3.6) gives a thread one element
    of what follows, not eight."""
    eighths = tl.sum(tl.reshape(x, [x.shape[0], x.shape[1] // 8, 8]), axis=2)
    return tl.sum(eighths, axis=1)


@triton.jit
def products(tiles, pieces, GROUPS: tl.constexpr, ROWS_EACH: tl.constexpr):
    """weight @ vector, [GROUPS, 32] float32 as `own_rows` says. pieces: float32."""
    num_pieces: tl.constexpr = len(pieces)
    lane = tl.zeros([GROUPS, 1], tl.int32) + tl.arange(0, _LANES)[None, :]
    result = tl.zeros([GROUPS, _LANES], tl.float32)
    for r in tl.static_range(ROWS_EACH):
        partial = tiles[r * num_pieces].to(tl.float32) * pieces[0]
        for piece in tl.static_range(1, num_pieces):
            partial += tiles[r * num_pieces + piece].to(tl.float32) * pieces[piece]
        result = tl.where(lane == r, row_sums(partial)[:, None], result)
    return result


@triton.jit
def normalised_products(
    tiles, x, ln_weight, weight_sums, eps, N_IN: tl.constexpr, GROUPS: tl.constexpr, ROWS_EACH: tl.constexpr
):
    """weight @ ((x - mean) / sqrt(var + eps) * ln_weight), [GROUPS, 32] float32 as `own_rows` says.

    x, ln_weight: pieces; weight_sums: weight @ ln_weight, as `own_rows` says. The mean is taken out of the products
    and not out of x (`folded_norm.py`), so that neither waits for the other.
    """
    num_pieces: tl.constexpr = len(x)
    total, squares = x[0], x[0] * x[0]
    for piece in tl.static_range(1, num_pieces):
        total += x[piece]
        squares += x[piece] * x[piece]
    mean = row_sums(total)[:, None] / N_IN
    variance = tl.maximum(row_sums(squares)[:, None] / N_IN - mean * mean, 0.0)
    scaled = ()
    for piece in tl.static_range(num_pieces):
        scaled += (x[piece] * ln_weight[piece].to(tl.float32),)  # type: ignore[assignment]
    return (products(tiles, scaled, GROUPS, ROWS_EACH) - mean * weight_sums) * (1.0 / tl.sqrt(variance + eps))


@triton.jit
def prefetch_lines(weight_ptr, first, last, NUM_BYTES: tl.constexpr):
    """Asks the L2 cache for NUM_BYTES of a weight from its element `first` on, up to its element `last`.

    For a weight too large for registers, or one that a pipelined loop reads: nothing in such a loop may come before
    `gdc_wait`, nor may that be in it, where the loop's first loads would overtake it (triton issue 11905).
    """
    line_elements: tl.constexpr = _LINE_BYTES * 8 // weight_ptr.dtype.element_ty.primitive_bitwidth
    offs = first + tl.arange(0, NUM_BYTES // _LINE_BYTES) * line_elements
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1];\nmov.u32 $0, 0;",  # an operation has to have a result
        "=r,l",
        [(weight_ptr + tl.minimum(offs, last)).to(tl.int64)],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )
