// The kernels as steps of one parallel region. Every thread of it calls each of them, with a Team of its own: they share
// the work, and what one call has shared is done before the next one's begins.
#pragma once

#include <atomic>

#include "paged.h"
#include "pool.h"

namespace zeroshot {

// What a region's threads have in common: how far the loop is that they are at. Loops are numbered in their order.
class Progress {
    friend class Team;

    // The loop's number, then in 32 bits the first item that nobody has taken.
    alignas(64) std::atomic<std::uint64_t> next_{0};
    alignas(64) std::atomic<Index> num_done_{0};
    alignas(64) std::atomic<unsigned> loop_{0};  // the same number, a moment later: a thread can sleep until it changes
};

// A thread's part in it. Work is taken, not given: on a busy machine one thread is often held up, and the others then do
// its share. A loop is over when its items are done, not when all threads have come by: one that comes late finds the
// loops behind it done, and goes on to the one that the others are at. OpenMP's own loops have none of that, and how
// long their threads spin at the end of one is the same everywhere.
class Team {
  public:
    Team(Progress& progress, int num_threads, int number)
        : progress_(progress), num_threads_(num_threads), number_(number) {}

    Index num_threads() const { return num_threads_; }
    Index number() const { return number_; }  // of this thread among them

    // visit(i) for each i below num_items, `chunk` of them at a time, when all that was shared before is done. Every
    // thread calls this, with the same numbers, for the same loops in the same order; the loop is done when the next one
    // begins.
    template <typename Visit>
    void share(Index num_items, Index chunk, Visit visit) {
        if (num_items <= 0) return;
        wait();
        const unsigned loop = loop_++;
        std::uint64_t next = progress_.next_.load(std::memory_order_acquire);
        while (next >> 32 == loop) {
            const Index first = static_cast<Index>(next & 0xffffffff);
            if (first >= num_items) return;
            const Index end = first + chunk < num_items ? first + chunk : num_items;
            if (!progress_.next_.compare_exchange_weak(next, position(loop, end), std::memory_order_acq_rel,
                                                       std::memory_order_acquire))
                continue;
            for (Index i = first; i < end; ++i) visit(i);
            const Index num_new = end - first;
            if (progress_.num_done_.fetch_add(num_new, std::memory_order_acq_rel) + num_new == num_items)
                return finish(loop);
            next = progress_.next_.load(std::memory_order_acquire);
        }
    }

    // The same for rows that take about as long each, and not long.
    template <typename Visit>
    void share_rows(Index num_rows, Visit visit) {
        const Index chunk = num_rows / (2 * num_threads_);
        share(num_rows, chunk > 1 ? chunk : 1, visit);
    }

    // Until all that this thread has shared is done.
    void wait() {
        static thread_local Patience patience;
        const auto is_done = [&] { return progress_.next_.load(std::memory_order_acquire) >> 32 >= loop_; };
        if (is_done() || patience.spin_until(is_done)) return;
        while (!is_done()) progress_.loop_.wait(loop_ - 1, std::memory_order_acquire);
    }

  private:
    static std::uint64_t position(unsigned loop, Index item) {
        return static_cast<std::uint64_t>(loop) << 32 | static_cast<std::uint64_t>(item);
    }

    // By the thread that has done the last item: nobody holds one of this loop any more.
    void finish(unsigned loop) {
        progress_.num_done_.store(0, std::memory_order_relaxed);
        progress_.next_.store(position(loop + 1, 0), std::memory_order_release);
        progress_.loop_.fetch_add(1, std::memory_order_release);  // whoever is held up here still counts its own loop
        progress_.loop_.notify_all();
    }

    Progress& progress_;
    int num_threads_, number_;
    unsigned loop_ = 0;  // the next one that this thread comes to
};

// run(Team) by every thread of a region; when this returns, all of it is done.
template <typename Run>
void in_parallel(Run run) {
    struct Region {
        Run& run;
        Progress progress;
        int num_threads;
    } region{run, {}, wanted_threads()};
    const auto work = [](void* context, int number) {
        Region& all = *static_cast<Region*>(context);
        Team team(all.progress, all.num_threads, number);
        all.run(team);
        if (number == 0) team.wait();
    };
    run_region(region.num_threads, work, &region);
}

// run(Team) by this thread only.
template <typename Run>
void alone(Run run) {
    Progress progress;
    Team team(progress, 1, 0);
    run(team);
}

// Of a layer's weights, as `layers.py` numbers them.
enum class Format : std::int32_t { FLOAT, BFLOAT16, INT8 };

// Weights as `linear.py` lays them out; scales and offsets are null but in int8.
struct Linear {
    Format format;
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
    static_assert(few.tiles == 1 && 2 * few.rows >= many.rows);
    const auto visit_rows = [&]<Block most>(Index tile) {
        // The smallest of two groups has half as many as fit into one.
        constexpr Index least = most.tiles > 1 ? most.rows / 2 : 1;
        for_each_group<most.rows, least>(num_rows, [&](auto rows, Index row) {
            visit(rows, std::integral_constant<Index, most.tiles>{}, row, tile);
        });
    };
    const Index together = num_rows <= few.rows ? 1 : many.tiles;
    const Index num_items = (num_tiles + together - 1) / together;
    team.share(num_items, pieces_at_once(num_items, team.num_threads()), [&](Index item) {
        const Index first = item * together, left = num_tiles - first;
        if (together > 1 && left >= together) return visit_rows.template operator()<many>(first);
        for (Index i = 0; i < together && i < left; ++i) visit_rows.template operator()<few>(first + i);
    });
}

// Where a layer in bfloat16 or int8 puts its input, rounded: [num_rows, num_inputs] numbers, int8's rows filled up to
// whole groups of four, the number of rows up to a multiple of 16; and int8's scales.
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

// sink.write(sums, row, first output) for LANES sums at a time, sink.fetch(row, num_rows, tile, num_tiles) before they are
// added up: an `Epilogue`, or `Greedy`.
template <typename Sink>
void float_linear(Team& team, const Linear& layer, const float* input, Index num_rows, const Sink& sink);
template <typename Sink>
void bf16_linear(Team& team, const Linear& layer, const float* input, Index num_rows, const Rounded& room,
                 const Sink& sink);
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
