/* kvcache.h - what a piece of KVCache is: whose it is, what it is called, how its bytes lie.
 *
 *   fingerprint   which computation made the bytes (engine, weights, geometry, types, RoPE, tokenizer, adapter)
 *   block         block_tokens tokens of a prompt; its id is a hash of fingerprint, all tokens before it, and its own
 *   geometry      list of planes: {layer, name, rows per token, row bytes}; the same for all blocks of a fingerprint
 *   layout        geometry x number of tokens: where each plane lies in a block object
 *
 *   block object:  | layer 0: plane K, pad | plane V, pad | layer 1: K | V | ... |     every plane starts at 64 B
 *   plane:         row of token 0 | row of token 1 | ...      (rows per token 0: one state, whatever the token count)
 *
 * So a run of layers is one byte range, and a run of tokens is one piece per plane. Padding bytes are zero.
 * Everything here is pure computation on the arguments: no files (except mc_gguf_open), no clock, no locks, no log.
 *
 * Threads: every function may be called from any thread; a geometry, layout or gguf handle never changes between its
 * create and its destroy, so many threads may read it at once. Sizes are bytes, counts are counts, positions are token
 * positions from 0. Out-parameters are set on success only, unless a line says otherwise. */
#ifndef MOONCAKE_KVCACHE_H
#define MOONCAKE_KVCACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <mooncake/status.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    MC_FINGERPRINT_SIZE = 32,
    MC_BLOCK_ID_SIZE = 16,
    MC_BLOCK_TOKENS_DEFAULT = 64,
    MC_BLOCK_TOKENS_MAX = 4096, /* a power of two; 16 is the least */
    MC_BLOCK_TOKENS_MIN = 16,
    MC_SALT_SIZE_MAX = 1024,
    MC_PLANE_ALIGN = 64,
    MC_PLANES_MAX = 4096,
    MC_LAYERS_MAX = 1024,
    MC_PLANE_NAME_SIZE = 16, /* with its final NUL */
    MC_ROW_SIZE_MAX = 1 << 20,
    MC_CHUNK_SIZE_MAX = 65536,      /* one CRC32C covers at most this much */
    MC_FP_RECORD_SIZE_MAX = 1024,   /* encoded */
    MC_GEOMETRY_SIZE_MAX = 1 << 18, /* encoded */
};

/* A run of bytes inside a block object. */
struct mc_byte_range {
    uint64_t offset;
    uint64_t length;
};

/* ---- fingerprint: which computation made the bytes ---- */

struct mc_fingerprint {
    uint8_t bytes[MC_FINGERPRINT_SIZE];
};

/* The record behind a fingerprint. Texts are NUL-terminated and unused bytes behind the NUL are ignored; start from
 * `= {0}`. Two workers may exchange blocks exactly when all fields agree. */
struct mc_fp_record {
    char engine[32];           /* "llama", "synthetic" */
    char engine_version[64];   /* with what changes bits: "v0.5.0 fa" */
    char model_arch[32];       /* "llama" */
    uint8_t model_hash[32];    /* SHA-256 of the model file */
    uint32_t layers;           /* for people; the geometry hash is what decides */
    uint32_t kv_heads;         /* largest of all layers; 0 where it means nothing */
    uint32_t head_dim;         /* of K */
    uint8_t geometry_hash[32]; /* mc_geometry_hash() */
    char k_type[16];           /* "f16" */
    char v_type[16];           /* "f16"; empty where there is one plane */
    char rope_type[16];        /* "norm", "neox", "none" */
    double rope_base;          /* frequency base */
    double rope_scale;         /* frequency scale, 1 = none */
    uint32_t block_tokens;
    uint8_t tokenizer_hash[32]; /* mc_gguf_tokenizer_hash() or the engine's own */
    char adapter[64];           /* LoRA id; empty = none */
};

/* Write the canonical bytes of `rec`: ids and lengths fixed, unused text bytes left out, so that equal records give
 * equal bytes on every machine. `size` of MC_FP_RECORD_SIZE_MAX always suffices.
 *   MC_EINVAL   a text has no NUL, or block_tokens is not a power of two within the limits
 *   MC_ETOOBIG  `size` is too small */
MC_API enum mc_status mc_fp_record_encode(const struct mc_fp_record *rec, void *dst, size_t size, size_t *length);

/* Read canonical bytes that came from outside. `err` (may be NULL) gets "fingerprint record: field block_tokens: ..." on
 * failure. Fields this build does not know make it fail: they would be part of the identity.
 *   MC_EPROTO  malformed, a field missing, twice, or out of range */
MC_API enum mc_status mc_fp_record_decode(
    const void *src, size_t length, struct mc_fp_record *rec, char *err, size_t err_size);

/* SHA-256 of "mc-fingerprint-1" and the canonical bytes. MC_EINVAL as for encode. */
MC_API enum mc_status mc_fp_record_hash(const struct mc_fp_record *rec, struct mc_fingerprint *fp);

/* Name of the first field in which the two differ ("model_hash"), NULL if none. Static storage. */
MC_API const char *mc_fp_record_diff(const struct mc_fp_record *a, const struct mc_fp_record *b);

/* Text of one field ("model_hash" -> hex), for messages that name both sides. Always terminates `dst`, cutting to fit.
 *   MC_ENOENT  no such field; dst is then "" */
MC_API enum mc_status mc_fp_record_text(const struct mc_fp_record *rec, const char *field, char *dst, size_t size);

/* Field names in canonical order: index 0.. until NULL. Static storage. */
MC_API const char *mc_fp_record_field(size_t index);

/* ---- blocks and their ids ---- */

struct mc_block_id {
    uint8_t bytes[MC_BLOCK_ID_SIZE];
};

/* One step of recipe "mc-block-1": first 128 bits of SHA-256("mc-block-1" || previous || salt length u16 || salt ||
 * n u32 || n tokens u32), integers little-endian; previous = the fingerprint for the first block (`parent` NULL), the
 * parent's id (16 B) otherwise. `salt` (tenant or cache salt) may be NULL with salt_size 0.
 *   MC_EINVAL  token_count 0 or above MC_BLOCK_TOKENS_MAX     MC_ETOOBIG  salt above MC_SALT_SIZE_MAX */
MC_API enum mc_status mc_block_id_next(const struct mc_fingerprint *fp, const struct mc_block_id *parent,
    const void *salt, size_t salt_size, const uint32_t *tokens, size_t token_count, struct mc_block_id *id);

/* A chain of block ids over a growing token array (a prompt, then its answer). In place, no destroy. */
struct mc_block_chain {
    struct mc_fingerprint fp;
    struct mc_block_id last; /* id of block `blocks - 1` */
    uint32_t block_tokens;
    uint32_t blocks;  /* blocks hashed so far */
    const void *salt; /* borrowed for the chain's life */
    size_t salt_size;
};

/*   MC_EINVAL  block_tokens out of range     MC_ETOOBIG  salt above MC_SALT_SIZE_MAX */
MC_API enum mc_status mc_block_chain_init(struct mc_block_chain *chain, const struct mc_fingerprint *fp,
    uint32_t block_tokens, const void *salt, size_t salt_size);

/* Ids of the blocks that became full: `tokens` is the whole array from position 0 (the part already hashed must be as
 * before; it is not looked at), `token_count` its length now. Writes at most `ids_max` ids, for blocks
 * chain->blocks (before the call).., and returns how many; call again while it returns ids_max. Tokens behind the last
 * full block are left for later. */
MC_API size_t mc_block_chain_extend(
    struct mc_block_chain *chain, const uint32_t *tokens, size_t token_count, struct mc_block_id *ids, size_t ids_max);

/* How many tokens of a prompt of `token_count` may be taken from the cache: floor((n-1)/64)*64, cut to whole blocks of
 * block_tokens where those are larger than 64. The last token is always computed. 0 for an empty prompt. */
MC_API uint32_t mc_reuse_tokens_max(uint32_t token_count, uint32_t block_tokens);

/* 32 lower-case hex digits and a NUL. */
MC_API void mc_block_id_text(const struct mc_block_id *id, char dst[33]);

/* ---- geometry ---- */

struct mc_plane {
    uint32_t layer;                /* planes are sorted by layer; every layer 0..layers-1 has at least one */
    uint32_t rows_per_token;       /* 1 for K and V; 0: one row for the whole block (a state) */
    uint32_t row_size;             /* 1..MC_ROW_SIZE_MAX */
    char name[MC_PLANE_NAME_SIZE]; /* "k", "v", "latent", "state"; unique within its layer, NUL-terminated */
};

struct mc_geometry; /* opaque, immutable */

/* Copy `planes` (in object order: layer 0 first).
 *   MC_EINVAL  none, too many, layers not ascending or with a hole, a size or name out of range    MC_ENOMEM */
MC_API enum mc_status mc_geometry_create(
    const struct mc_plane *planes, size_t plane_count, struct mc_geometry **geometry);
/* The usual case: planes "k" and "v" of equal rows in `layers` layers (v_row_size 0: one plane "latent", MLA). */
MC_API enum mc_status mc_geometry_create_kv(
    uint32_t layers, uint32_t k_row_size, uint32_t v_row_size, struct mc_geometry **geometry);
MC_API void mc_geometry_destroy(struct mc_geometry *geometry); /* NULL is allowed */

MC_API size_t mc_geometry_plane_count(const struct mc_geometry *geometry);
MC_API const struct mc_plane *mc_geometry_plane(
    const struct mc_geometry *geometry, size_t index); /* lent; index < count */
MC_API uint32_t mc_geometry_layers(const struct mc_geometry *geometry);
/* Bytes one more token adds, without padding and states. */
MC_API uint64_t mc_geometry_bytes_per_token(const struct mc_geometry *geometry);
/* SHA-256 of "mc-geometry-1" and the encoded bytes; the id is its first 8 bytes as a little-endian number, never 0. */
MC_API void mc_geometry_hash(const struct mc_geometry *geometry, uint8_t hash[32]);
MC_API uint64_t mc_geometry_id(const struct mc_geometry *geometry);

/* Canonical bytes, and back from bytes that came from outside.
 * encode: MC_ETOOBIG  `size` too small; *length is then what is needed (at most MC_GEOMETRY_SIZE_MAX)
 * decode: MC_EPROTO  malformed or out of range, `err` (may be NULL) names plane and field     MC_ENOMEM */
MC_API enum mc_status mc_geometry_encode(const struct mc_geometry *geometry, void *dst, size_t size, size_t *length);
MC_API enum mc_status mc_geometry_decode(
    const void *src, size_t length, struct mc_geometry **geometry, char *err, size_t err_size);

/* ---- layout of a block object ---- */

struct mc_layout; /* opaque, immutable; holds a copy of what it needs of the geometry */

/* Layout of an object of `tokens` tokens, 1..MC_BLOCK_TOKENS_MAX (make one for full blocks and keep it).
 *   MC_EINVAL  tokens out of range     MC_ENOMEM */
MC_API enum mc_status mc_layout_create(const struct mc_geometry *geometry, uint32_t tokens, struct mc_layout **layout);
MC_API void mc_layout_destroy(struct mc_layout *layout); /* NULL is allowed */

MC_API uint32_t mc_layout_tokens(const struct mc_layout *layout);
MC_API uint64_t mc_layout_size(const struct mc_layout *layout); /* object length, a multiple of 64 */
MC_API size_t mc_layout_plane_count(const struct mc_layout *layout);
/* Bytes of one plane without its padding; plane < mc_layout_plane_count(). */
MC_API struct mc_byte_range mc_layout_plane(const struct mc_layout *layout, size_t plane);
/* Bytes of `count` layers from `first`, padding included: one range, and the ranges of successive runs tile the object.
 *   MC_EINVAL  count 0 or beyond the last layer */
MC_API enum mc_status mc_layout_layers(
    const struct mc_layout *layout, uint32_t first, uint32_t count, struct mc_byte_range *range);
/* Bytes of tokens [first, first+count): one piece per plane (states whole), pieces[i] belongs to plane i.
 *   MC_EINVAL  empty or beyond the last token     MC_ETOOBIG  pieces_max < plane count */
MC_API enum mc_status mc_layout_rows(
    const struct mc_layout *layout, uint32_t first, uint32_t count, struct mc_byte_range *pieces, size_t pieces_max);

/* The chunks that are checksummed one by one: each plane with its padding is cut into pieces of MC_CHUNK_SIZE_MAX, the
 * last piece being shorter; a chunk never crosses a plane, chunks tile the object in ascending order. */
MC_API size_t mc_layout_chunk_count(const struct mc_layout *layout);
MC_API struct mc_byte_range mc_layout_chunk(const struct mc_layout *layout, size_t index); /* index < chunk count */
/* The smallest run of chunks that covers `range` (a range read must verify these).
 *   MC_EINVAL  range empty or beyond the object */
MC_API enum mc_status mc_layout_chunks_of(
    const struct mc_layout *layout, struct mc_byte_range range, size_t *first, size_t *count);

/* ---- size arithmetic (`mooncake calc`) ---- */

/* One entry per element type a KVCache is kept in. */
struct mc_dtype {
    const char *name;        /* "fp16" */
    uint32_t block_elements; /* elements that are packed together: 1, or 32 for q8_0 and q4_0 */
    uint32_t block_size;     /* bytes they take */
};
/* By name, case ignored: fp32 f32 fp16 f16 bf16 fp8 f8 int8 q8_0 q4_0. NULL: unknown. Static storage. */
MC_API const struct mc_dtype *mc_dtype_find(const char *name);

struct mc_kv_shape {
    const char *name;
    uint32_t layers; /* those that keep a KVCache */
    uint32_t kv_heads;
    uint32_t k_dim; /* per head */
    uint32_t v_dim; /* per head; 0 where K and V are one latent row (MLA) */
    const char *dtype;
};
/* layers x kv_heads x (k_dim + v_dim) x element size.
 *   MC_EINVAL  a zero, an unknown dtype, a row no whole number of packed elements, or more than 2^63 bytes */
MC_API enum mc_status mc_kv_bytes_per_token(const struct mc_kv_shape *shape, uint64_t *bytes);
/* Seconds to move `bytes` at `gbps` 10^9 bits per second, > 0, nothing else on the link. */
MC_API double mc_kv_transfer_s(uint64_t bytes, double gbps);
/* "4096", "32K", "1M" (1024-based, as context lengths are written). MC_EINVAL: not of that form, 0, or above 2^40. */
MC_API enum mc_status mc_kv_tokens_parse(const char *text, uint64_t *tokens);
/* Common models by index 0.., NULL behind the last. Static storage. */
MC_API const struct mc_kv_shape *mc_kv_common_model(size_t index);

/* ---- GGUF: header and metadata of a model file ---- */

struct mc_gguf; /* opaque: an index over the file's bytes, which it borrows (parse) or maps itself (open) */

enum mc_gguf_type {
    MC_GGUF_U8 = 0,
    MC_GGUF_I8 = 1,
    MC_GGUF_U16 = 2,
    MC_GGUF_I16 = 3,
    MC_GGUF_U32 = 4,
    MC_GGUF_I32 = 5,
    MC_GGUF_F32 = 6,
    MC_GGUF_BOOL = 7,
    MC_GGUF_STRING = 8,
    MC_GGUF_ARRAY = 9,
    MC_GGUF_U64 = 10,
    MC_GGUF_I64 = 11,
    MC_GGUF_F64 = 12,
};

/* Index `data`, the whole file or at least its header, metadata and tensor list. Every count, length, type and offset is
 * checked against `size` (tensor data against `file_size`) before it is used; work and memory are bounded by `size`.
 * `data` is borrowed until destroy. `err` (may be NULL) says what and where: "gguf: metadata entry 17
 * 'llama.block_count': string of 4294967295 bytes at offset 211 passes the end of the file".
 *   MC_EPROTO  malformed     MC_EVERSION  GGUF version other than 2 and 3     MC_ENOMEM */
MC_API enum mc_status mc_gguf_parse(
    const void *data, size_t size, uint64_t file_size, struct mc_gguf **gguf, char *err, size_t err_size);
/* The same over a file mapped read-only until destroy. Also MC_ENOENT (no such file), MC_ESYS. May block on the disk. */
MC_API enum mc_status mc_gguf_open(const char *path, struct mc_gguf **gguf, char *err, size_t err_size);
MC_API void mc_gguf_destroy(struct mc_gguf *gguf); /* NULL is allowed */

/* Scalars by key. MC_ENOENT: no such key. MC_EMISMATCH: of another type (integers of any width convert when they fit).
 * A string is lent until destroy and not NUL-terminated. */
MC_API enum mc_status mc_gguf_u64(const struct mc_gguf *gguf, const char *key, uint64_t *value);
MC_API enum mc_status mc_gguf_f64(const struct mc_gguf *gguf, const char *key, double *value);
MC_API enum mc_status mc_gguf_bool(const struct mc_gguf *gguf, const char *key, bool *value);
MC_API enum mc_status mc_gguf_string(const struct mc_gguf *gguf, const char *key, const char **text, size_t *length);
MC_API enum mc_status mc_gguf_array(
    const struct mc_gguf *gguf, const char *key, enum mc_gguf_type *element, uint64_t *count);
/* Element of an array of integers: MC_EINVAL if index >= count. */
MC_API enum mc_status mc_gguf_array_u64(const struct mc_gguf *gguf, const char *key, uint64_t index, uint64_t *value);
MC_API uint64_t mc_gguf_tensor_count(const struct mc_gguf *gguf);

/* What KVCache needs to know of a model. Texts are cut to fit. */
struct mc_gguf_model {
    char arch[32];
    char name[64];
    uint64_t context_tokens; /* trained context */
    uint32_t layers;
    uint32_t heads;
    uint32_t kv_heads;   /* largest of all layers */
    uint32_t k_dim;      /* per head */
    uint32_t v_dim;      /* per head; 0 with latent_dim > 0 */
    uint32_t latent_dim; /* MLA: kv_lora_rank + rotated part; 0 = none */
    uint32_t vocab_size;
    uint32_t sliding_window; /* 0 = full attention */
    bool recurrent;          /* has state-space or recurrent layers */
    double rope_base;        /* 10000 where the file says nothing */
    double rope_scale;       /* 1 where the file says nothing */
    char tokenizer[32];      /* "gpt2" */
    bool has_chat_template;
};
/*   MC_EPROTO  a field KVCache cannot do without is missing or absurd; `err` names it */
MC_API enum mc_status mc_gguf_model(
    const struct mc_gguf *gguf, struct mc_gguf_model *model, char *err, size_t err_size);

/* Geometry of the model's KVCache for element types `k_type` and `v_type` ("f16"). Layers may have different head
 * counts. MC_ENOSUP: recurrent layers (their states are the engine's secret); MC_EINVAL: unknown type; MC_ENOMEM. */
MC_API enum mc_status mc_gguf_geometry(const struct mc_gguf *gguf, const char *k_type, const char *v_type,
    struct mc_geometry **geometry, char *err, size_t err_size);

/* SHA-256 over all metadata entries whose key begins with "tokenizer.", in file order. */
MC_API void mc_gguf_tokenizer_hash(const struct mc_gguf *gguf, uint8_t hash[32]);

#ifdef __cplusplus
}
#endif
#endif
