// hidden @ weight in float32. A tile of weights is [num_inputs, TILE].

#include "greedy.h"
#include "vector_linear.h"

namespace zeroshot {

template <typename Sink>
void float_linear(Team& team, const Linear& layer, const float* input, Index num_rows, const Sink& sink) {
    multiply_by_vectors<float>(team, layer, input, num_rows, sink);
}

template void float_linear(Team&, const Linear&, const float*, Index, const Epilogue&);

}  // namespace zeroshot

EXPORT void zeroshot_float_linear(const float* hidden, const float* weight, const float* bias, const float* residual,
                                  float* output, std::int64_t num_rows, std::int64_t num_inputs,
                                  std::int64_t num_outputs, std::int64_t output_stride, int has_gelu) {
    using namespace zeroshot;
    const Linear layer{Format::FLOAT, weight, nullptr, nullptr, bias, num_inputs, num_outputs};
    const Epilogue epilogue{bias, residual, output, num_outputs, output_stride, has_gelu != 0};
    in_parallel([&](Team& team) { float_linear(team, layer, hidden, num_rows, epilogue); });
}

// tokens, are_finite: [num_rows], see `choose`.
EXPORT void zeroshot_float_greedy(const float* hidden, const float* weight, std::int64_t* tokens, bool* are_finite,
                                  std::int64_t num_rows, std::int64_t num_inputs, std::int64_t num_outputs) {
    using namespace zeroshot;
    const Linear layer{Format::FLOAT, weight, nullptr, nullptr, nullptr, num_inputs, num_outputs};
    find_best(num_rows, num_outputs, tokens, are_finite, [&](Team& team, const Greedy& greedy) {
        float_linear(team, layer, hidden, num_rows, greedy);
    });
}
