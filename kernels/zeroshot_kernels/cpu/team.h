// The kernels as steps of one parallel region. Every thread of it calls each of them, with the region's one Team: they
// share the work, and when a call returns all of it has been done.
#pragma once

#include <atomic>

#include "paged.h"

namespace zeroshot {

// Work is taken, not given: on a busy machine one thread is often held up, and the others then do its share. For the
// same reason OpenMP's own loops won't do: how long their threads spin at the end of one is the same everywhere.
class Team {
  public:
    // visit(i) for each i below num_items, `chunk` of them at a time. Every thread calls this, for the same loop.
    template <typename Visit>
    void share(Index num_items, Index chunk, Visit visit) {
        Index first;
        while ((first = next_.fetch_add(chunk, std::memory_order_relaxed)) < num_items) {
            const Index end = first + chunk < num_items ? first + chunk : num_items;
            for (Index i = first; i < end; ++i) visit(i);
        }
        wait();
    }

    // The same for rows that take about as long each, and not long.
    template <typename Visit>
    void share_rows(Index num_rows, Visit visit) {
        const Index chunk = num_rows / (2 * omp_get_num_threads());
        share(num_rows, chunk > 1 ? chunk : 1, visit);
    }

  private:
    // Spinning is right while the others run: they will be here in microseconds, and to sleep and be woken takes
    // longer. It is wrong when one of them waits for a core, which it may be this thread that holds. So a wait that
    // was too long halves the patience for the next one, and one that was not restores it.
    void wait() {
        static thread_local int patience = MOST_SPINS;
        const unsigned round = round_.load(std::memory_order_acquire);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == omp_get_num_threads()) {
            arrived_.store(0, std::memory_order_relaxed);
            next_.store(0, std::memory_order_relaxed);
            round_.store(round + 1, std::memory_order_release);
            round_.notify_all();
            return;
        }
        for (int spins = 0; spins < patience; ++spins) {
            if (round_.load(std::memory_order_acquire) != round) {
                patience = patience + patience / 4 < MOST_SPINS ? patience + patience / 4 : MOST_SPINS;
                return;
            }
            pause();
        }
        patience = patience / 2 > FEWEST_SPINS ? patience / 2 : FEWEST_SPINS;
        round_.wait(round, std::memory_order_acquire);
    }

    static void pause() {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        asm volatile("yield");
#endif
    }

    static constexpr int MOST_SPINS = 20000, FEWEST_SPINS = 100;

    alignas(64) std::atomic<Index> next_{0};
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<unsigned> round_{0};
};

// Weights as `linear.py` lays them out; scales and offsets are null in float32.
struct Linear {
    const void* weight;
    const float* scales;
    const std::int32_t* offsets;
    const float* bias;  // [num_outputs], or null
    Index num_inputs, num_outputs;
};

// visit(rows, tiles, first row, first tile) for each block of all rows and tiles, numbers that are constants to the
// compiler. Up to few.rows are multiplied with one tile at a time: then weights come from memory, and each thread reads
// one stream of them.
template <Block few, Block many, typename Visit>
void share_blocks(Team& team, Index num_rows, Index num_tiles, Visit visit) {
    static_assert(few.tiles == 1);
    const auto visit_rows = [&]<Block most>(Index tile) {
        for_each_group<most.rows>(num_rows, [&](auto rows, Index row) {
            visit(rows, std::integral_constant<Index, most.tiles>{}, row, tile);
        });
    };
    const Index together = num_rows <= few.rows ? 1 : many.tiles;
    const Index num_items = (num_tiles + together - 1) / together;
    team.share(num_items, pieces_at_once(num_items), [&](Index item) {
        const Index first = item * together, left = num_tiles - first;
        if (together > 1 && left >= together) return visit_rows.template operator()<many>(first);
        for (Index i = 0; i < together && i < left; ++i) visit_rows.template operator()<few>(first + i);
    });
}

// Where an int8 layer puts its input: [num_rows, num_inputs] bytes, rows filled up to whole groups of four, their number
// up to a multiple of 16; and scales.
struct Rounded {
    std::uint8_t* rows;
    float* scales;
};

struct Norm {
    const float* weight;
    const float* bias;
    float eps;
};

// The sequences of a step, of which kernels read what they need.
struct Sequences {
    const std::int64_t* block_tables;  // [num_seqs, max_blocks]
    const std::int64_t* query_lens;    // [num_seqs]: new tokens; not read by decode_attention, where each has one
    const std::int64_t* context_lens;  // [num_seqs]: all tokens, the new ones counted
    Index num_seqs, max_blocks;
};

// Queries, tokens `stride` floats apart, and where what they find goes, [num_tokens, n_head, head_dim].
struct Queries {
    const float* query;
    float* output;
    Index stride;
};

// sink.write(sums, row, first output) for LANES sums at a time: an `Epilogue`, or `Greedy`.
template <typename Sink>
void float_linear(Team& team, const Linear& layer, const float* input, Index num_rows, const Sink& sink);
template <typename Sink>
void int8_linear(Team& team, const Linear& layer, const float* input, Index num_rows, const Rounded& room,
                 const Sink& sink);
void layer_norm(Team& team, const Norm& norm, const float* input, Index num_rows, Index width, float* output);
template <typename Number>
void kv_append(Team& team, const float* key, const float* value, Index stride, const std::int64_t* slots,
               Index num_tokens, const Pages<Number>& pages);
template <typename Number>
void decode_attention(Team& team, const Queries& queries, const Pages<Number>& pages, const Sequences& sequences,
                      float scale);
template <typename Number>
void prefill_attention(Team& team, const Queries& queries, const Pages<Number>& pages, const Sequences& sequences,
                       float scale);

}  // namespace zeroshot
