/* proto_examples.c - one full message of each kind. Values are fixed: golden files hold them. */
#include "worker/proto_examples.h"

#include <math.h>
#include <string.h>

#include "worker/proto.h"

static const struct wmsg_speed speed = {0.005, 0.002, 1e-7, 0.01, 0.005, 5e-6, 0.002, 1e-9, 12, 34, 56};

static void example_register(struct buf *out)
{
    struct wmsg_register msg = {.name = "prefill-1",
        .role = WMSG_ROLE_PREFILL,
        .model = "smollm2-135m",
        .engine = "llama v0.5.0",
        .host_id = "host-a",
        .record = {1, 2, 3, 4},
        .record_size = 4,
        .block_tokens = 64,
        .block_size = 1474560,
        .bytes_per_token = 23040,
        .sequence_tokens_max = 8192,
        .context_tokens = 16384,
        .sequences_max = 16,
        .vocab_size = 49152,
        .has_chat = true,
        .has_store = true,
        .speed = speed};

    memset(msg.uuid, 0xab, sizeof(msg.uuid));
    wmsg_register_encode(&msg, out);
}

static void example_status(struct buf *out)
{
    wmsg_status_encode(&(struct wmsg_status){1234567, 1, 2, 3, 4, 5000, 600, 700, false, true, 2, 1474560, speed}, out);
}

static void example_chat(struct buf *out)
{
    static const struct wmsg_chat messages[] = {{"system", "Be brief."}, {"user", "缓存?"}};

    wmsg_tokenize_encode(&(struct wmsg_tokenize){.messages = messages, .message_count = 2}, out);
}

static void example_text(struct buf *out)
{
    wmsg_tokenize_encode(&(struct wmsg_tokenize){.text = "Once upon a time", .tokens_max = 8192}, out);
}

static void example_tokens(struct buf *out)
{
    wmsg_tokens_encode((const uint32_t[]){1, 2, 49151}, 3, out);
}

static void example_run(struct buf *out)
{
    static const uint32_t tokens[] = {10, 11, 12, 13};
    static const struct mc_logit_bias bias[] = {{7, -100}, {8, 1.5f}};
    struct wmsg_run msg = {.kind = WMSG_DECODE,
        .tokens = tokens,
        .token_count = 4,
        .answer_count = 1,
        .max_tokens = 128,
        .cache_read = true,
        .cache_write = true,
        .want_logprob = true,
        .load_tokens = 64,
        .copy_blocks = 1,
        .hold_ms = 10000,
        .salt = (const uint8_t *)"tenant",
        .salt_size = 6};

    mc_sampling_init(&msg.sampling);
    msg.sampling.temperature = 0.7f;
    msg.sampling.seed = 42;
    msg.sampling.bias = bias;
    msg.sampling.bias_count = 2;
    wmsg_run_encode(&msg, out);
}

static void example_progress(struct buf *out)
{
    wmsg_event_encode(&(struct wmsg_event){.kind = WMSG_LOADED, .progress = {128, 64, 3}}, out);
}

static void example_token(struct buf *out)
{
    wmsg_event_encode(&(struct wmsg_event){.kind = WMSG_TOKEN,
                          .token = {5, 4711, false, (const uint8_t *)"\xe7\xbc", 2, 99000, -0.25f}},
        out);
}

static void example_finish(struct buf *out)
{
    wmsg_finish_encode(
        &(struct wmsg_finish){WMSG_ERROR, 7, 200, 128, 72, 3, 4, 1, 10, 20, 30, 40, 50, "corrupt", "the engine failed"},
        out);
}

static void example_release(struct buf *out)
{
    wmsg_release_encode(&(struct wmsg_release){17}, out);
}

static const struct {
    const char *name;
    void (*encode)(struct buf *out);
} examples[PROTO_EXAMPLES] = {{"register", example_register}, {"status", example_status},
    {"tokenize-chat", example_chat}, {"tokenize-text", example_text}, {"tokens", example_tokens}, {"run", example_run},
    {"loaded", example_progress}, {"token", example_token}, {"finish", example_finish}, {"release", example_release}};

const char *proto_example(unsigned index, struct buf *out)
{
    examples[index].encode(out);
    return examples[index].name;
}

/* Plain messages: decode and encode again. */
#define AGAIN(kind)                                                                                                    \
    do {                                                                                                               \
        struct wmsg_##kind msg;                                                                                        \
        status = wmsg_##kind##_decode(body, &msg, bad);                                                                \
        if (status == MC_OK)                                                                                           \
            wmsg_##kind##_encode(&msg, again);                                                                         \
    } while (0)

#define AGAIN_OWNED(kind)                                                                                              \
    do {                                                                                                               \
        struct wmsg_##kind msg;                                                                                        \
        status = wmsg_##kind##_decode(body, &msg, bad);                                                                \
        if (status == MC_OK) {                                                                                         \
            wmsg_##kind##_encode(&msg, again);                                                                         \
            wmsg_##kind##_fini(&msg);                                                                                  \
        }                                                                                                              \
    } while (0)

enum mc_status proto_example_decode(unsigned index, struct slice body, struct buf *again, const char **bad)
{
    struct wmsg_tokens tokens;
    enum mc_status status;

    switch (index) {
    case 0: AGAIN(register); break;
    case 1: AGAIN(status); break;
    case 2:
    case 3: AGAIN_OWNED(tokenize); break;
    case 4:
        status = wmsg_tokens_decode(body, &tokens, bad);
        if (status == MC_OK) {
            wmsg_tokens_encode(tokens.tokens, tokens.count, again);
            wmsg_tokens_fini(&tokens);
        }
        break;
    case 5: AGAIN_OWNED(run); break;
    case 6:
    case 7: AGAIN(event); break;
    case 8: AGAIN(finish); break;
    default: AGAIN(release);
    }
    return status;
}
