/* Numbers and text onto a descriptor, without stdio. */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "note.h"

static ssize_t put(int fd, const char *text, size_t size) {
    ssize_t sent = send(fd, text, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno == ENOTSOCK) sent = write(fd, text, size);
    return sent;
}

void note_flush(note_writer *writer) {
    size_t done = 0;
    while (done < writer->used) {
        ssize_t sent = put(writer->fd, writer->text + done, writer->used - done);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) break; /* nobody reads: dying matters more */
        done += (size_t)sent;
    }
    writer->used = 0;
}

void note_text(note_writer *writer, const char *text) {
    for (; *text; text++) {
        if (writer->used == sizeof writer->text) note_flush(writer);
        writer->text[writer->used++] = *text;
    }
}

static void digits(note_writer *writer, uint64_t value, unsigned base) {
    char text[24];
    size_t at = sizeof text - 1;
    text[at] = 0;
    do {
        text[--at] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    note_text(writer, text + at);
}

void note_hex(note_writer *writer, uint64_t value) {
    note_text(writer, "0x");
    digits(writer, value, 16);
}

void note_decimal(note_writer *writer, int64_t value) {
    if (value < 0) note_text(writer, "-");
    digits(writer, value < 0 ? -(uint64_t)value : (uint64_t)value, 10);
}
