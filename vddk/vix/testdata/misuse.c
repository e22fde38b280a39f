// A client that breaks one rule of libvixDiskLib on purpose, to prove that the
// test library notices: misuse LIBRARY LIBDIR RULE.
#define _GNU_SOURCE
#include "vixdisklib/types.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void *so;
static char *rule;
static void *connection, *disk;
static uint8_t buf[8 << 20] __attribute__((aligned(4096)));

static void *f(const char *name) {
  char full[64];
  snprintf(full, sizeof full, "VixDiskLib_%s", name);
  void *p = dlsym(so, full);
  if (!p) exit(77);
  return p;
}

static int is(const char *r) { return !strcmp(rule, r); }
static void quiet(const char *fmt, va_list ap) { (void)fmt, (void)ap; }
static void nothing(void *data, Code rc) { (void)data, (void)rc; }

static void check(const char *what, Code rc) {
  if (rc == 0) return;
  printf("%s: %u\n", what, (unsigned)(rc & 0xFFFF));
  exit(3);
}

static Code init(const char *dir) {
  Code (*init_ex)(uint32_t, uint32_t, Logger *, Logger *, Logger *, const char *, const char *) = f("InitEx");
  return init_ex(6, 5, quiet, is("null logger") ? NULL : quiet, quiet, dir, NULL);
}

static void *init_elsewhere(void *dir) { return init(dir), NULL; }

static void elsewhere(void *(*run)(void *), void *arg) {
  pthread_t t;
  pthread_create(&t, NULL, run, arg);
  pthread_join(t, NULL);
}

static void *open_disk(void *unused) {
  Code (*open)(void *, const char *, uint32_t, void **) = f("Open");
  check("Open", open(connection, "[ds] vm/vm.vmdk", is("unaligned buffer") ? UNBUFFERED : 0, &disk));
  return unused;
}

static void *close_disk(void *unused) {
  Code (*close)(void *) = f("Close");
  check("Close", close(disk));
  return unused;
}

static void *query(void *unused) {
  Code (*q)(void *, uint64_t, uint64_t, uint64_t, Blocks **) = f("QueryAllocatedBlocks");
  Blocks *b;
  check("QueryAllocatedBlocks", q(disk, is("query unaligned") ? 1 : 0, 1024, is("query small chunk") ? 64 : 128, &b));
  return unused;
}

static void *wait(void *unused) {
  Code (*w)(void *) = f("Wait");
  w(disk);
  return unused;
}

static void connect_to(void) {
  Code (*connect)(const Params *, char, const char *, const char *, void **) = f("ConnectEx");
  Params *(*make)(void) = dlsym(so, "VixDiskLib_AllocateConnectParams");
  Params *p = make && !is("own params") ? make() : (Params *)((char *)calloc(1, 1024) + 64);
  p->vm = "moref=vm-42", p->server = "host", p->thumbprint = "00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33";
  p->login = UID, p->as.uid.user = "root", p->as.uid.password = "secret-of-the-test";
  if (is("null vm")) p->vm = NULL;
  check("ConnectEx", connect(p, 0, NULL, is("null transports") ? NULL : "nbd", &connection));
}

static Code request(uint64_t start, uint64_t count, uint8_t *to) {
  Code (*read)(void *, uint64_t, uint64_t, uint8_t *, Done *, void *) = f("ReadAsync");
  Code rc = read(disk, start, count, to, nothing, NULL);
  if (rc != ASYNC) check("ReadAsync", rc);
  return rc;
}

static void break_rule(void) {
  pthread_t t;
  Code (*flush)(void *) = f("Flush");
  if (is("none")) query(NULL);
  if (is("open elsewhere")) elsewhere(open_disk, NULL);
  if (is("close elsewhere")) elsewhere(close_disk, NULL);
  if (is("query elsewhere")) elsewhere(query, NULL);
  if (is("query unaligned") || is("query small chunk")) query(NULL);
  if (is("over the limit")) request(0, 4097, buf);
  if (is("beyond the end")) request(1 << 20, 1, buf);
  if (is("unaligned buffer")) request(0, 8, buf + 1);
  if (is("flush without wait")) request(0, 8, buf), flush(disk);
  if (is("close without wait")) request(0, 8, buf), close_disk(NULL);
  if (is("use after close")) close_disk(NULL), request(0, 8, buf);
  if (is("concurrent use")) {
    request(0, 8, buf);
    pthread_create(&t, NULL, wait, NULL);
    for (;;) request(0, 8, buf); // the other thread is in Wait sooner or later
  }
  if (is("long info")) {
    Code (*info)(void *, DiskInfo **) = f("GetInfo");
    DiskInfo *i;
    check("GetInfo", info(disk, &i));
    printf("%u\n", *(volatile uint32_t *)&i->logical);
  }
}

int main(int argc, char **argv) {
  if (argc != 4 || !(so = dlopen(argv[1], RTLD_NOW))) return 2;
  rule = argv[3];
  if (is("init elsewhere")) elsewhere(init_elsewhere, argv[2]);
  check("InitEx", init(argv[2]));
  if (is("init twice")) check("InitEx", init(argv[2]));
  connect_to();
  open_disk(NULL);
  break_rule();
  close_disk(NULL);
  return 0;
}
