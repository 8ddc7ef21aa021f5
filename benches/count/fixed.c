/* In place of the kernel's random numbers and clock while instructions are counted: hash tables get the same keys in
   every run, and the allocator, which cleans up by the clock, does so at the same places. */
#include <stddef.h>
#include <sys/types.h>
#include <time.h>

ssize_t getrandom(void *to, size_t length, unsigned int flags) {
    (void)flags;
    unsigned char next = 41;
    for (size_t at = 0; at < length; at++) {
        next = (unsigned char)(next * 5 + 113);
        ((unsigned char *)to)[at] = next;
    }
    return (ssize_t)length;
}

/* Ten microseconds pass between two looks. */
int clock_gettime(clockid_t clock, struct timespec *now) {
    static unsigned long looks = 0;
    (void)clock;
    looks += 1;
    now->tv_sec = (time_t)(1000 + looks / 100000);
    now->tv_nsec = (long)(looks % 100000) * 10000;
    return 0;
}
