// The C side of the binding: our own definitions of the library's public
// interface (facts: VMware's documentation of the VDDK; layouts for x86-64), a
// table of functions found by dlsym, and callbacks.
//
// No name here begins like those of the library: a global symbol of that name
// would take the place of the library's own in its internal calls.
#ifndef HAULBACK_VIX_SHIM_H
#define HAULBACK_VIX_SHIM_H

#include <stdint.h>

typedef struct hb_library hb_library;
typedef struct hb_login hb_login;

// hb_login and its strings belong to the caller until hb_login_free.
struct hb_login {
  char *vm, *server, *thumbprint, *user, *password, *cookie;
  uint32_t port;
};

// hb_load opens the library at path. On failure it returns NULL and a message
// that the caller frees.
hb_library *hb_load(const char *path, char **message);

// hb_has_... tell optional functions.
int hb_has_async(hb_library *l);
int hb_has_flush(hb_library *l);
int hb_has_blocks(hb_library *l);
int hb_has_access(hb_library *l);

uint64_t hb_init(hb_library *l, uintptr_t log, const char *lib_dir, const char *config);
void hb_exit(hb_library *l);
// hb_error_text writes at most size bytes, and "" when the library says nothing.
void hb_error_text(hb_library *l, uint64_t code, char *text, int size);
void hb_transport_modes(hb_library *l, char *text, int size);
void hb_disk_mode(hb_library *l, void *disk, char *text, int size);

uint64_t hb_prepare(hb_library *l, const hb_login *login, const char *identity);
uint64_t hb_end(hb_library *l, const hb_login *login, const char *identity);
uint64_t hb_connect(hb_library *l, const hb_login *login, int read_only, const char *snapshot, const char *transports, void **connection);
uint64_t hb_disconnect(hb_library *l, void *connection);
uint64_t hb_open(hb_library *l, void *connection, const char *path, uint32_t flags, void **disk);
uint64_t hb_close(hb_library *l, void *disk);
uint64_t hb_capacity(hb_library *l, void *disk, uint64_t *sectors);

// hb_transfer returns 25000 when the callback will bring token, or an error. Where
// hb_has_async is 0 it returns the result.
uint64_t hb_transfer(hb_library *l, void *disk, int write, uint64_t start, uint64_t count, void *buf, uint64_t token);
uint64_t hb_wait(hb_library *l, void *disk);
uint64_t hb_flush(hb_library *l, void *disk);

typedef struct { uint64_t offset, length; } hb_block; // in sectors
typedef struct hb_blocks hb_blocks;
uint64_t hb_query_blocks(hb_library *l, void *disk, uint64_t start, uint64_t count, uint64_t chunk, hb_blocks **blocks);
uint32_t hb_block_count(const hb_blocks *b);
hb_block hb_block_at(const hb_blocks *b, uint32_t i);
void hb_free_blocks(hb_library *l, hb_blocks *b);

// hb_thread runs haulbackVixThread(key) on a new thread. 0, or an errno.
int hb_thread(uintptr_t key);
void hb_wipe(char *text);

#endif
