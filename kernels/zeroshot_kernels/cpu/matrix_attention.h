// Attention by matrix registers, for keys and values of 16 bits: sixteen queries at a time, a lane each, so that softmax
// never adds up across a register.
#pragma once

#include "split_tiles.h"

#if HAS_MATRIX_REGISTERS
namespace zeroshot::matrix {

// One head's keys and values, and the scores of sixteen queries: what a thread works in. Scores come out of one product as
// [tokens, queries], which is how the next one takes what softmax makes of them.
class Room {
  public:
    static constexpr Index QUERIES = ROWS;  // that are multiplied together

    void lay_out(const Pages<Half>& pages, const std::int64_t* table, Index num_tokens, Index head) {
        width_ = pages.shape.head_dim;
        width_steps_ = steps_for(width_);
        token_steps_ = steps_for(num_tokens);
        grow(zeros_, width_);
        grow(query_, width_steps_);
        grow(scores_, tiles_for(num_tokens) * ROWS * TILE);
        grow(likelihoods_, token_steps_);
        find_tokens(pages.key, pages.shape, table, num_tokens, head);
        grow(keys_, tiles_for(num_tokens) * width_steps_);
        for (Index t = 0; t < num_tokens; ++t) {
            fetch_token(t + AHEAD);
            set_row(&keys_[t / ROWS * width_steps_], t % ROWS, tokens_[t], 1.0f);
        }
        find_tokens(pages.value, pages.shape, table, num_tokens, head);
        grow(values_, tiles_for(width_) * token_steps_);
        for (Index tile = 0; tile < tiles_for(width_); ++tile)
            for (Index step = 0; step < token_steps_; ++step) set_values(tile, step);
    }

    void attend(const Rows& queries, Index count, float scale) {
        const Registers registers;
        for (Index first = 0; first < count; first += QUERIES) {
            const Index left = count - first;
            queries.from(first + QUERIES).fetch(std::min(QUERIES, left - QUERIES), width_);
            attend_together(queries.from(first), std::min(QUERIES, left), scale);
        }
    }

  private:
    static constexpr Index STEP = 2 * PAIRS;  // numbers that are multiplied and added up in one go
    static constexpr Index TOGETHER = 4;      // tiles
    static constexpr Index AHEAD = 16;        // tokens

    Index width_, width_steps_, token_steps_;
    std::vector<const Half*> tokens_;     // [token_steps * STEP]: each one's key or value, zeros beyond the last
    std::vector<Half> zeros_;             // [head_dim]
    std::vector<SplitTile> keys_;         // [tiles_for(num_tokens), width_steps]: rows are tokens
    std::vector<SplitTile> values_;       // [tiles_for(head_dim), token_steps]: rows are numbers of a value
    std::vector<SplitTile> query_;        // [width_steps]: lanes are queries
    std::vector<float> scores_;           // [tiles_for(num_tokens) * ROWS, TILE]: lanes are queries
    std::vector<SplitTile> likelihoods_;  // [token_steps]: lanes are queries

    static Index steps_for(Index n) { return (n + STEP - 1) / STEP; }

    void find_tokens(const Half* content, const Shape& shape, const std::int64_t* table, Index num_tokens, Index head) {
        tokens_.assign(static_cast<std::size_t>(token_steps_ * STEP), zeros_.data());
        for_each_page(content, nullptr, table, num_tokens, head, shape, [&](const Page<Half>& page) {
            for (Index t = 0; t < page.num_tokens; ++t)
                tokens_[page.first + t] = page.numbers + t * shape.n_head * shape.head_dim;
        });
    }

    void fetch_token(Index t) const {
        if (t >= token_steps_ * STEP) return;
        for (Index d = 0; d < width_; d += 32) __builtin_prefetch(tokens_[t] + d);
    }

    template <typename Number>
    Floats load_part(const Number* numbers, Index first) const {
        if (first + LANES <= width_) return load_floats(numbers + first);
        return first < width_ ? load_first(numbers + first, width_ - first) : Floats{};
    }

    // tiles: [width_steps]
    template <typename Number>
    void set_row(SplitTile* tiles, Index row, const Number* numbers, float factor) const {
        for (Index half = 0; half < 2 * width_steps_; ++half)
            tiles[half / 2].set_half(row, half % 2, factor * load_part(numbers, half * LANES));
    }

    void set_values(Index tile, Index step) {
        SplitTile& target = values_[tile * token_steps_ + step];
        if (tile == 0)
            for (Index i = 0; i < STEP; ++i) fetch_token((step + 1) * STEP + i);
        const auto value = [&](Index i) { return load_part(tokens_[step * STEP + i], tile * TILE); };
        for (Index pair = 0; pair < PAIRS; ++pair) target.set_pairs(pair, value(2 * pair), value(2 * pair + 1));
        target.transpose();
    }

    void attend_together(const Rows& queries, Index count, float scale) {
        for (Index row = 0; row < count; ++row)  // what lies in the others is not read again
            set_row(query_.data(), row, queries.query + row * queries.query_stride, scale);
        for (Index step = 0; step < width_steps_; ++step) query_[step].transpose();
        const Index longest = queries.context + count - 1;
        const Index num_tiles = tiles_for(longest), num_outputs = tiles_for(width_);
        for (Index tile = 0; tile < num_tiles; tile += TOGETHER)
            multiply_split(&keys_[tile * width_steps_], width_steps_, std::min(TOGETHER, num_tiles - tile),
                           query_.data(), width_steps_, &scores_[tile * ROWS * TILE]);
        const Floats inverse = 1.0f / exponentiate(queries.context, longest);
        for (Index tile = 0; tile < num_outputs; tile += TOGETHER) {
            const Index together = std::min(TOGETHER, num_outputs - tile);
            alignas(64) float sums[TOGETHER][ROWS][TILE];
            multiply_split(&values_[tile * token_steps_], token_steps_, together, likelihoods_.data(),
                           steps_for(longest), sums[0][0]);
            for (Index i = 0; i < together; ++i) write(queries, count, tile + i, sums[i], inverse);
        }
    }

    // Scores -> likelihoods, e^(score - the query's largest), zero of tokens that it doesn't see. Returns their sums.
    Floats exponentiate(Index context, Index longest) {
        Ints limit;  // lane r sees the tokens before this one
        for (Index lane = 0; lane < LANES; ++lane) limit[lane] = static_cast<std::int32_t>(context + lane);
        const auto seen = [&](Index t, Floats scores, float otherwise) {
            return t < context ? scores : static_cast<std::int32_t>(t) < limit ? scores : Floats{} + otherwise;
        };
        Floats largest = Floats{} - INFINITY, sums = {};
        for (Index t = 0; t < longest; ++t) {
            const Floats scores = seen(t, load<Floats>(&scores_[t * TILE]), -INFINITY);
            largest = scores > largest ? scores : largest;
        }
        const auto likelihoods = [&](Index t) {
            if (t >= longest) return Floats{};
            const Floats powers = seen(t, fast_exp(load<Floats>(&scores_[t * TILE]) - largest), 0.0f);
            sums += powers;
            return powers;
        };
        for (Index t = 0; t < steps_for(longest) * STEP; t += 2) {
            const Floats first = likelihoods(t), second = likelihoods(t + 1);
            likelihoods_[t / STEP].set_pairs(t % STEP / 2, first, second);
        }
        return sums;
    }

    // sums: of the output's numbers in `tile`, lanes are queries.
    void write(const Rows& queries, Index count, Index tile, const float (&sums)[ROWS][TILE], Floats inverse) const {
        UnsignedInts rows[ROWS];
        for (Index i = 0; i < ROWS; ++i) {
            const Floats finished = inverse * load<Floats>(sums[i]);
            rows[i] = load<UnsignedInts>(&finished);
        }
        transpose(rows);
        const Index width = std::min(TILE, width_ - tile * TILE);
        for (Index row = 0; row < count; ++row) {
            float* target = queries.output + row * queries.output_stride + tile * TILE;
            if (width == TILE) store(load<Floats>(&rows[row]), target);
            else std::memcpy(target, &rows[row], static_cast<std::size_t>(width) * sizeof(float));
        }
    }
};

}  // namespace zeroshot::matrix
#endif
