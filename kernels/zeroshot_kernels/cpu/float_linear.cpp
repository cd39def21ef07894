// hidden @ weight in float32. A tile of weights is [num_inputs, TILE]: read from end to end, once for ROWS rows.
// Each sum runs over the inputs in one order whatever the number of rows: a token's result never depends on its batch.

#include "team.h"
#include "tile.h"

namespace zeroshot {

void float_linear(Team& team, const Linear& layer, const float* input, Index num_rows, const Epilogue& epilogue) {
    const Index width = layer.num_inputs, num_tiles = tiles_for(layer.num_outputs);
    team.share(num_tiles, tiles_at_once(num_tiles), [&](Index t) {
        const float* tile = static_cast<const float*>(layer.weight) + t * width * TILE;
        for_each_group<ROWS>(num_rows, [&](auto rows, Index row) {
            alignas(64) float sums[rows()][TILE];
            multiply_tile<rows()>(input + row * width, width, tile, TILE, width, sums);
            for (Index r = 0; r < rows(); ++r)
                for (Index part = 0; part < TILE; part += LANES)
                    epilogue.write(load<Floats>(sums[r] + part), row + r, t * TILE + part);
        });
    });
}

}  // namespace zeroshot

EXPORT void zeroshot_float_linear(const float* hidden, const float* weight, const float* bias, const float* residual,
                                  float* output, std::int64_t num_rows, std::int64_t num_inputs,
                                  std::int64_t num_outputs, int has_gelu) {
    using namespace zeroshot;
    const Linear layer{weight, nullptr, nullptr, bias, num_inputs, num_outputs};
    const Epilogue epilogue{bias, residual, output, num_outputs, has_gelu != 0};
    Team team;
#pragma omp parallel
    float_linear(team, layer, hidden, num_rows, epilogue);
}
