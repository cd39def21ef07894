// hidden @ weight in float32. A tile of weights is [num_inputs, TILE]: read from end to end, once for ROWS rows.
// Each sum runs over the inputs in one order whatever the number of rows: a token's result never depends on its batch.

#include "common.h"

namespace zeroshot {
namespace {

#if defined(__AVX512F__)
constexpr int ROWS = 8;
#else
constexpr int ROWS = 6;  // 6 rows of two registers, two of weights, one of the input: 15 of AVX2's 16
#endif

// Inputs that are summed up on their own before they join the rest: rounding errors grow with the length of a sum.
constexpr Index PIECE = 256;

typedef float vector __attribute__((vector_size(32), aligned(4)));

template <int rows>
inline void multiply_tile(const float* hidden, Index num_inputs, const float* tile, Index row, Index first,
                          const Epilogue& epilogue) {
    alignas(64) float sums[rows][TILE] = {};
    for (Index start = 0; start < num_inputs; start += PIECE) {
        const Index end = start + PIECE < num_inputs ? start + PIECE : num_inputs;
        vector low[rows] = {}, high[rows] = {};
        for (Index k = start; k < end; ++k) {
            const vector* weights = reinterpret_cast<const vector*>(tile + k * TILE);
            __builtin_prefetch(tile + k * TILE + 1024);
            for (int r = 0; r < rows; ++r) {
                const float x = hidden[r * num_inputs + k];
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
    for (int r = 0; r < rows; ++r) epilogue.write(sums[r], row + r, first);
}

inline void multiply_rows(const float* hidden, Index num_rows, Index num_inputs, const float* tile, Index first,
                          const Epilogue& epilogue) {
    Index row = 0;
    for (; row + ROWS <= num_rows; row += ROWS)
        multiply_tile<ROWS>(hidden + row * num_inputs, num_inputs, tile, row, first, epilogue);
    const float* rest = hidden + row * num_inputs;
    switch (num_rows - row) {
        case 7: return multiply_tile<7>(rest, num_inputs, tile, row, first, epilogue);
        case 6: return multiply_tile<6>(rest, num_inputs, tile, row, first, epilogue);
        case 5: return multiply_tile<5>(rest, num_inputs, tile, row, first, epilogue);
        case 4: return multiply_tile<4>(rest, num_inputs, tile, row, first, epilogue);
        case 3: return multiply_tile<3>(rest, num_inputs, tile, row, first, epilogue);
        case 2: return multiply_tile<2>(rest, num_inputs, tile, row, first, epilogue);
        case 1: return multiply_tile<1>(rest, num_inputs, tile, row, first, epilogue);
        default: return;
    }
}

}  // namespace
}  // namespace zeroshot

// weight: [num_tiles, num_inputs, TILE], as `linear.py` lays it out.
EXPORT void zeroshot_float_linear(const float* hidden, const float* weight, const float* bias, const float* residual,
                                  float* output, std::int64_t num_rows, std::int64_t num_inputs,
                                  std::int64_t num_outputs, int has_gelu) {
    using namespace zeroshot;
    const Epilogue epilogue{bias, residual, output, num_outputs, has_gelu != 0};
    const Index num_tiles = (num_outputs + TILE - 1) / TILE;
    const Index chunk = tiles_at_once(num_tiles);
#pragma omp parallel for schedule(dynamic, chunk)
    for (Index t = 0; t < num_tiles; ++t)
        multiply_rows(hidden, num_rows, num_inputs, weight + t * num_inputs * TILE, t * TILE, epilogue);
}
