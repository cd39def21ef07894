// The largest of a row's logits, and whether they are numbers.
#pragma once

#include <algorithm>

#include "common.h"

namespace zeroshot {

struct Extent {
    float largest = -INFINITY;
    float zero_or_nan = 0.0f;  // zero as long as every logit is finite
    bool has_nan = false;

    void add(const Extent& other) {
        largest = std::max(largest, other.largest);
        zero_or_nan += other.zero_or_nan;
        has_nan |= other.has_nan;
    }

    bool is_finite() const { return zero_or_nan == 0.0f; }

    // NaN, +inf, or nothing but -inf: there is no softmax.
    bool is_invalid() const { return has_nan || !std::isfinite(largest); }
};

inline Extent extent_of(const float* logits, Index count) {
    Floats largest = Floats{} - INFINITY, zero_or_nan = {};
    Ints nan = {};
    Index i = 0;
    for (; i + LANES <= count; i += LANES) {
        const Floats values = load<Floats>(logits + i);
        largest = values > largest ? values : largest;
        zero_or_nan += values * 0.0f;
        nan |= values != values;
    }
    Extent found;
    for (Index lane = 0; lane < LANES; ++lane) found.add({largest[lane], zero_or_nan[lane], nan[lane] != 0});
    for (; i < count; ++i) found.add({logits[i], logits[i] * 0.0f, std::isnan(logits[i])});
    return found;
}

}  // namespace zeroshot
