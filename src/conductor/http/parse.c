/* parse.c - the body of an OpenAI request as a struct.
 *
 * params[] is the list of every parameter of the two calls, with those that clients of vLLM and SGLang send beside OpenAI's. A row
 * without a value list is read below; a row with one is not supported and must have one of these values. Null asks for nothing
 * and will do for every name. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "conductor/http/parse.h"
#include "net/json.h"

enum { CHAT = 1 << API_CHAT, COMPLETION = 1 << API_COMPLETION, BOTH = CHAT | COMPLETION };

#define ANY "any"

static const struct param {
    const char *name;
    unsigned kinds;
    const char *neutral; /* JSON list of values that change nothing; ANY; NULL: it is read */
} params[] = {
    {"model", BOTH, NULL},
    {"messages", CHAT, NULL},
    {"prompt", COMPLETION, NULL},
    {"max_tokens", BOTH, NULL},
    {"max_completion_tokens", CHAT, NULL},
    {"stream", BOTH, NULL},
    {"stream_options", BOTH, NULL},
    {"stop", BOTH, NULL},
    {"seed", BOTH, NULL},
    {"temperature", BOTH, NULL},
    {"top_p", BOTH, NULL},
    {"top_k", BOTH, NULL},
    {"min_p", BOTH, NULL},
    {"repetition_penalty", BOTH, NULL},
    {"frequency_penalty", BOTH, NULL},
    {"presence_penalty", BOTH, NULL},
    {"logit_bias", BOTH, NULL},
    {"ignore_eos", BOTH, NULL},
    {"cache_salt", BOTH, NULL},
    {"n", BOTH, "[1]"},
    {"best_of", BOTH, "[1]"},
    {"echo", BOTH, "[false]"},
    {"suffix", COMPLETION, "[\"\"]"},
    {"logprobs", BOTH, "[false]"},
    {"top_logprobs", CHAT, "[0]"},
    {"response_format", BOTH, "[{\"type\":\"text\"}]"},
    {"tools", CHAT, "[[]]"},
    {"tool_choice", CHAT, "[\"none\",\"auto\"]"},
    {"parallel_tool_calls", CHAT, "[true,false]"},
    {"functions", CHAT, "[[]]"},
    {"function_call", CHAT, "[\"none\",\"auto\"]"},
    {"modalities", CHAT, "[[\"text\"]]"},
    {"audio", CHAT, "[]"},
    {"prediction", CHAT, "[]"},
    {"reasoning_effort", CHAT, "[\"none\"]"},
    {"verbosity", CHAT, "[\"medium\"]"},
    {"web_search_options", CHAT, "[]"},
    {"service_tier", BOTH, "[\"auto\",\"default\"]"},
    {"store", BOTH, "[false]"},
    {"metadata", BOTH, ANY},
    {"user", BOTH, ANY},
    {"safety_identifier", CHAT, ANY},
    {"prompt_cache_key", CHAT, ANY},
    {"prompt_cache_retention", CHAT, ANY},
    /* vLLM, SGLang */
    {"min_tokens", BOTH, "[0]"},
    {"stop_token_ids", BOTH, "[[]]"},
    {"bad_words", BOTH, "[[]]"},
    {"include_stop_str_in_output", BOTH, "[false]"},
    {"no_stop_trim", BOTH, "[false]"},
    {"skip_special_tokens", BOTH, "[true]"},
    {"spaces_between_special_tokens", BOTH, "[true]"},
    {"detokenize", BOTH, "[true]"},
    {"use_beam_search", BOTH, "[false]"},
    {"length_penalty", BOTH, "[1]"},
    {"priority", BOTH, "[0]"},
    {"return_token_ids", BOTH, "[false]"},
    {"return_tokens_as_token_ids", BOTH, "[false]"},
    {"return_hidden_states", BOTH, "[false]"},
    {"add_special_tokens", COMPLETION, "[true]"},
    {"add_generation_prompt", CHAT, "[true]"},
    {"continue_final_message", CHAT, "[false]"},
    {"chat_template_kwargs", CHAT, "[{}]"},
    {"documents", CHAT, "[[]]"},
    /* how to show what a model thought before it answered: none here does */
    {"include_reasoning", CHAT, "[true,false]"},
    {"separate_reasoning", CHAT, "[true,false]"},
    {"stream_reasoning", CHAT, "[true,false]"},
};

enum { PARAMS = sizeof params / sizeof params[0], MAX_TOKENS_MAX = WMSG_TOKENS_MAX };

static const struct param *param_find(enum api_kind kind, const char *name)
{
    for (size_t i = 0; i < PARAMS; i++) {
        if (params[i].kinds & 1u << kind && strcmp(params[i].name, name) == 0)
            return &params[i];
    }
    return NULL;
}

/* Numbers by value: 1 and 1.0 are the same wish. */
static bool is_same(const json_t *a, const json_t *b)
{
    return json_is_number(a) && json_is_number(b) ? json_number_value(a) == json_number_value(b) : json_equal(a, b);
}

static bool is_neutral(const struct param *param, const json_t *value)
{
    bool equal = false;
    json_t *list, *neutral;
    size_t i;

    if (!param->neutral || strcmp(param->neutral, ANY) == 0)
        return true;
    list = json_loads(param->neutral, 0, NULL);
    json_array_foreach(list, i, neutral) equal = equal || is_same(neutral, value);
    json_decref(list);
    return equal;
}

static void check_params(struct json_in *in, enum api_kind kind)
{
    const char *name;
    json_t *value;

    json_object_foreach(in->object, name, value)
    {
        const struct param *param = param_find(kind, name);

        if (json_is_null(value))
            continue;
        if (!param)
            json_fail(in, name, "is no parameter known here");
        else if (!is_neutral(param, value))
            json_fail(in, name, "is not supported with this value");
    }
}

/* NULL: it is no string, or one with a NUL, which a tokeniser would take for its end. */
static const char *text_of(const json_t *value)
{
    const char *text = json_string_value(value);

    return text && strlen(text) == json_string_length(value) ? text : NULL;
}

/* --- messages --- */

/* Text parts of a message, one after the other; other kinds of parts are refused. */
static const char *join_parts(struct json_in *in, struct api_request *out, const json_t *parts)
{
    struct buf text;
    const char *joined = NULL;
    json_t *part, *value;
    size_t i;

    buf_init(&text, WMSG_CHAT_BYTES_MAX);
    json_array_foreach(parts, i, part)
    {
        const char *type = text_of(json_object_get(part, "type"));
        const char *piece = text_of(json_object_get(part, "text"));

        if (!type || strcmp(type, "text") != 0 || !piece) {
            json_fail(in, "messages", "has content of parts that are not all of type 'text': part %zu", i);
            goto undo_text;
        }
        buf_append_str(&text, piece);
    }
    value = json_stringn(buf_cstr(&text), text.len);
    if (buf_status(&text) != MC_OK || !value || json_array_append_new(out->made, value) != 0)
        json_fail(in, "messages", "has content that is too long");
    else
        joined = json_string_value(value);
undo_text:
    buf_fini(&text);
    return joined;
}

static const char *message_role(struct json_in *in, const json_t *message, size_t index)
{
    static const char *const roles[] = {"system", "user", "assistant", "tool"};
    const char *role = text_of(json_object_get(message, "role"));

    if (role && strcmp(role, "developer") == 0)
        return "system";
    for (size_t i = 0; role && i < sizeof roles / sizeof roles[0]; i++) {
        if (strcmp(role, roles[i]) == 0)
            return role;
    }
    json_fail(in, "messages", "has no good role in message %zu: it must be system, developer, user, assistant or tool",
        index);
    return NULL;
}

static const char *message_content(struct json_in *in, struct api_request *out, const json_t *message, size_t index)
{
    json_t *content = json_object_get(message, "content");

    if (text_of(content))
        return text_of(content);
    if (json_is_array(content))
        return join_parts(in, out, content);
    json_fail(in, "messages",
        "has no good content in message %zu: it must be a string without NUL, or a list of text parts", index);
    return NULL;
}

static void read_messages(struct json_in *in, struct api_request *out)
{
    json_t *list = json_need_array(in, "messages"), *message;
    size_t count = json_array_size(list), i, bytes = 0;

    if (list && (count == 0 || count > WMSG_CHAT_MAX))
        json_fail(in, "messages", "must have 1 to %d entries, it has %zu", WMSG_CHAT_MAX, count);
    if (in->status != MC_OK)
        return;
    out->messages = calloc(count, sizeof *out->messages);
    if (!out->messages) {
        json_fail(in, "messages", "is too much: out of memory");
        return;
    }
    json_array_foreach(list, i, message)
    {
        out->messages[i].role = message_role(in, message, i);
        out->messages[i].content = message_content(in, out, message, i);
        if (in->status != MC_OK)
            return;
        bytes += strlen(out->messages[i].content);
    }
    if (bytes > WMSG_CHAT_BYTES_MAX)
        json_fail(in, "messages", "is %zu bytes long, the limit is %d", bytes, WMSG_CHAT_BYTES_MAX);
    out->message_count = (uint32_t)count;
}

/* --- prompt of a completion: text, a list of one text, or tokens --- */

static void read_prompt_tokens(struct json_in *in, struct api_request *out, const json_t *list)
{
    size_t count = json_array_size(list), i;
    json_t *value;

    if (count > WMSG_TOKENS_MAX) {
        json_fail(in, "prompt", "has %zu tokens, the limit is %d", count, WMSG_TOKENS_MAX);
        return;
    }
    out->tokens = calloc(count, sizeof *out->tokens);
    if (!out->tokens) {
        json_fail(in, "prompt", "is too much: out of memory");
        return;
    }
    json_array_foreach(list, i, value)
    {
        json_int_t token = json_integer_value(value);

        if (!json_is_integer(value) || token < 0 || token > UINT32_MAX) {
            json_fail(in, "prompt", "has an entry that is no token id: %zu", i);
            return;
        }
        out->tokens[i] = (uint32_t)token;
    }
    out->token_count = (uint32_t)count;
}

static void read_prompt(struct json_in *in, struct api_request *out)
{
    json_t *prompt = json_object_get(in->object, "prompt"), *first = json_array_get(prompt, 0);

    if (json_array_size(prompt) == 1 && (json_is_string(first) || json_is_array(first)))
        prompt = first;
    if (text_of(prompt))
        out->text = text_of(prompt);
    else if (json_is_array(prompt) && json_is_integer(json_array_get(prompt, 0)))
        read_prompt_tokens(in, out, prompt);
    else
        json_fail(in, "prompt", "must be one text without NUL, or one list of token ids");
    if (out->text && strlen(out->text) > WMSG_CHAT_BYTES_MAX)
        json_fail(in, "prompt", "is longer than %d bytes", WMSG_CHAT_BYTES_MAX);
}

/* --- the rest --- */

static void read_stop(struct json_in *in, struct api_request *out)
{
    json_t *stop = json_object_get(in->object, "stop"), *value;
    size_t count = json_array_size(stop), i;

    if (!stop || json_is_null(stop))
        return;
    if (text_of(stop)) {
        out->stops[out->stop_count++] = text_of(stop);
    } else if (!json_is_array(stop) || count > MC_STOP_STRINGS_MAX) {
        json_fail(in, "stop", "must be a string or a list of at most %d strings", MC_STOP_STRINGS_MAX);
        return;
    }
    json_array_foreach(stop, i, value)
    {
        if (!text_of(value)) {
            json_fail(in, "stop", "has an entry that is no string: %zu", i);
            return;
        }
        out->stops[out->stop_count++] = text_of(value);
    }
    for (i = 0; i < out->stop_count; i++) {
        size_t len = strlen(out->stops[i]);

        if (len == 0 || len > MC_STOP_SIZE_MAX)
            json_fail(in, "stop", "has a string that is not 1 to %d bytes long", MC_STOP_SIZE_MAX);
    }
}

/* {"1234": -100, ...} */
static void read_logit_bias(struct json_in *in, struct api_request *out)
{
    json_t *map = json_opt_object(in, "logit_bias"), *value;
    const char *name;

    if (json_object_size(map) > MC_LOGIT_BIAS_MAX) {
        json_fail(in, "logit_bias", "has more than %d entries", MC_LOGIT_BIAS_MAX);
        return;
    }
    json_object_foreach(map, name, value)
    {
        char *end;
        unsigned long token = strtoul(name, &end, 10);
        double bias = json_number_value(value);

        if (*name < '0' || *name > '9' || *end || token > UINT32_MAX || !json_is_number(value) ||
            !(fabs(bias) <= 100)) {
            json_fail(in, "logit_bias", "must map token ids to numbers from -100 to 100");
            return;
        }
        out->bias[out->sampling.bias_count++] = (struct mc_logit_bias){(uint32_t)token, (float)bias};
    }
    out->sampling.bias = out->bias;
}

static void read_sampling(struct json_in *in, struct api_request *out)
{
    struct mc_sampling *s = &out->sampling;
    json_t *seed = json_object_get(in->object, "seed");

    mc_sampling_init(s);
    s->temperature = (float)json_opt_num(in, "temperature", 1, 0, 100);
    s->top_k = (uint32_t)json_opt_int(in, "top_k", 0, -1, INT32_MAX);
    if (s->top_k == UINT32_MAX) /* -1 is how others write "all" */
        s->top_k = 0;
    s->top_p = (float)json_opt_num(in, "top_p", 1, 0, 1);
    s->min_p = (float)json_opt_num(in, "min_p", 0, 0, 1);
    s->repetition_penalty = (float)json_opt_num(in, "repetition_penalty", 1, 0, 100);
    s->frequency_penalty = (float)json_opt_num(in, "frequency_penalty", 0, -2, 2);
    s->presence_penalty = (float)json_opt_num(in, "presence_penalty", 0, -2, 2);
    if (!(s->top_p > 0))
        json_fail(in, "top_p", "must be above 0 and at most 1");
    if (!(s->repetition_penalty > 0))
        json_fail(in, "repetition_penalty", "must be above 0 and at most 100");
    out->has_seed = seed && !json_is_null(seed);
    s->seed = (uint64_t)json_opt_int(in, "seed", 0, INT64_MIN, INT64_MAX);
    read_logit_bias(in, out);
}

/* Options of a stream that may be switched off, as they are. */
static bool is_extra_of_stream(const char *name)
{
    return strcmp(name, "include_obfuscation") == 0 || strcmp(name, "continuous_usage_stats") == 0;
}

static void read_stream(struct json_in *in, struct api_request *out)
{
    json_t *options = json_opt_object(in, "stream_options");
    const char *name;
    json_t *value;

    out->stream = json_opt_bool(in, "stream", false);
    if (options && !out->stream)
        json_fail(in, "stream_options", "is only allowed with stream");
    json_object_foreach(options, name, value)
    {
        if (strcmp(name, "include_usage") == 0 && json_is_boolean(value))
            out->include_usage = json_is_true(value);
        else if (!json_is_null(value) && !(json_is_false(value) && is_extra_of_stream(name)))
            json_fail(in, "stream_options", "has '%.32s' with a value that is not supported", name);
    }
}

static void read_length(struct json_in *in, struct api_request *out)
{
    int64_t old = json_opt_int(in, "max_tokens", 0, 1, MAX_TOKENS_MAX);
    int64_t new = out->kind == API_CHAT ? json_opt_int(in, "max_completion_tokens", 0, 1, MAX_TOKENS_MAX) : 0;

    if (old && new &&old != new)
        json_fail(in, "max_tokens", "and max_completion_tokens contradict each other");
    out->max_tokens = (uint32_t)(new ? new : old);
    if (out->kind == API_COMPLETION && !out->max_tokens)
        out->max_tokens = 16; /* as the API says */
}

static void read_body(struct json_in *in, struct api_request *out)
{
    check_params(in, out->kind);
    out->model = json_need_str(in, "model");
    if (out->kind == API_CHAT)
        read_messages(in, out);
    else
        read_prompt(in, out);
    read_length(in, out);
    read_stream(in, out);
    read_stop(in, out);
    read_sampling(in, out);
    out->ignore_end = json_opt_bool(in, "ignore_eos", false);
    out->salt = json_opt_str(in, "cache_salt", "");
    if (in->status == MC_OK && strlen(out->salt) > MC_SALT_SIZE_MAX)
        json_fail(in, "cache_salt", "is longer than %d bytes", MC_SALT_SIZE_MAX);
}

enum mc_status api_request_parse(
    enum api_kind kind, struct slice body, struct api_request *out, struct api_error *error)
{
    struct json_in in;

    *error = (struct api_error){0};
    memset(out, 0, sizeof *out);
    out->kind = kind;
    out->body = json_parse(body, error->message, sizeof error->message);
    if (!out->body)
        return MC_EINVAL;
    out->made = json_array();
    if (!out->made) {
        api_request_fini(out);
        return MC_ENOMEM;
    }
    if (!json_is_object(out->body)) {
        strcpy(error->message, "the body must be a JSON object");
        api_request_fini(out);
        return MC_EINVAL;
    }
    in = json_in_of(out->body);
    read_body(&in, out);
    if (in.status != MC_OK) {
        memcpy(error->param, in.param, sizeof in.param);
        memcpy(error->message, in.message, sizeof in.message);
        api_request_fini(out);
    }
    return in.status;
}

void api_request_fini(struct api_request *request)
{
    free(request->messages);
    free(request->tokens);
    json_decref(request->made);
    json_decref(request->body);
    memset(request, 0, sizeof *request);
}
