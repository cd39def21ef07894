// The inner loop of float products: some rows of inputs times a tile of TILE outputs, whose sums stay in registers.
#pragma once

#include <type_traits>

#include "common.h"

namespace zeroshot {

#if defined(__AVX512F__)
constexpr int ROWS = 8;
#else
constexpr int ROWS = 6;  // 6 rows of two registers, two of weights, one of the input: 15 of AVX2's 16
#endif

// Inputs that are summed up on their own before they join the rest: rounding errors grow with the length of a sum.
constexpr Index PIECE = 256;

typedef float vector __attribute__((vector_size(32), aligned(4)));

// sums[r][j] = the sum over k of inputs[r * input_stride + k] * tile[k * tile_stride + j], k in order.
template <int rows>
inline void multiply_tile(const float* inputs, Index input_stride, const float* tile, Index tile_stride,
                          Index num_inputs, float (&sums)[rows][TILE]) {
    for (int r = 0; r < rows; ++r)
        for (Index j = 0; j < TILE; ++j) sums[r][j] = 0.0f;
    for (Index start = 0; start < num_inputs; start += PIECE) {
        const Index end = start + PIECE < num_inputs ? start + PIECE : num_inputs;
        vector low[rows] = {}, high[rows] = {};
        for (Index k = start; k < end; ++k) {
            const vector* weights = reinterpret_cast<const vector*>(tile + k * tile_stride);
            __builtin_prefetch(tile + k * tile_stride + 1024);
            for (int r = 0; r < rows; ++r) {
                const float x = inputs[r * input_stride + k];
                low[r] += x * weights[0];
                high[r] += x * weights[1];
            }
        }
        for (int r = 0; r < rows; ++r)
            for (Index j = 0; j < TILE / 2; ++j) {
                sums[r][j] += low[r][j];
                sums[r][j + TILE / 2] += high[r][j];
            }
    }
}

// visit(std::integral_constant<int, n>, first row) for groups of at most ROWS rows: n is a constant to the compiler.
template <typename Visit>
inline void for_each_group(Index num_rows, Visit visit) {
    Index row = 0;
    for (; row + ROWS <= num_rows; row += ROWS) visit(std::integral_constant<int, ROWS>{}, row);
    switch (num_rows - row) {
        case 7: return visit(std::integral_constant<int, 7>{}, row);
        case 6: return visit(std::integral_constant<int, 6>{}, row);
        case 5: return visit(std::integral_constant<int, 5>{}, row);
        case 4: return visit(std::integral_constant<int, 4>{}, row);
        case 3: return visit(std::integral_constant<int, 3>{}, row);
        case 2: return visit(std::integral_constant<int, 2>{}, row);
        case 1: return visit(std::integral_constant<int, 1>{}, row);
        default: return;
    }
}

}  // namespace zeroshot
