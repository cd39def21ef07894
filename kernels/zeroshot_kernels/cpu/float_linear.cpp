// hidden @ weight in float32. A tile of weights is [num_inputs, TILE]: read from end to end, once for a block's rows.
// Each sum runs over the inputs in one order whatever the number of rows: a token's result never depends on its batch.

#include "greedy.h"
#include "team.h"
#include "tile.h"

namespace zeroshot {

template <typename Sink>
void float_linear(Team& team, const Linear& layer, const float* input, Index num_rows, const Sink& sink) {
    const Index width = layer.num_inputs;
    const Index num_tiles = tiles_for(layer.num_outputs);
    share_blocks<FEW, MANY>(team, num_rows, num_tiles, [&](auto rows, auto tiles, Index row, Index tile) {
        const float* weights = static_cast<const float*>(layer.weight) + tile * width * TILE;
        const bool fetches = row == 0 || tiles() == 1;  // two tiles that are in a cache leave loads no time for it
        alignas(64) float sums[tiles()][rows()][TILE];
        multiply_tiles<rows(), tiles()>(input + row * width, width, weights, width * TILE, width, fetches, sums);
        for (Index t = 0; t < tiles(); ++t)
            for (Index r = 0; r < rows(); ++r)
                for (Index part = 0; part < TILE; part += LANES)
                    sink.write(load<Floats>(sums[t][r] + part), row + r, (tile + t) * TILE + part);
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
    in_parallel([&](Team& team) { float_linear(team, layer, hidden, num_rows, epilogue); });
}

// tokens, are_finite: [num_rows], see `choose`.
EXPORT void zeroshot_float_greedy(const float* hidden, const float* weight, std::int64_t* tokens, bool* are_finite,
                                  std::int64_t num_rows, std::int64_t num_inputs, std::int64_t num_outputs) {
    using namespace zeroshot;
    const Linear layer{weight, nullptr, nullptr, nullptr, num_inputs, num_outputs};
    find_best(num_rows, num_outputs, tokens, are_finite, [&](Team& team, const Greedy& greedy) {
        float_linear(team, layer, hidden, num_rows, greedy);
    });
}
