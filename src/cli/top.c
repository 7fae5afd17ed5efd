/* top.c - mooncake top: workers, memory and latency, drawn anew each interval. Reads the Conductor's /v1/status. */
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/term.h"
#include "cli/api.h"
#include "cli/ask.h"
#include "cli/cli.h"

enum { RECENT = 64 }; /* requests the medians are over */

static double number(const json_t *object, const char *name)
{
    return json_number_value(json_object_get(object, name));
}

static const char *text(const json_t *object, const char *name)
{
    const char *value = json_string_value(json_object_get(object, name));

    return value ? value : "?";
}

/* "[#####.....]": `share` of 1. */
static void append_bar(struct buf *out, double share, int width)
{
    int full = share <= 0 ? 0 : share >= 1 ? width : (int)(share * width + 0.5);

    buf_append_char(out, '[');
    for (int i = 0; i < width; i++)
        buf_append_char(out, i < full ? '#' : '.');
    buf_append_char(out, ']');
}

/* Median of a field of the last requests, where it is not 0. */
static double recent_median(const json_t *history, const char *name)
{
    double values[RECENT];
    size_t count = 0, size = json_array_size(history);

    for (size_t i = size > RECENT ? size - RECENT : 0; i < size; i++) {
        double value = number(json_array_get(history, i), name);
        if (value > 0)
            values[count++] = value;
    }
    return median(values, count);
}

static void append_workers(struct buf *out, const json_t *workers)
{
    const json_t *row;
    size_t index;

    buf_printf(out, "%-16s %-8s %-9s %8s %8s %10s %9s %9s %s\n", "WORKER", "ROLE", "STATE", "RUNNING", "WAITING",
        "QUEUE ms", "1K ms", "STEP ms", "KV");
    json_array_foreach(workers, index, row)
    {
        double used = number(row, "kv_tokens"), most = number(row, "kv_tokens_max");
        buf_printf(out, "%-16.16s %-8.8s %-9.9s %8.0f %8.0f %10.0f %9.0f %9.1f ", text(row, "name"), text(row, "role"),
            text(row, "state"), number(row, "running"), number(row, "waiting"), number(row, "queue_ms"),
            number(row, "prefill_1000_ms"), number(row, "decode_step_ms"));
        append_bar(out, most > 0 ? used / most : 0, 10);
        buf_append_char(out, '\n');
    }
}

static void append_nodes(struct buf *out, const json_t *nodes)
{
    const json_t *row;
    size_t index;

    buf_printf(out, "\n%-16s %-8s %-12s %10s %10s %10s\n", "NODE", "TIER", "STATE", "USED", "CAPACITY", "OBJECTS");
    json_array_foreach(nodes, index, row)
    {
        double used = number(row, "used"), most = number(row, "capacity");
        buf_printf(out, "%-16.16s %-8.8s %-12.12s %6.0f MiB %6.0f MiB %10.0f ", text(row, "node"), text(row, "tier"),
            text(row, "state"), used / 1048576, most / 1048576, number(row, "objects"));
        append_bar(out, most > 0 ? used / most : 0, 20);
        buf_append_char(out, '\n');
    }
}

static void append_view(struct buf *out, const char *url, const json_t *status)
{
    const json_t *requests = json_object_get(status, "requests"), *cache = json_object_get(status, "cache");
    const json_t *history = json_object_get(status, "history");

    buf_printf(out, "mooncake at %s   store %s   policy %s\n", url, text(status, "store"), text(status, "policy"));
    buf_printf(out, "requests  %.0f open, %.0f queued, %.0f answered\n", number(requests, "open"),
        number(requests, "queued"), number(requests, "answered"));
    buf_printf(out, "cache     %.0f of %.0f prompt tokens reused  ", number(cache, "reused_tokens"),
        number(cache, "prompt_tokens"));
    append_bar(out, number(cache, "hit_rate"), 20);
    buf_printf(out, " %.1f %%\n", 100 * number(cache, "hit_rate"));
    buf_printf(out, "latency   TTFT %.0f ms, TBT %.1f ms (medians of the last requests)\n\n",
        recent_median(history, "ttft_ms"), recent_median(history, "tbt_ms"));
    append_workers(out, json_object_get(status, "workers"));
    append_nodes(out, json_object_get(status, "tiers"));
}

/* One view on standard output. */
static int show(struct cli *cli, bool live)
{
    struct api_reply reply;
    struct buf out;
    int code = CLI_OK;

    api_call(
        &(struct api_call){.url = cli->set->url, .path = "/v1/status", .timeout_ms = (uint32_t)cli->set->timeout_ms},
        &reply);
    buf_init(&out, 1 << 20);
    if (live)
        buf_append_str(&out, "\033[H\033[2J");
    if (reply.status != 200) {
        code = reply.status ? CLI_FAILED : CLI_UNREACHABLE;
        if (live)
            buf_printf(&out, "%s\n", reply.error);
        else
            cli_fail(cli, code, "%s", reply.error);
    } else if (cli->set->json) {
        buf_append_slice(&out, buf_slice(&reply.body));
        buf_append_char(&out, '\n');
    } else {
        json_t *status = json_loadb(buf_cstr(&reply.body), reply.body.len, 0, NULL);
        append_view(&out, cli->set->url, status);
        json_decref(status);
    }
    if (live)
        buf_append_str(&out, "\nq ends\n");
    fputs(buf_cstr(&out), stdout);
    fflush(stdout);
    buf_fini(&out);
    api_reply_fini(&reply);
    return code;
}

/* Wait for the next view; true: the user had enough (q, Ctrl-C, end of input). */
static bool enough(int interval_ms)
{
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    char key;

    if (poll(&in, 1, interval_ms) <= 0)
        return false;
    return read(STDIN_FILENO, &key, 1) <= 0 || key == 'q' || key == 'Q' || key == 3;
}

int cmd_top(struct cli *cli)
{
    struct termios before, raw;
    int code;

    /* Without a terminal there is nothing to draw anew on. */
    if (cli->set->once || cli->set->json || !isatty(STDOUT_FILENO) || tcgetattr(STDIN_FILENO, &before) != 0)
        return show(cli, false);
    raw = before;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO | ISIG);
    tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    fputs("\033[?1049h\033[?25l", stdout); /* the other screen, no cursor */
    do
        code = show(cli, true);
    while (!enough((int)cli->set->interval_ms));
    fputs("\033[?25h\033[?1049l", stdout);
    fflush(stdout);
    tcsetattr(STDIN_FILENO, TCSANOW, &before);
    return code;
}
