// The inner loop of float products: some rows of inputs times one or two tiles of TILE outputs, whose sums stay in
// registers.
#pragma once

#include "bfloat16.h"

namespace zeroshot {

#if defined(__AVX512F__)
constexpr Block FEW{8, 1}, MANY{12, 2};  // 24 sums, two registers of weights, one of the input: 27 of 32
#else
// 6 rows of two registers, two of weights, one of the input: 15 of AVX2's 16. Of Arm's, half as long: 29 of 32.
constexpr Block FEW{6, 1}, MANY = FEW;
#endif

// Inputs that are summed up on their own before they join the rest: rounding errors grow with the length of a sum.
constexpr Index PIECE = 256;

// sums[t][r][j] = the sum over k of inputs[r * input_stride + k] * weight k of tile t's output j, k in order.
// weights: tiles as `weights_at` reads them, `distance` numbers apart. Not inlined: it needs every register for itself.
template <Index rows, Index tiles, typename Weight>
[[gnu::noinline]] void multiply_tiles(const float* inputs, Index input_stride, const Weight* weights, Index distance,
                                      Index num_inputs, bool fetches, float (&sums)[tiles][rows][TILE]) {
    constexpr Index together = INPUTS_TOGETHER<Weight>;
    static_assert(PIECE % together == 0);
    std::memset(sums, 0, sizeof sums);
    for (Index start = 0; start < num_inputs; start += PIECE) {
        const Index end = start + PIECE < num_inputs ? start + PIECE : num_inputs;
        Floats piece[tiles][rows][PARTS] = {};
        for (Index k = start; k < end; k += together) {
            const Weight* from = weights + k * TILE;
            if (fetches)
                for (Index t = 0; t < tiles; ++t) fetch_ahead<4096, 16384>(from + t * distance);
            for (Index i = 0; i < together && k + i < end; ++i)
                for (Index r = 0; r < rows; ++r)
                    for (Index t = 0; t < tiles; ++t)
                        for (Index part = 0; part < PARTS; ++part)
                            piece[t][r][part] +=
                                inputs[r * input_stride + k + i] * weights_at(from + t * distance, part, i);
        }
        for (Index t = 0; t < tiles; ++t)
            for (Index r = 0; r < rows; ++r)
                for (Index part = 0; part < PARTS; ++part) {
                    float* target = sums[t][r] + part * LANES;
                    store(load<Floats>(target) + piece[t][r][part], target);
                }
    }
}

}  // namespace zeroshot
