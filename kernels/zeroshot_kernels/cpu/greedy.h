// What becomes of an LM head's sums where only each row's largest logit is wanted: the logits are never stored.
#pragma once

#include <vector>

#include "team.h"

namespace zeroshot {

// Of one row what one thread has seen, each lane of a register for itself.
struct Best {
    Floats logit = Floats{} - INFINITY;
    Ints output = {};
    Floats zero_or_nan = {};  // zero as long as every logit is finite
};

// Used in place of an `Epilogue`. bests: [num_rows], of the thread that writes.
struct Greedy {
    Best* bests;
    Index num_outputs;

    inline void fetch(Index, Index, Index, Index) const {}  // it is in a cache

    inline void write(Floats sums, Index row, Index first) const {
        if (first >= num_outputs) return;  // a whole register of what fills up the last tile
        Best& best = bests[row];
        best.zero_or_nan += sums * 0.0f;
        Ints outputs;
        for (Index j = 0; j < LANES; ++j) outputs[j] = static_cast<std::int32_t>(first + j);
        for (Index j = num_outputs - first; j < LANES; ++j) sums[j] = -INFINITY;  // and a part of one
        const auto is_larger = sums > best.logit;
        best.logit = is_larger ? sums : best.logit;
        best.output = is_larger ? outputs : best.output;
    }
};

// tokens, are_finite: [num_rows]; of equal logits the first wins. bests: [num_threads, num_rows].
inline void choose(const Best* bests, Index num_threads, Index num_rows, std::int64_t* tokens, bool* are_finite) {
    for (Index row = 0; row < num_rows; ++row) {
        float largest = -INFINITY, zero_or_nan = 0.0f;
        std::int64_t token = 0;
        for (Index thread = 0; thread < num_threads; ++thread) {
            const Best& best = bests[thread * num_rows + row];
            for (Index j = 0; j < LANES; ++j) {
                zero_or_nan += best.zero_or_nan[j];
                if (best.logit[j] > largest || (best.logit[j] == largest && best.output[j] < token)) {
                    largest = best.logit[j];
                    token = best.output[j];
                }
            }
        }
        tokens[row] = token;
        are_finite[row] = zero_or_nan == 0.0f;
    }
}

// run(Team, Greedy) by every thread of a parallel region.
template <typename Run>
inline void find_best(Index num_rows, Index num_outputs, std::int64_t* tokens, bool* are_finite, Run run) {
    const Index num_threads = wanted_threads();
    std::vector<Best> bests(static_cast<std::size_t>(num_threads * num_rows));
    in_parallel([&](Team& team) { run(team, Greedy{bests.data() + team.number() * num_rows, num_outputs}); });
    choose(bests.data(), num_threads, num_rows, tokens, are_finite);
}

}  // namespace zeroshot
