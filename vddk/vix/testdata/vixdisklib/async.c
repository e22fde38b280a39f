// Asynchronous requests: several are under way at once, each for its latency, and
// they complete out of order on a thread of the library.
#define _GNU_SOURCE
#include "test.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

typedef struct Request Request;
struct Request {
  Request *next;
  Disk *disk;
  int write;
  uint64_t start, count;
  uint8_t *buf;
  Done *done;
  void *data;
  struct timespec ready;
};

static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static Request *queue; // the newest first: that alone reverses the order
static int started;

static int before(struct timespec a, struct timespec b) {
  return a.tv_sec != b.tv_sec ? a.tv_sec < b.tv_sec : a.tv_nsec < b.tv_nsec;
}

static struct timespec in_microseconds(long us) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  t.tv_nsec += us % 1000000 * 1000;
  t.tv_sec += us / 1000000 + t.tv_nsec / 1000000000;
  t.tv_nsec %= 1000000000;
  return t;
}

// take removes a request whose time has come, or waits for the next one.
static Request *take(void) {
  for (;;) {
    struct timespec now = in_microseconds(0), next = in_microseconds(1000000);
    for (Request **r = &queue; *r; r = &(*r)->next) {
      if (!before(now, (*r)->ready)) {
        Request *found = *r;
        *r = found->next;
        return found;
      }
      if (before((*r)->ready, next)) next = (*r)->ready;
    }
    pthread_cond_timedwait(&changed, &mu, &next);
  }
}

// A library that breaks its promise calls back more than once, or for nobody.
static void *late; // data of the one that comes again and again

static void complete(Request *r) {
  Code rc = fault(r->write ? "WriteAsync.done" : "ReadAsync.done"), how = rc;
  if (late) r->done(late, 0);
  if (how == FOREIGN) r->done(NULL, 0), r->done((void *)~0ul, 0), r->done((void *)((uintptr_t)r->data ^ 1ul << 40), 0);
  if (how == TWICE || how == LATE || how == FOREIGN) rc = 0;
  if (!rc) rc = transfer(r->disk, r->write, r->start, r->count, r->buf);
  r->done(r->data, rc);
  if (how == TWICE) r->done(r->data, rc);
  if (how == LATE) late = r->data;
  pthread_mutex_lock(&mu);
  r->disk->pending--; // after the callback, as Wait promises it has returned
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&mu);
  free(r);
}

static void *run(void *unused) {
  (void)unused;
  for (;;) {
    pthread_mutex_lock(&mu);
    Request *r = take();
    pthread_mutex_unlock(&mu);
    complete(r);
  }
  return NULL;
}

void submit(Disk *d, int write, uint64_t start, uint64_t count, uint8_t *buf, Done *done, void *data) {
  Request *r = malloc(sizeof *r);
  *r = (Request){NULL, d, write, start, count, buf, done, data, in_microseconds(number("latency_us", 0))};
  pthread_mutex_lock(&mu);
  d->pending++;
  if (number("inline", 0)) {
    pthread_mutex_unlock(&mu);
    complete(r);
    return;
  }
  r->next = queue, queue = r;
  pthread_t t;
  if (!started++ && (pthread_create(&t, NULL, run, NULL) || pthread_detach(t))) abort();
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&mu);
}

void drain(Disk *d) {
  pthread_mutex_lock(&mu);
  while (d->pending) pthread_cond_wait(&changed, &mu);
  pthread_mutex_unlock(&mu);
}

int pending(Disk *d) {
  pthread_mutex_lock(&mu);
  int n = d->pending;
  pthread_mutex_unlock(&mu);
  return n;
}
