// The disks: which file stands for which disk, ranges, limits, and transfers.
#define _GNU_SOURCE
#include "test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const uint64_t alive = 0x6B736964746E6574;

int disk_file(const char *name, char *path, size_t size) {
  char list[4200], line[2048];
  FILE *f = fopen(path_in(list, sizeof list, "disks"), "r");
  int found = 0;
  while (f && !found && fgets(line, sizeof line, f)) {
    char *value = strchr(line, '=');
    if (!value) continue;
    *value++ = 0;
    value[strcspn(value, "\n")] = 0;
    if ((found = !strcmp(line, name))) snprintf(path, size, "%s", value);
  }
  if (f) fclose(f);
  return found;
}

// enter and leave see to it that a handle is used by one thread at a time.
void enter(Disk *d, const char *function) {
  if (!d || d->magic != alive) die("%s: not an open handle", function);
  if (__atomic_exchange_n(&d->busy, 1, __ATOMIC_ACQ_REL)) die("%s: handle used concurrently", function);
}

void leave(Disk *d) { __atomic_store_n(&d->busy, 0, __ATOMIC_RELEASE); }

Code check_request(Disk *d, int write, uint64_t start, uint64_t count, const uint8_t *buf) {
  uint64_t limit = number("limit", 2 << 20);
  const char *mode = setting("transport");
  if (!buf || count == 0 || start > d->sectors || count > d->sectors - start) return failed(BAD_ARGUMENT);
  if (limit && count * SECTOR > limit) return failed(NO_MEMORY); // NFC allocation error
  if (write && d->read_only) return failed(READ_ONLY_FILE);
  if ((d->flags & UNBUFFERED) && mode && !strcmp(mode, "hotadd") && (uintptr_t)buf % SECTOR)
    die("unaligned buffer %p for unbuffered hotadd", (const void *)buf);
  return 0;
}

Code transfer(Disk *d, int write, uint64_t start, uint64_t count, uint8_t *buf) {
  size_t len = count * SECTOR;
  off_t at = start * SECTOR;
  while (len > 0) {
    ssize_t n = write ? pwrite(d->fd, buf, len, at) : pread(d->fd, buf, len, at);
    if (n < 0 && errno == EINTR) continue;
    if (n == 0 && !write) memset(buf, 0, n = len); // a file that is no multiple of the sector
    if (n <= 0) return failed(errno == ENOSPC ? 8 : 7);
    buf += n, at += n, len -= n;
  }
  return 0;
}
