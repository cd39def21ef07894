// (x - mean) / sqrt(variance + eps) * weight + bias of each row (Ba et al. 2016), in float32.

#include "team.h"

namespace zeroshot {
namespace {

// Fewer rows than that are done before other threads have woken up.
constexpr Index ROWS_WORTH_THREADS = 16;

inline void normalize(const Norm& norm, const float* x, Index width, float* output) {
    float sum = 0.0f, squares = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (Index k = 0; k < width; ++k) sum += x[k];
    const float mean = sum / static_cast<float>(width);
#pragma omp simd reduction(+ : squares)
    for (Index k = 0; k < width; ++k) squares += (x[k] - mean) * (x[k] - mean);
    const float scale = 1.0f / std::sqrt(squares / static_cast<float>(width) + norm.eps);
    for (Index k = 0; k < width; ++k) output[k] = (x[k] - mean) * scale * norm.weight[k] + norm.bias[k];
}

}  // namespace

void layer_norm(Team& team, const Norm& norm, const float* input, Index num_rows, Index width, float* output) {
    team.share_rows(num_rows, [&](Index row) { normalize(norm, input + row * width, width, output + row * width); });
}

}  // namespace zeroshot

// x, output: [num_rows, width]; weight, bias: [width].
EXPORT void zeroshot_layer_norm(const float* x, const float* weight, const float* bias, float* output,
                                std::int64_t num_rows, std::int64_t width, float eps) {
    using namespace zeroshot;
    const auto run = [&](Team& team) { layer_norm(team, Norm{weight, bias, eps}, x, num_rows, width, output); };
    if (num_rows >= ROWS_WORTH_THREADS) in_parallel(run);
    else alone(run);
}
