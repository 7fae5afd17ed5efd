/* report.c - see report.h. A plot is lines over an x axis, in a box of fixed size; a table holds the same figures as the terminal. */
#include "replay/report.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

enum { WIDTH = 560, HEIGHT = 260, LEFT = 64, RIGHT = 12, TOP = 24, BOTTOM = 40, COLOURS = 10, POINTS = 200 };

static const char *const colours[COLOURS] = {
    "#3b6cf6", "#0f9d6b", "#c2410c", "#8b5cf6", "#ca8a04", "#0891b2", "#be185d", "#4d7c0f", "#475569", "#dc2626"};

static void text(struct buf *out, const char *words)
{
    for (; *words; words++) {
        switch (*words) {
        case '<': buf_append_str(out, "&lt;"); break;
        case '>': buf_append_str(out, "&gt;"); break;
        case '&': buf_append_str(out, "&amp;"); break;
        case '"': buf_append_str(out, "&quot;"); break;
        default: buf_append_char(out, *words);
        }
    }
}

/* ---- plots ---- */

struct axis {
    double least, most;
    bool log;
    const char *label;
};

struct plot {
    struct buf *out;
    struct axis x, y;
};

static double part_of(const struct axis *axis, double value)
{
    if (axis->log)
        return log(fmax(value, axis->least) / axis->least) / log(axis->most / axis->least);
    return (value - axis->least) / (axis->most - axis->least);
}

static double at_x(const struct plot *plot, double x)
{
    return LEFT + (WIDTH - LEFT - RIGHT) * part_of(&plot->x, x);
}

static double at_y(const struct plot *plot, double y)
{
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * part_of(&plot->y, y);
}

/* 1, 2 or 5 times a power of ten, so that at most six of them fit; each power of ten on a logarithmic axis. */
static double tick_after(const struct axis *axis, double tick)
{
    double rough = (axis->most - axis->least) / 6, power = pow(10, floor(log10(rough)));
    double step = rough <= power ? power : rough <= 2 * power ? 2 * power : rough <= 5 * power ? 5 * power : 10 * power;

    return axis->log ? tick * 10 : tick + step;
}

static void tick_text(struct buf *out, double value)
{
    if (value >= 1e6)
        buf_printf(out, "%gM", value / 1e6);
    else if (value >= 1e4)
        buf_printf(out, "%gk", value / 1e3);
    else
        buf_printf(out, "%g", fabs(value) < 1e-9 ? 0 : value);
}

static double first_tick(const struct axis *axis)
{
    return axis->log ? pow(10, ceil(log10(axis->least) - 1e-9)) : axis->least;
}

static void plot_begin(struct plot *plot, const char *title)
{
    struct buf *out = plot->out;

    buf_printf(
        out, "<figure><figcaption>%s</figcaption><svg viewBox=\"0 0 %d %d\" role=\"img\">\n", title, WIDTH, HEIGHT);
    for (double tick = first_tick(&plot->y); tick <= plot->y.most * 1.0001; tick = tick_after(&plot->y, tick)) {
        double y = at_y(plot, tick);

        buf_printf(out, "<path class=\"grid\" d=\"M%d %.1fH%d\"/><text class=\"y\" x=\"%d\" y=\"%.1f\">", LEFT, y,
            WIDTH - RIGHT, LEFT - 6, y + 4);
        tick_text(out, tick);
        buf_append_str(out, "</text>\n");
    }
    for (double tick = first_tick(&plot->x); tick <= plot->x.most * 1.0001; tick = tick_after(&plot->x, tick)) {
        buf_printf(out, "<text class=\"x\" x=\"%.1f\" y=\"%d\">", at_x(plot, tick), HEIGHT - BOTTOM + 16);
        tick_text(out, tick);
        buf_append_str(out, "</text>\n");
    }
    buf_printf(out, "<text class=\"x\" x=\"%d\" y=\"%d\">%s</text><text class=\"unit\" x=\"4\" y=\"%d\">%s</text>\n",
        (WIDTH + LEFT) / 2, HEIGHT - 6, plot->x.label, TOP / 2, plot->y.label);
}

static void line_begin(struct plot *plot, size_t colour)
{
    buf_printf(plot->out, "<polyline style=\"stroke:%s\" points=\"", colours[colour % COLOURS]);
}

static void line_point(struct plot *plot, double x, double y)
{
    buf_printf(plot->out, "%.1f,%.1f ", at_x(plot, x), at_y(plot, y));
}

static void line_end(struct plot *plot, const char *name)
{
    buf_append_str(plot->out, "\"><title>");
    text(plot->out, name);
    buf_append_str(plot->out, "</title></polyline>\n");
}

static void plot_end(struct plot *plot)
{
    buf_append_str(plot->out, "</svg></figure>\n");
}

static void legend(struct buf *out, const struct report *report)
{
    buf_append_str(out, "<p class=\"legend\">");
    for (size_t i = 0; i < (report->sweep ? report->sweep->run_count : report->run_count); i++) {
        buf_printf(out, "<span><b style=\"color:%s\">&#9632;</b> ", colours[i % COLOURS]);
        text(out, report->sweep ? report->sweep->policies[i] : report->runs[i].policy);
        buf_append_str(out, "</span> &nbsp; ");
    }
    buf_append_str(out, "</p>\n");
}

/* ---- what is plotted ---- */

static void plot_ttft(const struct report *report, struct buf *out)
{
    struct plot plot = {out, {1, 10, true, "time to the first token, ms"}, {0, 1, false, "share of requests"}};

    plot.x.least = INFINITY;
    for (size_t i = 0; i < report->run_count; i++) {
        plot.x.least = fmin(plot.x.least, fmax(stats_at(&report->runs[i].result->ttft, 0.001), 0.01));
        plot.x.most = fmax(plot.x.most, report->runs[i].result->ttft.max);
    }
    if (!(plot.x.least < plot.x.most))
        plot.x.least = plot.x.most / 10;
    plot_begin(&plot, "Distribution of the time to the first token");
    for (size_t i = 0; i < report->run_count; i++) {
        line_begin(&plot, i);
        for (int p = 1; p <= POINTS; p++)
            line_point(&plot, stats_at(&report->runs[i].result->ttft, (double)p / POINTS), (double)p / POINTS);
        line_end(&plot, report->runs[i].policy);
    }
    plot_end(&plot);
}

/* Hit rate (or mean TTFT) over simulated time. */
static double slot_value(const struct series_slot *slot, bool hits)
{
    if (hits)
        return slot->prompt_tokens ? (double)slot->hit_tokens / (double)slot->prompt_tokens : -1;
    return slot->firsts ? slot->ttft_ms / (double)slot->firsts : -1;
}

static void plot_series(const struct report *report, struct buf *out, bool hits)
{
    struct plot plot = {out, {0, 1, false, "time, s"}, {0, hits ? 1 : 1e-3, false, hits ? "of prompt tokens" : "ms"}};

    for (size_t i = 0; i < report->run_count; i++) {
        const struct series *series = &report->runs[i].result->series;

        plot.x.most = fmax(plot.x.most, (double)series->width * series->used / 1e9);
        for (uint32_t s = 0; s < series->used && !hits; s++)
            plot.y.most = fmax(plot.y.most, slot_value(&series->slots[s], hits) * 1.05);
    }
    plot_begin(&plot, hits ? "Hit rate over time" : "Mean time to the first token over time");
    for (size_t i = 0; i < report->run_count; i++) {
        const struct series *series = &report->runs[i].result->series;

        line_begin(&plot, i);
        for (uint32_t s = 0; s < series->used; s++)
            if (slot_value(&series->slots[s], hits) >= 0)
                line_point(&plot, ((double)s + 0.5) * (double)series->width / 1e9, slot_value(&series->slots[s], hits));
        line_end(&plot, report->runs[i].policy);
    }
    plot_end(&plot);
}

static void plot_load(const struct report *report, struct buf *out)
{
    uint32_t count = (uint32_t)(report->model->prefill + report->model->decode);
    struct plot plot = {
        out, {0, count, false, "instance: prefill first, then decode"}, {0, 1, false, "busy, share of the run"}};

    plot_begin(&plot, "Load by instance");
    for (size_t i = 0; i < report->run_count; i++) {
        const struct cluster_result *result = report->runs[i].result;
        double all = fmax(result->simulated_s * 1e3, 1e-9), wide = 0.8 / (double)report->run_count;

        for (uint32_t w = 0; w < count; w++) {
            double x = at_x(&plot, w + 0.1 + wide * (double)i), y = at_y(&plot, fmin(result->busy_ms[w] / all, 1));

            buf_printf(out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"/>\n", x, y,
                fmax(at_x(&plot, wide) - at_x(&plot, 0), 0.5), HEIGHT - BOTTOM - y, colours[i % COLOURS]);
        }
    }
    plot_end(&plot);
}

static void plot_curves(const struct report *report, struct buf *out)
{
    struct plot plot = {out, {1, 10, true, "capacity of one pool, blocks"}, {0, 1, false, "of blocks missed"}};

    if (report->curve_count == 0)
        return;
    plot.x.least = report->curves[0].blocks[0];
    plot.x.most = report->curves[0].blocks[report->curves[0].count - 1];
    plot_begin(&plot, "Miss ratio over capacity");
    for (size_t i = 0; i < report->curve_count; i++) {
        const struct report_curve *curve = &report->curves[i];

        line_begin(&plot, i);
        for (size_t p = 0; p < curve->count; p++)
            line_point(&plot, curve->blocks[p], 1 - curve->hit_rate[p]);
        line_end(&plot, curve->evict);
        buf_printf(out, "<text class=\"name\" x=\"%d\" y=\"%.1f\" style=\"fill:%s\">", WIDTH - RIGHT - 4,
            at_y(&plot, 1 - curve->hit_rate[curve->count / 2]) - 6, colours[i % COLOURS]);
        text(out, curve->evict);
        buf_append_str(out, "</text>\n");
    }
    plot_end(&plot);
}

/* One figure of a sweep: a line a policy. */
static void plot_sweep(const struct report_sweep *sweep, double values[][REPORT_POINTS], const char *title,
    const char *unit, bool share, struct buf *out)
{
    double first = sweep->x[0], last = sweep->x[sweep->point_count - 1];
    struct plot plot = {out, {first, last, last >= 20 * first, sweep->name}, {0, share ? 1 : 1e-3, false, unit}};

    for (size_t i = 0; i < sweep->run_count && !share; i++)
        for (size_t p = 0; p < sweep->point_count; p++)
            plot.y.most = fmax(plot.y.most, values[i][p] * 1.05);
    plot_begin(&plot, title);
    for (size_t i = 0; i < sweep->run_count; i++) {
        line_begin(&plot, i);
        for (size_t p = 0; p < sweep->point_count; p++)
            line_point(&plot, sweep->x[p], values[i][p]);
        line_end(&plot, sweep->policies[i]);
    }
    plot_end(&plot);
}

static void sweep_table(const struct report_sweep *sweep, struct buf *out)
{
    buf_printf(
        out, "<div><table><tr><th>policy<th>%s<th>TTFT mean, ms<th>p90<th>hit rate<th>goodput</tr>\n", sweep->name);
    for (size_t i = 0; i < sweep->run_count; i++)
        for (size_t p = 0; p < sweep->point_count; p++) {
            buf_append_str(out, "<tr><td>");
            text(out, sweep->policies[i]);
            buf_printf(out, "<td>%g<td>%.0f<td>%.0f<td>%.3f<td>%.3f</tr>\n", sweep->x[p], sweep->ttft_mean[i][p],
                sweep->ttft_p90[i][p], sweep->hit_rate[i][p], sweep->goodput[i][p]);
        }
    buf_append_str(out, "</table></div>\n");
}

/* ---- the page ---- */

static const char head[] =
    "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" "
    "content=\"width=device-width\"><title>mooncake replay</title><style>\n"
    ":root{--paper:#f6f7f9;--card:#fff;--ink:#1a1f2b;--soft:#667085;--line:#e3e6ec}\n"
    "@media(prefers-color-scheme:dark){:root{--paper:#101319;--card:#181c25;--ink:#e7eaf0;--soft:#98a2b3;--line:#"
    "2a303c}}\n"
    "body{margin:24px auto;max-width:1220px;padding:0 16px;background:var(--paper);color:var(--ink);font:15px/1.5 "
    "system-ui,sans-serif}\n"
    "h1{font-size:20px;margin:0}p{color:var(--soft)}code{overflow-wrap:anywhere}\n"
    "table{border-collapse:collapse;background:var(--card);font-variant-numeric:tabular-nums;width:100%}\n"
    "th,td{padding:4px 8px;text-align:right;border-bottom:1px solid "
    "var(--line)}th:first-child,td:first-child{text-align:left}\n"
    "main{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(420px,100%),1fr));gap:16px}\n"
    "figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px}\n"
    "figcaption{font-weight:600;font-size:14px}svg{width:100%;height:auto}polyline{fill:none;stroke-width:1.6}\n"
    ".grid{stroke:var(--line)}text{font-size:11px;fill:var(--soft)}.x{text-anchor:middle}.y,.name{text-anchor:end}\n"
    "div{overflow-x:auto}.legend span{white-space:nowrap}</style>\n<h1>mooncake replay</h1>\n";

static double share(double of, double all)
{
    return all > 0 ? of / all : 0;
}

static void table(const struct report *report, struct buf *out)
{
    buf_append_str(out,
        "<div><table><tr><th>policy<th>TTFT mean, ms<th>p50<th>p90<th>p99<th>TBT mean, ms<th>p99<th>hit rate<th>own"
        "<th>other node<th>SSD<th>goodput<th>refused<th>load max/mean<th>moved, TB<th>duplicated, tokens</tr>\n");
    for (size_t i = 0; i < report->run_count; i++) {
        const struct cluster_result *r = report->runs[i].result;
        double all = (double)r->prompt_tokens;

        buf_append_str(out, "<tr><td>");
        text(out, report->runs[i].policy);
        buf_printf(out, "<td>%.0f<td>%.0f<td>%.0f<td>%.0f<td>%.1f<td>%.1f", stats_mean(&r->ttft),
            stats_at(&r->ttft, 0.5), stats_at(&r->ttft, 0.9), stats_at(&r->ttft, 0.99), stats_mean(&r->tbt),
            stats_at(&r->tbt, 0.99));
        buf_printf(out, "<td>%.3f<td>%.3f<td>%.3f<td>%.3f<td>%.3f<td>%.3f<td>%.2f<td>%.1f<td>%" PRIu64 "</tr>\n",
            share((double)(r->own_tokens + r->remote_tokens + r->ssd_tokens), all), share((double)r->own_tokens, all),
            share((double)r->remote_tokens, all), share((double)r->ssd_tokens, all),
            share((double)r->good, (double)r->requests), share((double)r->rejected, (double)r->requests),
            r->load_max_over_mean, r->bytes_moved / 1e12, r->duplicated_tokens);
    }
    buf_append_str(out, "</table></div>\n");
}

static void runs_of(const struct report *report, struct buf *out)
{
    table(report, out);
    legend(out, report);
    buf_append_str(out, "<main>\n");
    plot_ttft(report, out);
    plot_series(report, out, true);
    plot_series(report, out, false);
    plot_load(report, out);
    plot_curves(report, out);
    buf_append_str(out, "</main>");
}

static void sweep_of(const struct report *report, struct buf *out)
{
    struct report_sweep sweep = *report->sweep;

    legend(out, report);
    buf_append_str(out, "<main>\n");
    plot_sweep(&sweep, sweep.ttft_mean, "Mean time to the first token", "ms", false, out);
    plot_sweep(&sweep, sweep.ttft_p90, "Time to the first token of nine in ten requests", "ms", false, out);
    plot_sweep(&sweep, sweep.hit_rate, "Hit rate", "of prompt tokens", true, out);
    plot_sweep(&sweep, sweep.goodput, "Goodput", "of requests within the SLO", true, out);
    plot_curves(report, out);
    buf_append_str(out, "</main>\n");
    sweep_table(&sweep, out);
}

void report_write(const struct report *report, struct buf *out)
{
    buf_append_str(out, head);
    buf_append_str(out, "<p>");
    text(out, report->trace);
    if (report->run_count > 0)
        buf_printf(out, ": %" PRIu64 " requests", report->runs[0].result->requests);
    buf_printf(out, ", %.0f prefill and %.0f decode instances, %.0f tokens of cache each", report->model->prefill,
        report->model->decode, report->model->cache_tokens);
    if (report->model->ssd_tokens > 0)
        buf_printf(out, ", %.0f on SSD", report->model->ssd_tokens);
    buf_append_str(out, "<br><code>");
    text(out, report->command);
    buf_append_str(out, "</code></p>\n");
    if (report->sweep)
        sweep_of(report, out);
    else
        runs_of(report, out);
    buf_append_str(out, "</html>\n");
}
