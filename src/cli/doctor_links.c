/* doctor_links.c - is the service there, and do its parts fit: Conductor, workers, master, nodes, fingerprints, clock. */
#include <curl/curl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "cli/api.h"
#include "cli/doctor.h"
#include "cli/model.h"
#include "mooncake/kvcache.h"
#include "mooncake/store.h"

/* JSON of an answer of the Conductor, given; NULL: none. `error` (256) says why. */
static json_t *ask_conductor(struct cli *cli, const char *path, char *error, char date[64])
{
    struct api_reply reply;
    json_t *root = NULL;

    api_call(
        &(struct api_call){.url = cli->set->url, .path = path, .timeout_ms = (uint32_t)cli->set->timeout_ms}, &reply);
    snprintf(error, 256, "%s", reply.error);
    if (date)
        snprintf(date, 64, "%s", reply.date);
    if (reply.status == 200)
        root = json_loadb(buf_cstr(&reply.body), reply.body.len, 0, NULL);
    api_reply_fini(&reply);
    return root;
}

/* Somebody who is not the one we look for may sit on the port. */
static void say_unreachable(struct doctor_finding *finding, const char *who, const char *address, const char *why)
{
    const char *colon = strrchr(address, ':');
    char holder[96];

    if (colon && doctor_listener((unsigned)atoi(colon + 1), holder, sizeof(holder)))
        doctor_say(finding, DOCTOR_BROKEN, "end that process, or give this part another port (--*-listen)",
            "port %s is held by %s, which does not answer as a %s", colon + 1, holder, who);
    else
        doctor_say(finding, DOCTOR_BROKEN, "start it: mooncake up", "no %s at %s: %s", who, address, why);
}

void doctor_conductor(struct cli *cli, struct doctor_finding *finding)
{
    char error[256];
    json_t *models = ask_conductor(cli, "/v1/models", error, NULL);

    if (models)
        doctor_say(finding, DOCTOR_OK, "", "%s answers", cli->set->url);
    else
        say_unreachable(finding, "conductor", cli->set->url, error);
    json_decref(models);
}

void doctor_workers(struct cli *cli, struct doctor_finding *finding)
{
    char error[256];
    json_t *models = ask_conductor(cli, "/v1/models", error, NULL);
    size_t count = json_array_size(json_object_get(models, "data"));
    const char *name = json_string_value(json_object_get(json_array_get(json_object_get(models, "data"), 0), "id"));

    if (!models)
        doctor_say(finding, DOCTOR_NOTE, "", "cannot be asked without the conductor");
    else if (count == 0)
        doctor_say(finding, DOCTOR_BROKEN,
            "start one: mooncake worker --workers-at ADDR; its log says why it cannot register",
            "no worker has registered");
    else
        doctor_say(finding, DOCTOR_OK, "", "%zu model%s served: %s", count, count == 1 ? "" : "s", name ? name : "?");
    json_decref(models);
}

static enum mc_status open_store(struct cli *cli, struct mc_store **store)
{
    const struct settings *set = cli->set;
    struct mc_store_opts opts = {.size = sizeof(opts),
        .master = set->master,
        .transport = set->transport,
        .host_id = set->host_id,
        .run_dir = set->run_dir,
        .connect_ms = (uint32_t)set->timeout_ms};

    return mc_store_open(&opts, store);
}

void doctor_master(struct cli *cli, struct doctor_finding *finding)
{
    struct mc_store *store;
    enum mc_status status = open_store(cli, &store);

    if (status != MC_OK) {
        say_unreachable(finding, "master", cli->set->master, mc_status_str(status));
        return;
    }
    doctor_say(finding, DOCTOR_OK, "", "%s answers", cli->set->master);
    mc_store_close(store);
}

/* Reach a node as a client would: connect to the address the master tells. */
static bool node_answers(const struct mc_node_info *node, uint32_t timeout_ms)
{
    char url[160];
    bool answers;

    snprintf(url, sizeof(url), "telnet://%s", node->address);
    CURL *curl = curl_easy_init();
    if (!curl)
        return false;
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_CONNECT_ONLY, 1L);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, (long)timeout_ms);
    answers = curl_easy_perform(curl) == CURLE_OK;
    curl_easy_cleanup(curl);
    return answers;
}

/* The nodes as the master tells them; its first word about them comes just after the connection stands. */
static uint32_t list_nodes(struct cli *cli, struct mc_store *store, struct mc_node_info *rows, uint32_t rows_max)
{
    const struct timespec pause = {.tv_nsec = 10000000};
    uint64_t deadline = deadline_after_ms(now_ns(), cli->set->timeout_ms < 1000 ? cli->set->timeout_ms : 1000);

    for (;;) {
        uint32_t n = rows_max;
        enum mc_status status = mc_store_nodes(store, (uint32_t)cli->set->timeout_ms, rows, &n);
        if (status != MC_OK)
            n = 0;
        if (n > 0 || deadline_passed(deadline, now_ns()))
            return n;
        nanosleep(&pause, NULL);
    }
}

void doctor_nodes(struct cli *cli, struct doctor_finding *finding)
{
    static const char *const states[] = {"up", "suspect", "unreachable", "draining"};
    struct mc_node_info rows[64];
    struct mc_store *store;

    if (open_store(cli, &store) != MC_OK) {
        doctor_say(finding, DOCTOR_NOTE, "", "cannot be asked without the master");
        return;
    }
    uint32_t n = list_nodes(cli, store, rows, 64);
    mc_store_close(store);
    if (n == 0) {
        doctor_say(finding, DOCTOR_BROKEN, "start one: mooncake node --master ADDR", "the master knows no node");
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (rows[i].state != 0 && rows[i].state != 3) {
            doctor_say(finding, DOCTOR_BROKEN, "look at that process, or the network to it",
                "the master has node %s at %s as %s", rows[i].name, rows[i].address,
                rows[i].state < 4 ? states[rows[i].state] : "?");
            return;
        }
        if (!node_answers(&rows[i], (uint32_t)cli->set->timeout_ms)) {
            doctor_say(finding, DOCTOR_BROKEN, "check the route and firewall from here, or the node's --advertise",
                "the master reaches node %s, this host cannot connect to %s", rows[i].name, rows[i].address);
            return;
        }
    }
    doctor_say(finding, DOCTOR_OK, "", "%u node%s up and reachable from here", n, n == 1 ? "" : "s");
}

static bool is_served(struct cli *cli, const char *name)
{
    char error[256];
    json_t *models = ask_conductor(cli, "/v1/models", error, NULL);
    const json_t *row;
    bool served = false;
    size_t index;

    json_array_foreach(json_object_get(models, "data"), index, row)
    {
        const char *id = json_string_value(json_object_get(row, "id"));
        served = served || (id && strcmp(id, name) == 0);
    }
    json_decref(models);
    return served;
}

/* The Store keeps the record of each served model; registering an equal one changes nothing, another one names the field. */
static void compare_records(struct cli *cli, const struct mc_engine_info *info, struct doctor_finding *finding)
{
    uint8_t record[MC_FP_RECORD_SIZE_MAX];
    struct mc_store *store;
    char field[64] = "";
    size_t len;

    if (mc_fp_record_encode(info->record, record, sizeof(record), &len) != MC_OK || open_store(cli, &store) != MC_OK) {
        doctor_say(finding, DOCTOR_NOTE, "", "cannot be compared without the master");
        return;
    }
    enum mc_status status =
        mc_store_register_model(store, info->model, record, (uint32_t)len, (uint32_t)cli->set->timeout_ms, field);
    mc_store_close(store);
    if (status == MC_EMISMATCH)
        doctor_say(finding, DOCTOR_BROKEN,
            "start all workers of a model from the same file, engine version and options",
            "%s: field %s of the fingerprint record differs from what is served", info->model, field);
    else if (status == MC_OK)
        doctor_say(finding, DOCTOR_OK, "", "an engine opened with these options fits the workers of %s", info->model);
    else
        doctor_say(finding, DOCTOR_NOTE, "", "cannot be compared: %s", mc_status_str(status));
}

void doctor_fingerprint(struct cli *cli, struct doctor_finding *finding)
{
    struct mc_engine *engine;

    if (model_open(cli, &engine) != CLI_OK) {
        doctor_say(finding, DOCTOR_BROKEN, "the line above says why", "the engine of these options cannot be opened");
        return;
    }
    const struct mc_engine_info *info = mc_engine_info(engine);
    if (is_served(cli, info->model))
        compare_records(cli, info, finding);
    else
        doctor_say(finding, DOCTOR_NOTE, "", "%s is not served here: nothing to compare with", info->model);
    mc_engine_close(engine);
}

void doctor_clock(struct cli *cli, struct doctor_finding *finding)
{
    char error[256], date[64] = "";
    json_t *models = ask_conductor(cli, "/v1/models", error, date);
    time_t theirs = *date ? curl_getdate(date, NULL) : -1;
    double apart = difftime(time(NULL), theirs);

    json_decref(models);
    if (theirs == -1)
        doctor_say(finding, DOCTOR_NOTE, "", "cannot be compared without the conductor");
    else if (apart > 2 || apart < -2)
        doctor_say(finding, DOCTOR_NOTE, "run NTP on both; only log lines are concerned, deadlines are relative",
            "the conductor's clock is %.0f s apart from ours", apart);
    else
        doctor_say(finding, DOCTOR_OK, "", "within 2 s of the conductor's");
}
