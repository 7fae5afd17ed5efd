/* tokenize.c - text to tokens, on the thread of the connection: so not for longer than what fits is worth.
 *
 * A text far longer than the context (500 KB took llama.cpp's tokenizer a second) must not keep that thread from answering pings. So a
 * part from the beginning is tokenised that is long enough for most texts of tokens_max tokens, then one twice as long, until one has
 * too many tokens or is the whole. Most prompts are tokenised once; none costs more than twice its length. */
#include <stdlib.h>
#include <string.h>

#include "worker/impl.h"

enum {
    BYTES_PER_TOKEN = 8, /* English has about 4, Chinese 3 */
    CUT_SLACK = 64,      /* tokens that the last word of a part may have more than as a part of the whole */
};

/* Chat messages as the text the model was trained on. *text is given. */
static enum mc_status chat_text(
    const struct mc_engine *engine, const struct wmsg_tokenize *msg, char **text, size_t *length)
{
    struct mc_chat_message *messages = malloc(msg->message_count * sizeof(*messages));
    enum mc_status status;
    char *dst = NULL;

    if (!messages)
        return MC_ENOMEM;
    for (uint32_t i = 0; i < msg->message_count; i++)
        messages[i] = (struct mc_chat_message){msg->messages[i].role, msg->messages[i].content};
    status = mc_engine_chat(engine, messages, msg->message_count, true, NULL, 0, length);
    if (status == MC_ETOOBIG || status == MC_OK) {
        size_t size = *length + 1;

        dst = malloc(size);
        status = dst ? mc_engine_chat(engine, messages, msg->message_count, true, dst, size, length) : MC_ENOMEM;
    }
    free(messages);
    if (status != MC_OK)
        free(dst);
    else
        *text = dst;
    return status;
}

/* Tokens of the first `length` bytes. *tokens is given. */
static enum mc_status tokens_of(
    const struct mc_engine *engine, const char *text, size_t length, uint32_t flags, uint32_t **tokens, size_t *count)
{
    enum mc_status status;
    size_t max;

    *tokens = NULL;
    /* A guess of three bytes a token is nearly always enough; else the call says what is. */
    for (max = length / 3 + 16;; max = *count) {
        free(*tokens);
        *tokens = malloc(max * sizeof(**tokens));
        status = *tokens ? mc_engine_tokenize(engine, text, length, flags, *tokens, max, count) : MC_ENOMEM;
        if (status != MC_ETOOBIG || *count <= max)
            break;
    }
    if (status != MC_OK) {
        free(*tokens);
        *tokens = NULL;
    }
    return status;
}

/* At most `max` bytes, ending between two characters. */
static size_t part_of(const char *text, size_t length, size_t max)
{
    if (length <= max)
        return length;
    while (max && ((unsigned char)text[max] & 0xc0) == 0x80)
        max--;
    return max;
}

static enum mc_status tokens_up_to(const struct mc_engine *engine, const char *text, size_t length, uint32_t flags,
    size_t tokens_max, uint32_t **tokens, size_t *count)
{
    for (size_t bytes = tokens_max * BYTES_PER_TOKEN;; bytes *= 2) {
        size_t part = part_of(text, length, bytes);
        enum mc_status status = tokens_of(engine, text, part, flags, tokens, count);

        if (status != MC_OK || (part == length && *count <= WMSG_TOKENS_MAX))
            return status;
        free(*tokens);
        *tokens = NULL;
        if (part == length)
            return MC_ETOOBIG;
        if (*count > tokens_max + CUT_SLACK) {
            *count -= CUT_SLACK;
            return MC_ETOOBIG;
        }
    }
}

enum mc_status worker_tokenize(
    const struct mc_engine *engine, const struct wmsg_tokenize *msg, uint32_t **tokens, size_t *count)
{
    uint32_t flags = MC_TOKENIZE_BOS | (msg->message_count ? MC_TOKENIZE_SPECIAL : 0);
    size_t max = msg->tokens_max && msg->tokens_max < WMSG_TOKENS_MAX ? msg->tokens_max : WMSG_TOKENS_MAX;
    const char *text = msg->text ? msg->text : "";
    size_t length = strlen(text);
    char *chat = NULL;
    enum mc_status status = MC_OK;

    if (msg->message_count) {
        status = chat_text(engine, msg, &chat, &length);
        text = chat;
    }
    if (status == MC_OK)
        status = tokens_up_to(engine, text, length, flags, max, tokens, count);
    free(chat);
    return status;
}
