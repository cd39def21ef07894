// Intel's matrix registers (AMX), each of 16 rows of 64 bytes: one instruction multiplies 16 rows of 64 bytes of inputs,
// 64 in int8 and 32 in bfloat16, with the weights of 16 outputs. A tile of weights lies in memory as it needs them.
#pragma once

#include <algorithm>

#include "team.h"

#if defined(__AMX_INT8__) && defined(__AMX_BF16__) && defined(__linux__)
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

// What four registers hold: an int32 of a product in int8, a float of one in bfloat16.
template <typename Sum>
using Sums = Sum[4][ROWS][TILE];

// Rows and tiles that are multiplied at a time.
struct Block {
    const std::uint8_t* inputs;   // as `place_of` lays them out
    const std::uint8_t* weights;  // [tiles, row_bytes / BYTES, BYTES / 4, TILE, 4]
    Index row_bytes;              // of a row's inputs, and of an output's weights
    Index num_tiles;
    bool has_second_rows;
    bool is_new;       // its weights have not been read yet
    bool is_followed;  // the same thread multiplies the next tiles afterwards

    Index register_row_bytes() const { return ROWS * row_bytes; }
    Index tile_bytes() const { return TILE * row_bytes; }
};

// Without these, memory would wait for the registers: the next 4 KB of each tile, and the tiles after them.
template <Index most_tiles>
inline void fetch_weights_ahead(const Block& block, Index k) {
    if (!block.is_new) return;
    for (Index tile = 0; tile < most_tiles; ++tile)
        for (Index line = 0; line < ROWS * BYTES; line += 64) {
            const std::uint8_t* weights = block.weights + tile * block.tile_bytes() + k + line;
            __builtin_prefetch(weights + 4096);
            if (block.is_followed) __builtin_prefetch(weights + most_tiles * block.tile_bytes(), 0, 2);
        }
}

// Numbers of registers: the instructions' own names take nothing but literals.
#define ZEROSHOT_ADD_PRODUCTS(sums, inputs, weights)     \
    if constexpr (std::is_same_v<Sum, float>) {          \
        _tile_dpbf16ps(sums, inputs, weights);           \
    } else {                                             \
        _tile_dpbusd(sums, inputs, weights);             \
    }

// Two times ROWS rows with two tiles, so that what is loaded into a register is used twice. sums: [2 * rows + tile].
template <typename Sum>
inline void multiply_two_by_two(const Block& block, Sums<Sum>& sums) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (Index k = 0; k < block.register_row_bytes(); k += ROWS * BYTES) {
        const std::uint8_t *inputs = block.inputs + k, *weights = block.weights + k;
        fetch_weights_ahead<2>(block, k);
        _tile_loadd(6, weights, BYTES);
        _tile_loadd(4, inputs, BYTES);
        ZEROSHOT_ADD_PRODUCTS(0, 4, 6)
        if (block.num_tiles > 1) {
            _tile_loadd(7, weights + block.tile_bytes(), BYTES);
            ZEROSHOT_ADD_PRODUCTS(1, 4, 7)
        }
        if (block.has_second_rows) {
            _tile_loadd(5, inputs + block.register_row_bytes(), BYTES);
            ZEROSHOT_ADD_PRODUCTS(2, 5, 6)
            if (block.num_tiles > 1) {
                ZEROSHOT_ADD_PRODUCTS(3, 5, 7)
            }
        }
    }
    _tile_stored(0, sums[0], BYTES);
    _tile_stored(1, sums[1], BYTES);
    _tile_stored(2, sums[2], BYTES);
    _tile_stored(3, sums[3], BYTES);
}

// ROWS rows with four tiles: a product waits for the last one in its register, 52 cycles, and four take 64. sums: [tile].
template <typename Sum>
inline void multiply_one_by_four(const Block& block, Sums<Sum>& sums) {
    const Index tile_bytes = block.tile_bytes();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (Index k = 0; k < block.register_row_bytes(); k += ROWS * BYTES) {
        const std::uint8_t* weights = block.weights + k;
        fetch_weights_ahead<4>(block, k);
        _tile_loadd(4, block.inputs + k, BYTES);
        _tile_loadd(5, weights, BYTES);
        ZEROSHOT_ADD_PRODUCTS(0, 4, 5)
        if (block.num_tiles > 1) {
            _tile_loadd(6, weights + tile_bytes, BYTES);
            ZEROSHOT_ADD_PRODUCTS(1, 4, 6)
        }
        if (block.num_tiles > 2) {
            _tile_loadd(7, weights + 2 * tile_bytes, BYTES);
            ZEROSHOT_ADD_PRODUCTS(2, 4, 7)
        }
        if (block.num_tiles > 3) {
            _tile_loadd(5, weights + 3 * tile_bytes, BYTES);
            ZEROSHOT_ADD_PRODUCTS(3, 4, 5)
        }
    }
    _tile_stored(0, sums[0], BYTES);
    _tile_stored(1, sums[1], BYTES);
    _tile_stored(2, sums[2], BYTES);
    _tile_stored(3, sums[3], BYTES);
}

#undef ZEROSHOT_ADD_PRODUCTS

// finish(sums, [ROWS][TILE], how many of the rows there are, first row, tile) for each register of sums. inputs: as
// `place_of` lays them out; weights: as in `Block`, those of all tiles. A row's sums run over its inputs in one order
// whatever the number of rows.
template <typename Sum, typename Finish>
void multiply(Team& team, const std::uint8_t* inputs, const void* weights, Index row_bytes, Index num_rows,
              Index num_tiles, Finish finish) {
    const Registers registers;
    const bool is_one = num_rows <= ROWS;
    const Index rows = is_one ? ROWS : 2 * ROWS, tiles = is_one ? 4 : 2;
    const Index num_items = (num_tiles + tiles - 1) / tiles, at_once = pieces_at_once(num_items, team.num_threads());
    team.share(num_items, at_once, [&](Index item) {
        const Index first = item * tiles;
        for (Index row = 0; row < num_rows; row += rows) {
            const Block block{inputs + row * row_bytes,
                              static_cast<const std::uint8_t*>(weights) + first * TILE * row_bytes,
                              row_bytes,
                              std::min(tiles, num_tiles - first),
                              num_rows - row > ROWS,
                              row == 0,
                              (item + 1) % at_once != 0};
            alignas(64) Sums<Sum> sums;
            if (is_one) multiply_one_by_four<Sum>(block, sums);
            else multiply_two_by_two<Sum>(block, sums);
            for (Index i = 0; i <= block.has_second_rows; ++i)
                for (Index j = 0; j < block.num_tiles; ++j)
                    finish(sums[2 * i + j], std::min(ROWS, num_rows - row - i * ROWS), row + i * ROWS, first + j);
        }
    });
}
#endif

}  // namespace zeroshot::matrix
