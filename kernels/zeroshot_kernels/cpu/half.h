// Numbers of 16 bits (IEEE 754 binary16): what is computed in float is stored in them, and is half as much to read.
#pragma once

#include "common.h"

namespace zeroshot {

struct Half {
    std::uint16_t bits;
};

inline float to_float(Half half) {
    constexpr std::uint32_t infinity = 0x7c00u << 13;  // an exponent of all ones, here and as a float
    std::uint32_t bits = (half.bits & 0x7fffu) << 13;
    const float factor = bits < infinity ? 0x1p112f : 1.0f;  // the exponents' biases differ by 112
    if (bits >= infinity) bits += 112u << 23;
    float size;
    std::memcpy(&size, &bits, sizeof size);
    return std::copysign(size * factor, half.bits & 0x8000 ? -1.0f : 1.0f);
}

// To the nearest, of two to the even one; infinity from 65520 on.
inline Half to_half(float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    const std::uint32_t sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
    std::uint32_t half;
    if (size > 0x7f800000) half = 0x7e00;  // NaN
    else if (size >= 143u << 23) half = 0x7c00;  // 2^16
    else if (size >= 113u << 23) half = (size - (112u << 23) + 0xfff + (size >> 13 & 1)) >> 13;
    else {  // below 2^-14 steps are of 2^-24, as a float's are from 0.5 on
        const float shifted = std::fabs(x) + 0.5f;
        std::memcpy(&half, &shifted, sizeof half);
        half -= 126u << 23;
    }
    return Half{static_cast<std::uint16_t>(sign | half)};
}

inline Floats load_floats(const float* from) { return load<Floats>(from); }
inline void store_numbers(Floats vector, float* to) { store(vector, to); }

#if defined(__F16C__) && defined(__AVX512F__)
inline Floats load_floats(const Half* from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}

inline void store_numbers(Floats vector, Half* to) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtps_ph(vector, _MM_FROUND_TO_NEAREST_INT));
}
#elif defined(__F16C__)
inline Floats load_floats(const Half* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}

inline void store_numbers(Floats vector, Half* to) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(vector, _MM_FROUND_TO_NEAREST_INT));
}
#elif defined(__aarch64__)
inline Floats load_floats(const Half* from) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&from->bits)));
}

inline void store_numbers(Floats vector, Half* to) { vst1_u16(&to->bits, vreinterpret_u16_f16(vcvt_f16_f32(vector))); }
#else
inline Floats load_floats(const Half* from) {
    Floats vector;
    for (Index i = 0; i < LANES; ++i) vector[i] = to_float(from[i]);
    return vector;
}

inline void store_numbers(Floats vector, Half* to) {
    for (Index i = 0; i < LANES; ++i) to[i] = to_half(vector[i]);
}
#endif

// The first `count` numbers, and zeros.
template <typename Number>
inline Floats load_first(const Number* from, Index count) {
    Number numbers[LANES] = {};
    std::memcpy(numbers, from, static_cast<std::size_t>(count) * sizeof(Number));
    return load_floats(numbers);
}

template <typename Number>
inline void store_first(Floats vector, Number* to, Index count) {
    Number numbers[LANES];
    store_numbers(vector, numbers);
    std::memcpy(to, numbers, static_cast<std::size_t>(count) * sizeof(Number));
}

}  // namespace zeroshot
