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

// Tokens whose values are added up before they join the output, which is then read and written as much less often.
constexpr Index TOKENS = 4;

inline float add_up(Floats vector) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps(vector);
#elif defined(__AVX2__)
    const __m128 quads = _mm_add_ps(_mm256_castps256_ps128(vector), _mm256_extractf128_ps(vector, 1));
    const __m128 pairs = _mm_add_ps(quads, _mm_movehl_ps(quads, quads));
    return _mm_cvtss_f32(_mm_add_ss(pairs, _mm_movehdup_ps(pairs)));
#else
    float sum = 0.0f;
    for (Index i = 0; i < LANES; ++i) sum += vector[i];
    return sum;
#endif
}

template <typename Number>
inline float dot(const float* a, const Number* b, Index n) {
    Floats sums = {};
    Index i = 0;
    for (; i + LANES <= n; i += LANES) sums += load_floats(a + i) * load_floats(b + i);
    if (i < n) sums += load_first(a + i, n - i) * load_first(b + i, n - i);
    return add_up(sums);
}

// output += the sum over t of weights[t] * values[t * stride].
template <Index tokens, typename Number>
inline void add_values(const float* weights, const Number* values, Index stride, Index n, float* output) {
    Index i = 0;
    for (; i + LANES <= n; i += LANES) {
        Floats sums = weights[0] * load_floats(values + i);
        for (Index t = 1; t < tokens; ++t) sums += weights[t] * load_floats(values + t * stride + i);
        store(load_floats(output + i) + sums, output + i);
    }
    for (; i < n; i += LANES) {
        const Index count = n - i;
        Floats sums = load_first(output + i, count);
        for (Index t = 0; t < tokens; ++t) sums += weights[t] * load_first(values + t * stride + i, count);
        store_first(sums, output + i, count);
    }
}

// Into the second cache: a processor finds by itself what comes next in a page, but not which page is the next.
template <typename Number>
inline void fetch(const Number* numbers, Index n) {
    constexpr Index line = 64 / sizeof(Number);
    for (Index i = 0; i < n; i += line) __builtin_prefetch(numbers + i, 0, 2);
}

// softmax(scale * q K^T) V (Vaswani et al. 2017, eq. 1) of each head. known_width: head_dim, or 0 for any.
template <Index known_width, typename Number>
void attend(const Pages<Number>& pages, const Task& task, float scale) {
    const Index width = known_width ? known_width : pages.shape.head_dim, stride = pages.shape.n_head * width;
    const Index n = task.num_tokens, num_numbers = task.num_heads * width;
    const auto for_each = [&](const Number* content, const Number* then, auto visit) {
        for_each_page(content, then, task.table, n, task.first_head, pages.shape, visit);
    };
    for_each(pages.key, pages.value, [&](const Page<Number>& page) {
        for (Index t = 0; t < page.num_tokens; ++t) {
            fetch(page.next + t * stride, num_numbers);
            for (Index h = 0; h < task.num_heads; ++h)
                task.scores[h * n + page.first + t] =
                    scale * dot(task.query + h * width, page.numbers + t * stride + h * width, width);
        }
    });
    for (Index h = 0; h < task.num_heads; ++h) softmax(task.scores + h * n, n);
    for (Index i = 0; i < num_numbers; ++i) task.output[i] = 0.0f;
    for_each(pages.value, nullptr, [&](const Page<Number>& page) {
        for_each_group<TOKENS>(page.num_tokens, [&](auto tokens, Index t) {
            for (Index i = 0; page.next && i < tokens(); ++i) fetch(page.next + (t + i) * stride, num_numbers);
            for (Index h = 0; h < task.num_heads; ++h)
                add_values<tokens()>(task.scores + h * n + page.first + t, page.numbers + t * stride + h * width,
                                     stride, width, task.output + h * width);
        });
    });
}

// All heads of a sequence together, unless there are too few sequences to keep the threads busy.
inline Index heads_at_once(Index num_seqs, Index n_head, Index num_threads) {
    const Index wanted = 4 * num_threads;
    const Index pieces = num_seqs >= wanted ? 1 : (wanted + num_seqs - 1) / num_seqs;
    return pieces >= n_head ? 1 : (n_head + pieces - 1) / pieces;
}

}  // namespace

template <typename Number>
void decode_attention(Team& team, const Queries& queries, const Pages<Number>& pages, const Sequences& sequences,
                      float scale) {
    const Index n_head = pages.shape.n_head, width = pages.shape.head_dim, num_seqs = sequences.num_seqs;
    const Index most_heads = heads_at_once(num_seqs, n_head, team.num_threads());
    const Index pieces = (n_head + most_heads - 1) / most_heads;
    static thread_local std::vector<float> scores;
    team.share(num_seqs * pieces, 1, [&](Index i) {
        const Index seq = i / pieces, first = i % pieces * most_heads, num_tokens = sequences.context_lens[seq];
        const Index num_heads = n_head - first < most_heads ? n_head - first : most_heads;
        const std::size_t room = static_cast<std::size_t>(num_heads * num_tokens);
        if (scores.size() < room) scores.resize(room);
        const Task task{queries.query + seq * queries.stride + first * width,
                        sequences.block_tables + seq * sequences.max_blocks, num_tokens, first, num_heads,
                        scores.data(), queries.output + (seq * n_head + first) * width};
        if (width == 64) attend<64>(pages, task, scale);  // GPT-2's own in every size
        else attend<0>(pages, task, scale);
    });
}

template void decode_attention(Team&, const Queries&, const Pages<float>&, const Sequences&, float);
template void decode_attention(Team&, const Queries&, const Pages<Half>&, const Sequences&, float);

template <typename Number>
inline void convert(const float* from, Index n, Number* to) {
    Index i = 0;
    for (; i + LANES <= n; i += LANES) store_numbers(load_floats(from + i), to + i);
    if (i < n) store_first(load_first(from + i, n - i), to + i, n - i);
}

template <typename Number>
void kv_append(Team& team, const float* key, const float* value, Index stride, const std::int64_t* slots,
               Index num_tokens, const Pages<Number>& pages) {
    const Index width = pages.shape.n_head * pages.shape.head_dim;
    team.share_rows(num_tokens, [&](Index i) {
        convert(key + i * stride, width, pages.key + slots[i] * width);
        convert(value + i * stride, width, pages.value + slots[i] * width);
    });
}

template void kv_append(Team&, const float*, const float*, Index, const std::int64_t*, Index, const Pages<float>&);
template void kv_append(Team&, const float*, const float*, Index, const std::int64_t*, Index, const Pages<Half>&);

}  // namespace zeroshot

// query: [num_seqs, n_head, head_dim], rows `query_stride` floats apart; block_tables: [num_seqs, max_blocks];
// context_lens: [num_seqs], the new token counted; output: [num_seqs, n_head, head_dim]; is_half: of both caches.
EXPORT void zeroshot_decode_attention(const float* query, void* key_cache, void* value_cache, int is_half,
                                      const std::int64_t* block_tables, const std::int64_t* context_lens,
                                      float* output, std::int64_t num_seqs, std::int64_t n_head,
                                      std::int64_t head_dim, std::int64_t block_size, std::int64_t max_blocks,
                                      std::int64_t query_stride, float scale) {
    using namespace zeroshot;
    const Sequences sequences{block_tables, nullptr, context_lens, num_seqs, max_blocks};
    with_pages(key_cache, value_cache, Shape{n_head, head_dim, block_size}, is_half, [&](const auto& pages) {
        in_parallel([&](Team& team) {
            decode_attention(team, Queries{query, output, query_stride}, pages, sequences, scale);
        });
    });
}

// key, value: [num_tokens, n_head, head_dim], tokens `stride` floats apart -> row slots[i] of the caches, [num_slots,
// n_head, head_dim].
EXPORT void zeroshot_kv_append(const float* key, const float* value, const std::int64_t* slots, void* key_cache,
                               void* value_cache, int is_half, std::int64_t num_tokens, std::int64_t n_head,
                               std::int64_t head_dim, std::int64_t stride) {
    using namespace zeroshot;
    with_pages(key_cache, value_cache, Shape{n_head, head_dim, 1}, is_half, [&](const auto& pages) {
        alone([&](Team& team) { kv_append(team, key, value, stride, slots, num_tokens, pages); });
    });
}
