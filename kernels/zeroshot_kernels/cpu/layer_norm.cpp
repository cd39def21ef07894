// (x - mean) / sqrt(variance + eps) * weight + bias of each row (Ba et al. 2016), in float32.

#include "common.h"

namespace zeroshot {
namespace {

// Fewer rows than that are done before other threads have woken up.
constexpr Index ROWS_WORTH_THREADS = 16;

inline void normalize(const float* x, const float* weight, const float* bias, float* output, Index width, float eps) {
    float sum = 0.0f, squares = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (Index k = 0; k < width; ++k) sum += x[k];
    const float mean = sum / static_cast<float>(width);
#pragma omp simd reduction(+ : squares)
    for (Index k = 0; k < width; ++k) squares += (x[k] - mean) * (x[k] - mean);
    const float scale = 1.0f / std::sqrt(squares / static_cast<float>(width) + eps);
    for (Index k = 0; k < width; ++k) output[k] = (x[k] - mean) * scale * weight[k] + bias[k];
}

}  // namespace
}  // namespace zeroshot

// x, output: [num_rows, width]; weight, bias: [width].
EXPORT void zeroshot_layer_norm(const float* x, const float* weight, const float* bias, float* output,
                                std::int64_t num_rows, std::int64_t width, float eps) {
    using namespace zeroshot;
#pragma omp parallel for if (num_rows >= ROWS_WORTH_THREADS)
    for (Index row = 0; row < num_rows; ++row)
        normalize(x + row * width, weight, bias, output + row * width, width, eps);
}
