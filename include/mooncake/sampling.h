/* sampling.h - from logits to a token, and from token bytes to text that may be sent.
 *
 * Sampling is ours and not the engine's, so that a stream can be continued exactly by another worker: the choice for
 * token number i of an answer is a pure function of (logits, parameters, tokens before it, i). Its uniform number is
 * Philox4x32-10 with the seed as key and i as counter; nothing is kept between tokens but the history.
 *
 * Order: logit bias, repetition penalty, frequency and presence penalty, then greedy if temperature is 0; else
 * temperature, min-p, top-k, top-p, draw. Ties go to the lower token id.
 *
 * Threads: a sampler or text stream belongs to one thread at a time. Nothing here blocks. */
#ifndef MOONCAKE_SAMPLING_H
#define MOONCAKE_SAMPLING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <mooncake/status.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    MC_LOGIT_BIAS_MAX = 300,
    MC_STOP_STRINGS_MAX = 16,
    MC_STOP_SIZE_MAX = 256, /* bytes of one stop string */
};

/* ---- the random numbers ---- */

/* Philox4x32-10 (Salmon et al. 2011): four words from counter and key. */
MC_API void mc_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);
/* Uniform in [0, 1) with 53 bits, for token `index` of the answer drawn with `seed`. */
MC_API double mc_sampling_uniform(uint64_t seed, uint64_t index);

/* ---- the sampler ---- */

struct mc_logit_bias {
    uint32_t token;
    float bias; /* added to the logit; -100 or below forbids */
};

/* Start from mc_sampling_init(), which sets every filter to "does nothing" and temperature 1. */
struct mc_sampling {
    float temperature;        /* 0: greedy; 0..100 */
    uint32_t top_k;           /* 0: all */
    float top_p;              /* (0, 1]; 1: all */
    float min_p;              /* [0, 1]; 0: all. Keep tokens at least this fraction as likely as the likeliest */
    float repetition_penalty; /* > 0, at most 100; 1: none. Prompt and answer */
    float frequency_penalty;  /* -2..2; 0: none. Answer only, times how often */
    float presence_penalty;   /* -2..2; 0: none. Answer only, once */
    uint64_t seed;
    const struct mc_logit_bias *bias; /* copied by create */
    size_t bias_count;
};
MC_API void mc_sampling_init(struct mc_sampling *params);

/* Name of the first parameter out of range ("top_p"), NULL if all are good. */
MC_API const char *mc_sampling_check(const struct mc_sampling *params, uint32_t vocab_size);

struct mc_sampler;
/*   MC_EINVAL  mc_sampling_check() objects     MC_ENOMEM */
MC_API enum mc_status mc_sampler_create(
    const struct mc_sampling *params, uint32_t vocab_size, struct mc_sampler **sampler);
MC_API void mc_sampler_destroy(struct mc_sampler *sampler); /* NULL is allowed */

/* Tell it tokens that are in the sequence: first the prompt, then each answer token after it was picked (or, when a stream
 * is continued elsewhere, all answer tokens so far). Ids beyond the vocabulary are ignored. */
MC_API void mc_sampler_prompt(struct mc_sampler *sampler, const uint32_t *tokens, size_t count);
MC_API void mc_sampler_accept(struct mc_sampler *sampler, uint32_t token);

/* Choose answer token number `index` (0 first). `logits` has vocab_size floats and is not changed. NaN counts as minus
 * infinity; if nothing is left, the highest raw logit is taken. Does not accept. Never fails. */
MC_API uint32_t mc_sampler_pick(struct mc_sampler *sampler, const float *logits, uint64_t index);

/* ---- text: stop strings, whole UTF-8 characters ---- */

/* Bytes of tokens go in; bytes that may be sent come out. Held back: an incomplete UTF-8 character, and anything that could
 * be the beginning of a stop string. Bytes that can never become UTF-8 come out as U+FFFD, so output is always valid. */
struct mc_text;

/* Stop strings are copied; empty ones are an error.
 *   MC_EINVAL  more than MC_STOP_STRINGS_MAX or an empty one     MC_ETOOBIG  above MC_STOP_SIZE_MAX     MC_ENOMEM */
MC_API enum mc_status mc_text_create(const char *const *stops, size_t stop_count, struct mc_text **text);
MC_API void mc_text_destroy(struct mc_text *text); /* NULL is allowed */

/* Add bytes. Ignored once stopped. MC_ENOMEM: nothing was added. */
MC_API enum mc_status mc_text_push(struct mc_text *text, const char *bytes, size_t length);
/* The answer is over: nothing is held back any longer. */
MC_API void mc_text_finish(struct mc_text *text);
/* What may be sent and was not taken yet: valid UTF-8, not NUL-terminated, lent until the next call on `text`. */
MC_API const char *mc_text_take(struct mc_text *text, size_t *length);
/* Index of the stop string that ended the text, -1 while none did. The stop string itself never comes out. */
MC_API int mc_text_stopped(const struct mc_text *text);

#ifdef __cplusplus
}
#endif
#endif
