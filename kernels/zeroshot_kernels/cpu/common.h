// What the CPU's kernels share: the names of their vectors, exp and GELU, and what a linear layer does with its sums.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace zeroshot {

using Index = std::int64_t;

// Outputs that a tile of weights holds side by side: two AVX2 registers of floats, or one of AVX-512.
constexpr Index TILE = 16;

// e^x to 1e-7, for what softmax and GELU put in. Cody and Waite's reduction to |r| <= ln(2) / 2 and a polynomial of
// degree 6: arithmetic only, so that a loop over it becomes vector code without a vector math library.
static inline float fast_exp(float x) {
    x = x < -87.0f ? -87.0f : (x > 88.0f ? 88.0f : x);  // a NaN passes both
    const float n = std::nearbyintf(x * 1.44269504088896341f);
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const std::int32_t bits = (static_cast<std::int32_t>(n) + 127) << 23;
    float power;
    std::memcpy(&power, &bits, sizeof power);
    return p * power;
}

// GPT-2's GELU, 0.5 x (1 + tanh(u)) (Hendrycks and Gimpel 2016), as x sigmoid(2u): exact algebra, one exp.
static inline float gelu_tanh(float x) {
    const float twice_u = 1.5957691216057308f * (x + 0.044715f * x * x * x);
    return x / (1.0f + fast_exp(-twice_u));
}

// What follows the sums of one row and tile: bias, GELU, the residual.
struct Epilogue {
    const float* bias;      // [num_outputs], or null
    const float* residual;  // [num_rows, num_outputs], or null
    float* output;          // [num_rows, num_outputs]
    Index num_outputs;
    bool has_gelu;

    // sums: TILE of them, of outputs `first`...; the last tile of a layer may be wider than what is left of it.
    inline void write(float* sums, Index row, Index first) const {
        const Index width = num_outputs - first < TILE ? num_outputs - first : TILE;
        float* target = output + row * num_outputs + first;
        if (bias)
            for (Index j = 0; j < width; ++j) sums[j] += bias[first + j];
        if (has_gelu)
            for (Index j = 0; j < TILE; ++j) sums[j] = gelu_tanh(sums[j]);
        if (residual)
            for (Index j = 0; j < width; ++j) sums[j] += residual[row * num_outputs + first + j];
        for (Index j = 0; j < width; ++j) target[j] = sums[j];
    }
};

constexpr Index tiles_for(Index n) { return (n + TILE - 1) / TILE; }

// Tiles that a thread takes at a time. Taken, not given: on a busy machine one thread is often held up, and the others
// then do its work. Enough of them that memory is read in long pieces.
static inline Index tiles_at_once(Index num_tiles) { return num_tiles > 256 ? 8 : (num_tiles > 64 ? 4 : 2); }

}  // namespace zeroshot
