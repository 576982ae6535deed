/* Weighted coupled products of the atoms of pairs, both directions at once: the inner loop of a PairNet.
 *
 * For each pair (low, high), with c_p the coupling of path p = (l1, l2, l3) and q the path (l2, l1, l3):
 *   forth[l3] = sum over p of  (inner[0, p] + bias[p]) radial[p]          c_p(low's l1, high's l2)
 *   back[l3]  = sum over p of  (inner[1, q] + bias[q]) radial[q] sign[p]  c_p(low's l1, high's l2)
 * channel by channel. In torch these are outer products, a GEMM that couples them and two passes for each path, all of
 * which go through memory; here what belongs to a pair stays in the first-level cache.
 *
 * REAL is float or double. The vector extension is GCC's and Clang's and serves every instruction set.
 */
#include <stdint.h>
#include <string.h>

enum { BLOCK = 64, LANES = 64 / sizeof(REAL), VECTORS = BLOCK / LANES };
typedef REAL vector __attribute__((vector_size(64)));
typedef REAL unaligned __attribute__((vector_size(64), aligned(sizeof(REAL))));

#define EACH for (int v = 0; v < VECTORS; v++)

/* Pairs begin..end of n_pairs. All arrays are contiguous; channels are a multiple of BLOCK.
 *   features             (component, atom, channel)
 *   low, high            (pair), atoms
 *   inner, bias, radial  (2, pair, path, channel), (path, channel), (pair, path, channel)
 *   turned, sign         (path): the path (l2, l1, l3), and (-1)^(l1 + l2 + l3)
 *   first, size          (path): the first component of l3, and how many it has
 *   start                (row + 1): where the terms start of a row, which is one component of one path
 *   left, right, factor  (term): components of low and high, and the factor of their product
 *   out                  (component, 2, pair, channel)
 *   scratch              4 * component * BLOCK numbers, aligned to 64 bytes */
void pair_products(int64_t begin, int64_t end, int64_t n_pairs, int64_t n_atoms, int64_t channels, int64_t n_components,
                   int64_t n_paths, const REAL *features, const int64_t *low, const int64_t *high, const REAL *inner,
                   const REAL *bias, const REAL *radial, const int64_t *turned, const REAL *sign, const int64_t *first,
                   const int64_t *size, const int64_t *start, const int64_t *left, const int64_t *right,
                   const REAL *factor, REAL *out, vector *scratch)
{
    const int64_t part = n_components * VECTORS, row_size = n_paths * channels;
    vector *of_low = scratch, *of_high = of_low + part, *forth = of_high + part, *back = forth + part;

    for (int64_t pair = begin; pair < end; pair++)
        for (int64_t channel = 0; channel < channels; channel += BLOCK) {
            for (int64_t k = 0; k < n_components; k++) {
                memcpy(of_low + k * VECTORS, features + (k * n_atoms + low[pair]) * channels + channel, BLOCK * sizeof(REAL));
                memcpy(of_high + k * VECTORS, features + (k * n_atoms + high[pair]) * channels + channel, BLOCK * sizeof(REAL));
            }
            memset(forth, 0, 2 * part * sizeof(vector));

            const int64_t here = pair * row_size + channel;
            for (int64_t path = 0, row = 0; path < n_paths; path++) {
                const int64_t p = path * channels, q = turned[path] * channels;
                const unaligned *inner_p = (const unaligned *)(inner + here + p), *bias_p = (const unaligned *)(bias + channel + p);
                const unaligned *inner_q = (const unaligned *)(inner + here + n_pairs * row_size + q);
                const unaligned *bias_q = (const unaligned *)(bias + channel + q);
                const unaligned *radial_p = (const unaligned *)(radial + here + p), *radial_q = (const unaligned *)(radial + here + q);
                vector weight_forth[VECTORS], weight_back[VECTORS];
                EACH weight_forth[v] = (inner_p[v] + bias_p[v]) * radial_p[v];
                EACH weight_back[v] = sign[path] * (inner_q[v] + bias_q[v]) * radial_q[v];
                for (int64_t m = first[path]; m < first[path] + size[path]; m++, row++) {
                    vector product[VECTORS] = {0};
                    for (int64_t term = start[row]; term < start[row + 1]; term++) {
                        const vector *a = of_low + left[term] * VECTORS, *b = of_high + right[term] * VECTORS;
                        EACH product[v] += factor[term] * a[v] * b[v];
                    }
                    EACH forth[m * VECTORS + v] += product[v] * weight_forth[v];
                    EACH back[m * VECTORS + v] += product[v] * weight_back[v];
                }
            }
            for (int64_t k = 0; k < n_components; k++) {
                REAL *target = out + (k * 2 * n_pairs + pair) * channels + channel;
                memcpy(target, forth + k * VECTORS, BLOCK * sizeof(REAL));
                memcpy(target + n_pairs * channels, back + k * VECTORS, BLOCK * sizeof(REAL));
            }
        }
}
