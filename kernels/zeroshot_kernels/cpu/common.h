// What the CPU's kernels share: the names of their vectors, exp and GELU, and what a linear layer does with its sums.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace zeroshot {

using Index = std::int64_t;

// Outputs that a tile of weights holds side by side: a register of AVX-512's floats, two of AVX2's, four of Arm's.
constexpr Index TILE = 16;

// What a register holds. Arithmetic on a tile is written out in these: GCC takes a loop over a constant count of 16 apart
// into single floats before it looks for vectors, and does no better with vectors wider than a register.
#if defined(__AVX512F__)
constexpr Index LANES = 16;
#elif defined(__AVX__)
constexpr Index LANES = 8;
#else
constexpr Index LANES = 4;
#endif
constexpr Index PARTS = TILE / LANES;
typedef float Floats __attribute__((vector_size(sizeof(float) * LANES)));
typedef std::int32_t Ints __attribute__((vector_size(sizeof(std::int32_t) * LANES)));

typedef std::uint32_t UnsignedInts __attribute__((vector_size(sizeof(std::uint32_t) * LANES)));

template <typename Vector, typename Number>
inline Vector load(const Number* from) {
    Vector vector;
    std::memcpy(&vector, from, sizeof vector);
    return vector;
}

// What is read next into the first cache, and what comes after that into the second: the misses of one of them alone
// don't keep memory busy.
template <Index near, Index far>
inline void fetch_ahead(const void* from) {
    __builtin_prefetch(static_cast<const char*>(from) + near);
    __builtin_prefetch(static_cast<const char*>(from) + far, 0, 2);
}

// Of what a comparison gives: -1 or 0 in each lane.
inline bool any_of(Ints found) {
#if defined(__AVX512F__)
    return _mm512_test_epi32_mask(reinterpret_cast<__m512i>(found), reinterpret_cast<__m512i>(found)) != 0;
#elif defined(__AVX2__)
    return _mm256_movemask_ps(reinterpret_cast<__m256>(found)) != 0;
#elif defined(__aarch64__)
    return vmaxvq_u32(reinterpret_cast<uint32x4_t>(found)) != 0;
#else
    bool any = false;
    for (Index lane = 0; lane < LANES; ++lane) any |= found[lane] != 0;
    return any;
#endif
}

inline void store(Floats vector, float* to) { std::memcpy(to, &vector, sizeof vector); }

inline std::int32_t to_ints(float x) { return static_cast<std::int32_t>(x); }
inline Ints to_ints(Floats x) { return __builtin_convertvector(x, Ints); }
inline Floats to_floats(Ints x) { return __builtin_convertvector(x, Floats); }

// e^x to 1e-7, for what softmax and GELU put in; x: float or Floats. Cody and Waite's reduction to |r| <= ln(2) / 2 and a
// polynomial of degree 6: arithmetic only, so that a loop over it becomes vector code without a vector math library.
template <typename Real>
inline Real fast_exp(Real x) {
    constexpr float rounder = 12582912.0f;  // 1.5 * 2^23: a sum with it has no digits after the point
    x = x < -87.0f ? Real{} - 87.0f : x;  // a NaN passes both
    x = x > 88.0f ? Real{} + 88.0f : x;
    const Real n = (x * 1.44269504088896341f + rounder) - rounder;
    const Real r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Real p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const auto bits = (to_ints(n) + 127) << 23;
    Real power;
    std::memcpy(&power, &bits, sizeof power);
    return p * power;
}

// GPT-2's GELU, 0.5 x (1 + tanh(u)) (Hendrycks and Gimpel 2016), as x sigmoid(2u): exact algebra, one exp.
inline Floats gelu_tanh(Floats x) {
    const Floats twice_u = 1.5957691216057308f * (x + 0.044715f * x * x * x);
    return x / (1.0f + fast_exp(-twice_u));
}

// What follows the sums of one row and tile: bias, GELU, the residual.
struct Epilogue {
    const float* bias;      // [num_outputs], or null
    const float* residual;  // [num_rows, num_outputs], or null
    float* output;          // [num_rows, num_outputs], rows `output_stride` floats apart
    Index num_outputs, output_stride;
    bool has_gelu;

    // Asks for the lines of the cache that `write` fills, while the sums are still being added up: to fill a part of one
    // takes reading it first, and rows lie far apart.
    inline void fetch(Index row, Index num_rows, Index tile, Index num_tiles) const {
        for (Index r = row; r < row + num_rows; ++r)
            for (Index t = tile; t < tile + num_tiles; ++t)
                __builtin_prefetch(output + r * output_stride + t * TILE, 1);
    }

    // sums: of outputs `first`...; a layer's last tile may have more of them than the layer.
    inline void write(Floats sums, Index row, Index first) const {
        const Index left = num_outputs - first;
        const float* added = residual ? residual + row * num_outputs + first : nullptr;
        float* target = output + row * output_stride + first;
        if (left >= LANES) {
            const Floats results = finished(bias ? sums + load<Floats>(bias + first) : sums);
            store(added ? results + load<Floats>(added) : results, target);
            return;
        }
        for (Index j = 0; j < left; ++j) sums[j] += bias ? bias[first + j] : 0.0f;
        const Floats results = finished(sums);
        for (Index j = 0; j < left; ++j) target[j] = results[j] + (added ? added[j] : 0.0f);
    }

  private:
    inline Floats finished(Floats sums) const { return has_gelu ? gelu_tanh(sums) : sums; }
};

template <Index most, Index least, typename Visit>
inline void visit_group(Index size, Index row, Visit& visit) {
    if (size == most) visit(std::integral_constant<Index, most>{}, row);
    else if constexpr (most > least) visit_group<most - 1, least>(size, row, visit);
}

// visit(std::integral_constant<Index, n>, first row) for groups of at most `most` rows, all as large as each other, or
// nearly: n is a constant to the compiler, and the fewer rows share what is read the dearer they are.
// least: where a caller knows that no group has fewer, none is compiled.
template <Index most, Index least = 1, typename Visit>
inline void for_each_group(Index num_rows, Visit visit) {
    Index row = 0;
    for (Index groups = (num_rows + most - 1) / most; groups > 0; --groups) {
        const Index size = (num_rows - row + groups - 1) / groups;
        visit_group<most, least>(size, row, visit);
        row += size;
    }
}

// Rows and neighbouring tiles of weights whose products are added up at a time: as many sums as there are registers for.
// Weights are loaded once for all of the rows, an input once for all of the tiles: with one tile of AVX-512 the loads
// take longer than the products.
struct Block {
    Index rows, tiles;
};

constexpr Index tiles_for(Index n) { return (n + TILE - 1) / TILE; }

// What a thread of a parallel region takes of `num_pieces` at a time: few enough that none waits long for another, and
// enough that memory is read, and fetched ahead, in long pieces.
inline Index pieces_at_once(Index num_pieces, Index num_threads) {
    const Index pieces = num_pieces / (4 * num_threads);
    return pieces > 1 ? pieces : 1;
}

}  // namespace zeroshot
