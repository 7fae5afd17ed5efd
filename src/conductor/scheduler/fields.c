/* fields.c - see fields.h. */
#include "conductor/scheduler/fields.h"

#include <assert.h>
#include <string.h>

#define ROW(type, field, kind)                                                                                         \
    {                                                                                                                  \
#field, offsetof(struct type, field), kind                                                                     \
    }
#define END                                                                                                            \
    {                                                                                                                  \
        NULL, 0, 0                                                                                                     \
    }

/* clang-format off */
const struct sched_field sched_snapshot_fields[] = {
    ROW(mc_sched_snapshot, worker_count, SCHED_U32), ROW(mc_sched_snapshot, node_count, SCHED_U32),
    ROW(mc_sched_snapshot, options.balance_threshold, SCHED_DOUBLE),
    ROW(mc_sched_snapshot, options.direct_tokens_max, SCHED_U32), ROW(mc_sched_snapshot, options.trial_ms, SCHED_DOUBLE),
    ROW(mc_sched_snapshot, copy_tokens_max, SCHED_U64), ROW(mc_sched_snapshot, sequence, SCHED_U64), END};

const struct sched_field sched_worker_fields[] = {
    ROW(mc_sched_worker, role, SCHED_U8), ROW(mc_sched_worker, state, SCHED_U8), ROW(mc_sched_worker, node, SCHED_U16),
    ROW(mc_sched_worker, waiting, SCHED_U32), ROW(mc_sched_worker, waiting_max, SCHED_U32),
    ROW(mc_sched_worker, queued_tokens, SCHED_U32), ROW(mc_sched_worker, queue_ms, SCHED_DOUBLE),
    ROW(mc_sched_worker, running, SCHED_U32), ROW(mc_sched_worker, running_max, SCHED_U32),
    ROW(mc_sched_worker, kv_tokens, SCHED_U64), ROW(mc_sched_worker, kv_tokens_max, SCHED_U64),
    ROW(mc_sched_worker, age_ms, SCHED_DOUBLE), ROW(mc_sched_worker, idle_ms, SCHED_DOUBLE), END};

const struct sched_field sched_link_fields[] = {
    ROW(mc_sched_link, bytes_per_ms, SCHED_DOUBLE), ROW(mc_sched_link, latency_ms, SCHED_DOUBLE),
    ROW(mc_sched_link, queue_ms, SCHED_DOUBLE), END};

const struct sched_field sched_fit_fields[] = {
    ROW(mc_fit, theta[0], SCHED_DOUBLE), ROW(mc_fit, theta[1], SCHED_DOUBLE), ROW(mc_fit, theta[2], SCHED_DOUBLE), END};

const struct sched_field sched_request_fields[] = {
    ROW(mc_sched_request, tokens, SCHED_U32), ROW(mc_sched_request, output_tokens, SCHED_U32),
    ROW(mc_sched_request, block_tokens, SCHED_U32), ROW(mc_sched_request, reuse_max, SCHED_U32),
    ROW(mc_sched_request, bytes_per_token, SCHED_U64), ROW(mc_sched_request, prefix_blocks, SCHED_U32),
    ROW(mc_sched_request, prefix_age_ms, SCHED_DOUBLE), ROW(mc_sched_request, slo_ttft_ms, SCHED_DOUBLE),
    ROW(mc_sched_request, slo_tbt_ms, SCHED_DOUBLE), ROW(mc_sched_request, waited_ms, SCHED_DOUBLE),
    ROW(mc_sched_request, draw, SCHED_U64), ROW(mc_sched_request, begun, SCHED_BOOL), END};

const struct sched_field sched_decision_fields[] = {
    ROW(mc_sched_decision, outcome, SCHED_ENUM), ROW(mc_sched_decision, route, SCHED_ENUM),
    ROW(mc_sched_decision, prefill, SCHED_U16), ROW(mc_sched_decision, decode, SCHED_U16),
    ROW(mc_sched_decision, degraded, SCHED_BOOL), ROW(mc_sched_decision, trial, SCHED_BOOL),
    ROW(mc_sched_decision, source, SCHED_U16), ROW(mc_sched_decision, load_tokens, SCHED_U32),
    ROW(mc_sched_decision, own_tokens, SCHED_U32), ROW(mc_sched_decision, copy_blocks, SCHED_U32),
    ROW(mc_sched_decision, queue_ms, SCHED_DOUBLE), ROW(mc_sched_decision, load_ms, SCHED_DOUBLE),
    ROW(mc_sched_decision, prefill_ms, SCHED_DOUBLE), ROW(mc_sched_decision, ttft_ms, SCHED_DOUBLE),
    ROW(mc_sched_decision, tbt_ms, SCHED_DOUBLE), ROW(mc_sched_decision, retry_after_ms, SCHED_DOUBLE),
    ROW(mc_sched_decision, again_ms, SCHED_DOUBLE), ROW(mc_sched_decision, by_choice, SCHED_BOOL), END};
/* clang-format on */

#define ADDED "a field was added: give it a row above, then change this number"
static_assert(sizeof(struct mc_sched_options) == 24 && sizeof(struct mc_sched_snapshot) == 56, ADDED);
static_assert(sizeof(struct mc_sched_worker) == 88 && sizeof(struct mc_sched_link) == 24, ADDED);
static_assert(sizeof(struct mc_sched_request) == 88, ADDED);
static_assert(sizeof(struct mc_sched_decision) == 96, ADDED);

int64_t sched_field_int(const void *object, const struct sched_field *field)
{
    const char *at = (const char *)object + field->offset;
    uint16_t u16;
    uint32_t u32;
    uint64_t u64;

    switch ((enum sched_field_kind)field->kind) {
    case SCHED_U8: return *(const uint8_t *)at;
    case SCHED_BOOL: return *(const bool *)at;
    case SCHED_U16: memcpy(&u16, at, sizeof(u16)); return u16;
    case SCHED_U32:
    case SCHED_ENUM: memcpy(&u32, at, sizeof(u32)); return u32;
    case SCHED_U64: memcpy(&u64, at, sizeof(u64)); return (int64_t)u64;
    case SCHED_DOUBLE: break;
    }
    assert(!"a double");
    return 0;
}

void sched_field_set_int(void *object, const struct sched_field *field, int64_t value)
{
    char *at = (char *)object + field->offset;
    uint16_t u16 = (uint16_t)value;
    uint32_t u32 = (uint32_t)value;

    switch ((enum sched_field_kind)field->kind) {
    case SCHED_U8: *(uint8_t *)at = (uint8_t)value; break;
    case SCHED_BOOL: *(bool *)at = value != 0; break;
    case SCHED_U16: memcpy(at, &u16, sizeof(u16)); break;
    case SCHED_U32:
    case SCHED_ENUM: memcpy(at, &u32, sizeof(u32)); break;
    case SCHED_U64: memcpy(at, &value, sizeof(value)); break;
    case SCHED_DOUBLE: assert(!"a double"); break;
    }
}

double sched_field_double(const void *object, const struct sched_field *field)
{
    double value;

    assert(field->kind == SCHED_DOUBLE);
    memcpy(&value, (const char *)object + field->offset, sizeof(value));
    return value;
}

void sched_field_set_double(void *object, const struct sched_field *field, double value)
{
    assert(field->kind == SCHED_DOUBLE);
    memcpy((char *)object + field->offset, &value, sizeof(value));
}
