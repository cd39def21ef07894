// Drawing a token of each row from softmax(logits / temperature): the one with the largest logit / temperature + Gumbel
// noise is one (Gumbel 1954), and the noise is that of `uniform_noise` in sampling/reference.py.
// Noise takes two logarithms a token. They are taken only of tokens that can still win, which are a handful: -log(-log(1
// - u)) is above d only where u < 1 - exp(-exp(-d)), and so only where u < exp(-d).

#include <algorithm>
#include <vector>

#include "team.h"

namespace zeroshot {
namespace {

constexpr Index PIECE = 4096;           // tokens that a thread takes at a time
constexpr Index WORDS = 4, BLOCK = 2 * WORDS;  // of 64 bits that Philox gives at once, and tokens that those are for

// Philox-4x64-10 (Salmon et al. 2011) at `counter`: the tokens' random bits, 32 each, in their order.
inline void random_bits(std::uint64_t counter, std::uint64_t position, std::uint64_t seed, std::uint64_t choice,
                        std::uint32_t* bits) {
    std::uint64_t words[WORDS] = {counter, 0, 0, position};
    for (int round = 0; round < 10; ++round) {
        const unsigned __int128 a = static_cast<unsigned __int128>(0xD2E7470EE14C6C93u) * words[0];
        const unsigned __int128 b = static_cast<unsigned __int128>(0xCA5A826395121157u) * words[2];
        words[0] = static_cast<std::uint64_t>(b >> 64) ^ words[1] ^ seed;
        words[2] = static_cast<std::uint64_t>(a >> 64) ^ words[3] ^ choice;
        words[1] = static_cast<std::uint64_t>(b);
        words[3] = static_cast<std::uint64_t>(a);
        seed += 0x9E3779B97F4A7C15u;
        choice += 0xBB67AE8584CAA73Bu;
    }
    for (Index i = 0; i < WORDS; ++i) {
        bits[2 * i] = static_cast<std::uint32_t>(words[i]);
        bits[2 * i + 1] = static_cast<std::uint32_t>(words[i] >> 32);
    }
}

struct Row {
    const float* logits;
    float largest, temperature;
    std::uint64_t seed, choice, position;
};

struct Drawn {
    float score = -INFINITY;
    Index token = 0;

    bool is_behind(const Drawn& other) const {
        return other.score > score || (other.score == score && other.token < token);
    }
};

// The best of the tokens from `first` to `last`.
Drawn draw(const Row& row, Index first, Index last) {
    Drawn best;
    for (Index start = first; start < last; start += LANES) {
        std::uint32_t bits[LANES];
        for (Index i = 0; i < LANES; i += BLOCK)
            random_bits(static_cast<std::uint64_t>((start + i) / BLOCK + 1), row.position, row.seed, row.choice,
                        bits + i);
        const Index count = std::min(LANES, last - start);
        float uniform[LANES], scaled[LANES], chance[LANES];
        for (Index i = 0; i < LANES; ++i)
            uniform[i] = std::min((static_cast<float>(bits[i]) + 0.5f) * 0x1p-32f, 1.0f - 0x1p-24f);
        for (Index i = 0; i < LANES; ++i) scaled[i] = i < count ? (row.logits[start + i] - row.largest) : -INFINITY;
        for (Index i = 0; i < LANES; ++i) scaled[i] /= row.temperature;
        store(fast_exp(load<Floats>(scaled) - best.score), chance);
        bool may_win = false;
        for (Index i = 0; i < LANES; ++i) may_win |= uniform[i] < 1.001f * chance[i];
        if (!may_win) continue;
        for (Index i = 0; i < count; ++i) {
            if (uniform[i] >= 1.001f * chance[i]) continue;
            const Drawn other{scaled[i] - std::log(-std::log1p(-uniform[i])), start + i};
            if (best.is_behind(other)) best = other;
        }
    }
    return best;
}

}  // namespace
}  // namespace zeroshot

// logits: [num_rows, vocab_size], rows `stride` floats apart, finite; largest: of each row; temperatures, seeds, choices,
// positions (how many tokens precede the one that is drawn), tokens: [num_rows].
EXPORT void zeroshot_draw(const float* logits, const float* largest, const float* temperatures,
                          const std::int64_t* seeds, const std::int64_t* choices, const std::int64_t* positions,
                          std::int64_t* tokens, std::int64_t num_rows, std::int64_t vocab_size, std::int64_t stride) {
    using namespace zeroshot;
    const Index pieces = (vocab_size + PIECE - 1) / PIECE;
    std::vector<Drawn> drawn(static_cast<std::size_t>(num_rows * pieces));
    in_parallel([&](Team& team) {
        team.share(num_rows * pieces, 1, [&](Index i) {
            const Index r = i / pieces, first = i % pieces * PIECE;
            const Row row{logits + r * stride, largest[r], temperatures[r], static_cast<std::uint64_t>(seeds[r]),
                          static_cast<std::uint64_t>(choices[r]), static_cast<std::uint64_t>(positions[r])};
            drawn[static_cast<std::size_t>(i)] = draw(row, first, std::min(first + PIECE, vocab_size));
        });
    });
    for (Index r = 0; r < num_rows; ++r) {
        Drawn best;
        for (Index i = r * pieces; i < (r + 1) * pieces; ++i)
            if (best.is_behind(drawn[static_cast<std::size_t>(i)])) best = drawn[static_cast<std::size_t>(i)];
        tokens[r] = best.token;
    }
}
