// Log-probabilities of given tokens, their ranks, and the best tokens of each row.

#include "candidates.h"
#include "extent.h"
#include "team.h"

namespace zeroshot {
namespace {

constexpr Index CHUNK = 4096;  // logits that are added up in float32

struct Score {
    double weight = 0.0;   // the sum of exp(logit - largest)
    Index num_larger = 0;  // than the target's
};

Score score(const float* logits, Index vocab_size, float largest, float target) {
    Score found;
    for (Index start = 0; start < vocab_size; start += CHUNK) {
        const Index end = std::min(start + CHUNK, vocab_size);
        Floats weights = {};
        Ints larger = {};
        Index i = start;
        for (; i + LANES <= end; i += LANES) {
            const Floats values = load<Floats>(logits + i);
            weights += fast_exp(values - largest);
            larger -= values > target;
        }
        for (Index lane = 0; lane < LANES; ++lane) {
            found.weight += weights[lane];
            found.num_larger += larger[lane];
        }
        for (; i < end; ++i) {
            found.weight += fast_exp(logits[i] - largest);
            found.num_larger += logits[i] > target;
        }
    }
    return found;
}

}  // namespace
}  // namespace zeroshot

// logits: [num_rows, vocab_size], rows `stride` floats apart; targets: [num_rows]. What is found, [num_rows, 1 + num_top]
// each: the target's log-probability and those of the best tokens; its rank, 1 if no token is more likely, and the best
// tokens. A row with a logit that is not finite gets NaN and zeros.
EXPORT void zeroshot_logprobs(const float* logits, const std::int64_t* targets, float* logprobs, std::int64_t* ids,
                              std::int64_t num_rows, std::int64_t vocab_size, std::int64_t stride,
                              std::int64_t num_top) {
    using namespace zeroshot;
    const auto run = [&](Index r) {
        const float* const from = logits + r * stride;
        float* const found = logprobs + r * (1 + num_top);
        std::int64_t* const found_ids = ids + r * (1 + num_top);
        const Extent extent = extent_of(from, vocab_size);
        if (!extent.is_finite()) {
            std::fill_n(found, 1 + num_top, NAN);
            std::fill_n(found_ids, 1 + num_top, 0);
            return;
        }
        const float largest = extent.largest, target = from[targets[r]];
        const Score all = score(from, vocab_size, largest, target);
        const float total = static_cast<float>(std::log(all.weight));
        found[0] = (target - largest) - total;
        found_ids[0] = all.num_larger + 1;
        if (num_top == 0) return;
        thread_local Candidates candidates;
        candidates.write_best(from, vocab_size, largest, num_top, found_ids + 1);
        for (Index i = 1; i <= num_top; ++i) found[i] = (from[found_ids[i]] - largest) - total;
    };
    in_parallel([&](Team& team) { team.share(num_rows, 1, run); });
}
