// What attention over paged keys and values shares.
#pragma once

#include <vector>

#include "half.h"

namespace zeroshot {

struct Shape {
    Index n_head, head_dim, block_size;
};

// A layer's keys and values: pages of [block_size, n_head, head_dim] numbers, float or Half.
template <typename Number>
struct Pages {
    Number *key, *value;
    Shape shape;
};

// call(Pages) of the numbers that the cache holds.
template <typename Call>
inline void with_pages(void* key, void* value, const Shape& shape, bool is_half, Call call) {
    if (is_half) call(Pages<Half>{static_cast<Half*>(key), static_cast<Half*>(value), shape});
    else call(Pages<float>{static_cast<float*>(key), static_cast<float*>(value), shape});
}

// What a thread works in is kept from call to call.
template <typename Item>
inline void grow(std::vector<Item>& items, Index size) {
    if (items.size() < static_cast<std::size_t>(size)) items.resize(static_cast<std::size_t>(size));
}

// Neighbouring queries of one head. The first of them sees `context` tokens, each later one a token more.
struct Rows {
    const float* query;  // rows `query_stride` floats apart
    float* output;       // rows `output_stride` floats apart
    Index query_stride, output_stride, context;

    Rows from(Index row) const {
        return {query + row * query_stride, output + row * output_stride, query_stride, output_stride, context + row};
    }

    // Asks for what is read and written of `count` of them, before it is waited for.
    void fetch(Index count, Index width) const {
        for (Index row = 0; row < count; ++row)
            for (Index d = 0; d < width; d += TILE) {
                __builtin_prefetch(query + row * query_stride + d);
                __builtin_prefetch(output + row * output_stride + d, 1);
            }
    }
};

// Neighbouring tokens of a sequence, from one head on.
template <typename Number>
struct Page {
    Index first, num_tokens;  // of the sequence's tokens
    const Number* numbers;    // tokens n_head * head_dim of them apart
    const Number* next;       // the page that is read after this one; null where it isn't known
};

// visit(Page) for each page of the sequence's first `num_tokens` tokens, in order. then: where the tokens are read
// from again afterwards, or null.
template <typename Number, typename Visit>
inline void for_each_page(const Number* content, const std::type_identity_t<Number>* then, const std::int64_t* table,
                          Index num_tokens, Index first_head, const Shape& shape, Visit visit) {
    const Index size = shape.block_size, page_stride = size * shape.n_head * shape.head_dim;
    const auto page_of = [&](const Number* numbers, Index first) {
        return numbers + table[first / size] * page_stride + first_head * shape.head_dim;
    };
    for (Index first = 0; first < num_tokens; first += size) {
        const Index left = num_tokens - first;
        const Number* afterwards = then ? page_of(then, 0) : nullptr;
        visit(Page<Number>{first, left < size ? left : size, page_of(content, first),
                           left > size ? page_of(content, first + size) : afterwards});
    }
}

// scores -> their softmax: e^(score - largest), divided by the sum of all.
inline void softmax(float* scores, Index n) {
    const Index whole = n / LANES * LANES;  // the others one by one
    float largest = -INFINITY, sum = 0.0f;
    Floats most = largest + Floats{}, sums{};
    for (Index t = 0; t < whole; t += LANES) {
        const Floats these = load<Floats>(scores + t);
        most = these > most ? these : most;
    }
    for (Index i = 0; i < LANES; ++i) largest = most[i] > largest ? most[i] : largest;
    for (Index t = whole; t < n; ++t) largest = scores[t] > largest ? scores[t] : largest;
    for (Index t = 0; t < whole; t += LANES) {
        const Floats powers = fast_exp(load<Floats>(scores + t) - largest);
        store(powers, scores + t);
        sums += powers;
    }
    for (Index i = 0; i < LANES; ++i) sum += sums[i];
    for (Index t = whole; t < n; ++t) sum += scores[t] = fast_exp(scores[t] - largest);
    const float inverse = 1.0f / sum;
    for (Index t = 0; t < whole; t += LANES) store(load<Floats>(scores + t) * inverse, scores + t);
    for (Index t = whole; t < n; ++t) scores[t] *= inverse;
}

}  // namespace zeroshot
