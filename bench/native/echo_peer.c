/* A C-speed stand-in for a worker process: answers every request at once with what a one-word answer looks like, or streams
 * max_new_tokens tokens.  So what is left of a measured time is the broker's.
 *
 *   echo_peer ENDPOINT INCARNATION EPOCH LIFELINE_FD PARENT_PID   as rkvisord starts a worker: speaks protocol/link.py
 *   echo_peer ENDPOINT                                            behind a plain broker: frames are [client, JSON]
 *
 * To the client both look the same: the same JSON texts, token for token.
 *
 * A prompt that begins with "pace=N " spaces the tokens of a stream N microseconds apart; without, they come as fast as
 * the socket takes them.  ECHO_READY names a file with the msgpack body of READY (bench makes it from protocol/link.py).
 * libzmq is the one that pyzmq brought; it has no header there, so what is used is declared here. */
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

void *zmq_ctx_new(void);
void *zmq_socket(void *context, int type);
int zmq_setsockopt(void *socket, int option, const void *value, size_t size);
int zmq_getsockopt(void *socket, int option, void *value, size_t *size);
int zmq_connect(void *socket, const char *endpoint);
int zmq_send(void *socket, const void *data, size_t size, int flags);
int zmq_recv(void *socket, void *data, size_t size, int flags);

enum { ZMQ_DEALER = 5, ZMQ_ROUTING_ID = 5, ZMQ_RCVMORE = 13, ZMQ_LINGER = 17, ZMQ_SNDHWM = 23, ZMQ_RCVHWM = 24, ZMQ_SNDMORE = 2 };
enum { LINK_VERSION = 1, HELLO = 1, LOAD = 2, READY = 3, RUN = 4, TOKEN = 7, RESULT = 9, PING = 10, STOP = 12, PONG = 13 };
enum { MAX_FRAMES = 8, MAX_FRAME = 1 << 16 };

/* The header of protocol/link.py: 24 bytes, little-endian. */
typedef struct __attribute__((packed)) {
    uint8_t version, kind;
    uint16_t count;
    uint32_t incarnation;
    uint64_t job;
    uint32_t seq;
    int32_t token_id;
} header;

typedef struct {
    char data[MAX_FRAMES][MAX_FRAME];
    size_t size[MAX_FRAMES];
    int n;
} message;

static void *peer;
static uint32_t incarnation;
static message in;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void receive(void) {
    for (in.n = 0; in.n < MAX_FRAMES; in.n++) {
        int size = zmq_recv(peer, in.data[in.n], MAX_FRAME - 1, 0);
        if (size < 0) die("zmq_recv");
        if (size >= MAX_FRAME) size = MAX_FRAME - 1;
        in.data[in.n][size] = 0;
        in.size[in.n] = (size_t)size;
        int more = 0;
        size_t length = sizeof more;
        if (zmq_getsockopt(peer, ZMQ_RCVMORE, &more, &length) < 0) die("zmq_getsockopt");
        if (!more) {
            in.n++;
            return;
        }
    }
}

static void send_two(const void *head, size_t head_size, const void *body, size_t body_size) {
    if (zmq_send(peer, head, head_size, ZMQ_SNDMORE) < 0 || zmq_send(peer, body, body_size, 0) < 0) die("zmq_send");
}

static header head_of(uint8_t kind, uint64_t job, uint32_t seq, int32_t token_id) {
    return (header){LINK_VERSION, kind, 0, incarnation, job, seq, token_id};
}

static void send_kind(uint8_t kind, uint64_t job, const void *body, size_t size) {
    header head = head_of(kind, job, 0, -1);
    send_two(&head, sizeof head, body, size);
}

/* The number behind *key* in *json*, or *otherwise*. */
static long number_behind(const char *json, const char *key, long otherwise) {
    const char *at = strstr(json, key);
    return at ? strtol(at + strlen(key), NULL, 10) : otherwise;
}

static void wait_until(const struct timespec *start, int64_t microseconds) {
    int64_t at = (int64_t)start->tv_sec * 1000000000 + start->tv_nsec + microseconds * 1000;
    struct timespec when = {at / 1000000000, at % 1000000000};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL);
}

/* job: of rkvisord's link, or 0 behind a plain broker, where frame 0 of the request is the way back. */
static void answer(const char *json, uint64_t job) {
    char text[512];
    long id = number_behind(json, "\"id\":", 0);
    bool is_stream = strstr(json, "\"stream\":true") != NULL;
    long tokens = is_stream ? number_behind(json, "\"max_new_tokens\":", 1) : 0;
    long pace = number_behind(json, "\"pace=", 0);
    struct timespec start;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (long i = 0; i < tokens; i++) {
        if (pace) wait_until(&start, (i + 1) * pace);
        if (incarnation) {
            header head = head_of(TOKEN, job, (uint32_t)i, (int32_t)(300 + i % 200));
            int size = snprintf(text, sizeof text, "\"seq\":%ld,\"text\":\" word\",\"token_id\":%ld", i, 300 + i % 200);
            send_two(&head, sizeof head, text, (size_t)size);
        } else {
            int size = snprintf(text, sizeof text,
                                "{\"jsonrpc\":\"2.0\",\"method\":\"rkllm.token\",\"params\":{\"request\":%ld,\"seq\":%ld,"
                                "\"text\":\" word\",\"token_id\":%ld}}", id, i, 300 + i % 200);
            send_two(in.data[0], in.size[0], text, (size_t)size);
        }
    }
    static const char result[] = "{\"text\":\" word\",\"token_ids\":[300],\"finish_reason\":\"length\",\"perf\":null,"
                                 "\"worker\":\"echo:0\",\"resumed\":0,\"resume\":null,\"degraded\":false}";
    if (incarnation) {
        send_kind(RESULT, job, result, sizeof result - 1);
    } else {
        int size = snprintf(text, sizeof text, "{\"jsonrpc\":\"2.0\",\"id\":%ld,\"result\":%s}", id, result);
        send_two(in.data[0], in.size[0], text, (size_t)size);
    }
}

static size_t read_ready(char *into, size_t size) {
    const char *name = getenv("ECHO_READY");
    FILE *file = name ? fopen(name, "rb") : NULL;
    if (!file) die("ECHO_READY");
    size_t length = fread(into, 1, size, file);
    fclose(file);
    return length;
}

/* Field 22 of /proc/self/stat. */
static uint64_t start_time(void) {
    char text[2048];
    FILE *file = fopen("/proc/self/stat", "r");
    if (!file) die("/proc/self/stat");
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    char *at = strrchr(text, ')');
    for (int field = 2; at && field < 22; field++) at = strchr(at + 1, ' ');
    return at ? strtoull(at, NULL, 10) : 0;
}

static unsigned char *put_text(unsigned char *at, const char *text) {
    size_t size = strlen(text);
    *at++ = 0xd9; /* str 8 */
    *at++ = (unsigned char)size;
    memcpy(at, text, size);
    return at + size;
}

static unsigned char *put_number(unsigned char *at, uint64_t number) {
    *at++ = 0xcf; /* uint 64 */
    for (int shift = 56; shift >= 0; shift -= 8) *at++ = (unsigned char)(number >> shift);
    return at;
}

static void say_hello(const char *epoch) {
    unsigned char body[512], *at = body;
    *at++ = 0x84; /* a map of four */
    at = put_number(put_text(at, "pid"), (uint64_t)getpid());
    at = put_number(put_text(at, "start_time"), start_time());
    at = put_number(put_text(at, "incarnation"), incarnation);
    at = put_text(put_text(at, "epoch"), epoch);
    send_kind(HELLO, 0, body, (size_t)(at - body));
}

static void on_link_message(const char *ready, size_t ready_size) {
    header head;
    if (in.size[0] < sizeof head) return;
    memcpy(&head, in.data[0], sizeof head);
    switch (head.kind) {
    case LOAD: send_kind(READY, 0, ready, ready_size); break;
    case RUN: answer(in.data[2], head.job); break;
    case PING: send_kind(PONG, 0, "", 0); break;
    case STOP: exit(0);
    default: break;
    }
}

int main(int argc, char **argv) {
    static char ready[65536];
    if (argc < 2) return 2;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    peer = zmq_socket(zmq_ctx_new(), ZMQ_DEALER);
    int zero = 0;
    zmq_setsockopt(peer, ZMQ_LINGER, &zero, sizeof zero);
    zmq_setsockopt(peer, ZMQ_SNDHWM, &zero, sizeof zero);
    zmq_setsockopt(peer, ZMQ_RCVHWM, &zero, sizeof zero);
    size_t ready_size = 0;
    if (argc >= 4) {
        char name[32];
        incarnation = (uint32_t)strtoul(argv[2], NULL, 10);
        zmq_setsockopt(peer, ZMQ_ROUTING_ID, name, (size_t)snprintf(name, sizeof name, "p%" PRIu32, incarnation));
        ready_size = read_ready(ready, sizeof ready);
    }
    if (zmq_connect(peer, argv[1]) < 0) die("zmq_connect");
    if (incarnation) say_hello(argv[3]);
    for (;;) {
        receive();
        if (incarnation) on_link_message(ready, ready_size);
        else if (in.n == 2) answer(in.data[1], 0);
    }
}
