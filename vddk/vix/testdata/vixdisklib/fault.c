// Settings, the fault script, the log of calls, and the detectors' last words.
//
// All files lie in LIBDIR/test, or in $VIXTEST_DIR:
//   settings  key=value: user password cookie thumbprint vm snapshot transport
//             limit (bytes, 0 is none) latency_us inline (1: no own thread) esxi
//   disks     [datastore] path.vmdk=/path/of/the/file
//   faults    FUNCTION N ACTION; N counts calls since the script was written, or
//             is "*"; ACTION is a code, crash, kill, hang, null, or once:ACTION,
//             which removes the script first. It may be replaced at any time.
//             Of ReadAsync and WriteAsync: both, an error and the callback. Of
//             their .done: twice; late, once more before each later completion
//             as well; foreign, first with what nobody gave it.
//   calls     written when it exists: pid, thread, function, arguments
//   disabledMethod  who disabled the relocation of which VM
#define _GNU_SOURCE
#include "test.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[4096];
static char settings[16384];
static pid_t opener;
static int *volatile nowhere;
static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
static struct { ino_t ino; struct timespec at; off_t size; } seen; // the script that was loaded
static struct { char function[32], action[48]; long n, calls; } script[32];
static int scripted;

const char *path_in(char *buf, size_t size, const char *name) {
  snprintf(buf, size, "%s/%s", dir, name);
  return buf;
}

void configure(const char *lib_dir) {
  struct stat st;
  const char *env = getenv("VIXTEST_DIR");
  if (lib_dir) snprintf(dir, sizeof dir, "%s/test", lib_dir);
  if ((!lib_dir || stat(dir, &st) != 0) && env) snprintf(dir, sizeof dir, "%s", env);
  char path[4200];
  FILE *f = fopen(path_in(path, sizeof path, "settings"), "r");
  if (!f) return;
  settings[fread(settings, 1, sizeof settings - 1, f)] = 0;
  fclose(f);
  for (char *c = settings; *c; c++)
    if (*c == '\n') *c = 0x1; // so that strtok is not needed: see setting
}

const char *setting(const char *key) {
  static _Thread_local char value[512];
  size_t len = strlen(key);
  for (const char *line = settings; line && *line; line = strchr(line, 1), line = line ? line + 1 : NULL) {
    if (strncmp(line, key, len) != 0 || line[len] != '=') continue;
    const char *end = strchr(line, 1);
    size_t n = end ? (size_t)(end - line) - len - 1 : strlen(line) - len - 1;
    if (n >= sizeof value) n = sizeof value - 1;
    memcpy(value, line + len + 1, n);
    value[n] = 0;
    return value;
  }
  return NULL;
}

long number(const char *key, long otherwise) {
  const char *v = setting(key);
  return v ? strtol(v, NULL, 0) : otherwise;
}

void called(const char *function, const char *fmt, ...) {
  char path[4200], line[1024], args[800];
  int fd = open(path_in(path, sizeof path, "calls"), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (fd < 0) return;
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(args, sizeof args, fmt, ap);
  va_end(ap);
  int n = snprintf(line, sizeof line, "%d %d %s %s\n", getpid(), gettid(), function, args);
  if (write(fd, line, n) != n) abort();
  close(fd);
}

void die(const char *fmt, ...) {
  char text[512];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  fprintf(stderr, "vixtest: %s\n", text);
  called("ABORT", "%s", text);
  abort();
}

static void load_script(void) {
  char path[4200], n[16];
  struct stat st;
  path_in(path, sizeof path, "faults");
  if (stat(path, &st) != 0) {
    scripted = 0;
    memset(&seen, 0, sizeof seen);
    return;
  }
  if (st.st_ino == seen.ino && st.st_size == seen.size && !memcmp(&st.st_mtim, &seen.at, sizeof seen.at)) return;
  seen.ino = st.st_ino, seen.size = st.st_size, seen.at = st.st_mtim;
  scripted = 0;
  FILE *f = fopen(path, "r");
  while (f && scripted < 32 && fscanf(f, "%31s %15s %47s", script[scripted].function, n, script[scripted].action) == 3) {
    script[scripted].n = strcmp(n, "*") ? atol(n) : 0;
    script[scripted++].calls = 0;
  }
  if (f) fclose(f);
}

// act is never called with mu held: a hang in one thread must not stop another.
static Code act(const char *function, const char *action) {
  char path[4200];
  called("FAULT", "%s %s", function, action);
  if (!strncmp(action, "once:", 5)) {
    unlink(path_in(path, sizeof path, "faults"));
    action += 5;
  }
  if (!strcmp(action, "crash")) *nowhere = 1;
  if (!strcmp(action, "kill")) kill(getpid(), SIGKILL);
  if (!strcmp(action, "null")) return NULL_ANSWER;
  if (!strcmp(action, "twice")) return TWICE;
  if (!strcmp(action, "late")) return LATE;
  if (!strcmp(action, "foreign")) return FOREIGN;
  if (!strcmp(action, "both")) return BOTH;
  while (!strcmp(action, "hang")) pause();
  return strtoull(action, NULL, 0);
}

Code fault(const char *function) {
  char action[48] = "";
  pthread_mutex_lock(&mu);
  load_script();
  for (int i = 0; i < scripted && !*action; i++)
    if (!strcmp(script[i].function, function) && (++script[i].calls == script[i].n || !script[i].n))
      memcpy(action, script[i].action, sizeof action);
  pthread_mutex_unlock(&mu);
  return *action ? act(function, action) : 0;
}

void main_thread_is(void) {
  opener = gettid();
  if (opener != getpid()) die("InitEx not from the main thread");
}

void same_thread(const char *function) {
  if (gettid() != opener) die("%s from another thread than InitEx: open and close belong to one", function);
}

// Real codes carry details in the upper bits: a client has to mask them.
Code failed(unsigned code) { return 0x20000000000ull | 0x30000u | code; }
