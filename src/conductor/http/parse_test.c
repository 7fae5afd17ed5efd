/* parse_test.c - bodies of OpenAI requests: what is read, what is accepted because it changes nothing, and that every refusal
 * names the field. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "conductor/http/parse.h"

static enum mc_status parse(enum api_kind kind, const char *body, struct api_request *out, struct api_error *error)
{
    return api_request_parse(kind, slice_str(body), out, error);
}

/* A chat body with these members added. */
static const char *chat(const char *more)
{
    static char body[4096];

    snprintf(body, sizeof body, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]%s}", more);
    return body;
}

static void reads_everything(void **state)
{
    struct api_request r;
    struct api_error e;
    const char *body =
        "{\"model\":\"m\",\"messages\":[{\"role\":\"developer\",\"content\":\"be brief\"},"
        "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\"}]}],"
        "\"max_completion_tokens\":7,\"stream\":true,\"stream_options\":{\"include_usage\":true},\"stop\":[\"x\","
        "\"yz\"],"
        "\"seed\":-5,\"temperature\":0.5,\"top_p\":0.9,\"top_k\":40,\"min_p\":0.05,\"frequency_penalty\":1,"
        "\"presence_penalty\":-1,\"repetition_penalty\":1.1,\"logit_bias\":{\"17\":-100,\"4\":2.5},\"ignore_eos\":true,"
        "\"cache_salt\":\"tenant\",\"n\":1,\"user\":\"me\",\"tools\":[],\"response_format\":{\"type\":\"text\"}}";

    assert_int_equal(parse(API_CHAT, body, &r, &e), MC_OK);
    assert_string_equal(r.model, "m");
    assert_int_equal(r.message_count, 2);
    assert_string_equal(r.messages[0].role, "system");
    assert_string_equal(r.messages[1].content, "ab");
    assert_int_equal(r.max_tokens, 7);
    assert_true(r.stream && r.include_usage && r.ignore_end && r.has_seed);
    assert_int_equal(r.stop_count, 2);
    assert_string_equal(r.stops[1], "yz");
    assert_true((int64_t)r.sampling.seed == -5);
    assert_true(r.sampling.temperature == 0.5f && r.sampling.top_k == 40);
    assert_int_equal(r.sampling.bias_count, 2);
    assert_int_equal(r.bias[0].token, 17);
    assert_string_equal(r.salt, "tenant");
    assert_null(mc_sampling_check(&r.sampling, 1000));
    api_request_fini(&r);
}

static void reads_completions(void **state)
{
    struct api_request r;
    struct api_error e;

    assert_int_equal(parse(API_COMPLETION, "{\"model\":\"m\",\"prompt\":\"once\"}", &r, &e), MC_OK);
    assert_string_equal(r.text, "once");
    assert_int_equal(r.max_tokens, 16);
    api_request_fini(&r);
    assert_int_equal(parse(API_COMPLETION, "{\"model\":\"m\",\"prompt\":[\"once\"],\"max_tokens\":3}", &r, &e), MC_OK);
    assert_string_equal(r.text, "once");
    assert_int_equal(r.max_tokens, 3);
    api_request_fini(&r);
    assert_int_equal(parse(API_COMPLETION, "{\"model\":\"m\",\"prompt\":[1,2,4294967295]}", &r, &e), MC_OK);
    assert_int_equal(r.token_count, 3);
    assert_true(r.tokens[2] == UINT32_MAX);
    api_request_fini(&r);
}

static void names_the_bad_field(void **state)
{
    static const struct {
        const char *more, *param;
    } cases[] = {
        {",\"temperature\":\"hot\"", "temperature"},
        {",\"temperature\":-1", "temperature"},
        {",\"top_p\":0", "top_p"},
        {",\"top_p\":1.5", "top_p"},
        {",\"min_p\":2", "min_p"},
        {",\"top_k\":-2", "top_k"},
        {",\"frequency_penalty\":3", "frequency_penalty"},
        {",\"repetition_penalty\":0", "repetition_penalty"},
        {",\"max_tokens\":0", "max_tokens"},
        {",\"max_tokens\":1.5", "max_tokens"},
        {",\"max_tokens\":3,\"max_completion_tokens\":4", "max_tokens"},
        {",\"stop\":\"\"", "stop"},
        {",\"stop\":[1]", "stop"},
        {",\"stop\":{}", "stop"},
        {",\"stream\":1", "stream"},
        {",\"stream_options\":{\"include_usage\":true}", "stream_options"},
        {",\"stream\":true,\"stream_options\":{\"what\":true}", "stream_options"},
        {",\"logit_bias\":{\"x\":1}", "logit_bias"},
        {",\"logit_bias\":{\"1\":101}", "logit_bias"},
        {",\"seed\":1.5", "seed"},
        {",\"n\":2", "n"},
        {",\"tools\":[{}]", "tools"},
        {",\"tool_choice\":\"required\"", "tool_choice"},
        {",\"response_format\":{\"type\":\"json_object\"}", "response_format"},
        {",\"logprobs\":true", "logprobs"},
        {",\"suffix\":\"x\"", "suffix"}, /* of completions only */
        {",\"min_tokens\":1", "min_tokens"},
        {",\"chat_template_kwargs\":{\"a\":1}", "chat_template_kwargs"},
        {",\"stream\":true,\"stream_options\":{\"continuous_usage_stats\":true}", "stream_options"},
        {",\"stop\":\"a\\u0000b\"", "stop"},
        {",\"bananas\":1", "bananas"},
        {",\"cache_salt\":7", "cache_salt"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct api_request r;
        struct api_error e;

        assert_int_equal(parse(API_CHAT, chat(cases[i].more), &r, &e), MC_EINVAL);
        assert_string_equal(e.param, cases[i].param);
        assert_non_null(strstr(e.message, cases[i].param));
    }
}

static void neutral_values_pass(void **state)
{
    static const char *const cases[] = {
        "",
        ",\"n\":null",
        ",\"logprobs\":false",
        ",\"tools\":null",
        ",\"tool_choice\":\"none\"",
        ",\"modalities\":[\"text\"]",
        ",\"store\":false",
        ",\"metadata\":{\"a\":\"b\"}",
        ",\"top_k\":-1",
        ",\"stop\":null",
        ",\"max_tokens\":null",
        ",\"service_tier\":\"auto\"",
        ",\"length_penalty\":1.0,\"n\":1.0",
        ",\"min_tokens\":0,\"stop_token_ids\":[],\"skip_special_tokens\":true,\"add_generation_prompt\":true",
        ",\"guided_json\":null,\"regex\":null",
        ",\"stream\":true,\"stream_options\":{\"include_usage\":true,\"continuous_usage_stats\":false}",
        ",\"stream\":false",
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct api_request r;
        struct api_error e;

        assert_int_equal(parse(API_CHAT, chat(cases[i]), &r, &e), MC_OK);
        api_request_fini(&r);
    }
}

static void refuses_bad_messages(void **state)
{
    static const char *const cases[] = {
        "[]",
        "{}",
        "[1]",
        "[{\"role\":\"king\",\"content\":\"x\"}]",
        "[{\"role\":\"user\"}]",
        "[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{}}]}]",
        "[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]",
        "[{\"content\":\"x\"}]",
        "[{\"role\":\"user\",\"content\":\"a\\u0000b\"}]",
        "[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\\u0000b\"}]}]",
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct api_request r;
        struct api_error e;
        char body[512];

        snprintf(body, sizeof body, "{\"model\":\"m\",\"messages\":%s}", cases[i]);
        assert_int_equal(parse(API_CHAT, body, &r, &e), MC_EINVAL);
        assert_string_equal(e.param, "messages");
    }
}

static void refuses_what_is_no_object(void **state)
{
    static const char *const cases[] = {
        "", "[]", "3", "{", "{\"model\":\"m\"", "{\"model\":\"m\",\"model\":\"n\"}", "\xff"};

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct api_request r;
        struct api_error e;

        assert_int_equal(parse(API_CHAT, cases[i], &r, &e), MC_EINVAL);
        assert_true(*e.message);
    }
}

static void refuses_bad_prompts(void **state)
{
    static const char *const cases[] = {
        "null", "7", "[]", "[\"a\",\"b\"]", "[-1]", "[1,\"a\"]", "[4294967296]", "[[1],[2]]", "\"a\\u0000b\""};

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct api_request r;
        struct api_error e;
        char body[128];

        snprintf(body, sizeof body, "{\"model\":\"m\",\"prompt\":%s}", cases[i]);
        assert_int_equal(parse(API_COMPLETION, body, &r, &e), MC_EINVAL);
        assert_string_equal(e.param, "prompt");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_everything),
        cmocka_unit_test(reads_completions),
        cmocka_unit_test(names_the_bad_field),
        cmocka_unit_test(neutral_values_pass),
        cmocka_unit_test(refuses_bad_messages),
        cmocka_unit_test(refuses_what_is_no_object),
        cmocka_unit_test(refuses_bad_prompts),
    };

    return cmocka_run_group_tests_name("parse", tests, NULL, NULL);
}
