// Intel's matrix registers (AMX), each of 16 rows of 64 bytes: one instruction multiplies 16 rows of 64 inputs with the
// weights of 16 outputs, for which VNNI takes 256. A tile of weights lies in memory as it needs them.
#pragma once

#include "common.h"

#if defined(__AMX_INT8__) && defined(__linux__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#define HAS_MATRIX_REGISTERS 1

namespace zeroshot::matrix {

constexpr Index ROWS = 16;    // that a register holds
constexpr Index INPUTS = 64;  // of each of them

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
        std::uint16_t bytes_a_row[16] = {INPUTS, INPUTS, INPUTS, INPUTS, INPUTS, INPUTS, INPUTS, INPUTS};
        std::uint8_t rows[16] = {ROWS, ROWS, ROWS, ROWS, ROWS, ROWS, ROWS, ROWS};
    };
    // A constant: GCC 12 believes that the instruction reads the first eight bytes only, and would not store the rest.
    static const Shapes SHAPES;
};

inline const Registers::Shapes Registers::SHAPES;

// [i][j]: of the i-th ROWS rows with the j-th tile of weights.
using Sums = std::int32_t[2][2][ROWS][TILE];

// What `multiply` multiplies: one or two times ROWS rows with one or two neighbouring tiles of weights.
struct Block {
    const std::uint8_t* inputs;  // [rows / ROWS, width / INPUTS, ROWS, INPUTS]
    const std::int8_t* weights;  // [tiles, width / INPUTS, INPUTS / 4, TILE, 4]
    Index width;                 // inputs of a row
    bool has_second_rows, has_second_tile;
    bool is_new;       // its weights have not been read yet
    bool is_followed;  // the same thread multiplies the next two tiles afterwards
};

// Two times two, so that what is loaded into a register is used twice.
inline void multiply(const Block& block, Sums& sums) {
    constexpr Index bytes = ROWS * INPUTS;
    const Index rows_bytes = ROWS * block.width, tile_bytes = TILE * block.width;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (Index k = 0; k < rows_bytes; k += bytes) {
        const std::uint8_t* inputs = block.inputs + k;
        const std::int8_t* weights = block.weights + k;
        // Without these, memory would wait for the registers: the next 4 KB of each tile, and the next two tiles.
        for (Index line = 0; block.is_new && line < bytes; line += 64)
            for (Index tile = 0; tile < 2; ++tile) {
                __builtin_prefetch(weights + tile * tile_bytes + line + 4096);
                if (block.is_followed) __builtin_prefetch(weights + (tile + 2) * tile_bytes + line, 0, 2);
            }
        _tile_loadd(6, weights, INPUTS);
        _tile_loadd(4, inputs, INPUTS);
        _tile_dpbusd(0, 4, 6);
        if (block.has_second_tile) {
            _tile_loadd(7, weights + tile_bytes, INPUTS);
            _tile_dpbusd(1, 4, 7);
        }
        if (block.has_second_rows) {
            _tile_loadd(5, inputs + rows_bytes, INPUTS);
            _tile_dpbusd(2, 5, 6);
            if (block.has_second_tile) _tile_dpbusd(3, 5, 7);
        }
    }
    _tile_stored(0, sums[0][0], INPUTS);
    _tile_stored(1, sums[0][1], INPUTS);
    _tile_stored(2, sums[1][0], INPUTS);
    _tile_stored(3, sums[1][1], INPUTS);
}

}  // namespace zeroshot::matrix
#endif
