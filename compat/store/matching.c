/* matching.c - remove everything, or what a regular expression finds.
 *
 * The master lists its keys a page at a time; each page is matched and removed here before the next is asked for. What others
 * put meanwhile may or may not be among them. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "compat/store/client_impl.h"
#include "compat/store/regex.h"
#include "store/key.h"

enum { PAGE = 4 << 20 };

struct page {
    char *text;              /* of mc_store_list() */
    struct mc_store_op *ops; /* to remove */
    char *names;             /* what their keys point into */
    uint32_t n, max;
};

static bool page_init(struct page *page)
{
    page->max = PAGE / (KEY_TEXT_MAX + 128);
    page->text = malloc(PAGE);
    page->ops = malloc(page->max * sizeof(*page->ops));
    page->names = malloc((size_t)page->max * MC_NAME_MAX);
    return page->text && page->ops && page->names;
}

static void page_fini(struct page *page)
{
    free(page->text);
    free(page->ops);
    free(page->names);
}

/* One line of the list: "KEY SIZE NODE". */
static void take_line(struct page *page, const char *line, struct regex *regex, bool force)
{
    const char *space = strchr(line, ' ');
    char *name = page->names + (size_t)page->n * MC_NAME_MAX;
    struct store_key key;

    if (!space || page->n == page->max)
        return;
    if (store_key_parse(slice_of(line, (size_t)(space - line)), &key, name, NULL) != MC_OK || key.kind != MC_KEY_NAMED)
        return;
    if (regex && !regex_found(regex, (const char *)key.name.ptr, key.name.len))
        return;
    struct mc_store_op *op = &page->ops[page->n++];
    *op = (struct mc_store_op){.opcode = MC_REMOVE, .force = force};
    mc_key_named(&op->key, name, key.name.len);
}

static int64_t remove_page(struct page *page, struct mc_store *store, uint32_t deadline_ms)
{
    enum mc_status status = page->n ? mc_store_sync(store, page->ops, page->n, deadline_ms) : MC_OK;
    int64_t gone = 0;

    if (status != MC_OK)
        return compat_error(status);
    for (uint32_t i = 0; i < page->n; i++)
        gone += page->ops[i].result.status == MC_OK;
    return gone;
}

static int64_t remove_pages(struct compat_client *client, struct mc_store *store, struct regex *regex, bool force)
{
    struct page page;
    uint64_t cursor = 0;
    int64_t gone = 0, more = page_init(&page) ? 0 : COMPAT_INTERNAL;

    do {
        char *line, *save;
        enum mc_status status = MC_OK;

        if (more < 0)
            break;
        page.n = 0;
        page.text[0] = '\0';
        status = mc_store_list(store, NULL, &cursor, page.text, PAGE, client->ask_ms);
        if (status != MC_OK) {
            more = compat_error(status);
            break;
        }
        for (line = strtok_r(page.text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
            take_line(&page, line, regex, force);
        more = remove_page(&page, store, client->ask_ms);
        gone += more > 0 ? more : 0;
    } while (cursor != 0);
    page_fini(&page);
    return more < 0 ? more : gone;
}

int64_t compat_remove_matching(struct compat_client *client, const char *pattern, size_t len, bool force)
{
    struct regex *regex = NULL;
    struct compat_call call;
    const char *why;
    int64_t result;

    if (pattern) {
        regex = regex_create(pattern, len, &why);
        if (!regex) {
            log_error("compat: regular expression %.*s: %s", (int)(len < 200 ? len : 200), pattern, why);
            return COMPAT_INVALID_PARAMS;
        }
    }
    if (!compat_enter(client, &call, 0, 0)) {
        regex_destroy(regex);
        return COMPAT_INVALID_PARAMS;
    }
    result = remove_pages(client, call.store, regex, force);
    compat_leave(client, &call);
    regex_destroy(regex);
    return result;
}
