/* A program that dies of SIGSEGV at once, after it has counted itself: one byte at the end of the file that is argv[1]. */
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

int main(int argc, char **argv) {
    int file = argc > 1 ? open(argv[1], O_WRONLY | O_APPEND | O_CREAT, 0600) : -1;
    if (file < 0 || write(file, "x", 1) != 1) return 1;
    kill(getpid(), SIGSEGV);
    return 1;
}
