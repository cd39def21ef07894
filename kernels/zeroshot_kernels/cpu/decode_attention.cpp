// Attention of one new token of each sequence over its paged keys and values, and putting those there.
// A token's heads lie side by side in its page, so they are read side by side.
// Sequences and heads are independent, so nothing depends on the batch or on who computes what.

#include <vector>

#include "team.h"

namespace zeroshot {
namespace {

// What one thread does at a time: some neighbouring heads of one sequence.
struct Task {
    const float* query;         // [num_heads, head_dim]
    const std::int64_t* table;  // the sequence's blocks
    Index num_tokens, first_head, num_heads;
    float* scores;  // room for [num_heads, num_tokens]
    float* output;  // [num_heads, head_dim]
};

inline float dot(const float* a, const float* b, Index n) {
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (Index i = 0; i < n; ++i) sum += a[i] * b[i];
    return sum;
}

// softmax(scale * q K^T) V (Vaswani et al. 2017, eq. 1) of each head.
inline void attend(const float* keys, const float* values, const Task& task, const Shape& shape, float scale) {
    const Index width = shape.head_dim, n = task.num_tokens;
    for_each_token(keys, task.table, task.num_tokens, task.first_head, shape, [&](Index t, const float* key) {
        for (Index h = 0; h < task.num_heads; ++h)
            task.scores[h * n + t] = scale * dot(task.query + h * width, key + h * width, width);
    });
    for (Index h = 0; h < task.num_heads; ++h) softmax(task.scores + h * n, n);
    for (Index i = 0; i < task.num_heads * width; ++i) task.output[i] = 0.0f;
    for_each_token(values, task.table, task.num_tokens, task.first_head, shape, [&](Index t, const float* value) {
        for (Index h = 0; h < task.num_heads; ++h) {
            const float weight = task.scores[h * n + t];
            for (Index d = 0; d < width; ++d) task.output[h * width + d] += weight * value[h * width + d];
        }
    });
}

// All heads of a sequence together, unless there are too few sequences to keep the threads busy.
inline Index heads_at_once(Index num_seqs, Index n_head) {
    const Index wanted = 4 * omp_get_max_threads();
    const Index pieces = num_seqs >= wanted ? 1 : (wanted + num_seqs - 1) / num_seqs;
    return pieces >= n_head ? 1 : (n_head + pieces - 1) / pieces;
}

}  // namespace

void decode_attention(Team& team, const Queries& queries, const float* key_cache, const float* value_cache,
                      const Shape& shape, const Sequences& sequences, float scale) {
    const Index n_head = shape.n_head, width = shape.head_dim, num_seqs = sequences.num_seqs;
    const Index most_heads = heads_at_once(num_seqs, n_head), pieces = (n_head + most_heads - 1) / most_heads;
    static thread_local std::vector<float> scores;
    team.share(num_seqs * pieces, 1, [&](Index i) {
        const Index seq = i / pieces, first = i % pieces * most_heads, num_tokens = sequences.context_lens[seq];
        const Index num_heads = n_head - first < most_heads ? n_head - first : most_heads;
        const std::size_t room = static_cast<std::size_t>(num_heads * num_tokens);
        if (scores.size() < room) scores.resize(room);
        attend(key_cache, value_cache,
               Task{queries.query + seq * queries.stride + first * width,
                    sequences.block_tables + seq * sequences.max_blocks, num_tokens, first, num_heads, scores.data(),
                    queries.output + (seq * n_head + first) * width},
               shape, scale);
    });
}

void kv_append(Team& team, const float* key, const float* value, Index stride, const std::int64_t* slots,
               Index num_tokens, Index width, float* key_cache, float* value_cache) {
    const std::size_t bytes = static_cast<std::size_t>(width) * sizeof(float);
    team.share_rows(num_tokens, [&](Index i) {
        std::memcpy(key_cache + slots[i] * width, key + i * stride, bytes);
        std::memcpy(value_cache + slots[i] * width, value + i * stride, bytes);
    });
}

}  // namespace zeroshot

// query: [num_seqs, n_head, head_dim], rows `query_stride` floats apart; block_tables: [num_seqs, max_blocks];
// context_lens: [num_seqs], the new token counted; output: [num_seqs, n_head, head_dim].
EXPORT void zeroshot_decode_attention(const float* query, const float* key_cache, const float* value_cache,
                                      const std::int64_t* block_tables, const std::int64_t* context_lens,
                                      float* output, std::int64_t num_seqs, std::int64_t n_head,
                                      std::int64_t head_dim, std::int64_t block_size, std::int64_t max_blocks,
                                      std::int64_t query_stride, float scale) {
    using namespace zeroshot;
    const Sequences sequences{block_tables, nullptr, context_lens, num_seqs, max_blocks};
    Team team;
#pragma omp parallel
    decode_attention(team, Queries{query, output, query_stride}, key_cache, value_cache,
                     Shape{n_head, head_dim, block_size}, sequences, scale);
}

// key, value: [num_tokens, width], rows `stride` floats apart -> row slots[i] of the caches, [num_slots, width].
EXPORT void zeroshot_kv_append(const float* key, const float* value, const std::int64_t* slots, float* key_cache,
                               float* value_cache, std::int64_t num_tokens, std::int64_t width, std::int64_t stride) {
    zeroshot::Team alone;
    zeroshot::kv_append(alone, key, value, stride, slots, num_tokens, width, key_cache, value_cache);
}
