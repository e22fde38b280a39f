// The API of an open disk: Read, Write, ReadAsync, WriteAsync, Wait, Flush, and
// QueryAllocatedBlocks.
#define _GNU_SOURCE
#include "test.h"

#include <stdlib.h>
#include <unistd.h>

static Code transfer_now(const char *function, Disk *d, int write, uint64_t start, uint64_t count, uint8_t *buf) {
  enter(d, function);
  called(function, "%lu+%lu", start, count);
  Code rc = fault(function);
  if (!rc) rc = check_request(d, write, start, count, buf);
  if (!rc) usleep(number("latency_us", 0));
  if (!rc) rc = transfer(d, write, start, count, buf);
  leave(d);
  return rc;
}

API Code VixDiskLib_Read(Disk *d, uint64_t start, uint64_t count, uint8_t *buf) {
  return transfer_now("Read", d, 0, start, count, buf);
}

API Code VixDiskLib_Write(Disk *d, uint64_t start, uint64_t count, const uint8_t *buf) {
  return transfer_now("Write", d, 1, start, count, (uint8_t *)buf);
}

#ifndef NO_ASYNC
static Code transfer_later(const char *function, Disk *d, int write, uint64_t start, uint64_t count, uint8_t *buf,
                           Done *done, void *data) {
  enter(d, function);
  called(function, "%lu+%lu", start, count);
  if (!done) die("%s: NULL callback", function);
  Code rc = fault(function);
  if (!rc) rc = check_request(d, write, start, count, buf);
  if (rc == NULL_ANSWER) rc = 0; // what a library must not say here
  else if (rc == BOTH) {         // nor this
    submit(d, write, start, count, buf, done, data);
    rc = failed(FAIL);
  }
  else if (!rc) {
    submit(d, write, start, count, buf, done, data);
    rc = ASYNC;
  }
  leave(d);
  return rc;
}

API Code VixDiskLib_ReadAsync(Disk *d, uint64_t start, uint64_t count, uint8_t *buf, Done *done, void *data) {
  return transfer_later("ReadAsync", d, 0, start, count, buf, done, data);
}

API Code VixDiskLib_WriteAsync(Disk *d, uint64_t start, uint64_t count, const uint8_t *buf, Done *done, void *data) {
  return transfer_later("WriteAsync", d, 1, start, count, (uint8_t *)buf, done, data);
}

API Code VixDiskLib_Wait(Disk *d) {
  enter(d, "Wait");
  called("Wait", "-");
  Code rc = fault("Wait");
  drain(d);
  leave(d);
  return rc;
}
#endif

API Code VixDiskLib_Flush(Disk *d) {
  enter(d, "Flush");
  called("Flush", "pending=%d", pending(d));
  if (pending(d)) die("Flush: with requests under way; call Wait first");
  Code rc = fault("Flush");
  if (!rc) usleep(number("latency_us", 0));
  if (!rc && fdatasync(d->fd) != 0) rc = failed(7);
  leave(d);
  return rc;
}

#if VERSION >= 67
// chunk_with_data is the first chunk at or after sector at that has data, or end.
static uint64_t chunk_with_data(Disk *d, uint64_t at, uint64_t end, uint64_t chunk) {
  off_t data = lseek(d->fd, at * SECTOR, SEEK_DATA);
  if (data < 0 || (uint64_t)data >= end * SECTOR) return end;
  uint64_t first = data / SECTOR / chunk * chunk;
  return first > at ? first : at;
}

API Code VixDiskLib_QueryAllocatedBlocks(Disk *d, uint64_t start, uint64_t count, uint64_t chunk, Blocks **out) {
  same_thread("QueryAllocatedBlocks");
  enter(d, "QueryAllocatedBlocks");
  called("QueryAllocatedBlocks", "%lu+%lu/%lu", start, count, chunk);
  Code rc = fault("QueryAllocatedBlocks");
  if (rc == NULL_ANSWER) { // success, and no list
    *out = NULL;
    leave(d);
    return 0;
  }
  if (!rc && (chunk < 128 || chunk & (chunk - 1) || start % chunk || count % chunk || count / chunk > 512 * 1024 ||
              count > d->sectors || start > d->sectors - count))
    rc = failed(BAD_ARGUMENT);
  if (!rc) usleep(number("latency_us", 0));
  if (!rc) {
    Blocks *b = malloc(sizeof *b + (count / chunk + 1) * sizeof(Block));
    b->count = 0;
    uint64_t end = start + count;
    for (uint64_t at = chunk_with_data(d, start, end, chunk); at < end; at = chunk_with_data(d, at + chunk, end, chunk)) {
      if (b->count && b->blocks[b->count - 1].offset + b->blocks[b->count - 1].length == at)
        b->blocks[b->count - 1].length += chunk;
      else
        b->blocks[b->count++] = (Block){at, chunk};
    }
    *out = b;
  }
  leave(d);
  return rc;
}

API Code VixDiskLib_FreeBlockList(Blocks *b) {
  free(b);
  return 0;
}
#endif
