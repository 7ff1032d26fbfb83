/* Runs a fuzz target over files instead of a fuzzer's inputs: each file is a list of inputs, [u32 big-endian length][bytes]. For
 * compilers without libFuzzer, so that the tests can run the targets under the sanitizers. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int main(int argc, char **argv)
{
    unsigned long count = 0;
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        if (file == NULL) {
            perror(argv[i]);
            return 2;
        }
        uint8_t head[4];
        while (fread(head, 1, sizeof head, file) == sizeof head) {
            const size_t len = (size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
            uint8_t *data = malloc(len ? len : 1); /* a block for each, so that the sanitizer knows its end */
            if (data == NULL || fread(data, 1, len, file) != len) return 2;
            LLVMFuzzerTestOneInput(data, len);
            free(data);
            count++;
        }
        fclose(file);
    }
    printf("%lu\n", count);
    return 0;
}
