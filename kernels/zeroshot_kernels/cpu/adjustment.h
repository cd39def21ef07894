// What changes a row's logits before a token of it is drawn: `adjust_reference` in sampling/reference.py.
#pragma once

#include <algorithm>
#include <cfloat>
#include <vector>

#include "common.h"

namespace zeroshot {

// In the order in which it is applied. A token that is not in the vocabulary is skipped.
struct Adjustment {
    const std::int64_t* biased_ids;  // [num_biased], each named once
    const float* biases;             // [num_biased]
    Index num_biased;
    const std::int64_t* token_ids;  // [num_tokens], the prompt's first; none where no penalty is on
    Index num_tokens, num_prompt_tokens;
    float repetition_penalty;                   // of prompt and output; 1: off
    float presence_penalty, frequency_penalty;  // of the output; 0: off
    const std::int64_t* forbidden_ids;          // [num_forbidden]
    Index num_forbidden;
    const bool* is_allowed;  // [vocab_size], or null: all are
};

// One object serves row after row: it is as large as a row.
class Adjuster {
  public:
    void adjust(float* logits, Index vocab_size, const Adjustment& by) {
        if (counts_.size() < static_cast<std::size_t>(vocab_size)) counts_.resize(static_cast<std::size_t>(vocab_size));
        const auto for_each = [&](const std::int64_t* ids, Index first, Index last, auto visit) {
            for (Index i = first; i < last; ++i)
                if (ids[i] >= 0 && ids[i] < vocab_size) visit(ids[i], i);
        };
        for_each(by.biased_ids, 0, by.num_biased, [&](Index token, Index i) {
            logits[token] = std::min(logits[token] + by.biases[i], FLT_MAX);
        });
        for_each(by.token_ids, 0, by.num_tokens, [&](Index token, Index i) {
            if (counts_[token] == 0) {
                if (by.repetition_penalty != 1.0f) logits[token] = repeated(logits[token], by.repetition_penalty);
                counts_[token] = 1;
            }
            if (i >= by.num_prompt_tokens) ++counts_[token];
        });
        for_each(by.token_ids, by.num_prompt_tokens, by.num_tokens, [&](Index token, Index) {
            const std::int32_t count = counts_[token] - 1;
            if (count > 0) logits[token] -= by.presence_penalty + by.frequency_penalty * static_cast<float>(count);
            counts_[token] = 1;  // once for each token
        });
        for_each(by.token_ids, 0, by.num_tokens, [&](Index token, Index) { counts_[token] = 0; });
        for_each(by.forbidden_ids, 0, by.num_forbidden, [&](Index token, Index) { logits[token] = -INFINITY; });
        for (Index token = 0; by.is_allowed && token < vocab_size; ++token)
            logits[token] = by.is_allowed[token] ? logits[token] : -INFINITY;
    }

  private:
    std::vector<std::int32_t> counts_;  // 0: not in the text; else one more than how often the output has the token

    // CTRL (Keskar et al. 2019, section 4.1): less likely, whatever its sign. Divided by a tiny penalty it overflows.
    static float repeated(float logit, float penalty) {
        return std::min(logit < 0.0f ? logit * penalty : logit / penalty, FLT_MAX);
    }
};

}  // namespace zeroshot
