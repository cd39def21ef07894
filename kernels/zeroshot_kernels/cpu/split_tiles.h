// Products of floats by matrix registers, which multiply bfloat16: a float goes in as the sum of two of them, and three
// products make one. That keeps 17 binary digits of each factor, all that a Half has among them.
#pragma once

#include "matrix_tiles.h"

#if HAS_MATRIX_REGISTERS
namespace zeroshot::matrix {

static_assert(LANES == TILE && TILE == ROWS);  // whoever has these registers has AVX-512

constexpr Index PAIRS = BYTES / sizeof(std::uint32_t);  // of bfloat16, in a register's row

// Lanes become rows and rows lanes. Four times, blocks beside the diagonal change places, each time half as large.
template <Index size = ROWS / 2>
inline void transpose(UnsignedInts (&rows)[ROWS]) {
    UnsignedInts above, below;  // what the two rows take: below LANES of the upper one, the others of the lower
    for (Index lane = 0; lane < LANES; ++lane) {
        const bool is_right = (lane & size) != 0;
        above[lane] = static_cast<std::uint32_t>(is_right ? LANES + lane - size : lane);
        below[lane] = static_cast<std::uint32_t>(is_right ? LANES + lane : lane + size);
    }
#pragma GCC unroll 16
    for (Index row = 0; row < ROWS; ++row) {
        if (row & size) continue;
        const UnsignedInts upper = rows[row], lower = rows[row + size];
        rows[row] = __builtin_shuffle(upper, lower, above);
        rows[row + size] = __builtin_shuffle(upper, lower, below);
    }
    if constexpr (size > 1) transpose<size / 2>(rows);
}

// Numbers as two registers take them: [ROWS, PAIRS] pairs of bfloat16, and of what rounding to those has left.
struct alignas(64) SplitTile {
    std::uint32_t high[ROWS][PAIRS], low[ROWS][PAIRS];

    // Pairs of what lies in the same lane.
    void set_pairs(Index row, Floats first, Floats second) {
        const UnsignedInts rounded = to_pairs(first, second);
        put(rounded, high[row]);
        put(to_pairs(first - as_floats(rounded << 16), second - as_floats(rounded & 0xffff0000u)), low[row]);
    }

    // Pairs of neighbouring lanes: half of a row.
    void set_half(Index row, Index half, Floats numbers) {
        const __m256bh rounded = _mm512_cvtneps_pbh(numbers);
        const __m512i bits = _mm512_slli_epi32(_mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(rounded)), 16);
        put(rounded, high[row] + half * PAIRS / 2);
        put(_mm512_cvtneps_pbh(numbers - reinterpret_cast<Floats>(bits)), low[row] + half * PAIRS / 2);
    }

    void transpose() {
        for (auto* part : {&high, &low}) {
            UnsignedInts rows[ROWS];
            std::memcpy(rows, *part, sizeof rows);
            matrix::transpose(rows);
            std::memcpy(*part, rows, sizeof rows);
        }
    }

  private:
    static Floats as_floats(UnsignedInts bits) { return load<Floats>(&bits); }

    // As bfloat16, to the nearest: `first` in the lower halves of the lanes.
    static UnsignedInts to_pairs(Floats first, Floats second) {
        alignas(64) static constexpr std::uint16_t side_by_side[] = {
            0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
            8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
        const auto rounded = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second, first));
        return reinterpret_cast<UnsignedInts>(_mm512_permutexvar_epi16(_mm512_load_si512(side_by_side), rounded));
    }

    template <typename Vector>
    static void put(Vector vector, std::uint32_t* to) {
        std::memcpy(to, &vector, sizeof vector);
    }
};

// What is left out, low times low, is as small as what rounding has lost.
#define ZEROSHOT_ADD_SPLIT_PRODUCTS(sums, rows) \
    _tile_loadd(4, (rows).high, BYTES);         \
    _tile_dpbf16ps(sums, 4, 6);                 \
    _tile_dpbf16ps(sums, 4, 7);                 \
    _tile_loadd(5, (rows).low, BYTES);          \
    _tile_dpbf16ps(sums, 5, 6);

// sums, [num_tiles][ROWS][TILE] = rows @ columns, with sums over `num_steps` times 2 * PAIRS numbers, in order.
// rows: [num_tiles] times `num_steps` of them, `distance` apart; columns: [num_steps]. At most four tiles.
inline void multiply_split(const SplitTile* rows, Index distance, Index num_tiles, const SplitTile* columns,
                           Index num_steps, float* sums) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (Index step = 0; step < num_steps; ++step, ++rows) {
        _tile_loadd(6, columns[step].high, BYTES);
        _tile_loadd(7, columns[step].low, BYTES);
        ZEROSHOT_ADD_SPLIT_PRODUCTS(0, rows[0])
        if (num_tiles > 1) {
            ZEROSHOT_ADD_SPLIT_PRODUCTS(1, rows[distance])
        }
        if (num_tiles > 2) {
            ZEROSHOT_ADD_SPLIT_PRODUCTS(2, rows[2 * distance])
        }
        if (num_tiles > 3) {
            ZEROSHOT_ADD_SPLIT_PRODUCTS(3, rows[3 * distance])
        }
    }
    _tile_stored(0, sums, BYTES);
    if (num_tiles > 1) _tile_stored(1, sums + ROWS * TILE, BYTES);
    if (num_tiles > 2) _tile_stored(2, sums + 2 * ROWS * TILE, BYTES);
    if (num_tiles > 3) _tile_stored(3, sums + 3 * ROWS * TILE, BYTES);
}

#undef ZEROSHOT_ADD_SPLIT_PRODUCTS

}  // namespace zeroshot::matrix
#endif
