// All of a model's layers in one call and one parallel region: between two of its steps a thread waits for nothing but
// pieces that others still hold (`team.h`), so that memory is hardly ever idle. What a layer is, and in which order:
// `Layer.forward` of zeroshot/model/gpt2.py.

#include "team.h"

namespace zeroshot {

struct Layer {
    Norm ln_1, ln_2;
    Linear attn, attn_proj, fc, fc_proj;
    float scale;  // of attention
};

// A step's tokens: first one of each decoding sequence, then those of prompts.
struct Step {
    const std::int64_t* slots;  // [num_tokens]: where in the cache a token goes
    Sequences decodes, prefills;
    Index num_tokens;
};

struct Cache {
    void *key, *value;   // [num_layers, num_blocks, block_size, n_head, head_dim], float or Half
    Index layer_stride;  // numbers
    Shape shape;
    Index is_half;
};

// What the layers work in, all of it for num_tokens rows.
struct Workspace {
    float* normed;    // [n_embd]
    float* qkv;       // [3 * n_embd]
    float* attended;  // [n_embd]
    float* inner;     // [the MLP's width]
    Rounded rounded;  // of the widest input
};

namespace {

void apply(Team& team, const Linear& linear, const float* input, Index num_rows, const float* residual, float* output,
           bool has_gelu, const Rounded& room) {
    const Epilogue epilogue{linear.bias, residual, output, linear.num_outputs, linear.num_outputs, has_gelu};
    switch (linear.format) {
        case Format::FLOAT: return float_linear(team, linear, input, num_rows, epilogue);
        case Format::BFLOAT16: return bf16_linear(team, linear, input, num_rows, room, epilogue);
        case Format::INT8: return int8_linear(team, linear, input, num_rows, room, epilogue);
    }
}

template <typename Number>
void attend(Team& team, const Layer& layer, const Step& step, const Workspace& work, const Pages<Number>& pages) {
    const Index width = pages.shape.n_head * pages.shape.head_dim, stride = 3 * width;
    const Index num_decodes = step.decodes.num_seqs;
    kv_append(team, work.qkv + width, work.qkv + 2 * width, stride, step.slots, step.num_tokens, pages);
    const Queries first{work.qkv, work.attended, stride};
    const Queries rest{work.qkv + num_decodes * stride, work.attended + num_decodes * width, stride};
    if (num_decodes) decode_attention(team, first, pages, step.decodes, layer.scale);
    if (step.prefills.num_seqs) prefill_attention(team, rest, pages, step.prefills, layer.scale);
}

template <typename Number>
void run(Team& team, const Layer* layers, Index num_layers, float* stream, const Step& step, Pages<Number> pages,
         Index layer_stride, const Workspace& work) {
    const Index rows = step.num_tokens, width = pages.shape.n_head * pages.shape.head_dim;
    for (const Layer* layer = layers; layer < layers + num_layers; ++layer) {
        layer_norm(team, layer->ln_1, stream, rows, width, work.normed);
        apply(team, layer->attn, work.normed, rows, nullptr, work.qkv, false, work.rounded);
        attend(team, *layer, step, work, pages);
        apply(team, layer->attn_proj, work.attended, rows, stream, stream, false, work.rounded);
        layer_norm(team, layer->ln_2, stream, rows, width, work.normed);
        apply(team, layer->fc, work.normed, rows, nullptr, work.inner, true, work.rounded);
        apply(team, layer->fc_proj, work.inner, rows, stream, stream, false, work.rounded);
        pages.key += layer_stride;
        pages.value += layer_stride;
    }
}

}  // namespace
}  // namespace zeroshot

// stream: [num_tokens, n_embd], the residual stream: changed in place.
EXPORT void zeroshot_layers(const zeroshot::Layer* layers, std::int64_t num_layers, float* stream,
                            const zeroshot::Step* step, const zeroshot::Cache* cache,
                            const zeroshot::Workspace* workspace) {
    using namespace zeroshot;
    with_pages(cache->key, cache->value, cache->shape, cache->is_half, [&](const auto& pages) {
        in_parallel([&](Team& team) {
            run(team, layers, num_layers, stream, *step, pages, cache->layer_stride, *workspace);
        });
    });
}
