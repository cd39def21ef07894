// The inner loop of float products: some rows of inputs times a tile of TILE outputs, whose sums stay in registers.
#pragma once

#include "common.h"

namespace zeroshot {

#if defined(__AVX512F__)
constexpr Index ROWS = 8;
#else
constexpr Index ROWS = 6;  // 6 rows of two registers, two of weights, one of the input: 15 of AVX2's 16
#endif

// Inputs that are summed up on their own before they join the rest: rounding errors grow with the length of a sum.
constexpr Index PIECE = 256;

// sums[r][j] = the sum over k of inputs[r * input_stride + k] * tile[k * tile_stride + j], k in order.
template <Index rows>
inline void multiply_tile(const float* inputs, Index input_stride, const float* tile, Index tile_stride,
                          Index num_inputs, float (&sums)[rows][TILE]) {
    std::memset(sums, 0, sizeof sums);
    for (Index start = 0; start < num_inputs; start += PIECE) {
        const Index end = start + PIECE < num_inputs ? start + PIECE : num_inputs;
        Floats piece[rows][PARTS] = {};
        for (Index k = start; k < end; ++k) {
            const float* weights = tile + k * tile_stride;
            fetch_ahead<4096, 16384>(weights);
            for (Index r = 0; r < rows; ++r)
                for (Index part = 0; part < PARTS; ++part)
                    piece[r][part] += inputs[r * input_stride + k] * load<Floats>(weights + part * LANES);
        }
        for (Index r = 0; r < rows; ++r)
            for (Index part = 0; part < PARTS; ++part) {
                float* target = sums[r] + part * LANES;
                store(load<Floats>(target) + piece[r][part], target);
            }
    }
}

}  // namespace zeroshot
