// The noise of `uniform_noise` in sampling/reference.py, and what a draw that uses it finds.
#pragma once

#include <algorithm>

#include "common.h"

namespace zeroshot {

constexpr Index NOISE_BLOCK = 8;  // tokens whose random bits come together

// Of one row: Philox-4x64-10 (Salmon et al. 2011) with the key (seed, choice).
class Noise {
  public:
    Noise(std::uint64_t seed, std::uint64_t choice, std::uint64_t position) : position_(position) {
        for (int round = 0; round < ROUNDS; ++round) {
            keys_[round][0] = seed + static_cast<std::uint64_t>(round) * 0x9E3779B97F4A7C15u;
            keys_[round][1] = choice + static_cast<std::uint64_t>(round) * 0xBB67AE8584CAA73Bu;
        }
    }

    // Of the tokens from `block` * NOISE_BLOCK on, 32 random bits each.
    void bits(Index block, std::uint32_t* to) const {
        std::uint64_t words[4] = {static_cast<std::uint64_t>(block) + 1, 0, 0, position_};
        for (int round = 0; round < ROUNDS; ++round) {
            const unsigned __int128 a = static_cast<unsigned __int128>(0xD2E7470EE14C6C93u) * words[0];
            const unsigned __int128 b = static_cast<unsigned __int128>(0xCA5A826395121157u) * words[2];
            words[0] = static_cast<std::uint64_t>(b >> 64) ^ words[1] ^ keys_[round][0];
            words[2] = static_cast<std::uint64_t>(a >> 64) ^ words[3] ^ keys_[round][1];
            words[1] = static_cast<std::uint64_t>(b);
            words[3] = static_cast<std::uint64_t>(a);
        }
        for (Index i = 0; i < 4; ++i) {
            to[2 * i] = static_cast<std::uint32_t>(words[i]);
            to[2 * i + 1] = static_cast<std::uint32_t>(words[i] >> 32);
        }
    }

    // In (0, 1).
    static Floats uniform(UnsignedInts bits) {
        const Floats x = (__builtin_convertvector(bits, Floats) + 0.5f) * 0x1p-32f;
        constexpr float most = 1.0f - 0x1p-24f;
        return x < most ? x : Floats{} + most;
    }

    static float gumbel(float uniform) { return -std::log(-std::log1p(-uniform)); }

  private:
    static constexpr int ROUNDS = 10;

    std::uint64_t position_, keys_[ROUNDS][2];
};

struct Row {
    const float* logits;
    float largest, temperature;
    Noise noise;

    // How far a logit is below the largest, in units of the temperature.
    float distance(float logit) const { return (largest - logit) / temperature; }
};

struct Drawn {
    float score = -INFINITY;
    Index token = 0;

    bool is_behind(const Drawn& other) const {
        return other.score > score || (other.score == score && other.token < token);
    }
};

// Which token has the largest noise - distance. Noise takes two logarithms a token, but -log(-log(1 - u)) is above d only
// where u < 1 - exp(-exp(-d)), and so only where u < exp(-d): few tokens are that lucky.
class Contest {
  public:
    const Drawn& best() const { return best_; }

    // likelihoods: exp(-distance). -1 in the lanes that may win, 0 in the others.
    Ints may_win(Floats uniform, Floats likelihoods) const { return uniform < chance_ * likelihoods; }

    void enter(float uniform, float distance, Index token) {
        const Drawn other{Noise::gumbel(uniform) - distance, token};
        if (!best_.is_behind(other)) return;
        best_ = other;
        chance_ = 1.001f * std::exp(-best_.score);  // with room for rounding
    }

  private:
    Drawn best_;
    float chance_ = INFINITY;  // what `uniform` must be below for a token at no distance to win
};

}  // namespace zeroshot
