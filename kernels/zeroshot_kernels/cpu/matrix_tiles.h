// Intel's matrix registers (AMX), each of 16 rows of 64 bytes: one instruction multiplies 16 rows of 64 bytes of inputs,
// 64 in int8 and 32 in bfloat16, with the weights of 16 outputs. A tile of weights lies in memory as it needs them.
#pragma once

#include <algorithm>

#include "team.h"

#if defined(__AMX_INT8__) && defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__linux__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#define HAS_MATRIX_REGISTERS 1
#endif

namespace zeroshot::matrix {

constexpr Index ROWS = 16;   // that a register holds
constexpr Index BYTES = 64;  // of each of them

// Where the bytes of a row of inputs go: 64 at a time, `stride` bytes apart.
struct Place {
    std::uint8_t* bytes;
    Index stride;
};

// As registers take rows: [num_rows / ROWS, row_bytes / BYTES, ROWS, BYTES].
inline Place place_of(std::uint8_t* rows, Index row, Index row_bytes) {
    return {rows + row / ROWS * ROWS * row_bytes + row % ROWS * BYTES, ROWS * BYTES};
}

#if HAS_MATRIX_REGISTERS
// Linux gives the registers to processes that ask for them, once for all threads; some sandboxes and old systems refuse.
inline bool are_allowed() {
    constexpr long request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    static const bool allowed = syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
    return allowed;
}

// Makes the registers a thread's for as long as it lives: kept longer, their 8 KB would be saved at each switch.
class Registers {
  public:
    Registers() { _tile_loadconfig(&SHAPES); }
    ~Registers() { _tile_release(); }
    Registers(const Registers&) = delete;
    Registers& operator=(const Registers&) = delete;

  private:
    struct alignas(64) Shapes {
        std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
        std::uint16_t bytes_a_row[16] = {BYTES, BYTES, BYTES, BYTES, BYTES, BYTES, BYTES, BYTES};
        std::uint8_t rows[16] = {ROWS, ROWS, ROWS, ROWS, ROWS, ROWS, ROWS, ROWS};
    };
    // A constant: GCC 12 believes that the instruction reads the first eight bytes only, and would not store the rest.
    static const Shapes SHAPES;
};

inline const Registers::Shapes Registers::SHAPES;

// Of two times ROWS rows with two tiles, [2 * rows + tile]: an int32 of a product in int8, a float of one in bfloat16.
template <typename Sum>
using Sums = Sum[4][ROWS][TILE];

// What is multiplied at a time: one or two times ROWS rows with one or two neighbouring tiles of weights.
struct Block {
    const std::uint8_t* inputs;   // as `place_of` lays them out
    const std::uint8_t* weights;  // [tiles, row_bytes / BYTES, BYTES / 4, TILE, 4]
    Index row_bytes;              // of a row's inputs, and of an output's weights
    bool has_second_rows, has_second_tile;
    bool is_new;       // its weights have not been read yet
    bool is_followed;  // the same thread multiplies the next two tiles afterwards
};

// A macro, since the instructions' own names take nothing but literals.
#define ZEROSHOT_ADD_PRODUCTS(sums, inputs, weights)     \
    if constexpr (std::is_same_v<Sum, float>) {          \
        _tile_dpbf16ps(sums, inputs, weights);           \
    } else {                                             \
        _tile_dpbusd(sums, inputs, weights);             \
    }

// Two times two, so that what is loaded into a register is used twice.
template <typename Sum>
inline void multiply(const Block& block, Sums<Sum>& sums) {
    constexpr Index bytes = ROWS * BYTES;
    const Index rows_bytes = ROWS * block.row_bytes, tile_bytes = TILE * block.row_bytes;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (Index k = 0; k < rows_bytes; k += bytes) {
        const std::uint8_t *inputs = block.inputs + k, *weights = block.weights + k;
        // Without these, memory would wait for the registers: the next 4 KB of each tile, and the next two tiles.
        for (Index line = 0; block.is_new && line < bytes; line += 64)
            for (Index tile = 0; tile < 2; ++tile) {
                __builtin_prefetch(weights + tile * tile_bytes + line + 4096);
                if (block.is_followed) __builtin_prefetch(weights + (tile + 2) * tile_bytes + line, 0, 2);
            }
        _tile_loadd(6, weights, BYTES);
        _tile_loadd(4, inputs, BYTES);
        ZEROSHOT_ADD_PRODUCTS(0, 4, 6)
        if (block.has_second_tile) {
            _tile_loadd(7, weights + tile_bytes, BYTES);
            ZEROSHOT_ADD_PRODUCTS(1, 4, 7)
        }
        if (block.has_second_rows) {
            _tile_loadd(5, inputs + rows_bytes, BYTES);
            ZEROSHOT_ADD_PRODUCTS(2, 5, 6)
            if (block.has_second_tile) {
                ZEROSHOT_ADD_PRODUCTS(3, 5, 7)
            }
        }
    }
    _tile_stored(0, sums[0], BYTES);
    _tile_stored(1, sums[1], BYTES);
    _tile_stored(2, sums[2], BYTES);
    _tile_stored(3, sums[3], BYTES);
}

#undef ZEROSHOT_ADD_PRODUCTS

// finish(sums, how many of their rows there are, first row, tile) for the sums, [ROWS][TILE], of all rows and tiles. sink: as
// in `team.h`; of it only `fetch` is called.
// inputs, weights: as in `Block`. A row's sums run over its inputs in one order whatever the number of rows.
template <typename Sum, typename Sink, typename Finish>
void multiply_all(Team& team, const std::uint8_t* inputs, const void* weights, Index row_bytes, Index num_rows,
                  Index num_tiles, const Sink& sink, Finish finish) {
    const Registers registers;
    const Index num_pairs = (num_tiles + 1) / 2, at_once = pieces_at_once(num_pairs, team.num_threads());
    team.share(num_pairs, at_once, [&](Index pair) {
        const Index tile = 2 * pair;
        const std::uint8_t* from = static_cast<const std::uint8_t*>(weights) + tile * TILE * row_bytes;
        for (Index row = 0; row < num_rows; row += 2 * ROWS) {
            const bool has_second_rows = num_rows - row > ROWS, has_second_tile = tile + 1 < num_tiles;
            alignas(64) Sums<Sum> sums;
            sink.fetch(row, std::min(2 * ROWS, num_rows - row), tile, 1 + has_second_tile);
            multiply<Sum>({inputs + row * row_bytes, from, row_bytes, has_second_rows, has_second_tile, row == 0,
                           (pair + 1) % at_once != 0},
                          sums);
            for (Index i = 0; i <= has_second_rows; ++i)
                for (Index j = 0; j <= has_second_tile; ++j)
                    finish(sums[2 * i + j], std::min(ROWS, num_rows - row - i * ROWS), row + i * ROWS, tile + j);
        }
    });
}
#endif

}  // namespace zeroshot::matrix
