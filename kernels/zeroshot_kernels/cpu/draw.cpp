// Drawing a token of each row from softmax(logits / temperature), of all tokens or of those that filters leave: the one
// with the largest logit / temperature + Gumbel noise is one (Gumbel 1954).

#include <memory>

#include "adjustment.h"
#include "candidates.h"
#include "extent.h"
#include "team.h"

namespace zeroshot {
namespace {

constexpr Index PIECE = 4096;  // tokens that a thread takes at a time

// Of the tokens from `first` to `last`, at most PIECE of them. `first` is a multiple of NOISE_BLOCK.
Drawn draw_any(const Row& row, Index first, Index last) {
    std::uint32_t bits[PIECE + LANES];
    std::fill_n(bits + (last - first), LANES, 0);  // for lanes of the last register that have no token
    for (Index i = first; i < last; i += NOISE_BLOCK) row.noise.bits(i / NOISE_BLOCK, bits + (i - first));
    const float inverse = 1.0f / row.temperature;
    Contest contest;
    const auto enter = [&](Index start, Index count, Floats logits) {
        const Floats uniform = Noise::uniform(load<UnsignedInts>(bits + (start - first)));
        const Ints may_win = contest.may_win(uniform, fast_exp((logits - row.largest) * inverse));
        if (!any_of(may_win)) return;
        for (Index i = 0; i < count; ++i)
            if (may_win[i]) contest.enter(uniform[i], row.distance(logits[i]), start + i);
    };
    Index start = first;
    for (; start + LANES <= last; start += LANES) enter(start, LANES, load<Floats>(row.logits + start));
    Floats rest = {};
    for (Index i = start; i < last; ++i) rest[i - start] = row.logits[i];
    enter(start, last - start, rest);
    return contest.best();
}

// The first of the largest.
Drawn find_largest(const Row& row, Index first, Index last) {
    const float* found = std::find(row.logits + first, row.logits + last, row.largest);
    return found == row.logits + last ? Drawn{} : Drawn{0.0f, found - row.logits};
}

}  // namespace
}  // namespace zeroshot

// logits: [num_rows, vocab_size], rows `stride` floats apart; adjustments: [num_rows], each of them or all null;
// temperatures, seeds, choices, positions (how many tokens precede the one that is drawn): [num_rows]; top_ks, top_ps,
// min_ps: [num_rows], or all three null; typical_ps: [num_rows], or null. What is found, [num_rows] each: tokens, -1 of a
// row with NaN or +inf, or with -inf only; are_finite, whether all of a row's logits are, before they are adjusted.
EXPORT void zeroshot_draw(const float* logits, const zeroshot::Adjustment* const* adjustments,
                          const float* temperatures, const std::int64_t* top_ks, const float* top_ps,
                          const float* min_ps, const float* typical_ps, const std::int64_t* seeds,
                          const std::int64_t* choices, const std::int64_t* positions, std::int64_t* tokens,
                          bool* are_finite, std::int64_t num_rows, std::int64_t vocab_size, std::int64_t stride) {
    using namespace zeroshot;
    const Index pieces = (vocab_size + PIECE - 1) / PIECE;
    std::vector<Extent> extents(static_cast<std::size_t>(num_rows * pieces));
    std::vector<Drawn> drawn(extents.size());
    std::vector<const float*> rows(static_cast<std::size_t>(num_rows));
    for (Index r = 0; r < num_rows; ++r) rows[r] = logits + r * stride;
    // The model's own are still wanted, for log-probabilities.
    const auto copies = std::make_unique_for_overwrite<float[]>(adjustments ? num_rows * vocab_size : 0);
    const auto end_of = [&](Index piece) { return std::min((piece + 1) * PIECE, vocab_size); };
    const auto find_extent = [&](Index r, Index piece) {
        const Index first = piece * PIECE;
        extents[r * pieces + piece] = extent_of(rows[r] + first, end_of(piece) - first);
    };
    const auto merged = [&](Index r) {
        Extent all;
        for (Index i = r * pieces; i < (r + 1) * pieces; ++i) all.add(extents[i]);
        return all;
    };
    const auto adjust = [&](Index r) {
        are_finite[r] = merged(r).is_finite();
        if (!adjustments || !adjustments[r]) return;
        thread_local Adjuster adjuster;
        float* const copy = copies.get() + r * vocab_size;
        std::copy_n(rows[r], vocab_size, copy);
        adjuster.adjust(copy, vocab_size, *adjustments[r]);
        rows[r] = copy;
        for (Index piece = 0; piece < pieces; ++piece) find_extent(r, piece);
    };
    const auto draw = [&](Index r, Index piece) {
        const Extent extent = merged(r);
        if (extent.is_invalid()) return Drawn{};
        const Row row{rows[r], extent.largest, temperatures[r],
                      Noise(static_cast<std::uint64_t>(seeds[r]), static_cast<std::uint64_t>(choices[r]),
                            static_cast<std::uint64_t>(positions[r]))};
        if (row.temperature < FLT_MIN) return find_largest(row, piece * PIECE, end_of(piece));
        Filters filters = top_ks ? Filters{top_ks[r], top_ps[r], min_ps[r], 1.0f} : Filters{0, 1.0f, 0.0f, 1.0f};
        if (typical_ps) filters.typical_p = typical_ps[r];
        if (!filters.any()) return draw_any(row, piece * PIECE, end_of(piece));
        thread_local Candidates candidates;
        return piece == 0 ? candidates.draw(row, vocab_size, filters) : Drawn{};  // filters need the whole row
    };
    in_parallel([&](Team& team) {
        team.share(num_rows * pieces, 1, [&](Index i) { find_extent(i / pieces, i % pieces); });
        team.share(num_rows, 1, adjust);
        team.share(num_rows * pieces, 1, [&](Index i) { drawn[i] = draw(i / pieces, i % pieces); });
    });
    for (Index r = 0; r < num_rows; ++r) {
        Drawn best;
        for (Index i = r * pieces; i < (r + 1) * pieces; ++i)
            if (best.is_behind(drawn[i])) best = drawn[i];
        tokens[r] = merged(r).is_invalid() ? -1 : best.token;
    }
}
