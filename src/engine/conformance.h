/* conformance.h - two instances of one engine, a prompt, and what the conformance tests do with them all the time.
 *
 * conformance_test.c has the texts, the equalities, the limits; conformance_blocks.c what goes out and in: export, import, wrong
 * bytes. One program; each function fails the running test by itself. */
#ifndef ENGINE_CONFORMANCE_H
#define ENGINE_CONFORMANCE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "mooncake/engine.h"

enum { CONTEXT = 4096, SEQUENCES = 4, PROMPT_MAX = 2048, ANSWER = 24 };

extern const char *engine_name;
extern char model_path[512];
extern struct mc_engine *a, *b; /* two instances of the same model */
extern uint32_t prompt[PROMPT_MAX];
extern size_t prompt_length;

struct mc_engine_options options_of(void);
struct mc_engine *open_engine(const struct mc_engine_options *o);
uint32_t new_seq(struct mc_engine *e);
const float *prefill_all(struct mc_engine *e, uint32_t seq, const uint32_t *tokens, uint32_t end, uint32_t step);
uint32_t argmax(const float *logits, uint32_t count);
const float *decode_one(struct mc_engine *e, uint32_t seq, uint32_t token);
/* Greedy answer of `count` tokens; the last is not fed back. */
void answer(struct mc_engine *e, uint32_t seq, const float *logits, uint32_t *out, uint32_t count);
uint8_t *export_block(struct mc_engine *e, uint32_t seq, uint32_t index);
/* Move the first `count` blocks of a sequence of `from` into a new one of `to`. `together`: one call. */
uint32_t move_blocks(struct mc_engine *from, uint32_t from_seq, struct mc_engine *to, const uint32_t *tokens,
    uint32_t count, bool together);
size_t tokens_of(struct mc_engine *e, const char *text, uint32_t flags, uint32_t *tokens, size_t max);
/* Path of the model tools/fetch-engine left, or false. */
bool find_model(void);
int set_up(void **state);
int tear_down(void **state);

/* conformance_blocks.c */
void export_while_computing(void **state);
void flipped_byte(void **state);
void foreign_blocks(void **state);
void hostile_blocks(void **state);
void import_misuse(void **state);
void partial_block(void **state);

#endif
