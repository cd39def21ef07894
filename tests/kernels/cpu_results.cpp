// Calls each of the CPU kernels with the same made-up numbers and prints what it finds: to compare one processor's
// results with another's.

#include <cstdint>
#include <cstdio>
#include <vector>

using Index = std::int64_t;
using Indices = std::vector<Index>;
using Reals = std::vector<float>;

extern "C" {
void zeroshot_float_linear(const float*, const float*, const float*, const float*, float*, Index, Index, Index, Index,
                           int);
void zeroshot_bf16_linear(const float*, const void*, const float*, const float*, float*, std::uint8_t*, Index, Index,
                          Index, Index, int);
void zeroshot_int8_linear(const float*, const std::int8_t*, const float*, const std::int32_t*, const float*,
                          const float*, float*, std::uint8_t*, float*, Index, Index, Index, Index, int);
void zeroshot_layer_norm(const float*, const float*, const float*, float*, Index, Index, float);
void zeroshot_kv_append(const float*, const float*, const Index*, void*, void*, int, Index, Index, Index, Index);
void zeroshot_decode_attention(const float*, void*, void*, int, const Index*, const Index*, float*, Index, Index, Index,
                               Index, Index, Index, float);
void zeroshot_prefill_attention(const float*, void*, void*, int, const Index*, const Index*, const Index*, float*,
                                Index, Index, Index, Index, Index, Index, float);
void zeroshot_draw(const float*, const void* const*, const float*, const Index*, const float*, const float*,
                   const float*, const Index*, const Index*, const Index*, Index*, bool*, Index, Index, Index);
void zeroshot_logprobs(const float*, const Index*, float*, Index*, Index, Index, Index, Index);
}

std::uint32_t state = 1;

std::uint32_t next() { return (state = state * 1664525u + 1013904223u) >> 8; }  // 24 bits

Reals reals(Index count, float size = 1.0f) {
    Reals found(count);
    for (float& real : found) real = size * (static_cast<float>(next()) / (1 << 23) - 1.0f);
    return found;
}

template <typename Numbers>
void print(const char* name, const Numbers& numbers) {
    std::printf("%s", name);
    for (const auto number : numbers) std::printf(" %.9g", static_cast<double>(number));
    std::printf("\n");
}

void linear(Index rows, Index inputs, Index outputs, int has_gelu) {
    constexpr Index TILE = 16, GROUP = 4;
    const Index tiles = (outputs + TILE - 1) / TILE, groups = (inputs + GROUP - 1) / GROUP;
    const Reals hidden = reals(rows * inputs), bias = reals(tiles * TILE), residual = reals(rows * outputs);
    Reals found(rows * outputs), weight = reals(tiles * inputs * TILE);
    zeroshot_float_linear(hidden.data(), weight.data(), bias.data(), residual.data(), found.data(), rows, inputs, outputs,
                          outputs, has_gelu);
    print("float_linear", found);
    // Numbers that bfloat16 holds: what has matrix registers rounds the input.
    Reals exact;
    for (const float real : hidden) exact.push_back(static_cast<std::int8_t>(real * 127.0f));
    std::vector<std::uint16_t> halves(tiles * (inputs + inputs % 2) * TILE);
    for (std::uint16_t& half : halves) half = static_cast<std::uint16_t>(0x3f00 + next() % 0x100);  // from 0.5 to 2
    std::vector<std::uint8_t> room((rows + 15) / 16 * 16 * inputs * 2);
    zeroshot_bf16_linear(exact.data(), halves.data(), bias.data(), residual.data(), found.data(), room.data(), rows,
                         inputs, outputs, outputs, has_gelu);
    print("bf16_linear", found);
    std::vector<std::int8_t> bytes(tiles * groups * TILE * GROUP);
    std::vector<std::int32_t> offsets(tiles * TILE);
    for (Index i = 0; i < static_cast<Index>(bytes.size()); ++i) {
        const Index tile = i / (groups * TILE * GROUP), input = i / (TILE * GROUP) % groups * GROUP + i % GROUP;
        bytes[i] = input < inputs ? static_cast<std::int8_t>(next() % 129) - 64 : 0;
        offsets[tile * TILE + i / GROUP % TILE] += 128 * bytes[i];
    }
    const Reals scales = reals(tiles * TILE, 0.01f);
    std::vector<std::uint8_t> rounded((rows + 15) / 16 * 16 * groups * GROUP);
    Reals row_scales(rows);
    zeroshot_int8_linear(hidden.data(), bytes.data(), scales.data(), offsets.data(), bias.data(), nullptr, found.data(),
                         rounded.data(), row_scales.data(), rows, inputs, outputs, outputs, has_gelu);
    print("int8_linear", found);
}

template <typename Number>
void attention(Index head_dim) {
    constexpr int is_half = sizeof(Number) == 2;
    constexpr Index n_head = 3, block_size = 16;
    const Index width = n_head * head_dim;
    const Indices tables = {4, 1, 3, 0, 2, 2}, context_lens = {39, 18}, query_lens = {9, 2};
    std::vector<Number> keys(5 * block_size * width), values(keys);
    Indices slots;
    for (Index i = 0; i < 5 * block_size; ++i) slots.push_back(i * 7 % (5 * block_size));
    const Index num_tokens = slots.size();
    const Reals new_keys = reals(num_tokens * width), new_values = reals(num_tokens * width);
    zeroshot_kv_append(new_keys.data(), new_values.data(), slots.data(), keys.data(), values.data(), is_half, num_tokens,
                       n_head, head_dim, width);
    const Reals query = reals(11 * width);
    Reals found(2 * width);
    zeroshot_decode_attention(query.data(), keys.data(), values.data(), is_half, tables.data(), context_lens.data(),
                              found.data(), 2, n_head, head_dim, block_size, 3, width, 0.3f);
    print("decode_attention", found);
    found.resize(11 * width);
    zeroshot_prefill_attention(query.data(), keys.data(), values.data(), is_half, tables.data(), query_lens.data(),
                               context_lens.data(), found.data(), 2, n_head, head_dim, block_size, 3, width, 0.3f);
    print("prefill_attention", found);
}

void sampling(Index vocab_size) {
    constexpr Index rows = 6, top = 4;
    const Reals logits = reals(rows * vocab_size, 6.0f);
    const Reals temperatures = {0.0f, 1.0f, 0.7f, 1.0f, 1.3f, 1.0f}, top_ps = {1.0f, 1.0f, 1.0f, 0.8f, 1.0f, 0.9f};
    const Reals min_ps = {0.0f, 0.0f, 0.0f, 0.0f, 0.05f, 0.01f}, typical_ps = {0.5f, 0.3f, 0.9f, 0.5f, 1.0f, 0.7f};
    const Indices top_ks = {0, 0, 40, 0, 0, 300}, seeds = {1, 2, 3, 4, 5, 6}, choices(rows), positions = {7, 8, 9, 1, 2, 3};
    Indices tokens(rows);
    bool are_finite[rows];
    for (const int filters : {0, 1, 2, 3}) {
        const bool is_filtered = filters & 1, is_typical = filters & 2;
        zeroshot_draw(logits.data(), nullptr, temperatures.data(), is_filtered ? top_ks.data() : nullptr,
                      is_filtered ? top_ps.data() : nullptr, is_filtered ? min_ps.data() : nullptr,
                      is_typical ? typical_ps.data() : nullptr, seeds.data(), choices.data(), positions.data(),
                      tokens.data(), are_finite, rows, vocab_size, vocab_size);
        print("draw", tokens);
    }
    Reals logprobs(rows * (1 + top));
    Indices ids(rows * (1 + top));
    zeroshot_logprobs(logits.data(), tokens.data(), logprobs.data(), ids.data(), rows, vocab_size, vocab_size, top);
    print("logprobs", logprobs);
    print("ids", ids);
}

int main() {
    for (const Index rows : {1, 5, 13, 20}) linear(rows, 70, 50, rows % 2);
    linear(3, 7, 20, 0);
    linear(7, 256, 64, 1);
    const Reals x = reals(3 * 70), weight = reals(70), bias = reals(70);
    Reals found(3 * 70);
    zeroshot_layer_norm(x.data(), weight.data(), bias.data(), found.data(), 3, 70, 1e-5f);
    print("layer_norm", found);
    for (const Index head_dim : {64, 20}) {
        attention<float>(head_dim);
        attention<std::uint16_t>(head_dim);
    }
    for (const Index vocab_size : {1003, 9000}) sampling(vocab_size);
}
