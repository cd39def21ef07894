// hidden @ weight in float32. A tile of weights is [num_inputs, TILE]: read from end to end, once for ROWS rows.
// Each sum runs over the inputs in one order whatever the number of rows: a token's result never depends on its batch.

#include "greedy.h"
#include "team.h"
#include "tile.h"

namespace zeroshot {

template <typename Sink>
void float_linear(Team& team, const Linear& layer, const float* input, Index num_rows, const Sink& sink) {
    const Index width = layer.num_inputs, num_tiles = tiles_for(layer.num_outputs);
    team.share(num_tiles, pieces_at_once(num_tiles), [&](Index t) {
        const float* tile = static_cast<const float*>(layer.weight) + t * width * TILE;
        for_each_group<ROWS>(num_rows, [&](auto rows, Index row) {
            alignas(64) float sums[rows()][TILE];
            multiply_tile<rows()>(input + row * width, width, tile, TILE, width, sums);
            for (Index r = 0; r < rows(); ++r)
                for (Index part = 0; part < TILE; part += LANES)
                    sink.write(load<Floats>(sums[r] + part), row + r, t * TILE + part);
        });
    });
}

template void float_linear(Team&, const Linear&, const float*, Index, const Epilogue&);

}  // namespace zeroshot

EXPORT void zeroshot_float_linear(const float* hidden, const float* weight, const float* bias, const float* residual,
                                  float* output, std::int64_t num_rows, std::int64_t num_inputs,
                                  std::int64_t num_outputs, std::int64_t output_stride, int has_gelu) {
    using namespace zeroshot;
    const Linear layer{weight, nullptr, nullptr, bias, num_inputs, num_outputs};
    const Epilogue epilogue{bias, residual, output, num_outputs, output_stride, has_gelu != 0};
    Team team;
#pragma omp parallel
    float_linear(team, layer, hidden, num_rows, epilogue);
}

// tokens, are_finite: [num_rows], see `choose`.
EXPORT void zeroshot_float_greedy(const float* hidden, const float* weight, std::int64_t* tokens, bool* are_finite,
                                  std::int64_t num_rows, std::int64_t num_inputs, std::int64_t num_outputs) {
    using namespace zeroshot;
    const Linear layer{weight, nullptr, nullptr, nullptr, num_inputs, num_outputs};
    Team team;
    find_best(num_rows, num_outputs, tokens, are_finite,
              [&](const Greedy& greedy) { float_linear(team, layer, hidden, num_rows, greedy); });
}
