// hidden @ weight in 8-bit integers: activations rounded with a scale for each row, sums exact in int32, so that the
// instructions which add them up make no difference.
// A tile of weights is [num_inputs / 4, TILE, 4]: what one multiply-and-add instruction takes, four inputs an output.

#include "greedy.h"
#include "matrix_tiles.h"

namespace zeroshot {
namespace {

constexpr Index GROUP = 4;  // inputs that are multiplied and added up in one go

// Activations are stored as value + ZERO_POINT: x86 multiplies unsigned bytes with signed ones, Arm signed ones.
#if defined(__ARM_FEATURE_DOTPROD)
constexpr int ZERO_POINT = 0;
#else
constexpr int ZERO_POINT = 128;
#endif

// Sums: a register of them, an int32 for each of a tile's outputs, or for half of them. add_products adds to each the
// products of four input bytes with its output's four weights.
#if defined(__AVX512VNNI__) && defined(__AVX512F__)
constexpr Block FEW{8, 1}, MANY{12, 2};
using Sums = __m512i;

inline Sums add_products(Sums sums, std::int32_t inputs, const std::int8_t* weights) {
    return _mm512_dpbusd_epi32(sums, _mm512_set1_epi32(inputs), _mm512_loadu_si512(weights));
}
#elif defined(__AVX2__)
constexpr Block FEW{4, 1}, MANY = FEW;
using Sums = __m256i;

inline Sums add_products(Sums sums, std::int32_t inputs, const std::int8_t* weights) {
    const __m256i x = _mm256_set1_epi32(inputs), w = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights));
#if defined(__AVXVNNI__)
    return _mm256_dpbusd_avx_epi32(sums, x, w);
#else
    // Pairs are added in 16 bits and would saturate past 32767: the weights are rounded so that they can't.
    return _mm256_add_epi32(sums, _mm256_madd_epi16(_mm256_maddubs_epi16(x, w), _mm256_set1_epi16(1)));
#endif
}
#elif defined(__ARM_FEATURE_DOTPROD)
constexpr Block FEW{5, 1}, MANY = FEW;
using Sums = int32x4_t;

inline Sums add_products(Sums sums, std::int32_t inputs, const std::int8_t* weights) {
    return vdotq_s32(sums, vreinterpretq_s8_s32(vdupq_n_s32(inputs)), vld1q_s8(weights));
}
#else
constexpr Block FEW{4, 1}, MANY = FEW;
using Sums = Ints;

inline Sums add_products(Sums sums, std::int32_t inputs, const std::int8_t* weights) {
    std::uint8_t x[GROUP];
    std::memcpy(x, &inputs, sizeof x);
    for (Index j = 0; j < LANES; ++j)
        for (Index k = 0; k < GROUP; ++k) sums[j] += x[k] * weights[j * GROUP + k];
    return sums;
}
#endif

constexpr Index SUMS_BYTES = sizeof(Sums);  // of weights too: an output's group has as many bytes as its sum

inline Index padded(Index num_inputs) { return (num_inputs + GROUP - 1) / GROUP * GROUP; }

// sums[t][r][j]: of all products of row r's inputs with the weights of tile t's output j. is_new: the weights are not in
// a cache yet. Not inlined: it needs every register for itself.
template <Index rows, Index tiles>
[[gnu::noinline]] void add_up(const std::uint8_t* rounded, Index width, const std::int8_t* weights, bool is_new,
                              std::int32_t (&sums)[tiles][rows][TILE]) {
    constexpr Index parts = TILE * GROUP / SUMS_BYTES;
    Sums kept[tiles][rows][parts] = {};
    for (Index k = 0; k < width; k += GROUP) {
        const auto weights_of = [&](Index t) { return weights + (t * width + k) * TILE; };
        if (is_new)
            for (Index t = 0; t < tiles; ++t) fetch_ahead<2048, 12288>(weights_of(t));
        for (Index r = 0; r < rows; ++r) {
            std::int32_t inputs;
            std::memcpy(&inputs, rounded + r * width + k, sizeof inputs);
            for (Index t = 0; t < tiles; ++t)
                for (Index part = 0; part < parts; ++part)
                    kept[t][r][part] = add_products(kept[t][r][part], inputs, weights_of(t) + part * SUMS_BYTES);
        }
    }
    std::memcpy(sums, kept, sizeof sums);
}

// What the first `num_rows` of a tile's sums stand for: that adding ZERO_POINT to each input has added offsets (which
// are 128 * the sum of an output's weights), and the output's and the row's scale. Not inlined: one of it serves blocks
// of any size, and compiles in less time.
template <typename Sink>
[[gnu::noinline]] void finish(const Linear& layer, Index tile, const std::int32_t (*sums)[TILE], Index num_rows,
                   const float* row_scales, Index row, const Sink& sink) {
    for (Index first = tile * TILE, part = 0; part < TILE; part += LANES) {
        const Ints offsets = ZERO_POINT ? load<Ints>(layer.offsets + first + part) : Ints{};
        const Floats scales = load<Floats>(layer.scales + first + part);
        for (Index r = 0; r < num_rows; ++r)
            sink.write(to_floats(load<Ints>(sums[r] + part) - offsets) * scales * row_scales[row + r], row + r,
                           first + part);
    }
}

// weight: [num_tiles, num_groups, TILE, GROUP].
inline const std::int8_t* weights_of(const Linear& layer, Index tile) {
    return static_cast<const std::int8_t*>(layer.weight) + tile * TILE * padded(layer.num_inputs);
}

// room: rows one after the other.
template <typename Sink>
void multiply_by_vectors(Team& team, const Linear& layer, Index num_rows, const Rounded& room, const Sink& sink) {
    const Index width = padded(layer.num_inputs);
    const Index num_tiles = tiles_for(layer.num_outputs);
    share_blocks<FEW, MANY>(team, num_rows, num_tiles, [&](auto rows, auto tiles, Index row, Index tile) {
        alignas(64) std::int32_t sums[tiles()][rows()][TILE];
        sink.fetch(row, rows(), tile, tiles());
        add_up<rows(), tiles()>(room.rows + row * width, width, weights_of(layer, tile), row == 0, sums);
        for (Index t = 0; t < tiles(); ++t) finish(layer, tile + t, sums[t], rows(), room.scales, row, sink);
    });
}

#if HAS_MATRIX_REGISTERS
// Fewer rows leave too much of a register empty: twelve are as fast by vectors, eight faster.
constexpr Index FEWEST_ROWS = 13;

bool suits_matrices(const Linear& layer, Index num_rows) {
    return num_rows >= FEWEST_ROWS && layer.num_inputs % matrix::BYTES == 0 && matrix::are_allowed();
}

// room: as matrix::place_of lays rows out.
template <typename Sink>
void multiply_by_matrices(Team& team, const Linear& layer, Index num_rows, const Rounded& room, const Sink& sink) {
    const auto finish_rows = [&](const std::int32_t (*sums)[TILE], Index count, Index row, Index tile) {
        finish(layer, tile, sums, count, room.scales, row, sink);
    };
    matrix::multiply_all<std::int32_t>(team, room.rows, layer.weight, layer.num_inputs, num_rows,
                                       tiles_for(layer.num_outputs), sink, finish_rows);
}
#endif

// x / scale, rounded to the nearest, as bytes. Returns the scale; NaN if there is one among the inputs.
inline float round_row(const float* x, Index num_inputs, const matrix::Place& place) {
    float largest = 1e-30f, zero_or_nan = 0.0f;
#pragma omp simd reduction(max : largest) reduction(+ : zero_or_nan)
    for (Index k = 0; k < num_inputs; ++k) {
        const float size = std::fabs(x[k]);
        largest = size > largest ? size : largest;
        zero_or_nan += x[k] * 0.0f;  // of an infinity too
    }
    const float factor = 127.0f / largest;
    for (Index start = 0; start < num_inputs; start += matrix::BYTES) {
        std::uint8_t* bytes = place.bytes + start / matrix::BYTES * place.stride;
        const Index count = std::min(matrix::BYTES, num_inputs - start);
        for (Index k = 0; k < count; ++k) {
            const float rounded = std::nearbyintf(x[start + k] * factor);
            bytes[k] = static_cast<std::uint8_t>(static_cast<std::int32_t>(rounded) + ZERO_POINT);
        }
    }
    return largest * (1.0f / 127.0f) + zero_or_nan;
}

}  // namespace

template <typename Sink>
void int8_linear(Team& team, const Linear& layer, const float* input, Index num_rows, const Rounded& room,
                 const Sink& sink) {
    const auto round = [&](auto place_of) {
        team.share_rows(num_rows, [&](Index row) {
            room.scales[row] = round_row(input + row * layer.num_inputs, layer.num_inputs, place_of(row));
        });
    };
#if HAS_MATRIX_REGISTERS
    if (suits_matrices(layer, num_rows)) {
        round([&](Index row) { return matrix::place_of(room.rows, row, layer.num_inputs); });
        return multiply_by_matrices(team, layer, num_rows, room, sink);
    }
#endif
    const Index width = padded(layer.num_inputs);
    round([&](Index row) {
        std::uint8_t* bytes = room.rows + row * width;
        std::memset(bytes + layer.num_inputs, ZERO_POINT, static_cast<std::size_t>(width - layer.num_inputs));
        return matrix::Place{bytes, matrix::BYTES};
    });
    multiply_by_vectors(team, layer, num_rows, room, sink);
}

template void int8_linear(Team&, const Linear&, const float*, Index, const Rounded&, const Epilogue&);

}  // namespace zeroshot

// weight, scales, offsets: as `linear.py` lays them out. rounded and row_scales: the room of `Rounded`.
EXPORT void zeroshot_int8_linear(const float* hidden, const std::int8_t* weight, const float* scales,
                                 const std::int32_t* offsets, const float* bias, const float* residual, float* output,
                                 std::uint8_t* rounded, float* row_scales, std::int64_t num_rows,
                                 std::int64_t num_inputs, std::int64_t num_outputs, std::int64_t output_stride,
                                 int has_gelu) {
    using namespace zeroshot;
    const Linear layer{Format::INT8, weight, scales, offsets, bias, num_inputs, num_outputs};
    const Epilogue epilogue{bias, residual, output, num_outputs, output_stride, has_gelu != 0};
    in_parallel([&](Team& team) {
        int8_linear(team, layer, hidden, num_rows, Rounded{rounded, row_scales}, epilogue);
    });
}

// tokens, are_finite: [num_rows], see `choose`.
EXPORT void zeroshot_int8_greedy(const float* hidden, const std::int8_t* weight, const float* scales,
                                 const std::int32_t* offsets, std::uint8_t* rounded, float* row_scales,
                                 std::int64_t* tokens, bool* are_finite, std::int64_t num_rows,
                                 std::int64_t num_inputs, std::int64_t num_outputs) {
    using namespace zeroshot;
    const Linear layer{Format::INT8, weight, scales, offsets, nullptr, num_inputs, num_outputs};
    find_best(num_rows, num_outputs, tokens, are_finite, [&](Team& team, const Greedy& greedy) {
        int8_linear(team, layer, hidden, num_rows, Rounded{rounded, row_scales}, greedy);
    });
}
