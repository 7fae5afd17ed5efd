/* sampling.c - from logits to a token; see sampling.h for order and meaning.
 *
 * The work is on candidates {token, logit, weight}: penalties touch only tokens that occurred, greedy is one scan, the draw goes
 * over candidates in order of token id. Only top-k and top-p need an order by likelihood, and only of the best few: these are
 * selected first and sorted then (sorting a vocabulary of 50,000 took 7 ms, as long as a step). Everything is in double and in
 * an order that depends on nothing but the logits, so that two machines choose the same token.
 *
 * History: an open-addressed table token -> {in prompt, times in answer} that grows with distinct tokens. */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "mooncake/sampling.h"

#define WINDOW 30.0 /* see gather() */

struct seen {
    uint32_t token;
    uint32_t answers; /* times in the answer */
    bool used, prompt;
};

struct candidate {
    uint32_t token;
    float logit;
    double p;
};

struct mc_sampler {
    struct mc_sampling params;
    struct mc_logit_bias *bias;
    uint32_t vocab_size;
    struct seen *seen; /* 1 << seen_bits */
    unsigned seen_bits;
    size_t seen_count;
    bool forget;   /* a history that could not grow for want of memory: penalties stop counting new tokens */
    float *logits; /* vocab_size: the copy that bias and penalties work on */
    struct candidate *candidates; /* vocab_size */
};

/* ---- random numbers ---- */

void mc_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];

    for (int round = 0; round < 10; round++) {
        uint64_t a = 0xd2511f53ull * c0, b = 0xcd9e8d57ull * c2;

        c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)b;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)a;
        k0 += 0x9e3779b9;
        k1 += 0xbb67ae85;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

double mc_sampling_uniform(uint64_t seed, uint64_t index)
{
    const uint32_t counter[4] = {(uint32_t)index, (uint32_t)(index >> 32), 0, 0};
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t out[4];

    mc_philox4x32(counter, key, out);
    return (double)(((uint64_t)out[0] << 32 | out[1]) >> 11) * 0x1.0p-53;
}

/* ---- parameters ---- */

void mc_sampling_init(struct mc_sampling *params)
{
    *params = (struct mc_sampling){.temperature = 1, .top_p = 1, .repetition_penalty = 1};
}

/* NaN fails every comparison, so each range is written as "is inside". */
const char *mc_sampling_check(const struct mc_sampling *params, uint32_t vocab_size)
{
    if (!(params->temperature >= 0 && params->temperature <= 100))
        return "temperature";
    if (!(params->top_p > 0 && params->top_p <= 1))
        return "top_p";
    if (!(params->min_p >= 0 && params->min_p <= 1))
        return "min_p";
    if (!(params->repetition_penalty > 0 && params->repetition_penalty <= 100))
        return "repetition_penalty";
    if (!(params->frequency_penalty >= -2 && params->frequency_penalty <= 2))
        return "frequency_penalty";
    if (!(params->presence_penalty >= -2 && params->presence_penalty <= 2))
        return "presence_penalty";
    if (params->bias_count > MC_LOGIT_BIAS_MAX)
        return "logit_bias";
    for (size_t i = 0; i < params->bias_count; i++)
        if (params->bias[i].token >= vocab_size || !(params->bias[i].bias >= -1000 && params->bias[i].bias <= 1000))
            return "logit_bias";
    return NULL;
}

enum mc_status mc_sampler_create(const struct mc_sampling *params, uint32_t vocab_size, struct mc_sampler **sampler)
{
    struct mc_sampler *out;

    if (vocab_size == 0 || mc_sampling_check(params, vocab_size))
        return MC_EINVAL;
    out = calloc(1, sizeof *out);
    if (!out)
        return MC_ENOMEM;
    out->params = *params;
    out->vocab_size = vocab_size;
    out->logits = malloc(vocab_size * sizeof *out->logits);
    out->candidates = malloc(vocab_size * sizeof *out->candidates);
    out->bias = calloc(params->bias_count + 1, sizeof *out->bias);
    if (!out->logits || !out->candidates || !out->bias) {
        mc_sampler_destroy(out);
        return MC_ENOMEM;
    }
    if (params->bias_count)
        memcpy(out->bias, params->bias, params->bias_count * sizeof *out->bias);
    out->params.bias = out->bias;
    *sampler = out;
    return MC_OK;
}

void mc_sampler_destroy(struct mc_sampler *sampler)
{
    if (!sampler)
        return;
    free(sampler->logits);
    free(sampler->candidates);
    free(sampler->bias);
    free(sampler->seen);
    free(sampler);
}

/* ---- history ---- */

static struct seen *seen_slot(struct seen *table, unsigned bits, uint32_t token)
{
    size_t mask = ((size_t)1 << bits) - 1, i = hash_mix(token) & mask;

    while (table[i].used && table[i].token != token)
        i = (i + 1) & mask;
    return &table[i];
}

static bool seen_grow(struct mc_sampler *sampler)
{
    unsigned bits = sampler->seen ? sampler->seen_bits + 1 : 8;
    struct seen *table = calloc((size_t)1 << bits, sizeof *table);

    if (!table)
        return false;
    for (size_t i = 0; sampler->seen && i < (size_t)1 << sampler->seen_bits; i++)
        if (sampler->seen[i].used)
            *seen_slot(table, bits, sampler->seen[i].token) = sampler->seen[i];
    free(sampler->seen);
    sampler->seen = table;
    sampler->seen_bits = bits;
    return true;
}

/* Entry of a token, made if new; NULL if it cannot be. */
static struct seen *seen_of(struct mc_sampler *sampler, uint32_t token)
{
    struct seen *seen;

    if (token >= sampler->vocab_size || sampler->forget)
        return NULL;
    if (!sampler->seen || sampler->seen_count * 2 >= (size_t)1 << sampler->seen_bits) {
        if (!seen_grow(sampler)) {
            sampler->forget = true;
            return NULL;
        }
    }
    seen = seen_slot(sampler->seen, sampler->seen_bits, token);
    if (!seen->used) {
        *seen = (struct seen){.token = token, .used = true};
        sampler->seen_count++;
    }
    return seen;
}

static bool penalises(const struct mc_sampling *p)
{
    return p->repetition_penalty != 1 || p->frequency_penalty != 0 || p->presence_penalty != 0;
}

void mc_sampler_prompt(struct mc_sampler *sampler, const uint32_t *tokens, size_t count)
{
    if (sampler->params.repetition_penalty == 1)
        return;
    for (size_t i = 0; i < count; i++) {
        struct seen *seen = seen_of(sampler, tokens[i]);

        if (seen)
            seen->prompt = true;
    }
}

void mc_sampler_accept(struct mc_sampler *sampler, uint32_t token)
{
    struct seen *seen = penalises(&sampler->params) ? seen_of(sampler, token) : NULL;

    if (seen)
        seen->answers++;
}

/* ---- choosing ---- */

/* First of the highest logits; NaN never is. Lanes, so that the compiler keeps eight comparisons in flight: this is all that a
 * greedy step costs. */
static uint32_t highest(const float *logits, uint32_t count)
{
    enum { LANES = 8 };
    float lane[LANES], most = -INFINITY;
    uint32_t i;

    for (i = 0; i < LANES; i++)
        lane[i] = -INFINITY;
    for (i = 0; i + LANES <= count; i += LANES)
        for (uint32_t k = 0; k < LANES; k++)
            lane[k] = logits[i + k] > lane[k] ? logits[i + k] : lane[k];
    for (uint32_t k = 0; k < LANES; k++)
        most = lane[k] > most ? lane[k] : most;
    for (; i < count; i++)
        most = logits[i] > most ? logits[i] : most;
    for (i = 0; i < count; i++)
        if (logits[i] == most)
            return i;
    return 0; /* nothing but NaN */
}

/* Bias and penalties into sampler->logits. */
static void adjust(struct mc_sampler *sampler, const float *logits)
{
    const struct mc_sampling *p = &sampler->params;
    float *own = sampler->logits;

    for (uint32_t i = 0; i < sampler->vocab_size; i++)
        own[i] = logits[i] == logits[i] ? logits[i] : -INFINITY; /* NaN */
    for (size_t i = 0; i < p->bias_count; i++)
        own[p->bias[i].token] = p->bias[i].bias <= -100 ? -INFINITY : own[p->bias[i].token] + p->bias[i].bias;
    if (!penalises(p) || !sampler->seen)
        return;
    for (size_t i = 0; i < (size_t)1 << sampler->seen_bits; i++) {
        const struct seen *seen = &sampler->seen[i];
        float *logit = &own[seen->token];

        if (!seen->used)
            continue;
        *logit = *logit > 0 ? *logit / p->repetition_penalty : *logit * p->repetition_penalty;
        if (seen->answers)
            *logit -= p->frequency_penalty * (float)seen->answers + p->presence_penalty;
    }
}

/* Likeliest first, ties to the lower id. */
static int candidate_compare(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;

    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return (x->token > y->token) - (x->token < y->token);
}

/* exp(-x) for 0 <= x <= 30, to 10 digits: n halvings and a Taylor sum of what is left. Our own because a vocabulary of them per
 * token shows, and because it is the same on every machine, which libm's last bit is not. */
static inline double exp_minus(double x)
{
    double n = (double)(int)(x * 1.4426950408889634 + 0.5), r = n * 0.69314718055994531 - x, r2 = r * r, half;
    uint64_t bits = (1023 - (uint64_t)n) << 52;
    double low = 1 + r + r2 * (1.0 / 2 + r * (1.0 / 6));
    double high = (1.0 / 24 + r * (1.0 / 120)) + r2 * (1.0 / 720 + r * (1.0 / 5040) + r2 * (1.0 / 40320));

    memcpy(&half, &bits, sizeof half);
    return (low + r2 * r2 * high) * half;
}

/* Candidates at least exp(-window) as likely as the best, in order of token id, without weights. What is less likely than
 * exp(-30) is never drawn: all of a vocabulary of 2^17 together would come up once in 10^8 tokens. */
static size_t gather(struct mc_sampler *sampler, float most)
{
    const struct mc_sampling *p = &sampler->params;
    double window = p->min_p > 0 ? -log((double)p->min_p) : WINDOW;
    double least = (double)most - (window < WINDOW ? window : WINDOW) * (double)p->temperature;
    size_t count = 0;

    for (uint32_t i = 0; i < sampler->vocab_size; i++) {
        sampler->candidates[count] = (struct candidate){.token = i, .logit = sampler->logits[i]};
        count += (double)sampler->logits[i] >= least; /* no branch: about as often as not */
    }
    return count;
}

static void weigh(struct mc_sampler *sampler, size_t count, float most)
{
    double scale = 1 / (double)sampler->params.temperature, high = (double)most;

    for (size_t i = 0; i < count; i++) {
        double distance = (high - (double)sampler->candidates[i].logit) * scale;

        /* written so that 0 x infinity (the coldest temperatures) is the best's own distance, 0 */
        sampler->candidates[i].p = exp_minus(distance > 0 ? (distance < WINDOW ? distance : WINDOW) : 0);
    }
}

static void swap(struct candidate *a, struct candidate *b)
{
    struct candidate was = *a;

    *a = *b;
    *b = was;
}

/* Move the `best` likeliest to the front (quickselect, the middle one as pivot) and sort them. best <= count. */
static void sort_best(struct candidate *c, size_t count, size_t best)
{
    size_t low = 0, high = count; /* the boundary that is looked for lies in between */

    while (high - low > 1 && best < high) {
        size_t at = low;

        swap(&c[low + (high - low) / 2], &c[high - 1]);
        for (size_t i = low; i < high - 1; i++)
            if (candidate_compare(&c[i], &c[high - 1]) < 0)
                swap(&c[i], &c[at++]);
        swap(&c[at], &c[high - 1]); /* the pivot, where it belongs */
        if (at == best || at + 1 == best)
            break;
        if (best < at)
            high = at;
        else
            low = at + 1;
    }
    qsort(c, best, sizeof *c, candidate_compare);
}

static double weight(const struct candidate *candidates, size_t count)
{
    double sum = 0;

    for (size_t i = 0; i < count; i++)
        sum += candidates[i].p;
    return sum;
}

/* Fewest candidates whose weight reaches top_p of the whole; they are at the front then. Most texts need a handful. */
static size_t cut_top_p(struct candidate *candidates, size_t count, double top_p)
{
    double wanted = weight(candidates, count) * top_p;

    for (size_t best = 64;; best *= 8) {
        double sum = 0;

        best = best < count ? best : count;
        sort_best(candidates, count, best);
        for (size_t i = 0; i < best; i++) {
            sum += candidates[i].p;
            if (sum >= wanted)
                return i + 1;
        }
        if (best == count)
            return count;
    }
}

uint32_t mc_sampler_pick(struct mc_sampler *sampler, const float *logits, uint64_t index)
{
    const struct mc_sampling *p = &sampler->params;
    uint32_t best;
    size_t count;

    adjust(sampler, logits);
    best = highest(sampler->logits, sampler->vocab_size);
    if (!(sampler->logits[best] > -INFINITY))
        return highest(logits, sampler->vocab_size);
    if (p->temperature == 0 || isinf(sampler->logits[best]))
        return best;
    count = gather(sampler, sampler->logits[best]);
    assert(count > 0); /* the best is always among them */
    if (p->top_k && p->top_k < count) {
        sort_best(sampler->candidates, count, p->top_k);
        count = p->top_k;
    }
    weigh(sampler, count, sampler->logits[best]);
    if (p->top_p < 1)
        count = cut_top_p(sampler->candidates, count, (double)p->top_p);
    double left = mc_sampling_uniform(p->seed, index) * weight(sampler->candidates, count);
    for (size_t i = 0; i < count; i++) {
        left -= sampler->candidates[i].p;
        if (left < 0)
            return sampler->candidates[i].token;
    }
    return sampler->candidates[count - 1].token; /* rounding: the uniform number was within an ulp of 1 */
}
