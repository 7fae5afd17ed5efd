/* worker_test.c - whole workers under a scripted Conductor: what is said is what the engine alone would say, whatever
 * happens around it.
 *
 * Goal: equality of answers with reuse, across workers, after deaths and under every fault of the Store.
 * Method: real frames over loopback, synthetic engines (which check every byte of KV they are given), a Store in memory that
 * is slow, dead or forgetful on demand. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/rng.h"
#include "tests/worker/memory_fixture.h"

enum { PROMPT_MAX = 2100 };

static uint32_t prompt[PROMPT_MAX + 400];
static struct pair_result pair;
static struct answer answer, other;

static unsigned add(enum wmsg_role role, const char *master)
{
    return fixture_add(&fx, &(struct fixture_setup){.role = role, .master = master});
}

/* Prefill here, decode there, without any Store: everything is computed twice and the answer is the same. */
static void without_store(void **state)
{
    unsigned p = add(WMSG_ROLE_PREFILL, NULL), d = add(WMSG_ROLE_DECODE, NULL);
    struct baseline_run want;
    struct wmsg_run run;

    for (uint32_t n = 1; n < 300; n += 37) {
        fixture_prompt(fx.alone, n & 1, n, prompt, n);
        run = fixture_run(WMSG_PREFILL, prompt, n, 40);
        fixture_baseline(&fx, &run, &want);
        fixture_pair(&fx, p, d, &run, &pair);
        assert_answer(&want, pair.tokens, pair.count);
        assert_int_equal(pair.prefill.finish.reused_tokens, 0);
        assert_int_equal(pair.prefill.finish.computed_tokens, n);
        baseline_run_fini(&want);
    }
}

/* 200 prompts in two languages, lengths around block boundaries, half of them continuing a prefix that is stored. */
static void equality(void **state)
{
    unsigned p = add(WMSG_ROLE_PREFILL, MASTER), d = add(WMSG_ROLE_DECODE, MASTER);
    uint64_t reused = 0;
    struct baseline_run want;
    struct wmsg_run run;

    for (uint32_t i = 0; i < 200; i++) {
        uint32_t n = 64 * (1 + i % 6) + i % 3 - 1, shared = 64 * (i % 4) + (i / 4) % 3;

        fixture_prompt(fx.alone, i & 1, i & 1, prompt, n);
        if (shared < n)
            fixture_prompt(fx.alone, i & 1, 1000 + i, prompt + shared, n - shared);
        run = fixture_run(WMSG_PREFILL, prompt, n, 70);
        fixture_baseline(&fx, &run, &want);
        fixture_pair(&fx, p, d, &run, &pair);
        assert_answer(&want, pair.tokens, pair.count);
        assert_true(pair.prefill.finish.reused_tokens <= (n - 1) / 64 * 64);
        assert_int_equal(pair.prefill.finish.reused_tokens + pair.prefill.finish.computed_tokens, n);
        if (pair.count > 1)
            assert_int_equal(pair.decode.finish.reused_tokens, n / 64 * 64);
        reused += pair.prefill.finish.reused_tokens;
        baseline_run_fini(&want);
    }
    assert_true(reused > 200 * 64);
}

/* Sampling with a temperature goes on across workers as if it were one. */
static void sampled(void **state)
{
    unsigned p = add(WMSG_ROLE_PREFILL, MASTER), d = add(WMSG_ROLE_DECODE, MASTER);
    struct baseline_run want;
    struct wmsg_run run;

    for (uint32_t i = 0; i < 10; i++) {
        fixture_prompt(fx.alone, false, i, prompt, 150);
        run = fixture_run(WMSG_PREFILL, prompt, 150, 80);
        run.sampling.temperature = 0.9f;
        run.sampling.top_p = 0.95f;
        run.sampling.frequency_penalty = 0.4f;
        run.sampling.repetition_penalty = 1.1f;
        run.sampling.seed = 42 + i;
        fixture_baseline(&fx, &run, &want);
        fixture_pair(&fx, p, d, &run, &pair);
        assert_answer(&want, pair.tokens, pair.count);
        baseline_run_fini(&want);
    }
}

/* An answer's last frame does not wait for its puts. */
static struct memory_store_counts wait_objects(uint64_t objects)
{
    uint64_t until = deadline_after_ms(now_ns(), 30000);
    struct memory_store_counts counts;

    do {
        assert_true(now_ns() < until);
        usleep(500);
        memory_store_counts(&counts);
    } while (counts.objects < objects);
    return counts;
}

/* One worker does it all; a second turn finds the first one's answer in the cache. */
static void second_turn(void **state)
{
    unsigned w = add(WMSG_ROLE_BOTH, MASTER);
    struct memory_store_counts counts;
    struct wmsg_run run;
    struct baseline_run want;
    uint32_t n = 100, total;

    fixture_prompt(fx.alone, false, 5, prompt, n);
    run = fixture_run(WMSG_GENERATE, prompt, n, 200);
    run.ignore_end = true;
    script_run(fx.script, w, &run, &answer);
    answer_wait(&answer);
    assert_int_equal(answer.finish.reason, WMSG_LENGTH);
    assert_int_equal(answer.count, 200);
    counts = wait_objects(299 / 64);
    assert_int_equal(counts.objects, 299 / 64);
    assert_int_equal(counts.decode_objects, 299 / 64 - 1);

    memcpy(prompt + n, answer.tokens, 200 * sizeof(*prompt));
    fixture_prompt(fx.alone, false, 6, prompt + n + 200, 30);
    total = n + 200 + 30;
    run = fixture_run(WMSG_GENERATE, prompt, total, 20);
    fixture_baseline(&fx, &run, &want);
    script_run(fx.script, w, &run, &answer);
    answer_wait(&answer);
    assert_int_equal(answer.finish.reused_tokens, 299 / 64 * 64);
    assert_answer(&want, answer.tokens, answer.count);
    baseline_run_fini(&want);
}

/* What was loaded is not put again, but for those that the scheduler had fetched from elsewhere. */
static void fetched_blocks_are_put_again(void **state)
{
    static const uint32_t copies[] = {0, 3, 7, 8};
    unsigned w = add(WMSG_ROLE_BOTH, MASTER);
    struct memory_store_counts before, after;
    struct wmsg_run run;

    fixture_prompt(fx.alone, false, 12, prompt, 460);
    run = fixture_run(WMSG_PREFILL, prompt, 460, 2); /* its last frame waits for its puts */
    script_run(fx.script, w, &run, &answer);
    answer_wait(&answer);
    for (size_t i = 0; i < sizeof(copies) / sizeof(copies[0]); i++) {
        run.load_tokens = 7 * 64;
        run.copy_blocks = copies[i];
        memory_store_counts(&before);
        script_run(fx.script, w, &run, &answer);
        answer_wait(&answer);
        assert_int_equal(answer.finish.reused_tokens, 7 * 64);
        memory_store_counts(&after);
        assert_int_equal(after.puts - before.puts, copies[i] < 7 ? copies[i] : 7);
    }
}

/* A long prompt's blocks are in the Store while it is computed: four fifths of its bytes before the first token. */
static void stored_before_first_token(void **state)
{
    unsigned w = fixture_add(
        &fx, &(struct fixture_setup){.role = WMSG_ROLE_PREFILL, .master = MASTER, .prefill_tokens_per_s = 2000});
    const struct mc_engine_info *info = mc_engine_info(fx.alone);
    struct wmsg_run run;
    struct mc_block_chain chain;
    struct mc_block_id ids[32];
    uint32_t early = 0;

    fixture_prompt(fx.alone, false, 9, prompt, 2000);
    run = fixture_run(WMSG_PREFILL, prompt, 2000, 10);
    run.hold_ms = 3000;
    script_run(fx.script, w, &run, &answer);
    answer_wait(&answer);
    assert_int_equal(answer.finish.stored_blocks, 31);
    assert_true(answer.progress_events >= 2);
    mc_block_chain_init(&chain, &info->fingerprint, info->block_tokens, NULL, 0);
    assert_int_equal(mc_block_chain_extend(&chain, prompt, 2000, ids, 32), 31);
    for (int i = 0; i < 31; i++) {
        uint64_t committed = 0;

        assert_true(memory_store_has(ids[i].bytes, &committed));
        early += committed < answer.times_ns[0];
    }
    assert_true(early * 64 * 10 >= 2000 * 8);
}

/* The decode worker dies in the middle: the same run with all tokens so far goes on elsewhere, with nothing lost or said
 * twice; from the Store, and without one. */
static void death_of_decode(void **state)
{
    const char *masters[] = {MASTER, NULL};
    struct baseline_run want;
    struct wmsg_run run;

    for (int m = 0; m < 2; m++) {
        unsigned first = fixture_add(&fx, &(struct fixture_setup){.master = masters[m], .decode_ms_per_step = 2});
        unsigned second = add(WMSG_ROLE_DECODE, masters[m]);
        uint32_t n = 190 + m, dead_at;

        fixture_prompt(fx.alone, m, 77, prompt, n);
        run = fixture_run(WMSG_GENERATE, prompt, n, 150);
        run.ignore_end = true;
        fixture_baseline(&fx, &run, &want);
        script_run(fx.script, first, &run, &answer);
        answer_wait_tokens(&answer, 75);
        fixture_kill(&fx, 2 * m);
        answer_wait(&answer);
        assert_true(answer.lost);
        dead_at = answer.count;
        assert_true(dead_at >= 75 && dead_at < 150);

        memcpy(prompt + n, answer.tokens, dead_at * sizeof(*prompt));
        run.kind = WMSG_DECODE;
        run.token_count = n + dead_at;
        run.answer_count = dead_at;
        script_run(fx.script, second, &run, &other);
        answer_wait(&other);
        assert_int_equal(other.status, MC_OK);
        assert_int_equal(other.first, dead_at);
        assert_int_equal(other.finish.reason, WMSG_LENGTH);
        memcpy(answer.tokens + dead_at, other.tokens, other.count * sizeof(*answer.tokens));
        assert_answer(&want, answer.tokens, dead_at + other.count);
        if (masters[m])
            assert_true(other.finish.reused_tokens >= (n + 75) / 64 * 64 - 64);
        else
            assert_int_equal(other.finish.replayed_tokens, dead_at - 1);
        baseline_run_fini(&want);
    }
}

/* Eight streams at once on one worker, some prompts equal, some long: each says what it would say alone. */
static void concurrent(void **state)
{
    unsigned w = fixture_add(&fx, &(struct fixture_setup){.master = MASTER, .sequences_max = 4});
    static struct answer answers[8];
    static uint32_t prompts[8][600];
    struct wmsg_run runs[8];
    struct baseline_run want;

    for (uint32_t i = 0; i < 8; i++) {
        uint32_t n = 60 + 70 * i;

        fixture_prompt(fx.alone, i & 1, i / 4, prompts[i], n);
        runs[i] = fixture_run(WMSG_GENERATE, prompts[i], n, 100);
        script_run(fx.script, w, &runs[i], &answers[i]);
    }
    for (uint32_t i = 0; i < 8; i++) {
        answer_wait(&answers[i]);
        assert_int_equal(answers[i].status, MC_OK);
        assert_false(answers[i].gap);
        fixture_baseline(&fx, &runs[i], &want);
        assert_answer(&want, answers[i].tokens, answers[i].count);
        baseline_run_fini(&want);
    }
}

/* A stream is not held up by a long prompt on the same worker for more than a chunk: at least one of its tokens comes for each
 * chunk of the prompt. Counted, not timed: the machine may be busy. */
static void chunks_beside_decode(void **state)
{
    unsigned w = fixture_add(
        &fx, &(struct fixture_setup){.prefill_tokens_per_s = 2000, .decode_ms_per_step = 5, .stall_ms = 60});
    static uint32_t long_prompt[PROMPT_MAX];
    uint64_t worst = 0;
    uint32_t beside = 0;
    struct wmsg_run run, beside_run;

    fixture_prompt(fx.alone, false, 1, prompt, 40);
    fixture_prompt(fx.alone, false, 2, long_prompt, 1500);
    run = fixture_run(WMSG_GENERATE, prompt, 40, 1000);
    run.ignore_end = true;
    beside_run = fixture_run(WMSG_GENERATE, long_prompt, 1500, 2);
    script_run(fx.script, w, &run, &answer);
    answer_wait_tokens(&answer, 20);
    script_run(fx.script, w, &beside_run, &other);
    answer_wait(&other);
    script_cancel(&answer);
    answer_wait(&answer);
    assert_true(answer.count < 1000); /* else it was over before the prompt was */
    for (uint32_t i = 1; i < answer.count; i++) {
        uint64_t gap = answer.times_ns[i] - answer.times_ns[i - 1];

        if (answer.times_ns[i] <= other.begun_ns || answer.times_ns[i] >= other.times_ns[0])
            continue;
        beside++;
        worst = gap > worst ? gap : worst;
    }
    print_message("         %u tokens beside 1500 of prompt, the longest gap %.1f ms\n", beside, (double)worst / 1e6);
    /* A quantum of 64 tokens takes 32 ms: the chunk that fits 60 ms is one of them, by the first guesses too; two at most. */
    assert_true(beside >= 1500 / 128);
}

/* A Conductor that goes away cancels its runs; the worker dials again and serves. */
static void conductor_lost(void **state)
{
    unsigned w = fixture_add(&fx, &(struct fixture_setup){.decode_ms_per_step = 2});
    struct worker_stats stats;
    struct wmsg_run run;

    fixture_prompt(fx.alone, false, 3, prompt, 20);
    run = fixture_run(WMSG_GENERATE, prompt, 20, 2000);
    run.ignore_end = true;
    script_run(fx.script, w, &run, &answer);
    answer_wait_tokens(&answer, 3);
    script_cut(fx.script, w);
    answer_wait(&answer);
    assert_true(answer.lost);
    w = script_find(fx.script, "worker-0");
    run.max_tokens = 5;
    script_run(fx.script, w, &run, &other);
    answer_wait(&other);
    assert_int_equal(other.count, 5);
    worker_stats(fx.workers[0], &stats);
    assert_int_equal(stats.cancelled, 1);
}

/* ---- the cache is never in the way ---- */

/* Answers of `n` prompts are right while the Store is as the caller made it; each within `limit_ms`. */
static void serve_through(unsigned p, unsigned d, uint32_t count, uint32_t limit_ms)
{
    struct baseline_run want;
    struct wmsg_run run;

    for (uint32_t i = 0; i < count; i++) {
        uint32_t n = 120 + 64 * (i % 3);
        uint64_t begun;

        fixture_prompt(fx.alone, i & 1, i / 2, prompt, n);
        run = fixture_run(WMSG_PREFILL, prompt, n, 30);
        fixture_baseline(&fx, &run, &want);
        begun = now_ns();
        fixture_pair(&fx, p, d, &run, &pair);
        assert_true(now_ns() - begun < limit_ms * NS_PER_MS);
        assert_answer(&want, pair.tokens, pair.count);
        baseline_run_fini(&want);
    }
}

static void store_faults(void **state)
{
    unsigned p = add(WMSG_ROLE_PREFILL, MASTER), d = add(WMSG_ROLE_DECODE, MASTER);

    serve_through(p, d, 4, 5000);
    memory_store_faults.lose_every = 2;
    serve_through(p, d, 12, 5000);
    memory_store_faults.lose_every = 0;
    memory_store_faults.full = true;
    serve_through(p, d, 4, 5000);
    memory_store_faults.full = false;
    memory_store_faults.dead = true;
    serve_through(p, d, 8, 5000);
    memory_store_faults.dead = false;
    memory_store_faults.delay_ms = 20;
    serve_through(p, d, 4, 5000);
    memory_store_faults.delay_ms = 0;
    memory_store_faults.hang = true; /* a prefill waits for its puts, but not for ever, and then not again */
    serve_through(p, d, 8, 8000);
    memory_store_faults.hang = false;
}

static void store_dead_at_start(void **state)
{
    unsigned p, d;

    memory_store_faults.dead = true;
    p = add(WMSG_ROLE_PREFILL, MASTER);
    d = add(WMSG_ROLE_DECODE, MASTER);
    serve_through(p, d, 3, 5000);
}

/* One damaged bit behind the checksums is found by the engine: the run fails, loudly. */
static void flipped_bit(void **state)
{
    unsigned p = add(WMSG_ROLE_PREFILL, MASTER);
    unsigned d = fixture_add(
        &fx, &(struct fixture_setup){.role = WMSG_ROLE_DECODE, .master = MASTER, .flip_imported_bit = true});
    struct worker_stats stats;
    struct wmsg_run run;

    fixture_prompt(fx.alone, false, 8, prompt, 200);
    run = fixture_run(WMSG_PREFILL, prompt, 200, 30);
    fixture_pair(&fx, p, d, &run, &pair);
    assert_int_equal(pair.decode.status, MC_ECORRUPT);
    assert_int_equal(pair.decode.finish.reason, WMSG_ERROR);
    assert_int_equal(pair.decode.count, 0);
    worker_stats(fx.workers[1], &stats);
    assert_int_equal(stats.blocks_corrupt, 1);
}

/* Two buffers of a block each are enough for any prompt: memory is bounded, only slower. */
static void small_buffers(void **state)
{
    struct fixture_setup small = {.master = MASTER, .buffer_size = 1, .role = WMSG_ROLE_PREFILL};
    unsigned p = fixture_add(&fx, &small), d;

    small.role = WMSG_ROLE_DECODE;
    d = fixture_add(&fx, &small);
    memory_store_faults.delay_ms = 1;
    serve_through(p, d, 6, 5000);
    assert_int_equal(pair.decode.finish.reused_tokens, pair.decode.finish.prompt_tokens / 64 * 64);
}

/* Blocks smaller than the quantum: a hole in the middle must not change the batches. */
static void small_blocks(void **state)
{
    struct fixture_setup s = {.master = MASTER, .block_tokens = 16, .role = WMSG_ROLE_PREFILL};
    unsigned p = fixture_add(&fx, &s), d;

    s.role = WMSG_ROLE_DECODE;
    d = fixture_add(&fx, &s);
    mc_engine_close(fx.alone);
    fx.alone = fixture_engine(&s);
    serve_through(p, d, 6, 5000);
    memory_store_faults.lose_every = 3;
    serve_through(p, d, 12, 5000);
}

static struct memory_store_counts wait_pins(uint64_t pins, uint64_t unpins)
{
    uint64_t until = deadline_after_ms(now_ns(), 30000);
    struct memory_store_counts counts;

    do {
        assert_true(now_ns() < until);
        usleep(500);
        memory_store_counts(&counts);
    } while (counts.pins < pins || counts.unpins < unpins);
    return counts;
}

/* A prefill's blocks are pinned until W_RELEASE: which may also come first, and then there is nothing to pin. */
static void pins_and_release(void **state)
{
    unsigned p = add(WMSG_ROLE_PREFILL, MASTER);
    struct memory_store_counts counts;
    struct wmsg_run run;

    for (uint32_t i = 1; i <= 3; i++) {
        fixture_prompt(fx.alone, false, i, prompt, 200);
        run = fixture_run(WMSG_PREFILL, prompt, 200, 5);
        run.hold_ms = 120000; /* longer than this test waits */
        script_run(fx.script, p, &run, &answer);
        answer_wait(&answer);
        counts = wait_pins(i, i - 1);
        assert_int_equal(counts.unpins, i - 1);
        script_release(&answer);
        counts = wait_pins(i, i);
        assert_int_equal(counts.pins, i);
    }
}

/* ---- what is refused, and with which words ---- */

static void refused(void **state)
{
    unsigned w = add(WMSG_ROLE_BOTH, NULL);
    static uint32_t longer[9000];
    struct wmsg_run run;

    fixture_prompt(fx.alone, false, 1, longer, 8300);
    run = fixture_run(WMSG_GENERATE, longer, 8300, 10);
    script_run(fx.script, w, &run, &answer);
    answer_wait(&answer);
    assert_int_equal(answer.status, MC_ETOOBIG);
    assert_non_null(strstr(answer.finish.text, "8300"));
    assert_non_null(strstr(answer.finish.text, "8192"));

    longer[7] = UINT32_MAX;
    run = fixture_run(WMSG_GENERATE, longer, 20, 10);
    script_run(fx.script, w, &run, &answer);
    answer_wait(&answer);
    assert_int_equal(answer.status, MC_EINVAL);
    assert_non_null(strstr(answer.finish.text, "token 7"));

    run = fixture_run(WMSG_GENERATE, prompt, 20, 10);
    run.sampling.top_p = 7;
    script_run(fx.script, w, &run, &answer);
    answer_wait(&answer);
    assert_int_equal(answer.status, MC_EINVAL);
    assert_non_null(strstr(answer.finish.text, "top_p"));

    run = fixture_run(WMSG_GENERATE, prompt, 20, 0);
    script_run(fx.script, w, &run, &answer);
    answer_wait(&answer);
    assert_int_equal(answer.status, MC_EPROTO);
    assert_non_null(strstr(answer.finish.text, "max_tokens"));
}

static void other_record(void **state)
{
    struct worker_opts opts;
    const char *address = script_address(fx.script);
    struct worker *worker;
    char err[256];

    memory_store_faults.other_record = true;
    fx.engines[0] = fixture_engine(&(struct fixture_setup){0});
    worker_opts_init(&opts);
    opts.engine = fx.engines[0];
    opts.conductors = &address;
    opts.conductor_count = 1;
    opts.master = MASTER;
    opts.run_dir = fx.run_dir;
    assert_int_equal(worker_create(&opts, &worker, err, sizeof(err)), MC_EMISMATCH);
    assert_non_null(strstr(err, "engine_version"));
    mc_engine_close(fx.engines[0]);
}

/* The same, but the master comes only later: the worker drains itself and says why. */
static void other_record_later(void **state)
{
    memory_store_faults.dead = true;
    add(WMSG_ROLE_BOTH, MASTER);
    memory_store_faults.other_record = true;
    memory_store_faults.dead = false;
    assert_int_equal(worker_wait(fx.workers[0], 10000), MC_EMISMATCH);
}

static void tokenized(void **state)
{
    enum { BOOK = 300000 };
    unsigned w = add(WMSG_ROLE_BOTH, NULL);
    struct wmsg_chat chat[] = {{"system", "You are brief."}, {"user", "缓存是什么? What is a cache?"}};
    struct wmsg_tokenize msg = {.messages = chat, .message_count = 2};
    uint32_t *tokens, count, direct[256];
    char text[512], *book;
    size_t length, n;
    struct mc_chat_message messages[] = {{chat[0].role, chat[0].content}, {chat[1].role, chat[1].content}};

    assert_int_equal(script_tokenize(fx.script, w, &msg, &tokens, &count), MC_OK);
    assert_int_equal(mc_engine_chat(fx.alone, messages, 2, true, text, sizeof(text), &length), MC_OK);
    assert_int_equal(
        mc_engine_tokenize(fx.alone, text, length, MC_TOKENIZE_BOS | MC_TOKENIZE_SPECIAL, direct, 256, &n), MC_OK);
    assert_int_equal(count, n);
    assert_memory_equal(tokens, direct, n * sizeof(*tokens));
    free(tokens);

    msg = (struct wmsg_tokenize){.text = "plain text"};
    assert_int_equal(script_tokenize(fx.script, w, &msg, &tokens, &count), MC_OK);
    assert_true(count > 0);
    free(tokens);

    /* A book is not read to its end; that it is cut inside of no character shows in what the engine says of it. */
    book = malloc(BOOK + 1);
    for (size_t i = 0; i < BOOK; i += 3)
        memcpy(book + i, "\xe7\xbc\x93", 3);
    book[BOOK] = 0;
    msg = (struct wmsg_tokenize){.text = book, .tokens_max = 1000};
    assert_int_equal(script_tokenize(fx.script, w, &msg, &tokens, &count), MC_ETOOBIG);
    msg.tokens_max = BOOK; /* all of it fits: counted exactly */
    assert_int_equal(script_tokenize(fx.script, w, &msg, &tokens, &count), MC_OK);
    assert_int_equal(mc_engine_tokenize(fx.alone, book, BOOK, MC_TOKENIZE_BOS, direct, 256, &n), MC_ETOOBIG);
    assert_int_equal(count, n);
    free(tokens);
    msg.tokens_max = count / 40;
    assert_int_equal(script_tokenize(fx.script, w, &msg, &tokens, &count), MC_ETOOBIG);
    free(book);

    chat[0].role = "emperor";
    msg = (struct wmsg_tokenize){.messages = chat, .message_count = 2};
    assert_int_equal(script_tokenize(fx.script, w, &msg, &tokens, &count), MC_EINVAL);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {TEST(without_store), TEST(equality), TEST(sampled), TEST(second_turn),
        TEST(fetched_blocks_are_put_again), TEST(stored_before_first_token), TEST(death_of_decode), TEST(concurrent),
        TEST(chunks_beside_decode), TEST(conductor_lost), TEST(store_faults), TEST(store_dead_at_start),
        TEST(flipped_bit), TEST(small_buffers), TEST(small_blocks), TEST(pins_and_release), TEST(refused),
        TEST(other_record), TEST(other_record_later), TEST(tokenized)};

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
