// What the parts of the test library share. Everything is hidden but the API.
#ifndef VIXTEST_TEST_H
#define VIXTEST_TEST_H

#include "types.h"

// fault.c
void configure(const char *lib_dir);
const char *setting(const char *key);        // NULL when it is not set
long number(const char *key, long otherwise); // a setting as a number
const char *path_in(char *buf, size_t size, const char *name);
void called(const char *function, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
Code fault(const char *function); // 0, or what the script says; may not return
#define NULL_ANSWER (~0ull)       // what fault returns for the action null
#define TWICE (~1ull)             // and twice, late, foreign, both
#define LATE (~2ull)
#define FOREIGN (~3ull)
#define BOTH (~4ull)
void die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
void main_thread_is(void);                 // records the thread of InitEx
void same_thread(const char *function);    // dies on any other
Code failed(unsigned code);                // a code as the library returns it

// store.c
typedef struct Disk Disk;
struct Disk {
  uint64_t magic;
  int fd, flags, read_only;
  uint64_t sectors;
  int busy, pending; // busy: inside a call; pending: requests not completed
  void *connection;
  char name[256];
};
int disk_file(const char *name, char *path, size_t size);
Code transfer(Disk *d, int write, uint64_t start, uint64_t count, uint8_t *buf);
Code check_request(Disk *d, int write, uint64_t start, uint64_t count, const uint8_t *buf);
void enter(Disk *d, const char *function);
void leave(Disk *d);

// async.c
void submit(Disk *d, int write, uint64_t start, uint64_t count, uint8_t *buf, Done *done, void *data);
void drain(Disk *d);
int pending(Disk *d);

#endif
