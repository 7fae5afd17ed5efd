/* model_hash.c - see model_hash.h.
 *
 * The note's name is a hash of what identifies the file's state, its content is the 64 hex digits: a changed file simply
 * has another note. Whoever can write there can write the model as well. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/xdg.h"
#include "engine/llama/model_hash.h"

enum { PIECE_SIZE = 1 << 20 };

/* Where the note of this state of the file is; false if there is no place for notes. */
static bool note_path(const struct stat *stat, char *path, size_t size)
{
    char state[200], folder[400], hex[65];
    uint8_t digest[32];
    int n = snprintf(state, sizeof state, "%llu %llu %lld %lld.%09ld %lld.%09ld", (unsigned long long)stat->st_dev,
        (unsigned long long)stat->st_ino, (long long)stat->st_size, (long long)stat->st_mtim.tv_sec,
        stat->st_mtim.tv_nsec, (long long)stat->st_ctim.tv_sec, stat->st_ctim.tv_nsec);

    sha256(state, (size_t)n, digest);
    hex_encode(hex, digest, 32);
    if (xdg_path(XDG_CACHE, "engine/hashes", folder, sizeof folder) != MC_OK)
        return false;
    n = snprintf(path, size, "%s/%s", folder, hex);
    return n > 0 && (size_t)n < size;
}

static bool note_read(const char *path, uint8_t hash[32])
{
    size_t length;
    char *text;
    bool good;

    if (path_read(path, 128, &text, &length) != MC_OK)
        return false;
    good = hex_decode(hash, 32, text) == MC_OK;
    free(text);
    return good;
}

static enum mc_status hash_file(int fd, uint8_t hash[32])
{
    struct sha256_state *sha = sha256_create();
    uint8_t *piece = malloc(PIECE_SIZE);
    enum mc_status st = sha && piece ? MC_OK : MC_ENOMEM;
    ssize_t n = 1;

    while (st == MC_OK && n > 0) {
        n = read(fd, piece, PIECE_SIZE);
        if (n < 0 && errno == EINTR) {
            n = 1;
            continue;
        }
        if (n < 0)
            st = MC_ESYS;
        else if (n > 0)
            sha256_add(sha, piece, (size_t)n);
    }
    if (st == MC_OK)
        sha256_finish(sha, hash);
    sha256_destroy(sha);
    free(piece);
    return st;
}

enum mc_status model_hash(const char *path, uint8_t hash[32])
{
    char note[512], hex[65];
    struct stat stat;
    enum mc_status st = MC_ESYS;
    bool noted;

    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? MC_ENOENT : MC_ESYS;
    if (fstat(fd, &stat) == 0) {
        noted = note_path(&stat, note, sizeof note);
        if (noted && note_read(note, hash)) {
            st = MC_OK;
        } else {
            st = hash_file(fd, hash);
            hex_encode(hex, hash, 32);
            if (st == MC_OK && noted)
                path_write_atomic(note, hex, 64); /* next start is slower if it fails */
        }
    }
    close(fd);
    return st;
}
