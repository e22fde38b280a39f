// The API up to the open disk: InitEx, connections, access, Open, Close, Info.
#define _GNU_SOURCE
#include "test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const uint64_t alive = 0x6B736964746E6574;
#if VERSION >= 67
static const uint64_t ours = 0x736D61726170;
#endif
static Logger *info, *warn;
static int initialised;

typedef struct { int read_only, good_thumbprint, good_snapshot, disks; } Connection;

static void say(Logger *log, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  log(fmt, ap);
  va_end(ap);
}

static int matches(const char *key, const char *value) {
  const char *want = setting(key);
  return !want || (value && !strcmp(want, value));
}

API Code VixDiskLib_InitEx(uint32_t major, uint32_t minor, Logger *log, Logger *warning, Logger *panic,
                           const char *lib_dir, const char *config) {
  if (!log || !warning || !panic) die("InitEx: NULL logger; the default ones are not thread safe");
  if (initialised++) return failed(BAD_ARGUMENT);
  configure(lib_dir);
  main_thread_is();
  called("InitEx", "%u.%u %s", major, minor, config ? config : "-");
  info = log, warn = warning;
  say(info, "vixtest: version %d.%d, %s, %.3f s\n", VERSION / 10, VERSION % 10, "file backed", 0.125);
  say(warn, "vixtest: a warning with %d lines\nof %s\n", 2, "text");
  say(info, "%0*d\n", 5000, 7); // longer than any buffer
  return fault("InitEx");
}

API void VixDiskLib_Exit(void) { called("Exit", "-"); }

API char *VixDiskLib_GetErrorText(Code rc, const char *locale) {
  (void)locale;
  if (fault("GetErrorText")) return NULL;
  char text[64];
  snprintf(text, sizeof text, "test text of code %u", (unsigned)(rc & 0xFFFF));
  return strdup(text);
}

API void VixDiskLib_FreeErrorText(char *text) { free(text); }

#if VERSION >= 67
// A longer structure than documented, with a header in front: a client that
// makes or frees it by itself is found out.
API Params *VixDiskLib_AllocateConnectParams(void) {
  uint64_t *p = calloc(1, 16 + 256);
  p[0] = ours;
  return (Params *)(p + 2);
}

API void VixDiskLib_FreeConnectParams(Params *p) {
  uint64_t *header = (uint64_t *)p - 2;
  if (header[0] != ours) die("FreeConnectParams: not from AllocateConnectParams");
  header[0] = 0;
  free(header);
}
#endif

static void check_params(const Params *p, const char *function) {
  if (!p) die("%s: NULL ConnectParams", function);
#if VERSION >= 67
  if (((const uint64_t *)p)[-2] != ours) die("%s: ConnectParams not from AllocateConnectParams", function);
#endif
  if (!p->vm || !p->server) die("%s: NULL VM or server", function);
}

static Code login(const Params *p) {
  if (p->login == UID) return matches("user", p->as.uid.user) && matches("password", p->as.uid.password) ? 0 : failed(BAD_LOGIN);
  if (p->login == SESSION && VERSION >= 67) {
    if (!p->as.session.user || !p->as.session.key) die("ConnectEx: NULL user or key beside a cookie");
    return matches("cookie", p->as.session.cookie) ? 0 : failed(BAD_LOGIN);
  }
  return failed(BAD_ARGUMENT);
}

// access_line adds the identity to the file of disabled methods or takes it away.
static Code access_line(const char *vm, const char *identity, int add) {
  char path[4200], temp[4300], line[256], want[256];
  int found = 0;
  snprintf(want, sizeof want, "%s %s\n", vm, identity);
  snprintf(temp, sizeof temp, "%s.new", path_in(path, sizeof path, "disabledMethod"));
  FILE *in = fopen(path, "r"), *out = fopen(temp, "w");
  while (in && fgets(line, sizeof line, in))
    if (strcmp(line, want) || found++) fputs(line, out);
  if (add) fputs(want, out);
  if (in) fclose(in);
  fclose(out);
  rename(temp, path);
  return add || found ? 0 : failed(NO_SUCH_FILE);
}

static Code access_call(const char *function, const Params *p, const char *identity, int add) {
  same_thread(function);
  check_params(p, function);
  if (!identity || strlen(identity) > 50) die("%s: identity of more than 50 characters", function);
  called(function, "%s %s", p->vm, identity);
  Code rc = fault(function);
  if (rc) return rc;
  if (number("esxi", 0)) return failed(NOT_SUPPORTED);
  return access_line(p->vm, identity, add);
}

API Code VixDiskLib_PrepareForAccess(const Params *p, const char *identity) {
  return access_call("PrepareForAccess", p, identity, 1);
}

API Code VixDiskLib_EndAccess(const Params *p, const char *identity) {
  return access_call("EndAccess", p, identity, 0);
}

API Code VixDiskLib_Cleanup(const Params *p, uint32_t *cleaned, uint32_t *remaining) {
  check_params(p, "Cleanup");
  called("Cleanup", "%s", p->vm);
  *cleaned = *remaining = 0;
  return fault("Cleanup");
}

API Code VixDiskLib_ConnectEx(const Params *p, char read_only, const char *snapshot, const char *transports, void **c) {
  same_thread("ConnectEx");
  check_params(p, "ConnectEx");
  if (!transports) die("ConnectEx: NULL transports");
  called("ConnectEx", "%s %s:%u %s %s read-only=%d", p->vm, p->server, p->port, snapshot ? snapshot : "-", transports, read_only);
  const char *user = p->login == UID ? p->as.uid.user : p->as.session.user;
  const char *secret = p->login == UID ? p->as.uid.password : p->as.session.cookie;
  say(info, "vixtest: login of %s with %s\n", user ? user : "-", secret ? secret : "-"); // no library should, some do
  Code rc = fault("ConnectEx");
  if (!rc) rc = login(p);
  if (!rc && !matches("vm", p->vm)) rc = failed(NO_SUCH_FILE);
  if (rc) return rc;
  Connection *conn = calloc(1, sizeof *conn);
  conn->read_only = read_only;
  conn->good_thumbprint = matches("thumbprint", p->thumbprint);
  conn->good_snapshot = matches("snapshot", snapshot);
  *c = conn;
  return 0;
}

API Code VixDiskLib_Disconnect(void *c) {
  same_thread("Disconnect");
  called("Disconnect", "-");
  if (((Connection *)c)->disks) die("Disconnect: with an open disk");
  free(c);
  return fault("Disconnect");
}

static Code open_file(Connection *c, const char *name, uint32_t flags, Disk *d) {
  char path[2048];
  struct stat st;
  if (!c->good_thumbprint) return FAIL; // it shows here, and as this
  if (!c->good_snapshot) return failed(NO_ACCESS);
  if (!disk_file(name, path, sizeof path)) return failed(NO_SUCH_FILE);
  d->read_only = c->read_only || (flags & OPEN_READ_ONLY);
  d->fd = open(path, (d->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
  if (d->fd < 0 || fstat(d->fd, &st) != 0) return failed(NO_ACCESS);
  d->sectors = st.st_size / SECTOR;
  d->flags = flags;
  d->magic = alive;
  snprintf(d->name, sizeof d->name, "%s", name);
  return 0;
}

API Code VixDiskLib_Open(void *c, const char *name, uint32_t flags, void **h) {
  same_thread("Open");
  called("Open", "%s flags=%u", name ? name : "NULL", flags);
  if (!c || !name || !h) die("Open: NULL argument");
  Code rc = fault("Open");
  if (rc) return rc;
  Disk *d = calloc(1, sizeof *d);
  if ((rc = open_file(c, name, flags, d))) {
    free(d);
    return rc;
  }
  ((Connection *)c)->disks++;
  d->connection = c;
  *h = d;
  return 0;
}

API Code VixDiskLib_Close(Disk *d) {
  same_thread("Close");
  enter(d, "Close");
  called("Close", "%s", d->name);
  if (pending(d)) die("Close: with requests under way");
  Code rc = fault("Close");
  ((Connection *)d->connection)->disks--;
  close(d->fd);
  d->magic = 0; // it stays allocated, so that a use after Close is noticed
  return rc;
}

#define INFO_SIZE (VERSION >= 70 ? 64 : 56)

// GetInfo puts the structure at the end of a page and protects the next one: a
// read of fields that this version does not have is a crash.
API Code VixDiskLib_GetInfo(Disk *d, DiskInfo **out) {
  enter(d, "GetInfo");
  called("GetInfo", "%s", d->name);
  Code rc = fault("GetInfo");
  if (!rc) {
    char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(page + 4096, 4096, PROT_NONE);
    DiskInfo *i = (DiskInfo *)(page + 4096 - INFO_SIZE);
    i->capacity = d->sectors;
    if (VERSION >= 70) i->logical = i->real = SECTOR;
    *out = i;
  }
  leave(d);
  return rc;
}

API void VixDiskLib_FreeInfo(DiskInfo *i) {
  if (i) munmap((char *)i - (4096 - INFO_SIZE), 8192);
}

API const char *VixDiskLib_GetTransportMode(Disk *d) {
  enter(d, "GetTransportMode");
  leave(d);
  const char *mode = setting("transport");
  return !mode ? "nbdssl" : strcmp(mode, "null") ? mode : NULL;
}

API const char *VixDiskLib_ListTransportModes(void) { return "file:nbdssl:nbd:hotadd:san"; }
