// The kernels as steps of one parallel region. Every thread of it calls each of them; they share the work, and when a
// call returns all of it has been done. Outside of a region the one thread there is does everything.
#pragma once

#include "paged.h"

namespace zeroshot {

// Weights as `linear.py` lays them out; scales and offsets are null in float32.
struct Linear {
    const void* weight;
    const float* scales;
    const std::int32_t* offsets;
    const float* bias;  // [num_outputs], or null
    Index num_inputs, num_outputs;
};

// Where an int8 layer puts its input: [num_rows, num_inputs] bytes, rows filled up to whole groups of four, and scales.
struct Rounded {
    std::uint8_t* rows;
    float* scales;
};

struct Norm {
    const float* weight;
    const float* bias;
    float eps;
};

// The sequences of a step, of which kernels read what they need.
struct Sequences {
    const std::int64_t* block_tables;  // [num_seqs, max_blocks]
    const std::int64_t* query_lens;    // [num_seqs]: new tokens; not read by decode_attention, where each has one
    const std::int64_t* context_lens;  // [num_seqs]: all tokens, the new ones counted
    Index num_seqs, max_blocks;
};

// Queries, tokens `stride` floats apart, and where what they find goes, [num_tokens, n_head, head_dim].
struct Queries {
    const float* query;
    float* output;
    Index stride;
};

void float_linear(const Linear& layer, const float* input, Index num_rows, const Epilogue& epilogue);
void int8_linear(const Linear& layer, const float* input, Index num_rows, const Rounded& room,
                 const Epilogue& epilogue);
void layer_norm(const Norm& norm, const float* input, Index num_rows, Index width, float* output);
void kv_append(const float* key, const float* value, Index stride, const std::int64_t* slots, Index num_tokens,
               Index width, float* key_cache, float* value_cache);
void decode_attention(const Queries& queries, const float* key_cache, const float* value_cache, const Shape& shape,
                      const Sequences& sequences, float scale);
void prefill_attention(const Queries& queries, const float* key_cache, const float* value_cache, const Shape& shape,
                       const Sequences& sequences, float scale);

}  // namespace zeroshot
