// The most likely tokens of a row: those that top-k, top-p, min-p and typical decoding leave, as `filter_candidates` in
// sampling/reference.py defines them, and the draw of one of them. Nothing is sorted, unless
// typical decoding needs all that top-p leaves.
#pragma once

#include <array>
#include <cfloat>
#include <vector>

#include "noise.h"

namespace zeroshot {

struct Filters {
    Index top_k;  // 0: off
    float top_p;  // 1: off
    float min_p;  // 0: off
    float typical_p;  // 1: off

    bool any() const { return top_k > 0 || top_p < 1.0f || min_p > 0.0f || typical_p < 1.0f; }
};

// One object serves row after row: it is as large as a row.
class Candidates {
  public:
    Drawn draw(const Row& row, Index vocab_size, const Filters& filters) {
        fill(row.logits, vocab_size, row.largest, row.temperature);
        if (filters.top_k > 0) keep_nearest(filters.top_k);
        if (filters.typical_p < 1.0f) return draw_typical(row, filters);
        if (filters.top_p < 1.0f) return draw_nucleus(row, filters);
        keep_likely(filters.min_p);
        return draw_any(row);
    }

    // The `count` largest logits' tokens, in their order; of equal ones the first.
    void write_best(const float* logits, Index vocab_size, float largest, Index count, std::int64_t* tokens) {
        fill(logits, vocab_size, largest, 1.0f);
        keep_nearest(count);
        if (size_ < count) fill(logits, vocab_size, largest, 1.0f);  // distances that overflow are not kept
        const auto is_better = [&](std::int32_t a, std::int32_t b) {
            return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
        };
        std::partial_sort(tokens_.begin(), tokens_.begin() + count, tokens_.begin() + size_, is_better);
        std::copy_n(tokens_.begin(), count, tokens);
    }

  private:
    static constexpr Index GROUP = 16;   // registers of which the smallest distances are found, in each lane its own
    static constexpr Index CHUNK = 256;  // registers that are added up in float32
    static constexpr std::array<float, 5> LEVELS = {2.0f, 4.0f, 7.0f, 11.0f, FLT_MAX};

    // In the tokens' order; beyond the last one a register full of infinite distances.
    std::vector<float> distances_;
    std::vector<std::int32_t> tokens_;
    Index size_ = 0;
    std::vector<std::uint32_t> bits_;  // of noise
    std::vector<float> nearest_;

    void fill(const float* logits, Index vocab_size, float largest, float temperature) {
        const auto room = static_cast<std::size_t>(vocab_size + LANES);
        if (room > distances_.size()) {
            distances_.resize(room);
            tokens_.resize(room);
            bits_.resize(room);
        }
        Index i = 0;
        for (; i + LANES <= vocab_size; i += LANES) store((largest - load<Floats>(logits + i)) / temperature, &distances_[i]);
        for (; i < vocab_size; ++i) distances_[i] = (largest - logits[i]) / temperature;
        for (i = 0; i < vocab_size; ++i) tokens_[i] = static_cast<std::int32_t>(i);
        resize(vocab_size);
    }

    void resize(Index size) {
        size_ = size;
        store(Floats{} + INFINITY, &distances_[size]);
    }

    // is_kept(distances, tokens) is -1 or 0 in each lane.
    template <typename IsKept>
    void keep_if(IsKept is_kept) {
        Index size = 0;
        for (Index start = 0; start < size_; start += LANES) {
            const Floats distances = load<Floats>(&distances_[start]);
            const Ints tokens = load<Ints>(&tokens_[start]), kept = is_kept(distances, tokens);
            if (!any_of(kept)) continue;
#if defined(__AVX512F__)
            const auto lanes = _mm512_test_epi32_mask(reinterpret_cast<__m512i>(kept), reinterpret_cast<__m512i>(kept));
            _mm512_storeu_ps(&distances_[size], _mm512_maskz_compress_ps(lanes, reinterpret_cast<__m512>(distances)));
            _mm512_storeu_si512(&tokens_[size], _mm512_maskz_compress_epi32(lanes, reinterpret_cast<__m512i>(tokens)));
            size += __builtin_popcount(lanes);
#else
            for (Index lane = 0; lane < LANES; ++lane) {
                distances_[size] = distances[lane];
                tokens_[size] = tokens[lane];
                size -= kept[lane];
            }
#endif
        }
        resize(size);
    }

    // None that is infinitely far is ever drawn.
    void keep_within(float limit) {
        limit = std::min(limit, FLT_MAX);
        keep_if([=](Floats distances, Ints) -> Ints { return distances <= limit; });
    }

    void keep_likely(float min_p) {
        if (min_p > 0.0f) keep_within(-std::log(min_p));
    }

    // The k nearest and what ties with the last of them.
    void keep_nearest(Index k) {
        nearest_.clear();
        for (Index start = 0; start < size_; start += GROUP * LANES) {
            Floats nearest = load<Floats>(&distances_[start]);
            for (Index i = start + LANES; i < std::min(start + GROUP * LANES, size_); i += LANES) {
                const Floats others = load<Floats>(&distances_[i]);
                nearest = others < nearest ? others : nearest;
            }
            for (Index lane = 0; lane < LANES; ++lane) nearest_.push_back(nearest[lane]);
        }
        // k groups have a token within this bound, so there are k tokens within it: few, but for a long row of ties.
        if (k <= static_cast<Index>(nearest_.size())) keep_within(kth_nearest(k));
        if (k >= size_) return;
        nearest_.assign(distances_.begin(), distances_.begin() + size_);
        keep_within(kth_nearest(k));
    }

    float kth_nearest(Index k) {
        std::nth_element(nearest_.begin(), nearest_.begin() + k - 1, nearest_.end());
        return nearest_[k - 1];
    }

    // A token may be drawn if those before it, in the order of distances and then of tokens, weigh less than top_p of
    // all. Whether the best one may is asked first; if not, the best of those before it, and so on. With a top_p of nine
    // tenths the first one may in nine cases of ten.
    Drawn draw_nucleus(const Row& row, const Filters& filters) {
        const double enough = keep_level(filters.top_p);
        keep_likely(filters.min_p);
        while (true) {
            const Drawn best = draw_any(row);
            keep_before(row.distance(row.logits[best.token]), best.token);
            if (size_ == 0 || weights_within(std::array{FLT_MAX})[0] < enough) return best;
        }
    }

    // The first level that has all of the nucleus. Returns how much the nucleus weighs.
    double keep_level(float top_p) {
        const auto weights = weights_within(LEVELS);
        const double enough = static_cast<double>(top_p) * weights.back();
        for (std::size_t level = 0; level < LEVELS.size(); ++level)
            if (weights[level] > 1.0001 * enough) {  // far enough for no rounding to matter
                keep_within(LEVELS[level]);
                break;
            }
        return enough;
    }

    // As above, in the order of how far a token's surprise is from the expected one. Surprise is distance and a constant,
    // so that is how far its distance is from the mean.
    Drawn draw_typical(const Row& row, const Filters& filters) {
        if (filters.top_p < 1.0f) keep_nucleus(filters.top_p);
        keep_likely(filters.min_p);
        keep_within(FLT_MAX);
        const double enough = static_cast<double>(filters.typical_p) * weights_within(std::array{FLT_MAX})[0];
        const float mean = mean_distance();
        while (true) {
            const Drawn best = draw_any(row);
            const float limit = std::fabs(row.distance(row.logits[best.token]) - mean);
            keep_if([=](Floats distances, Ints) -> Ints {
                const Floats difference = distances - mean;
                return (difference < 0.0f ? -difference : difference) < limit;
            });
            if (size_ == 0 || weights_within(std::array{FLT_MAX})[0] < enough) return best;
        }
    }

    void keep_nucleus(float top_p) {
        const double enough = keep_level(top_p);
        std::vector<std::int32_t> order(static_cast<std::size_t>(size_));
        for (Index i = 0; i < size_; ++i) order[i] = static_cast<std::int32_t>(i);
        std::sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
            return distances_[a] < distances_[b] || (distances_[a] == distances_[b] && a < b);
        });
        double weight = 0.0;
        Index last = 0;
        for (; last < size_ - 1; ++last) {
            weight += std::exp(-static_cast<double>(distances_[order[last]]));
            if (weight >= enough) break;
        }
        keep_before(distances_[order[last]], tokens_[order[last]] + 1);
    }

    // Weighed by exp(-distance). All of them are finite.
    float mean_distance() const {
        double weight = 0.0, sum = 0.0;
        for (Index i = 0; i < size_; ++i) {
            const double likely = fast_exp(-distances_[i]);
            weight += likely;
            sum += likely * distances_[i];
        }
        return static_cast<float>(sum / weight);
    }

    void keep_before(float distance, Index token) {
        const auto last = static_cast<std::int32_t>(token);
        keep_if([=](Floats distances, Ints tokens) -> Ints {
            return (distances < distance) | ((distances == distance) & (tokens < last));
        });
    }

    // What those within each of the limits weigh: exp(-distance), relative to the best.
    template <std::size_t n>
    std::array<double, n> weights_within(const std::array<float, n>& limits) const {
        std::array<double, n> weights = {};
        for (Index start = 0; start < size_; start += CHUNK * LANES) {
            Floats sums[n] = {};
            for (Index i = start; i < std::min(start + CHUNK * LANES, size_); i += LANES) {
                const Floats distances = load<Floats>(&distances_[i]), likely = fast_exp(-distances);
                for (std::size_t j = 0; j < n; ++j) sums[j] += distances <= limits[j] ? likely : Floats{};
            }
            for (std::size_t j = 0; j < n; ++j)
                for (Index lane = 0; lane < LANES; ++lane) weights[j] += sums[j][lane];
        }
        return weights;
    }

    Drawn draw_any(const Row& row) {
        Index known = -1;
        std::uint32_t block[NOISE_BLOCK];
        for (Index i = 0; i < size_; ++i) {
            const Index needed = tokens_[i] / NOISE_BLOCK;
            if (needed != known) row.noise.bits(needed, block);
            known = needed;
            bits_[i] = block[tokens_[i] % NOISE_BLOCK];
        }
        Contest contest;
        for (Index start = 0; start < size_; start += LANES) {
            const Floats distances = load<Floats>(&distances_[start]);
            const Floats uniform = Noise::uniform(load<UnsignedInts>(&bits_[start]));
            const Ints may_win = contest.may_win(uniform, fast_exp(-distances));
            if (!any_of(may_win)) continue;
            for (Index lane = 0; lane < std::min(LANES, size_ - start); ++lane)
                if (may_win[lane]) contest.enter(uniform[lane], distances[lane], tokens_[start + lane]);
        }
        return contest.best();
    }
};

}  // namespace zeroshot
