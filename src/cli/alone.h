/* alone.h - the engine alone, in a process of its own: what every figure is compared with.
 *
 *   alone_start -> child `mooncake alone` opens the same engine with the same options, all cores
 *   alone_ask   -> one line of JSON down, one line back; the engine keeps nothing between two asks
 *   alone_stop  -> end of its standard input ends it
 *
 * Threads: the owner's; alone_ask blocks until the answer is there. */
#ifndef CLI_ALONE_H
#define CLI_ALONE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "cli/cli.h"

struct alone;

struct alone_answer {
    bool ok;
    double ttft_ms, tbt_ms_p50;
    int64_t prompt_tokens, answer_tokens;
    struct buf text; /* given: alone_answer_fini() */
    char error[256];
};

/* `engine` "llama" or "synthetic" (what the service answers with), the other options are ours. False: said on standard error. */
bool alone_start(struct cli *cli, const char *engine, struct alone **out);
void alone_ask(struct alone *alone, json_t *messages, int64_t max_tokens, struct alone_answer *answer);
void alone_answer_fini(struct alone_answer *answer);
void alone_stop(struct alone *alone);

/* The child's side: the hidden command. */
int cmd_alone(struct cli *cli);

#endif
