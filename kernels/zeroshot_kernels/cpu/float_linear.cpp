// hidden @ weight in float32. A tile of weights is [num_inputs, TILE]: read from end to end, once for ROWS rows.
// Each sum runs over the inputs in one order whatever the number of rows: a token's result never depends on its batch.

#include "tile.h"

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
        for_each_group(num_rows, [&](auto rows, Index row) {
            alignas(64) float sums[rows()][TILE];
            multiply_tile<rows()>(hidden + row * num_inputs, num_inputs, weight + t * num_inputs * TILE, TILE,
                                  num_inputs, sums);
            for (int r = 0; r < rows(); ++r) epilogue.write(sums[r], row + r, t * TILE);
        });
}
