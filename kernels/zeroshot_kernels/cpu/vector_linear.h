// hidden @ weight in float, whatever the weights are kept in. A tile of them is read from end to end, once for all rows of a
// block. Each sum runs over the inputs in one order whatever the number of rows: no result depends on its batch.
#pragma once

#include "team.h"
#include "tile.h"

namespace zeroshot {

// Of a tile's sums those of its rows. Not inlined: one of it serves blocks of any size, and compiles in less time.
template <typename Sink>
[[gnu::noinline]] void write_tile(const float (*sums)[TILE], Index num_rows, Index row, Index tile, const Sink& sink) {
    for (Index r = 0; r < num_rows; ++r)
        for (Index part = 0; part < TILE; part += LANES)
            sink.write(load<Floats>(sums[r] + part), row + r, tile * TILE + part);
}

template <typename Weight, typename Sink>
void multiply_by_vectors(Team& team, const Linear& layer, const float* input, Index num_rows, const Sink& sink) {
    const Index width = layer.num_inputs, size = tile_size<Weight>(width);
    const Index num_tiles = tiles_for(layer.num_outputs);
    share_blocks<FEW, MANY>(team, num_rows, num_tiles, [&](auto rows, auto tiles, Index row, Index tile) {
        const Weight* weights = static_cast<const Weight*>(layer.weight) + tile * size;
        const bool fetches = row == 0 || tiles() == 1;  // two tiles that are in a cache leave loads no time for it
        alignas(64) float sums[tiles()][rows()][TILE];
        sink.fetch(row, rows(), tile, tiles());
        multiply_tiles<rows(), tiles()>(input + row * width, width, weights, size, width, fetches, sums);
        for (Index t = 0; t < tiles(); ++t) write_tile(sums[t], rows(), row, tile + t, sink);
    });
}

}  // namespace zeroshot
