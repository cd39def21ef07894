// Causal attention of several new tokens of each sequence over all its paged keys and values (Vaswani et al. 2017).
// A head's keys and values are laid out once as tiles, then serve all its queries: the products are a linear layer's.
// Each query's sums run over its own context in one order, so they never depend on where a prompt was cut in chunks.

#include <algorithm>

#include "matrix_attention.h"
#include "tile.h"

namespace zeroshot {
namespace {

// Some rows of numbers, and tiles to multiply them with: [num_tiles, num_inputs, TILE], `distance` floats apart.
struct Product {
    const float* inputs;
    Index input_stride;
    const float* tiles;
    Index distance, num_inputs, num_tiles;

    // visit(sums, tile) for each tile; sums: [rows][TILE].
    template <Index rows, typename Visit>
    void for_each_tile(Visit visit) const {
        const Index paired = num_tiles / MANY.tiles * MANY.tiles;
        for (Index tile = 0; tile < paired; tile += MANY.tiles) visit_tiles<rows, MANY.tiles>(tile, visit);
        for (Index tile = paired; tile < num_tiles; ++tile) visit_tiles<rows, 1>(tile, visit);
    }

  private:
    template <Index rows, Index count, typename Visit>
    void visit_tiles(Index first, Visit visit) const {
        alignas(64) float sums[count][rows][TILE];
        multiply_tiles<rows, count>(inputs, input_stride, tiles + first * distance, distance, num_inputs, false, sums);
        for (Index t = 0; t < count; ++t) visit(sums[t], first + t);
    }
};

// One head's keys and values, and the scores of a group of queries: what a thread works in.
class Room {
  public:
    // Queries that are multiplied together: as many as there are registers for, or one or two thirds of them. Zeros make up
    // the number, since code for each number took half of the time that this file compiled.
    static constexpr Index QUERIES = MANY.rows, THIRD = QUERIES / 3;

    // What is beyond the last token or the last number is zero: it adds nothing to a sum.
    template <typename Number>
    void lay_out(const Pages<Number>& pages, const std::int64_t* table, Index num_tokens, Index head) {
        const Index width = pages.shape.head_dim, stride = pages.shape.n_head * width;
        const Index num_tiles = tiles_for(num_tokens);
        width_ = width;
        num_tokens_ = num_tokens;
        grow(keys_, num_tiles * width * TILE);
        grow(values_, tiles_for(width) * num_tokens * TILE);
        grow(scores_, QUERIES * num_tiles * TILE);
        grow(queries_, QUERIES * width);
        if (num_tokens % TILE) std::fill_n(keys_.data() + (num_tiles - 1) * width * TILE, width * TILE, 0.0f);
        const auto for_each_token = [&](const Number* content, auto visit) {
            for_each_page(content, nullptr, table, num_tokens, head, pages.shape, [&](const Page<Number>& page) {
                for (Index t = 0; t < page.num_tokens; ++t) visit(page.first + t, page.numbers + t * stride);
            });
        };
        for_each_token(pages.key, [&](Index t, const Number* key) {
            float* target = keys_.data() + t / TILE * width * TILE + t % TILE;
            for_each_vector(key, width, [&](Index d, Index count, Floats vector) {
                for (Index i = 0; i < count; ++i) target[(d + i) * TILE] = vector[i];
            });
        });
        for_each_token(pages.value, [&](Index t, const Number* value) {
            for_each_vector(value, width, [&](Index d, Index, Floats vector) {
                store(vector, values_.data() + (d / TILE * num_tokens + t) * TILE + d % TILE);
            });
        });
    }

    void attend(const Rows& queries, Index count, float scale) {
        for (Index first = 0; first < count; first += QUERIES) {
            const Index left = count - first, together = std::min(QUERIES, left);
            if (left > QUERIES) queries.from(first + QUERIES).fetch(std::min(QUERIES, left - QUERIES), width_);
            if (together > 2 * THIRD) attend_together<3 * THIRD>(queries.from(first), together, scale);
            else if (together > THIRD) attend_together<2 * THIRD>(queries.from(first), together, scale);
            else attend_together<THIRD>(queries.from(first), together, scale);
        }
    }

  private:
    Index width_, num_tokens_;
    std::vector<float> keys_;    // [tiles_for(num_tokens), head_dim, TILE]: a tile is TILE tokens side by side
    std::vector<float> values_;  // [tiles_for(head_dim), num_tokens, TILE]: a tile is TILE numbers of each token
    std::vector<float> scores_;   // [QUERIES, tiles_for(num_tokens) * TILE]
    std::vector<float> queries_;  // [QUERIES, head_dim]

    // visit(first number, how many, they and zeros)
    template <typename Number, typename Visit>
    static void for_each_vector(const Number* numbers, Index n, Visit visit) {
        Index i = 0;
        for (; i + LANES <= n; i += LANES) visit(i, LANES, load_floats(numbers + i));
        if (i < n) visit(i, n - i, load_first(numbers + i, n - i));
    }

    // Of `rows` queries the first `count` are there.
    template <Index rows>
    void attend_together(const Rows& queries, Index count, float scale) {
        const Index stride = tiles_for(num_tokens_) * TILE, longest = queries.context + count - 1;
        float *scores = scores_.data(), *together = queries_.data();
        for (Index r = 0; r < count; ++r)
            std::copy_n(queries.query + r * queries.query_stride, width_, together + r * width_);
        std::fill_n(together + count * width_, (rows - count) * width_, 0.0f);
        const Product with_keys{together, width_, keys_.data(), width_ * TILE, width_, tiles_for(longest)};
        with_keys.for_each_tile<rows>([&](const float (&sums)[rows][TILE], Index tile) {
            for (Index r = 0; r < rows; ++r)
                for (Index part = 0; part < TILE; part += LANES)
                    store(scale * load<Floats>(sums[r] + part), scores + r * stride + tile * TILE + part);
        });
        for (Index r = 0; r < count; ++r) {
            softmax(scores + r * stride, queries.context + r);
            for (Index t = queries.context + r; t < longest; ++t) scores[r * stride + t] = 0.0f;  // the future
        }
        const Product with_values{scores, stride, values_.data(), num_tokens_ * TILE, longest, tiles_for(width_)};
        with_values.for_each_tile<rows>([&](const float (&sums)[rows][TILE], Index tile) {
            const Index numbers = std::min(TILE, width_ - tile * TILE);
            for (Index r = 0; r < count; ++r)
                for (Index j = 0; j < numbers; ++j)
                    queries.output[r * queries.output_stride + tile * TILE + j] = sums[r][j];
        });
    }
};

// Queries of a sequence's head that a thread takes: all, unless there are too few heads to keep the threads busy.
inline Index queries_at_once(Index num_heads, Index num_queries, Index num_threads, Index together) {
    const Index wanted = 4 * num_threads;
    const Index pieces = num_heads >= wanted ? 1 : (wanted + num_heads - 1) / num_heads;
    const Index most = (num_queries + pieces - 1) / pieces;
    return (most + together - 1) / together * together;
}

// Room: as the one above.
template <typename Room, typename Number>
void attend_all(Team& team, const Queries& queries, const Pages<Number>& pages, const Sequences& sequences,
                float scale) {
    const Shape& shape = pages.shape;
    const Index n_head = shape.n_head, output_stride = n_head * shape.head_dim;
    static thread_local Room own;
    Room& room = own;  // found once
    Index first_token = 0;
    for (Index seq = 0; seq < sequences.num_seqs; ++seq) {
        const Index num_queries = sequences.query_lens[seq], num_cached = sequences.context_lens[seq] - num_queries;
        const Index at_once = queries_at_once(n_head, num_queries, team.num_threads(), Room::QUERIES);
        const Index pieces = (num_queries + at_once - 1) / at_once;
        team.share(n_head * pieces, 1, [&](Index i) {
            // The last queries first: they have the most to do, and the threads end together.
            const Index head = i % n_head, first = (pieces - 1 - i / n_head) * at_once;
            const Index count = std::min(at_once, num_queries - first), context = num_cached + first + 1;
            room.lay_out(pages, sequences.block_tables + seq * sequences.max_blocks, context + count - 1, head);
            const Index token = first_token + first;
            room.attend(Rows{queries.query + token * queries.stride + head * shape.head_dim,
                             queries.output + token * output_stride + head * shape.head_dim, queries.stride,
                             output_stride, context},
                        count, scale);
        });
        first_token += num_queries;
    }
}

}  // namespace

template <typename Number>
void prefill_attention(Team& team, const Queries& queries, const Pages<Number>& pages, const Sequences& sequences,
                       float scale) {
#if HAS_MATRIX_REGISTERS
    if constexpr (std::is_same_v<Number, Half>)
        if (matrix::are_allowed()) return attend_all<matrix::Room>(team, queries, pages, sequences, scale);
#endif
    attend_all<Room>(team, queries, pages, sequences, scale);
}

template void prefill_attention(Team&, const Queries&, const Pages<float>&, const Sequences&, float);
template void prefill_attention(Team&, const Queries&, const Pages<Half>&, const Sequences&, float);

}  // namespace zeroshot

// query: [sum(query_lens), n_head, head_dim], tokens `query_stride` floats apart; block_tables: [num_seqs, max_blocks];
// query_lens, context_lens: [num_seqs], the new tokens counted in both; output: as query, contiguous; is_half: of both
// caches.
EXPORT void zeroshot_prefill_attention(const float* query, void* key_cache, void* value_cache, int is_half,
                                       const std::int64_t* block_tables, const std::int64_t* query_lens,
                                       const std::int64_t* context_lens, float* output, std::int64_t num_seqs,
                                       std::int64_t n_head, std::int64_t head_dim, std::int64_t block_size,
                                       std::int64_t max_blocks, std::int64_t query_stride, float scale) {
    using namespace zeroshot;
    const Sequences sequences{block_tables, query_lens, context_lens, num_seqs, max_blocks};
    with_pages(key_cache, value_cache, Shape{n_head, head_dim, block_size}, is_half, [&](const auto& pages) {
        in_parallel([&](Team& team) {
            prefill_attention(team, Queries{query, output, query_stride}, pages, sequences, scale);
        });
    });
}
