//go:build linux && amd64 && cgo

#define _GNU_SOURCE
#include "shim.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "_cgo_export.h"

enum { LOGIN_UID = 1, LOGIN_SESSION = 2, LOG_LINE = 2048 };

typedef struct {
  char *vm, *server, *thumbprint;
  long private1;
  uint32_t login;
  union {
    struct { char *user, *password; } uid;
    struct { char *cookie, *user, *key; } session;
  } as;
  uint32_t port, nfc_port;
  char private2[24];
  char spec[24];
  uint32_t spec_type;
} params;

// What follows lss at 56 exists from 7.0 on only, and is never read.
typedef struct {
  uint32_t geometry[6];
  uint64_t capacity;
} disk_info;

struct hb_blocks {
  uint32_t count;
  hb_block blocks[];
};

_Static_assert(sizeof(params) == 128, "size");
_Static_assert(offsetof(params, login) == 32 && offsetof(params, as) == 40 && offsetof(params, port) == 64, "offsets");
_Static_assert(offsetof(params, spec) == 96 && offsetof(params, spec_type) == 120, "offsets");
_Static_assert(offsetof(disk_info, capacity) == 24 && offsetof(struct hb_blocks, blocks) == 8, "offsets");

typedef void log_line(const char *fmt, va_list args);
typedef void finished(void *data, uint64_t result);

struct hb_library {
  uint64_t (*init_ex)(uint32_t, uint32_t, log_line *, log_line *, log_line *, const char *, const char *);
  void (*exit)(void);
  char *(*error_text)(uint64_t, const char *);
  void (*free_error_text)(char *);
  params *(*new_params)(void);
  void (*free_params)(params *);
  uint64_t (*prepare)(const params *, const char *);
  uint64_t (*end)(const params *, const char *);
  uint64_t (*connect)(const params *, char, const char *, const char *, void **);
  uint64_t (*disconnect)(void *);
  uint64_t (*open)(void *, const char *, uint32_t, void **);
  uint64_t (*close)(void *);
  uint64_t (*info)(void *, disk_info **);
  void (*free_info)(disk_info *);
  const char *(*disk_mode)(void *);
  const char *(*modes)(void);
  uint64_t (*read)(void *, uint64_t, uint64_t, void *);
  uint64_t (*write)(void *, uint64_t, uint64_t, const void *);
  uint64_t (*read_async)(void *, uint64_t, uint64_t, void *, finished *, void *);
  uint64_t (*write_async)(void *, uint64_t, uint64_t, const void *, finished *, void *);
  uint64_t (*wait)(void *);
  uint64_t (*flush)(void *);
  uint64_t (*query)(void *, uint64_t, uint64_t, uint64_t, hb_blocks **);
  uint64_t (*free_blocks)(hb_blocks *);
};

static const struct {
  const char *name; // after the prefix VixDiskLib_
  size_t at;
  int needed;
} functions[] = {
    {"InitEx", offsetof(hb_library, init_ex), 1},
    {"Exit", offsetof(hb_library, exit), 0},
    {"GetErrorText", offsetof(hb_library, error_text), 0},
    {"FreeErrorText", offsetof(hb_library, free_error_text), 0},
    {"AllocateConnectParams", offsetof(hb_library, new_params), 0},
    {"FreeConnectParams", offsetof(hb_library, free_params), 0},
    {"PrepareForAccess", offsetof(hb_library, prepare), 0},
    {"EndAccess", offsetof(hb_library, end), 0},
    {"ConnectEx", offsetof(hb_library, connect), 1},
    {"Disconnect", offsetof(hb_library, disconnect), 1},
    {"Open", offsetof(hb_library, open), 1},
    {"Close", offsetof(hb_library, close), 1},
    {"GetInfo", offsetof(hb_library, info), 1},
    {"FreeInfo", offsetof(hb_library, free_info), 1},
    {"GetTransportMode", offsetof(hb_library, disk_mode), 0},
    {"ListTransportModes", offsetof(hb_library, modes), 0},
    {"Read", offsetof(hb_library, read), 1},
    {"Write", offsetof(hb_library, write), 1},
    {"ReadAsync", offsetof(hb_library, read_async), 0},
    {"WriteAsync", offsetof(hb_library, write_async), 0},
    {"Wait", offsetof(hb_library, wait), 0},
    {"Flush", offsetof(hb_library, flush), 0},
    {"QueryAllocatedBlocks", offsetof(hb_library, query), 0},
    {"FreeBlockList", offsetof(hb_library, free_blocks), 0},
};

// The key of the Go side's library, for its logger and its slots. It is static
// because the library's log callbacks carry no data; InitEx is called once in a
// process anyway.
static atomic_uintptr_t logger;

static char *message(const char *fmt, const char *arg) {
  char *text = NULL;
  return asprintf(&text, fmt, arg) < 0 ? NULL : text;
}

hb_library *hb_load(const char *path, char **err) {
  void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!so) {
    const char *why = dlerror();
    *err = message("%s", why ? why : path);
    return NULL;
  }
  hb_library *l = calloc(1, sizeof *l);
  for (size_t i = 0; l && i < sizeof functions / sizeof *functions; i++) {
    char name[64];
    snprintf(name, sizeof name, "VixDiskLib_%s", functions[i].name);
    void *f = dlsym(so, name);
    if (!f && functions[i].needed) {
      *err = message("it has no function %s", name);
      free(l);
      return NULL; // never dlclose: the library has run its constructors
    }
    memcpy((char *)l + functions[i].at, &f, sizeof f);
  }
  return l;
}

int hb_has_async(hb_library *l) { return l->read_async && l->write_async; }
int hb_has_flush(hb_library *l) { return l->flush != NULL; }
int hb_has_blocks(hb_library *l) { return l->query && l->free_blocks; }
int hb_has_access(hb_library *l) { return l->prepare && l->end; }

static void log_text(int level, const char *fmt, va_list args) {
  char text[LOG_LINE];
  uintptr_t key = atomic_load(&logger);
  if (!key || !fmt) return;
  int n = vsnprintf(text, sizeof text, fmt, args);
  if (n < 0) return;
  haulbackVixLog(key, level, text, n < LOG_LINE ? n : LOG_LINE - 1);
}

static void log_info(const char *fmt, va_list args) { log_text(0, fmt, args); }
static void log_warning(const char *fmt, va_list args) { log_text(1, fmt, args); }
static void log_panic(const char *fmt, va_list args) { log_text(2, fmt, args); }

uint64_t hb_init(hb_library *l, uintptr_t log, const char *lib_dir, const char *config) {
  atomic_store(&logger, log);
  return l->init_ex(6, 5, log_info, log_warning, log_panic, lib_dir, config); // 6.5: what nbdkit asks all versions for
}

void hb_exit(hb_library *l) {
  if (l->exit) l->exit();
}

static void copy_text(const char *from, char *to, int size) { snprintf(to, size, "%s", from ? from : ""); }

void hb_error_text(hb_library *l, uint64_t code, char *text, int size) {
  char *s = l->error_text ? l->error_text(code, NULL) : NULL;
  copy_text(s, text, size);
  if (s && l->free_error_text) l->free_error_text(s);
}

void hb_transport_modes(hb_library *l, char *text, int size) { copy_text(l->modes ? l->modes() : NULL, text, size); }

void hb_disk_mode(hb_library *l, void *disk, char *text, int size) {
  copy_text(l->disk_mode ? l->disk_mode(disk) : NULL, text, size);
}

// make_params lets the library allocate where it can: its own structure may be
// longer than what is known here.
static params *make_params(hb_library *l, const hb_login *login) {
  params *p = l->new_params && l->free_params ? l->new_params() : calloc(1, sizeof *p);
  if (!p) return NULL;
  p->vm = login->vm;
  p->server = login->server;
  p->thumbprint = login->thumbprint;
  p->port = login->port;
  if (login->cookie) {
    p->login = LOGIN_SESSION;
    p->as.session.cookie = login->cookie;
    p->as.session.user = login->user;
    p->as.session.key = login->password;
  } else {
    p->login = LOGIN_UID;
    p->as.uid.user = login->user;
    p->as.uid.password = login->password;
  }
  return p;
}

// free_params takes our strings out first: whether the library would free them
// is not said anywhere.
static void free_params(hb_library *l, params *p) {
  p->vm = p->server = p->thumbprint = NULL;
  memset(&p->as, 0, sizeof p->as);
  if (l->new_params && l->free_params)
    l->free_params(p);
  else
    free(p);
}

enum { NO_MEMORY = 2, NOT_SUPPORTED = 6 };

uint64_t hb_prepare(hb_library *l, const hb_login *login, const char *identity) {
  params *p = make_params(l, login);
  if (!p) return NO_MEMORY;
  uint64_t rc = l->prepare ? l->prepare(p, identity) : NOT_SUPPORTED;
  free_params(l, p);
  return rc;
}

uint64_t hb_end(hb_library *l, const hb_login *login, const char *identity) {
  params *p = make_params(l, login);
  if (!p) return NO_MEMORY;
  uint64_t rc = l->end ? l->end(p, identity) : NOT_SUPPORTED;
  free_params(l, p);
  return rc;
}

uint64_t hb_connect(hb_library *l, const hb_login *login, int read_only, const char *snapshot, const char *transports, void **connection) {
  params *p = make_params(l, login);
  if (!p) return NO_MEMORY;
  uint64_t rc = l->connect(p, read_only ? 1 : 0, snapshot, transports, connection);
  free_params(l, p);
  return rc;
}

uint64_t hb_disconnect(hb_library *l, void *connection) { return l->disconnect(connection); }

uint64_t hb_open(hb_library *l, void *connection, const char *path, uint32_t flags, void **disk) {
  return l->open(connection, path, flags, disk);
}

uint64_t hb_close(hb_library *l, void *disk) { return l->close(disk); }

uint64_t hb_capacity(hb_library *l, void *disk, uint64_t *sectors) {
  disk_info *info = NULL;
  uint64_t rc = l->info(disk, &info);
  if (rc) return rc;
  *sectors = info ? info->capacity : 0;
  if (info) l->free_info(info);
  return 0;
}

static void on_done(void *data, uint64_t result) { haulbackVixDone(atomic_load(&logger), (uintptr_t)data, result); }

uint64_t hb_transfer(hb_library *l, void *disk, int write, uint64_t start, uint64_t count, void *buf, uint64_t token) {
  void *data = (void *)(uintptr_t)token;
  if (l->read_async && l->write_async)
    return write ? l->write_async(disk, start, count, buf, on_done, data) : l->read_async(disk, start, count, buf, on_done, data);
  return write ? l->write(disk, start, count, buf) : l->read(disk, start, count, buf);
}

uint64_t hb_wait(hb_library *l, void *disk) { return l->wait ? l->wait(disk) : 0; }
uint64_t hb_flush(hb_library *l, void *disk) { return l->flush ? l->flush(disk) : NOT_SUPPORTED; }

uint64_t hb_query_blocks(hb_library *l, void *disk, uint64_t start, uint64_t count, uint64_t chunk, hb_blocks **blocks) {
  *blocks = NULL;
  return l->query(disk, start, count, chunk, blocks);
}

uint32_t hb_block_count(const hb_blocks *b) { return b->count; }
hb_block hb_block_at(const hb_blocks *b, uint32_t i) { return b->blocks[i]; }

void hb_free_blocks(hb_library *l, hb_blocks *b) {
  if (b) l->free_blocks(b);
}

static void *run_thread(void *key) {
  haulbackVixThread((uintptr_t)key);
  return NULL;
}

int hb_thread(uintptr_t key) {
  pthread_t t;
  int err = pthread_create(&t, NULL, run_thread, (void *)key);
  return err ? err : pthread_detach(t);
}

void hb_wipe(char *text) {
  if (text) explicit_bzero(text, strlen(text));
}
