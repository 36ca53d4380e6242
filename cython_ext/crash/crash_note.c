/* librkvisor_crash.so: a worker's last words.
 *
 * On a fatal signal the handler writes a note (lines of text, see protocol/crash_note.py) to the lifeline, then calls the
 * handler that was there before, which is faulthandler's and writes the Python stacks, and then lets the signal's
 * default action end the process, so that the wait status tells the signal that came first.
 *
 * It runs on a stack of its own in every thread that asked for one: elsewhere an overflow of the stack ends the process
 * without a note.  A walk of the stack that crashes is given up, a handler that hangs is ended by an alarm, and one that
 * crashes by its second entry.
 */
#define CRASH_ALARM_S 2
#define CRASH_FRAMES 48
#define ANSWER_MS 200

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#if defined(__has_include) && __has_include(<execinfo.h>)
#include <execinfo.h>
#else /* a C library without a walker of stacks: the registers alone then */
#define backtrace(frames, size) ((void)(frames), (void)(size), 0)
#endif

#include "note.h"

#define API __attribute__((visibility("default")))

enum { STACK_BYTES = 128 * 1024 }; /* a signal frame with AVX-512 and AMX has 11 KiB, the walk some more */

static const int fatal[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGSYS, SIGTRAP};
enum { FATAL = sizeof fatal / sizeof *fatal };

static struct sigaction before[FATAL];
static int note_fd = -1;
static size_t page_bytes;
static _Atomic pid_t owner;  /* the thread that crashed first */
static _Atomic int first;    /* its signal */
static _Atomic pid_t runner; /* the thread that runs the model */
static _Atomic pid_t asked;  /* the runner, while it is asked where it is */
static _Atomic int answered;
static sigjmp_buf walk_failed;
static volatile sig_atomic_t is_walking;

static pid_t thread_id(void) {
    return (pid_t)syscall(SYS_gettid);
}

static void sleep_ms(long ms) {
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

/* Let NUMBER do what it does to a process that does not handle it. */
static void die_of(int number) {
    struct sigaction plain = {.sa_handler = SIG_DFL};
    sigset_t only;
    sigaction(number, &plain, NULL);
    sigemptyset(&only);
    sigaddset(&only, number);
    sigprocmask(SIG_UNBLOCK, &only, NULL);
    syscall(SYS_tgkill, getpid(), thread_id(), number);
    _exit(128 + number);
}

static void on_alarm(int number) {
    (void)number;
    die_of(atomic_load(&first));
}

static void limit_time(void) {
    struct sigaction alarmed = {.sa_handler = on_alarm, .sa_flags = SA_ONSTACK};
    sigset_t only;
    sigaction(SIGALRM, &alarmed, NULL);
    sigemptyset(&only);
    sigaddset(&only, SIGALRM);
    sigprocmask(SIG_UNBLOCK, &only, NULL);
    alarm(CRASH_ALARM_S);
}

static void field(note_writer *writer, const char *name, int64_t value) {
    note_text(writer, name);
    note_decimal(writer, value);
    note_text(writer, "\n");
}

static void write_frame(note_writer *writer, uintptr_t address) {
    note_text(writer, "frame ");
    note_hex(writer, address);
    modules_locate(writer, address);
    note_text(writer, "\n");
}

/* backtrace(), or 0 frames where the stack leads it astray.  Only the thread that crashed first can be called back. */
static int walk(void **frames) {
    volatile int count = 0;
    if (thread_id() != atomic_load(&owner)) return backtrace(frames, CRASH_FRAMES);
    if (sigsetjmp(walk_failed, 0) == 0) {
        is_walking = 1;
        count = backtrace(frames, CRASH_FRAMES);
    }
    is_walking = 0;
    return count;
}

/* The frames of the interrupted code: those of the handler itself are left out. */
static void write_frames(note_writer *writer, const void *context) {
    void *frames[CRASH_FRAMES];
    note_place place = registers_place(context);
    write_frame(writer, place.pc);
    note_flush(writer); /* the walk may end the process */
    int count = walk(frames), at = 0;
    while (at < count && (uintptr_t)frames[at] != place.pc) at++;
    if (at + 1 < count) {
        while (++at < count) write_frame(writer, (uintptr_t)frames[at]);
    } else if (place.caller && place.caller != place.pc) {
        write_frame(writer, place.caller); /* a jump to nowhere cannot be walked, but came from somewhere */
    }
}

static void write_thread(note_writer *writer, const void *context) {
    char name[17] = "";
    prctl(PR_GET_NAME, name);
    for (char *c = name; *c; c++)
        if (*c < ' ') *c = '?';
    field(writer, "thread ", thread_id());
    note_text(writer, "name ");
    note_text(writer, name);
    note_text(writer, "\n");
    registers_write(writer, context);
    write_frames(writer, context);
    note_text(writer, "end\n");
    note_flush(writer);
}

static void write_memory(note_writer *writer) {
    char text[128];
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    if (size <= 0) return;
    text[size] = 0;
    field(writer, "page_bytes ", (int64_t)page_bytes);
    note_text(writer, "statm ");
    note_text(writer, text); /* ends with a newline */
}

/* rkvisord ends a worker that hangs by a signal; others who send one are not waited for. */
static int is_from_watchdog(const siginfo_t *info) {
    return info->si_code <= 0 && info->si_pid == getppid();
}

static void write_head(note_writer *writer, int number, const siginfo_t *info) {
    note_text(writer, "rkvisor-crash 1\n");
    field(writer, "signal ", number);
    field(writer, "code ", info->si_code);
    if (info->si_code <= 0) {
        field(writer, "sender ", info->si_pid);
    } else if (number != SIGSYS) {
        note_text(writer, "address ");
        note_hex(writer, (uintptr_t)info->si_addr);
        note_text(writer, "\n");
    } else {
        field(writer, "syscall ", info->si_syscall);
    }
    write_memory(writer);
}

/* The watchdog's signal lands in any thread; what matters is where the model hangs. */
static void ask_runner(int number) {
    pid_t who = atomic_load(&runner);
    if (!who || who == thread_id()) return;
    atomic_store(&asked, who);
    if (syscall(SYS_tgkill, getpid(), who, number) != 0) return;
    struct timespec patience = {0, ANSWER_MS * 1000000L};
    while (!atomic_load(&answered))
        if (syscall(SYS_futex, &answered, FUTEX_WAIT, 0, &patience, NULL, 0) != 0 && errno != EINTR) return;
}

static void call_before(int number, siginfo_t *info, void *context) {
    const struct sigaction *old = NULL;
    for (int i = 0; i < FATAL; i++)
        if (fatal[i] == number) old = &before[i];
    if (!old) return;
    if (old->sa_flags & SA_SIGINFO)
        old->sa_sigaction(number, info, context);
    else if (old->sa_handler != SIG_DFL && old->sa_handler != SIG_IGN)
        old->sa_handler(number);
}

/* Another thread crashed first, or this one was asked, or the handler crashed. */
static void not_first(const void *context) {
    pid_t me = thread_id(), expected = me;
    if (me == atomic_load(&owner)) {
        if (is_walking) siglongjmp(walk_failed, 1);
        die_of(atomic_load(&first));
    }
    if (atomic_compare_exchange_strong(&asked, &expected, 0)) {
        note_writer writer = {.fd = note_fd};
        write_thread(&writer, context);
        atomic_store(&answered, 1);
        syscall(SYS_futex, &answered, FUTEX_WAKE, 1, NULL, NULL, 0);
    }
    sleep_ms(CRASH_ALARM_S * 2000L);
    die_of(atomic_load(&first));
}

static void on_fatal(int number, siginfo_t *info, void *context) {
    pid_t nobody = 0;
    note_writer writer = {.fd = note_fd};
    if (!atomic_compare_exchange_strong(&owner, &nobody, thread_id())) {
        not_first(context);
        return;
    }
    atomic_store(&first, number);
    limit_time();
    write_head(&writer, number, info);
    note_flush(&writer);
    write_thread(&writer, context);
    if (is_from_watchdog(info)) ask_runner(number);
    call_before(number, info, context);
    die_of(number);
}

/* Give the calling thread a stack for the handler; is_runner: it runs the model.  Returns 0, or -1 with errno. */
API int rkvisor_crash_thread(int is_runner) {
    size_t page = page_bytes;
    char *memory = mmap(NULL, page + STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return -1;
    stack_t stack = {.ss_sp = memory + page, .ss_size = STACK_BYTES};
    mprotect(memory, page, PROT_NONE);
    if (is_runner) {
        atomic_store(&runner, thread_id());
        prctl(PR_SET_NAME, "runner");
    }
    if (sigaltstack(&stack, NULL) == 0) return 0; /* kept as long as the thread: both live until the process ends */
    munmap(memory, page + STACK_BYTES);
    return -1;
}

/* Read the table of modules again: after libraries were loaded. */
API void rkvisor_crash_refresh(void) {
    modules_refresh();
}

/* Write notes of fatal signals to FD from now on, on the calling thread's own stack.  Returns 0, or -1 with errno. */
API int rkvisor_crash_install(int fd) {
    void *frame[1];
    struct sigaction action = {.sa_sigaction = on_fatal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    (void)!backtrace(frame, 1); /* the first call loads libgcc, which allocates */
    modules_refresh();
    page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    note_fd = fd;
    if (rkvisor_crash_thread(0) != 0) return -1;
    for (int i = 0; i < FATAL; i++)
        if (sigaction(fatal[i], &action, &before[i]) != 0) return -1;
    return 0;
}
