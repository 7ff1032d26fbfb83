/* A Python interpreter that counts allocations: its own definitions of malloc and the like come before the C library's, so every
 * library that it loads uses them. Run it as python; srp_allocation_count() is what tests/core/inside.pyx asks. */
#define _GNU_SOURCE
#include <Python.h>
#include <dlfcn.h>
#include <stdatomic.h>
#include <sys/mman.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

static atomic_ulong allocations;

unsigned long srp_allocation_count(void);
unsigned long srp_allocation_count(void) { return atomic_load(&allocations); }

void *malloc(size_t size)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_realloc(old, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **out, size_t alignment, size_t size)
{
    atomic_fetch_add(&allocations, 1);
    *out = __libc_memalign(alignment, size);
    return *out == NULL ? 12 : 0;
}

void *mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset)
{
    static void *(*real)(void *, size_t, int, int, int, off_t);
    atomic_fetch_add(&allocations, 1);
    if (real == NULL)
        *(void **)&real = dlsym(RTLD_NEXT, "mmap");
    return real(at, length, protection, flags, fd, offset);
}

int main(int argc, char **argv) { return Py_BytesMain(argc, argv); }
