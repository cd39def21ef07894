// hidden @ weight with weights rounded to bfloat16. A tile of them is [num_inputs / 2, TILE, 2].
// By matrix registers, where the processor has them: the input is rounded too, and sums are in float. Elsewhere all is
// computed in float, and only the weights are rounded.

#include "greedy.h"
#include "matrix_tiles.h"
#include "vector_linear.h"

namespace zeroshot {
namespace {

#if HAS_MATRIX_REGISTERS
constexpr Index INPUTS = matrix::BYTES / sizeof(BFloat16);

// Whatever the number of rows: sums by vectors would be others.
bool suits_matrices(const Linear& layer) { return layer.num_inputs % INPUTS == 0 && matrix::are_allowed(); }

inline void round_row(const float* x, Index num_inputs, const matrix::Place& place) {
    for (Index start = 0; start < num_inputs; start += INPUTS) {
        BFloat16 rounded[INPUTS];
        for (Index k = 0; k < INPUTS; ++k) rounded[k] = to_bfloat16(x[start + k]);
        std::memcpy(place.bytes + start / INPUTS * place.stride, rounded, sizeof rounded);
    }
}

template <typename Sink>
void multiply_by_matrices(Team& team, const Linear& layer, const float* input, Index num_rows, const Rounded& room,
                          const Sink& sink) {
    const Index width = layer.num_inputs, row_bytes = width * static_cast<Index>(sizeof(BFloat16));
    team.share_rows(num_rows, [&](Index row) {
        round_row(input + row * width, width, matrix::place_of(room.rows, row, row_bytes));
    });
    const auto finish = [&](const float (*sums)[TILE], Index count, Index row, Index tile) {
        write_tile(sums, count, row, tile, sink);
    };
    matrix::multiply_all<float>(team, room.rows, layer.weight, row_bytes, num_rows, tiles_for(layer.num_outputs), sink,
                                finish);
}
#endif

}  // namespace

template <typename Sink>
void bf16_linear(Team& team, const Linear& layer, const float* input, Index num_rows,
                 [[maybe_unused]] const Rounded& room, const Sink& sink) {
#if HAS_MATRIX_REGISTERS
    if (suits_matrices(layer)) return multiply_by_matrices(team, layer, input, num_rows, room, sink);
#endif
    multiply_by_vectors<BFloat16>(team, layer, input, num_rows, sink);
}

template void bf16_linear(Team&, const Linear&, const float*, Index, const Rounded&, const Epilogue&);

}  // namespace zeroshot

// weight: as `linear.py` lays it out. rounded: the room of `Rounded`, without scales.
EXPORT void zeroshot_bf16_linear(const float* hidden, const void* weight, const float* bias, const float* residual,
                                 float* output, std::uint8_t* rounded, std::int64_t num_rows, std::int64_t num_inputs,
                                 std::int64_t num_outputs, std::int64_t output_stride, int has_gelu) {
    using namespace zeroshot;
    const Linear layer{Format::BFLOAT16, weight, nullptr, nullptr, bias, num_inputs, num_outputs};
    const Epilogue epilogue{bias, residual, output, num_outputs, output_stride, has_gelu != 0};
    in_parallel([&](Team& team) {
        bf16_linear(team, layer, hidden, num_rows, Rounded{rounded, nullptr}, epilogue);
    });
}

// tokens, are_finite: [num_rows], see `choose`.
EXPORT void zeroshot_bf16_greedy(const float* hidden, const void* weight, std::uint8_t* rounded, std::int64_t* tokens,
                                 bool* are_finite, std::int64_t num_rows, std::int64_t num_inputs,
                                 std::int64_t num_outputs) {
    using namespace zeroshot;
    const Linear layer{Format::BFLOAT16, weight, nullptr, nullptr, nullptr, num_inputs, num_outputs};
    find_best(num_rows, num_outputs, tokens, are_finite, [&](Team& team, const Greedy& greedy) {
        bf16_linear(team, layer, hidden, num_rows, Rounded{rounded, nullptr}, greedy);
    });
}
