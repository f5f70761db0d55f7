// What every compiled formula is made with: numbers as they are stored and as they are reckoned with, and writing that
// goes past the caches. The formulas themselves are written by merging/expressions.py.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

struct bfloat16 {
    uint16_t bits;
};

template <class To, class From> static inline To bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "as many bits");
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

// What is read is widened to 32 bits, which every formula reckons with.
static inline float wide(float number) { return number; }
static inline float wide(bfloat16 number) { return bits<float>(uint32_t(number.bits) << 16); }
static inline int32_t wide(int32_t number) { return number; }
static inline int32_t wide(int16_t number) { return number; }
static inline int32_t wide(uint8_t number) { return number; }

// What is written is rounded to nearest and even. `unsound` is not zero where it is NaN or infinite.
template <class Number> struct Written;

template <> struct Written<float> {
    static inline uint32_t unsound(float number) {
        return (bits<uint32_t>(number) & 0x7f800000u) == 0x7f800000u;
    }
};

template <> struct Written<bfloat16> {
    static inline bfloat16 of(float number) {
        const uint32_t word = bits<uint32_t>(number);
        return (word & 0x7fffffffu) > 0x7f800000u ? bfloat16{0x7fc0u} : unless_nan(word);
    }
    static inline bfloat16 unless_nan(uint32_t word) {
        return {uint16_t((word + ((word >> 16 & 1u) + 0x7fffu)) >> 16)};
    }
    static inline uint32_t unsound(bfloat16 number) { return (number.bits & 0x7f80u) == 0x7f80u; }
};

#if defined(__aarch64__)
typedef __fp16 float16;
#define HAS_FLOAT16
#elif defined(__FLT16_MAX__) && (defined(__clang__) || defined(__x86_64__))
typedef _Float16 float16;
#define HAS_FLOAT16
#endif
#if defined(HAS_FLOAT16)
static inline float wide(float16 number) { return number; }
template <> struct Written<float16> {
    static inline float16 of(float number) { return (float16)number; }
    static inline uint32_t unsound(float16 number) { return (bits<uint16_t>(number) & 0x7c00u) == 0x7c00u; }
};
#endif

// Limits let NaN through, on either side, as torch's do.
template <class Number> static inline Number at_least(Number number, Number low) {
    return number < low || low != low ? low : number;
}
template <class Number> static inline Number at_most(Number number, Number high) {
    return number > high || high != high ? high : number;
}

// Towards zero. What does not fit is the smallest whole number, as x86 has it.
static inline int32_t whole(float number) {
    return number >= -0x1p31f && number < 0x1p31f ? (int32_t)number : INT32_MIN;
}

// Bytes of a result that stay in the first cache while they are computed; small, so that the memory is read and written
// at the same time.
constexpr int64_t TILE = 1024;

// Rounds results. What it returns is not zero where one of them is NaN or infinite.
template <class Out> static inline uint32_t carefully(Out *to, const float *from, int64_t count) {
    uint32_t unsound = 0;
    for (int64_t i = 0; i < count; ++i) {
        to[i] = Written<Out>::of(from[i]);
        unsound |= Written<Out>::unsound(to[i]);
    }
    return unsound;
}

// The same as long as no number is NaN or rounds to less than the smallest normal one, with half the work or less:
// processors that round 32 numbers at once take those for zero.
static inline void roughly(bfloat16 *to, const float *from, int64_t count) {
    int64_t i = 0;
#if defined(__AVX512BF16__) && defined(__AVX512F__)
    for (; i + 32 <= count; i += 32) {
        const __m512 low = _mm512_loadu_ps(from + i), high = _mm512_loadu_ps(from + i + 16);
        _mm512_storeu_si512(to + i, (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
#endif
    for (; i < count; ++i) to[i] = Written<bfloat16>::unless_nan(bits<uint32_t>(from[i]));
}

template <class Out> static inline uint32_t rounded(Out *to, const float *from, int64_t count) {
    return carefully(to, from, count);
}

// Where a rough result is zero or not finite, its tile is rounded once more.
template <> inline uint32_t rounded<bfloat16>(bfloat16 *to, const float *from, int64_t count) {
    roughly(to, from, count);
    uint16_t least = 0x7fffu, most = 0;
    for (int64_t i = 0; i < count; ++i) {
        const uint16_t size = to[i].bits & 0x7fffu;
        least = size < least ? size : least;
        most = size > most ? size : most;
    }
    return least != 0 && most < 0x7f80u ? 0 : carefully(to, from, count);
}

// Copies a finished tile to where it belongs. Past the caches, memory need not be read before it is written.
static inline void put(void *target, const void *tile, size_t bytes, bool past) {
#if defined(__SSE2__)
    if (past && bytes >= 128) {
        char *to = static_cast<char *>(target);
        const char *from = static_cast<const char *>(tile);
        const size_t head = -reinterpret_cast<uintptr_t>(to) & 63;
        std::memcpy(to, from, head);
        to += head, from += head, bytes -= head;
        for (; bytes >= 64; to += 64, from += 64, bytes -= 64) {
#if defined(__AVX512F__)
            _mm512_stream_si512(reinterpret_cast<__m512i *>(to), _mm512_loadu_si512(from));
#else
            for (int part = 0; part < 64; part += 16)
                _mm_stream_si128(reinterpret_cast<__m128i *>(to + part),
                                 _mm_loadu_si128(reinterpret_cast<const __m128i *>(from + part)));
#endif
        }
        std::memcpy(to, from, bytes);
        return;
    }
#endif
    std::memcpy(target, tile, bytes);
}

// A tile goes to where it belongs, rounded. What it returns is not zero where something is NaN or infinite.
template <class Out> static inline uint32_t finish(Out *target, const float *found, int64_t count, bool past) {
    alignas(64) Out ready[TILE / sizeof(Out)];
    const uint32_t unsound = rounded(ready, found, count);
    put(target, ready, count * sizeof(Out), past);
    return unsound;
}

template <> inline uint32_t finish<float>(float *target, const float *found, int64_t count, bool past) {
    uint32_t unsound = 0;
    for (int64_t i = 0; i < count; ++i) unsound |= Written<float>::unsound(found[i]);
    put(target, found, count * sizeof(float), past);
    return unsound;
}

static inline void settled(bool past) {
#if defined(__SSE2__)
    if (past) _mm_sfence();
#endif
}

// Rows are counted for all threads that share them; nothing else passes between those.
static inline int64_t take(int64_t *taken, int64_t some) { return __atomic_fetch_add(taken, some, __ATOMIC_RELAXED); }
