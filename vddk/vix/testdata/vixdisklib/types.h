// The interface of libvixDiskLib as this test library implements it: our own
// definitions of what is publicly documented. They are kept apart from those of
// the binding on purpose, so that a wrong offset there does not go unnoticed.
#ifndef VIXTEST_TYPES_H
#define VIXTEST_TYPES_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#ifndef VERSION // 65, 67, 70, 80: which release to be
#define VERSION 80
#endif

#define API __attribute__((visibility("default")))

typedef uint64_t Code;
typedef void Logger(const char *fmt, va_list args);
typedef void Done(void *data, Code result);

enum {
  FAIL = 1,
  NO_MEMORY = 2,
  BAD_ARGUMENT = 3,
  NO_SUCH_FILE = 4,
  NOT_SUPPORTED = 6,
  READ_ONLY_FILE = 11,
  NO_ACCESS = 13,
  BAD_LOGIN = 3014,
  ASYNC = 25000,
};

enum { SECTOR = 512, UNBUFFERED = 1, OPEN_READ_ONLY = 4, UID = 1, SESSION = 2 };

typedef struct {
  char *vm, *server, *thumbprint;
  long reserved1;
  uint32_t login;
  union {
    struct { char *user, *password; } uid;
    struct { char *cookie, *user, *key; } session;
  } as;
  uint32_t port, nfc_port;
  void *reserved2;
  char reserved3[8];
  void *reserved4;
  char spec[24];
  uint32_t spec_type;
} Params;

typedef struct {
  uint32_t bios[3], physical[3];
  uint64_t capacity;
  int32_t adapter, links;
  char *parent, *uuid;
  uint32_t logical, real; // from 7.0 on
} DiskInfo;

typedef struct { uint64_t offset, length; } Block;
typedef struct { uint32_t count; Block blocks[]; } Blocks;

_Static_assert(sizeof(Params) == 128, "ConnectParams");
_Static_assert(offsetof(Params, login) == 32 && offsetof(Params, as) == 40, "ConnectParams");
_Static_assert(offsetof(Params, port) == 64 && offsetof(Params, spec_type) == 120, "ConnectParams");
_Static_assert(offsetof(DiskInfo, capacity) == 24 && offsetof(DiskInfo, logical) == 56, "Info");
_Static_assert(sizeof(DiskInfo) == 64 && offsetof(Blocks, blocks) == 8, "Info, BlockList");

#endif
