// hidden @ weight in 8-bit integers: activations rounded with a scale for each row, sums exact in int32.
// A tile of weights is [num_inputs / 4, TILE, 4]: what one multiply-and-add instruction takes, four inputs an output.

#include "team.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace zeroshot {
namespace {

constexpr Index GROUP = 4;       // inputs that are multiplied and added up in one go
constexpr int ZERO_POINT = 128;  // activations are stored as value + 128

#if defined(__AVX512VNNI__) && defined(__AVX512F__)
constexpr int ROWS = 8;

struct Sums {
    __m512i lanes = _mm512_setzero_si512();
    inline void add(const std::uint8_t* x, const std::int8_t* w) {
        std::int32_t group;
        std::memcpy(&group, x, sizeof group);
        lanes = _mm512_dpbusd_epi32(lanes, _mm512_set1_epi32(group), _mm512_loadu_si512(w));
    }
    inline void store(std::int32_t* target) const { _mm512_storeu_si512(target, lanes); }
};
#elif defined(__AVX2__)
constexpr int ROWS = 3;  // with four, GCC keeps a sum in memory: 30 % slower

struct Sums {
    __m256i low = _mm256_setzero_si256(), high = _mm256_setzero_si256();

    // Pairs are added in 16 bits and would saturate past 32767: the weights are rounded so that they can't.
    static inline __m256i multiply(__m256i sums, __m256i x, const std::int8_t* w) {
        const __m256i weights = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w));
#if defined(__AVXVNNI__)
        return _mm256_dpbusd_avx_epi32(sums, x, weights);
#else
        const __m256i pairs = _mm256_maddubs_epi16(x, weights);
        return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#endif
    }
    inline void add(const std::uint8_t* x, const std::int8_t* w) {
        std::int32_t group;
        std::memcpy(&group, x, sizeof group);
        const __m256i inputs = _mm256_set1_epi32(group);
        low = multiply(low, inputs, w);
        high = multiply(high, inputs, w + 32);
    }
    inline void store(std::int32_t* target) const {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(target), low);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(target + 8), high);
    }
};
#else
constexpr int ROWS = 4;

struct Sums {
    std::int32_t lanes[TILE] = {};
    inline void add(const std::uint8_t* x, const std::int8_t* w) {
        for (Index j = 0; j < TILE; ++j)
            for (Index k = 0; k < GROUP; ++k) lanes[j] += x[k] * w[j * GROUP + k];
    }
    inline void store(std::int32_t* target) const { std::memcpy(target, lanes, sizeof lanes); }
};
#endif

inline Index padded(Index num_inputs) { return (num_inputs + GROUP - 1) / GROUP * GROUP; }

// weight: [num_tiles, num_groups, TILE, GROUP]; offsets: ZERO_POINT * the sum of each output's weights.
template <int rows>
inline void multiply_tile(const Linear& layer, Index tile, const std::uint8_t* rounded, const float* row_scales,
                          Index row, const Epilogue& epilogue) {
    const Index width = padded(layer.num_inputs);
    const std::int8_t* weights = static_cast<const std::int8_t*>(layer.weight) + tile * width * TILE;
    Sums sums[rows];
    for (Index g = 0; g < width / GROUP; ++g) {
        __builtin_prefetch(weights + g * TILE * GROUP + 2048);
        for (int r = 0; r < rows; ++r) sums[r].add(rounded + r * width + g * GROUP, weights + g * TILE * GROUP);
    }
    for (int r = 0; r < rows; ++r) {
        alignas(64) std::int32_t exact[TILE];
        alignas(64) float products[TILE];
        sums[r].store(exact);
        for (Index j = 0; j < TILE; ++j) {
            const Index output = tile * TILE + j;
            products[j] = static_cast<float>(exact[j] - layer.offsets[output]) * layer.scales[output] * row_scales[r];
        }
        epilogue.write(products, row + r, tile * TILE);
    }
}

inline void multiply_rows(const Linear& layer, Index tile, const Rounded& room, Index num_rows,
                          const Epilogue& epilogue) {
    const Index width = padded(layer.num_inputs);
    const std::uint8_t* rounded = room.rows;
    const float* row_scales = room.scales;
    Index row = 0;
    for (; row + ROWS <= num_rows; row += ROWS)
        multiply_tile<ROWS>(layer, tile, rounded + row * width, row_scales + row, row, epilogue);
    for (; row + 2 <= num_rows; row += 2)
        multiply_tile<2>(layer, tile, rounded + row * width, row_scales + row, row, epilogue);
    if (row < num_rows) multiply_tile<1>(layer, tile, rounded + row * width, row_scales + row, row, epilogue);
}

// x / scale, rounded to the nearest, as bytes. Returns the scale; NaN if there is one among the inputs.
inline float round_row(const float* x, Index num_inputs, Index width, std::uint8_t* rounded) {
    float largest = 0.0f, zero_or_nan = 0.0f;
#pragma omp simd reduction(max : largest) reduction(+ : zero_or_nan)
    for (Index k = 0; k < num_inputs; ++k) {
        const float size = std::fabs(x[k]);
        largest = size > largest ? size : largest;
        zero_or_nan += x[k] * 0.0f;  // of an infinity too
    }
    const float scale = (largest > 1e-30f ? largest : 1e-30f) * (1.0f / 127.0f);
    for (Index k = 0; k < num_inputs; ++k) {
        const float q = std::nearbyintf(x[k] / scale);
        rounded[k] = static_cast<std::uint8_t>(static_cast<std::int32_t>(q) + ZERO_POINT);
    }
    std::memset(rounded + num_inputs, ZERO_POINT, static_cast<std::size_t>(width - num_inputs));
    return scale + zero_or_nan;
}

}  // namespace

void int8_linear(const Linear& layer, const float* input, Index num_rows, const Rounded& room,
                 const Epilogue& epilogue) {
    const Index width = padded(layer.num_inputs), num_tiles = tiles_for(layer.num_outputs);
    const Index chunk = tiles_at_once(num_tiles);
#pragma omp for schedule(static)
    for (Index row = 0; row < num_rows; ++row)
        room.scales[row] = round_row(input + row * layer.num_inputs, layer.num_inputs, width, room.rows + row * width);
#pragma omp for schedule(dynamic, chunk)
    for (Index tile = 0; tile < num_tiles; ++tile) multiply_rows(layer, tile, room, num_rows, epilogue);
}

}  // namespace zeroshot

// weight, scales, offsets: as `linear.py` lays them out. rounded and row_scales: the room of `Rounded`.
EXPORT void zeroshot_int8_linear(const float* hidden, const std::int8_t* weight, const float* scales,
                                 const std::int32_t* offsets, const float* bias, const float* residual, float* output,
                                 std::uint8_t* rounded, float* row_scales, std::int64_t num_rows,
                                 std::int64_t num_inputs, std::int64_t num_outputs, int has_gelu) {
    using namespace zeroshot;
    const Linear layer{weight, scales, offsets, bias, num_inputs, num_outputs};
    const Epilogue epilogue{bias, residual, output, num_outputs, has_gelu != 0};
#pragma omp parallel
    int8_linear(layer, hidden, num_rows, Rounded{rounded, row_scales}, epilogue);
}
