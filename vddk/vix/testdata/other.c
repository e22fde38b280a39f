// A library that is unlike the test library in all that the documents leave open:
// only what is needed is there, transfers are synchronous, there are no texts, and
// codes are unknown. One disk of 1 MiB in memory.
#include "vixdisklib/types.h"

#include <stdlib.h>
#include <string.h>

#define FIRST 2000 // a sector that cannot be read

static uint8_t memory[1 << 20];

API Code VixDiskLib_InitEx(uint32_t major, uint32_t minor, Logger *log, Logger *warn, Logger *panic, const char *dir, const char *config) {
  (void)major, (void)minor, (void)log, (void)warn, (void)panic, (void)dir, (void)config;
  return 0;
}
API Code VixDiskLib_ConnectEx(const Params *p, char read_only, const char *snapshot, const char *transports, void **c) {
  (void)p, (void)read_only, (void)snapshot, (void)transports;
  return (void)c, 0; // a connection that is NULL
}
API Code VixDiskLib_Disconnect(void *c) { return c != 0; }
API Code VixDiskLib_Open(void *c, const char *path, uint32_t flags, void **h) {
  (void)flags, (void)c;
  *h = memory;
  return strstr(path, "strange") ? 61234 | 7ull << 40 : 0;
}
API Code VixDiskLib_Close(void *h) { return h != memory; }
API Code VixDiskLib_GetInfo(void *h, DiskInfo **i) {
  *i = h ? calloc(1, 56) : NULL;
  (*i)->capacity = sizeof memory / SECTOR;
  return 0;
}
API void VixDiskLib_FreeInfo(DiskInfo *i) { free(i); }
API Code VixDiskLib_Read(void *h, uint64_t start, uint64_t n, uint8_t *buf) {
  if (start <= FIRST && start + n > FIRST) return 61234;
  memcpy(buf, (uint8_t *)h + start * SECTOR, n * SECTOR);
  return 0;
}
API Code VixDiskLib_Write(void *h, uint64_t start, uint64_t n, const uint8_t *buf) {
  memcpy((uint8_t *)h + start * SECTOR, buf, n * SECTOR);
  return 0;
}
#ifdef WITH_FLUSH
API Code VixDiskLib_Flush(void *h) { return h != memory; }
#endif
