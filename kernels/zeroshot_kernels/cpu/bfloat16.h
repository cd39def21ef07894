// Weights of 16 bits (bfloat16): the upper half of a float, so that to compute in float takes no more than a shift.
#pragma once

#include "common.h"

namespace zeroshot {

struct BFloat16 {
    std::uint16_t bits;
};

// To the nearest, of two to the even one. A NaN stays one: rounding its bits up could make them those of a zero.
inline BFloat16 to_bfloat16(float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    const std::uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return BFloat16{static_cast<std::uint16_t>(x == x ? rounded : 0x7fc0)};
}

// A tile holds the weights of so many inputs side by side, output by output: what fits 32 bits.
template <typename Weight>
constexpr Index INPUTS_TOGETHER = sizeof(float) / sizeof(Weight);

// Of such inputs the i-th one's weights of LANES outputs, the tile's `part`.
inline Floats weights_at(const float* together, Index part, Index) { return load<Floats>(together + part * LANES); }

inline Floats weights_at(const BFloat16* together, Index part, Index i) {
    const auto pairs = load<UnsignedInts>(together + part * LANES * INPUTS_TOGETHER<BFloat16>);
    const UnsignedInts bits = i == 0 ? pairs << 16 : pairs & 0xffff0000u;
    return load<Floats>(&bits);
}

// Numbers of a tile: an odd number of inputs is filled up.
template <typename Weight>
constexpr Index tile_size(Index num_inputs) {
    constexpr Index together = INPUTS_TOGETHER<Weight>;
    return (num_inputs + together - 1) / together * together * TILE;
}

}  // namespace zeroshot
