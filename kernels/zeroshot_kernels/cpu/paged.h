// What attention over paged keys and values shares. A page is [block_size, n_head, head_dim] float32.
#pragma once

#include "common.h"

namespace zeroshot {

struct Shape {
    Index n_head, head_dim, block_size;
};

// visit(token, its part of the cache from head `first_head` on) for each of the first `num_tokens`, in order.
template <typename Visit>
inline void for_each_token(const float* cache, const std::int64_t* table, Index num_tokens, Index first_head,
                           const Shape& shape, Visit visit) {
    const Index token_stride = shape.n_head * shape.head_dim;
    for (Index start = 0; start < num_tokens; start += shape.block_size) {
        const Index block = table[start / shape.block_size];
        const float* tokens = cache + block * shape.block_size * token_stride + first_head * shape.head_dim;
        const Index end = start + shape.block_size < num_tokens ? start + shape.block_size : num_tokens;
        for (Index t = start; t < end; ++t) visit(t, tokens + (t - start) * token_stride);
    }
}

// scores -> their softmax: e^(score - largest), divided by the sum of all.
inline void softmax(float* scores, Index n) {
    float largest = -INFINITY, sum = 0.0f;
#pragma omp simd reduction(max : largest)
    for (Index t = 0; t < n; ++t) largest = scores[t] > largest ? scores[t] : largest;
#pragma omp simd reduction(+ : sum)
    for (Index t = 0; t < n; ++t) {
        scores[t] = fast_exp(scores[t] - largest);
        sum += scores[t];
    }
    const float inverse = 1.0f / sum;
    for (Index t = 0; t < n; ++t) scores[t] *= inverse;
}

}  // namespace zeroshot
